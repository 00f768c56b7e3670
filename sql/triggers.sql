-- dfx_flag() and dfx_reject()
\set VERBOSITY terse
CREATE TABLE upload (id int PRIMARY KEY, image bytea, note text, verdict dfx_verdict, other text);

-- How a trigger may be made
SELECT dfx_flag();
SELECT dfx_reject();
CREATE TRIGGER t AFTER INSERT ON upload FOR EACH ROW EXECUTE FUNCTION dfx_flag('image', 'verdict');
INSERT INTO upload VALUES (1);
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON upload FOR EACH STATEMENT EXECUTE FUNCTION dfx_flag('image', 'verdict');
INSERT INTO upload VALUES (1);
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON upload FOR EACH ROW EXECUTE FUNCTION dfx_flag('image');
INSERT INTO upload VALUES (1);
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON upload FOR EACH ROW EXECUTE FUNCTION dfx_flag('image', 'verdict', 'resnet18', 'x');
INSERT INTO upload VALUES (1);
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON upload FOR EACH ROW EXECUTE FUNCTION dfx_flag('picture', 'verdict');
INSERT INTO upload VALUES (1);
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON upload FOR EACH ROW EXECUTE FUNCTION dfx_flag('image', 'result');
INSERT INTO upload VALUES (1);
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON upload FOR EACH ROW EXECUTE FUNCTION dfx_flag('note', 'verdict');
INSERT INTO upload VALUES (1);
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON upload FOR EACH ROW EXECUTE FUNCTION dfx_flag('image', 'note');
INSERT INTO upload VALUES (1);
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON upload FOR EACH ROW EXECUTE FUNCTION dfx_flag('image', 'verdict', 'nobody');
INSERT INTO upload VALUES (1, 'x');
CREATE OR REPLACE TRIGGER t BEFORE DELETE ON upload FOR EACH ROW EXECUTE FUNCTION dfx_reject('image', '0.5');
INSERT INTO upload VALUES (1);
DELETE FROM upload;
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON upload FOR EACH ROW EXECUTE FUNCTION dfx_reject('image', 'half');
INSERT INTO upload VALUES (2);
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON upload FOR EACH ROW EXECUTE FUNCTION dfx_reject('image', '1.5');
INSERT INTO upload VALUES (2);
CREATE OR REPLACE TRIGGER t BEFORE INSERT ON upload FOR EACH ROW EXECUTE FUNCTION dfx_reject('image', 'nan');
INSERT INTO upload VALUES (2);
DROP TRIGGER t ON upload;
TRUNCATE upload;

