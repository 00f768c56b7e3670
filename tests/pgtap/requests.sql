-- Does each way of writing a query cost the requests that it should?
\set QUIET 1
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION pgtap;
CREATE EXTENSION deepfeaturex;
\getenv dir DFX_TEST_DIR
\getenv images DFX_TEST_IMAGES
SELECT dfx_import_model('m', :'dir' || '/resnet18.safetensors') \g /dev/null
SET LOCAL dfx.default_model = 'm';
CREATE TEMP TABLE photo AS
	SELECT name, pg_read_binary_file(:'images' || '/' || name) AS image
	FROM unnest(ARRAY['photo-420-q90.jpg', 'photo-progressive.jpg', 'png-c6-b8-adam7.png']) AS name;
INSERT INTO photo VALUES ('none', NULL);

-- Requests of a query, whose rows are all fetched
CREATE FUNCTION pg_temp.requests(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before bigint := (SELECT requests FROM dfx_stat_engine);
	r record;
BEGIN
	FOR r IN EXECUTE query LOOP
	END LOOP;
	RETURN (SELECT requests FROM dfx_stat_engine) - before;
END $$;
\pset format unaligned
\pset tuples_only true
\pset pager off
SELECT plan(9);

SELECT is(pg_temp.requests('SELECT dfx_classify(image) FROM photo'), 3::bigint, 'one row, one request; NULL costs none');
SELECT is(pg_temp.requests('SELECT name, v.* FROM photo, dfx_classify(image) AS v'), 3::bigint,
	'the LATERAL form: one for all columns');
SELECT is(pg_temp.requests('SELECT (dfx_try_classify(image)).label FROM photo'), 3::bigint, 'one for one column');
SELECT is(pg_temp.requests('SELECT dfx_synthetic(image) FROM photo'), 3::bigint, 'dfx_synthetic');
SELECT is(pg_temp.requests('SELECT dfx_features(image) FROM photo'), 3::bigint, 'dfx_features');
SELECT is(pg_temp.requests('SELECT dfx_image_info(image) FROM photo'), 3::bigint, 'dfx_image_info');
SELECT is(pg_temp.requests('SELECT name FROM photo WHERE name LIKE ''photo%'' AND dfx_synthetic(image) >= 0'), 2::bigint,
	'a dear function comes last in a WHERE clause');
SELECT is(pg_temp.requests('SELECT name FROM photo WHERE dfx_synthetic(image) >= 0 AND name LIKE ''png%'''), 1::bigint,
	'... wherever it is written');
SELECT is(pg_temp.requests('SELECT dfx_model_usable(name) FROM dfx_models'), 0::bigint, 'models cost none');

SELECT finish();
ROLLBACK;