-- Requests that a statement costs, from the engine's own count
CREATE FUNCTION cost(statement text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before bigint := (SELECT requests FROM dfx_stat_engine);
BEGIN
	EXECUTE statement;
	RETURN (SELECT requests FROM dfx_stat_engine) - before;
END $$;

-- dfx_flag
CREATE TRIGGER flag BEFORE INSERT OR UPDATE ON upload FOR EACH ROW EXECUTE FUNCTION dfx_flag('image', 'verdict');
SELECT cost($$INSERT INTO upload SELECT row_number() OVER (ORDER BY name), image FROM photos$$);
SELECT cost($$INSERT INTO upload VALUES (4, NULL)$$);
SELECT id, u.verdict = dfx_classify(u.image) AS verdict, (u.verdict).model FROM upload AS u ORDER BY id;
SELECT cost($$UPDATE upload SET note = 'same image'$$) AS none;
SELECT cost($$UPDATE upload SET image = image || '' WHERE id = 1$$) AS none;
SELECT cost($$UPDATE upload SET verdict = NULL WHERE id = 2$$) AS one;
SELECT cost($$UPDATE upload SET image = (SELECT image FROM upload WHERE id = 2) WHERE id = 1$$) AS one;
SELECT cost($$UPDATE upload SET image = NULL WHERE id = 3$$) AS none;
SELECT id, image IS NULL AS image, verdict IS NULL AS verdict, (verdict).version = version AS version
	FROM upload, dfx_models ORDER BY id;
SELECT a.verdict = b.verdict AS same FROM upload a, upload b WHERE a.id = 1 AND b.id = 2;

-- An image that cannot be read is refused.
\set VERBOSITY sqlstate
INSERT INTO upload VALUES (5, 'hello');
\set VERBOSITY terse
DROP TRIGGER flag ON upload;

-- A large image that an UPDATE leaves alone costs nothing, in either trigger.
CREATE TABLE large (id int, image bytea, verdict dfx_verdict, note text);
ALTER TABLE large ALTER image SET STORAGE EXTERNAL;
INSERT INTO large SELECT 1, image, dfx_classify(image) FROM photos WHERE name = 'photo-420-q90.jpg';
CREATE TRIGGER flag BEFORE UPDATE ON large FOR EACH ROW EXECUTE FUNCTION dfx_flag('image', 'verdict', 'resnet18');
CREATE TRIGGER reject BEFORE UPDATE ON large FOR EACH ROW EXECUTE FUNCTION dfx_reject('image', '0', 'resnet18');
SELECT pg_relation_size(reltoastrelid) > 0 AS stored_outside FROM pg_class WHERE oid = 'large'::regclass;
SELECT cost($$UPDATE large SET note = 'x'$$) AS none;

-- dfx_reject: random weights have an opinion on everything, so the thresholds come from the image.
SELECT p_synthetic - 0.01 AS below, p_synthetic + 0.01 AS above
	FROM photos, dfx_classify(image) WHERE name = 'photo-420-q90.jpg' \gset
CREATE TABLE door (image bytea);
CREATE TRIGGER reject BEFORE INSERT OR UPDATE ON door FOR EACH ROW EXECUTE FUNCTION dfx_reject('image', :'above');
INSERT INTO door SELECT image FROM photos WHERE name = 'photo-420-q90.jpg';
INSERT INTO door VALUES (NULL);
CREATE OR REPLACE TRIGGER reject BEFORE INSERT OR UPDATE ON door FOR EACH ROW EXECUTE FUNCTION dfx_reject('image', :'below');
\set VERBOSITY sqlstate
INSERT INTO door SELECT image FROM photos WHERE name = 'photo-420-q90.jpg';
INSERT INTO door VALUES ('hello');
\set VERBOSITY terse
SELECT cost($$UPDATE door SET image = image$$) AS none;
SELECT count(*), count(image) FROM door;

-- What the refusal says
DO $$
DECLARE
	message text;
	detail text;
	table_name text;
	column_name text;
BEGIN
	INSERT INTO door SELECT image FROM photos WHERE name = 'photo-420-q90.jpg';
EXCEPTION WHEN check_violation THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, table_name = TABLE_NAME,
		column_name = COLUMN_NAME;
	RAISE NOTICE '% / % / % / %', regexp_replace(message, '\d\.\d+', 'N', 'g'), detail, table_name, column_name;
END $$;

-- Partitions have their own column numbers.
CREATE TABLE parted (id int, image bytea, verdict dfx_verdict) PARTITION BY LIST (id);
CREATE TABLE part (verdict dfx_verdict, dropped int, image bytea, id int);
ALTER TABLE part DROP COLUMN dropped;
ALTER TABLE parted ATTACH PARTITION part FOR VALUES IN (1);
CREATE TRIGGER flag BEFORE INSERT ON parted FOR EACH ROW EXECUTE FUNCTION dfx_flag('image', 'verdict', 'resnet18');
INSERT INTO parted SELECT 1, image FROM photos WHERE name = 'photo-420-q90.jpg';
SELECT id, verdict = dfx_classify(image) AS verdict FROM parted;

-- The rights are those of whoever writes.
CREATE ROLE regress_dfx_user;
GRANT INSERT ON parted TO regress_dfx_user;
SET ROLE regress_dfx_user;
INSERT INTO parted VALUES (1, 'x');
RESET ROLE;
DROP TABLE upload, large, door, parted;
DROP FUNCTION cost;
DROP ROLE regress_dfx_user;
