-- One query, many images in flight: whatever is read ahead, results, order and errors are those of the plain plan.
\getenv images DFX_TEST_IMAGES
\set VERBOSITY terse
SET client_min_messages = warning;
SET max_parallel_workers_per_gather = 0;

-- 1 to 5 and 8 are images, 6 is NULL, 7 is none
CREATE TABLE pics (id int PRIMARY KEY, grp int, image bytea);
INSERT INTO pics SELECT n, n % 2, pg_read_binary_file(:'images' || '/' || name)
	FROM unnest(ARRAY['jpeg-16x16.jpg', 'jpeg-7x5.jpg', 'jpeg-grey.jpg', 'png-c6-b8.png', 'jpeg-8x8.jpg', NULL, NULL, 'jpeg-2x3.jpg'])
		WITH ORDINALITY AS u(name, n);
UPDATE pics SET image = 'no image' WHERE id = 7;
CREATE VIEW good AS SELECT * FROM pics WHERE id <> 7;
ANALYZE pics;

-- Run a query with and without reading ahead; compare rows and their order, or the errors.
CREATE FUNCTION rows_of(query text, read_ahead int, OUT result text[]) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('dfx.read_ahead', read_ahead::text, true);
	EXECUTE 'CREATE TEMP TABLE result_rows ON COMMIT DROP AS ' || query;
	SELECT array_agg(r::text ORDER BY r.ctid) INTO result FROM result_rows AS r;
	DROP TABLE result_rows;
EXCEPTION WHEN OTHERS THEN
	result := ARRAY[SQLSTATE || ' ' || SQLERRM];
END $$;
CREATE FUNCTION scans_in(query text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	line text;
	n int := 0;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
		n := n + (line LIKE '%DfxReadAhead%')::int;
	END LOOP;
	RETURN n;
END $$;
CREATE FUNCTION compare(query text, OUT scans int, OUT outcome text) LANGUAGE plpgsql AS $$
DECLARE
	plain text[] := rows_of(query, 0);
	ahead text[] := rows_of(query, 64);
BEGIN
	scans := scans_in(query);
	IF plain IS DISTINCT FROM ahead THEN
		outcome := format('DIFFERENT: %s instead of %s', ahead, plain);
	ELSIF plain[1] ~ '^[0-9A-Z]{5} ' THEN
		outcome := left(plain[1], 5);
	ELSE
		outcome := format('same %s rows', COALESCE(array_length(plain, 1), 0));
	END IF;
END $$;

-- Plans
EXPLAIN (VERBOSE, COSTS OFF) SELECT id, dfx_classify(image) FROM pics;
EXPLAIN (VERBOSE, COSTS OFF) SELECT id FROM pics WHERE id > 1 AND dfx_synthetic(image) > 0.9;
EXPLAIN (VERBOSE, COSTS OFF) SELECT id, dfx_features(image) FROM pics WHERE dfx_synthetic(image) > 0.9;
EXPLAIN (VERBOSE, COSTS OFF) SELECT count(*) FILTER (WHERE (dfx_classify(image)).label = 'gan') FROM pics;
EXPLAIN (VERBOSE, COSTS OFF) SELECT id, v.label, v.p_gan FROM pics, dfx_classify(image) AS v;

-- What is not read ahead
SELECT scans_in(q), q FROM unnest(ARRAY[
	'SELECT CASE WHEN id < 7 THEN dfx_synthetic(image) END FROM pics',
	'SELECT dfx_synthetic(substr(image, 2)) FROM pics',
	'SELECT dfx_synthetic(image), (SELECT max(id) FROM pics AS q WHERE q.grp = p.grp) FROM pics AS p',
	'SELECT dfx_synthetic(image) FROM (SELECT image FROM pics FOR UPDATE) AS q',
	'SELECT dfx_synthetic(image) FROM pics WHERE random() >= 0',
	'SELECT dfx_image_info(image) FROM pics']) AS q;
SET dfx.read_ahead = 0;
SELECT scans_in('SELECT dfx_classify(image) FROM pics');
RESET dfx.read_ahead;

-- Results
SELECT q, c.* FROM unnest(ARRAY[
	'SELECT id, dfx_classify(image) FROM good ORDER BY id',
	'SELECT id, dfx_try_classify(image) FROM pics',
	'SELECT id, dfx_features(image) FROM good WHERE id < 4',
	'SELECT id FROM good WHERE dfx_synthetic(image) > 0.5',
	'SELECT (dfx_classify(image)).label, (dfx_classify(image)).p_gan, dfx_synthetic(image) FROM good',
	'SELECT id, dfx_features(image) FROM pics WHERE (dfx_try_classify(image)).p_real < 2 AND id < 9',
	'SELECT id, v.* FROM good, dfx_classify(image) AS v',
	'SELECT id, v.label FROM pics LEFT JOIN LATERAL dfx_try_classify(image) AS v ON v.p_gan < 0.5',
	'SELECT count(*) FILTER (WHERE (dfx_try_classify(image)).label = ''gan'') FROM pics',
	'SELECT grp, avg(dfx_synthetic(image)) FROM good GROUP BY grp',
	'SELECT (dfx_try_classify(image)).label, count(*) FROM pics GROUP BY 1 ORDER BY 2, 1',
	'SELECT id FROM good ORDER BY dfx_synthetic(image) DESC, id LIMIT 2',
	'SELECT a.id, dfx_synthetic(b.image) FROM good AS a JOIN good AS b ON a.id = b.id + 1 ORDER BY 1',
	'SELECT a.id, b.id AS other FROM good AS a JOIN good AS b USING (grp) WHERE dfx_synthetic(a.image) < dfx_synthetic(b.image)',
	'SELECT a.n, s.* FROM generate_series(1, 2) AS a(n), LATERAL (SELECT id, dfx_synthetic(image) FROM good WHERE id > n ORDER BY id LIMIT 2) AS s',
	'SELECT n, (SELECT max(dfx_synthetic(image)) FROM good WHERE id <= n) FROM generate_series(1, 2) AS n',
	'SELECT dfx_synthetic(image) FROM good WHERE id = 1 UNION ALL SELECT dfx_synthetic(image) FROM good WHERE id = 2',
	'WITH c AS MATERIALIZED (SELECT id, dfx_synthetic(image) AS s FROM good) SELECT a.id, b.s FROM c AS a JOIN c AS b USING (id)',
	'SELECT ROW(id, image), dfx_synthetic(image), ctid AS a, tableoid::regclass AS b, pics FROM pics WHERE id < 4',
	'SELECT dfx_synthetic(image, (SELECT name FROM dfx_models WHERE is_default)) FROM good WHERE id < 3'
	]) AS q, compare(q) AS c;

-- Errors come at the row that causes them, and only when something asks for it.
SELECT q, c.* FROM unnest(ARRAY[
	'SELECT id, dfx_classify(image) FROM pics ORDER BY id',
	'SELECT id, dfx_classify(image) FROM pics ORDER BY id LIMIT 3',
	'SELECT id, dfx_classify(image) FROM pics ORDER BY id OFFSET 1 LIMIT 3',
	'SELECT id FROM pics WHERE dfx_synthetic(image) >= 0 ORDER BY id LIMIT 5',
	'SELECT id FROM pics WHERE dfx_synthetic(image) >= 0 ORDER BY id LIMIT 6',
	'SELECT id, v.label FROM pics, dfx_classify(image) AS v LIMIT 6',
	'SELECT EXISTS (SELECT FROM (SELECT * FROM pics ORDER BY id DESC) AS p WHERE dfx_synthetic(image) >= 0)',
	'SELECT id, CASE WHEN id <> 7 THEN dfx_synthetic(image) END FROM pics',
	'SELECT id, COALESCE((dfx_try_classify(image)).p_real, dfx_synthetic(image)) FROM pics',
	'SELECT id FROM pics WHERE (dfx_try_classify(image)).label IS NOT NULL AND dfx_synthetic(image) >= 0',
	'SELECT id FROM pics WHERE id = 7 OR dfx_synthetic(image) >= 0',
	'SELECT 1 / (id - 7), dfx_synthetic(image) FROM pics',
	'SELECT dfx_synthetic(image), 1 / (id - 7) FROM pics',
	'SELECT id, dfx_synthetic(image, ''nobody'') FROM pics WHERE id >= 6 ORDER BY id LIMIT 1',
	'SELECT id, dfx_synthetic(image, ''nobody'') FROM pics WHERE id >= 6 ORDER BY id',
	'SELECT dfx_synthetic(image) FROM pics WHERE id < 0'
	]) AS q, compare(q) AS c;

-- One row, one request; a LIMIT asks for no more than it needs.
CREATE FUNCTION requests(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before bigint := (SELECT requests FROM dfx_stat_engine);
BEGIN
	EXECUTE 'CREATE TEMP TABLE result_rows AS ' || query;
	DROP TABLE result_rows;
	RETURN (SELECT requests FROM dfx_stat_engine) - before;
END $$;
SELECT requests(q), q FROM unnest(ARRAY[
	'SELECT dfx_classify(image) FROM good',
	'SELECT v.* FROM good, dfx_classify(image) AS v',
	'SELECT (dfx_classify(image)).label, (dfx_classify(image)).p_gan, dfx_synthetic(image) FROM good WHERE dfx_synthetic(image) >= 0',
	'SELECT count(*) FILTER (WHERE (dfx_classify(image)).label = ''gan''), avg(dfx_synthetic(image)) FROM good',
	'SELECT dfx_classify(image) FROM good LIMIT 2',
	'SELECT v.* FROM good, dfx_classify(image) AS v LIMIT 2',
	'SELECT id FROM good WHERE dfx_synthetic(image) >= 0 LIMIT 2']) AS q;

-- Writing
CREATE TABLE verdicts AS SELECT id, image, NULL::real AS s FROM good;
INSERT INTO verdicts SELECT id + 10, image, dfx_synthetic(image) FROM good;
UPDATE verdicts SET s = dfx_synthetic(image) WHERE id < 10;
SELECT count(*) AS pairs, bool_and(a.s IS NOT DISTINCT FROM b.s) AS same FROM verdicts AS a JOIN verdicts AS b ON b.id = a.id + 10;
DELETE FROM verdicts WHERE dfx_synthetic(image) >= 0 RETURNING id < 100 AS deleted;
DROP TABLE verdicts;

-- Cursors: rows as with FETCH ALL, and nothing held between two FETCHes
CREATE VIEW held AS SELECT claimed + queued + running + done AS slots FROM dfx_stat_queue;
CREATE TABLE expected AS SELECT id, dfx_try_classify(image) AS v, (dfx_try_classify(image)).p_synthetic AS s FROM pics;
BEGIN;
DECLARE d CURSOR FOR SELECT p.id, dfx_synthetic(image) = s AS same FROM pics AS p JOIN expected USING (id) WHERE p.id <> 7 ORDER BY p.id;
DECLARE e CURSOR FOR SELECT id, dfx_synthetic(image) IS NOT NULL AS has FROM pics ORDER BY id;
FETCH 2 FROM d;
SELECT slots FROM held;
FETCH 1 FROM d;
FETCH 1 FROM e;
SELECT slots FROM held;
SAVEPOINT a;
FETCH 5 FROM e;
FETCH 1 FROM e;
ROLLBACK TO a;
FETCH ALL FROM d;
SELECT slots FROM held;
COMMIT;
BEGIN;
DECLARE w CURSOR WITH HOLD FOR SELECT id, dfx_try_classify(image) = v AS same FROM pics JOIN expected USING (id) ORDER BY id;
FETCH 1 FROM w;
COMMIT;
FETCH ALL FROM w;
CLOSE w;
BEGIN;
DECLARE s SCROLL CURSOR FOR SELECT id, dfx_synthetic(image) IS NOT NULL AS has FROM good ORDER BY id;
FETCH 2 FROM s;
FETCH BACKWARD 1 FROM s;
COMMIT;

-- Functions: called for rows of a scan that keeps requests in flight, and with scans of their own
CREATE FUNCTION inside(image bytea) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT string_agg((dfx_synthetic(p.image) > 0.5)::text, ' ' ORDER BY id) FROM good AS p WHERE id < 3) || (dfx_image_info($1)).format;
EXCEPTION WHEN SQLSTATE '22P03' THEN
	RETURN 'no image';
END $$;
CREATE FUNCTION first_of(n int) RETURNS SETOF real LANGUAGE sql STABLE AS
	'SELECT dfx_synthetic(image) FROM good ORDER BY id LIMIT n';
SELECT q, c.* FROM unnest(ARRAY[
	'SELECT id, (dfx_try_classify(image)).label, inside(image) FROM pics WHERE id > 4 ORDER BY id',
	'SELECT id, first_of(1), dfx_synthetic(image) FROM good WHERE id < 3']) AS q, compare(q) AS c;

-- Settings that change under way
SELECT q, c.* FROM unnest(ARRAY[
	'SELECT dfx_try_classify(image), set_config(''dfx.max_image_pixels'', CASE id WHEN 2 THEN ''1'' ELSE ''1000000'' END, true) FROM pics',
	'SELECT set_config(''dfx.default_model'', CASE id WHEN 3 THEN '''' ELSE ''resnet18'' END, true), dfx_synthetic(image) FROM pics'
	]) AS q, compare(q) AS c;
RESET dfx.max_image_pixels;

-- Generic plans
SET plan_cache_mode = force_generic_plan;
PREPARE generic(text, bigint) AS SELECT id, dfx_synthetic(image, $1) = s AS same FROM pics JOIN expected USING (id) ORDER BY id LIMIT $2;
EXECUTE generic('resnet18', 3);
EXECUTE generic('nobody', 3);
EXECUTE generic(NULL, 6);
EXECUTE generic(NULL, 7);
EXPLAIN (COSTS OFF) EXECUTE generic(NULL, 7);
SET dfx.read_ahead = 0;
EXECUTE generic(NULL, 2);
RESET dfx.read_ahead;
DEALLOCATE generic;
RESET plan_cache_mode;

-- Parallel query: every worker reads ahead
SET max_parallel_workers_per_gather = 2;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
EXPLAIN (COSTS OFF) SELECT id, dfx_try_classify(image) FROM pics;
SELECT q, c.* FROM unnest(ARRAY[
	'SELECT id, dfx_try_classify(image) FROM pics ORDER BY id',
	'SELECT count(*) FILTER (WHERE dfx_synthetic(image) > 0.5) FROM good']) AS q, compare(q) AS c;
RESET max_parallel_workers_per_gather;
SET max_parallel_workers_per_gather = 0;

-- Merge join: no scan directly below what is marked and restored
SET enable_hashjoin = off;
SET enable_nestloop = off;
SELECT c.* FROM compare('SELECT a.id, b.s FROM good AS a JOIN (SELECT grp, dfx_synthetic(image) AS s FROM good ORDER BY grp) AS b ON a.grp = b.grp') AS c;
RESET enable_hashjoin;
RESET enable_nestloop;

-- Privileges and barriers: what a user must not see is not sent either.
CREATE ROLE regress_dfx_reader;
GRANT ALL ON pics, good TO regress_dfx_reader;
SELECT dfx_grant_model('resnet18', 'regress_dfx_reader');
REVOKE EXECUTE ON FUNCTION dfx_synthetic(bytea, text) FROM PUBLIC;
SET ROLE regress_dfx_reader;
SELECT dfx_synthetic(image) FROM pics;
SELECT id FROM pics WHERE dfx_synthetic(image) > 0.9;
SELECT count(*) FILTER (WHERE dfx_synthetic(image) > 0.9) FROM pics;
SELECT s FROM pics, dfx_synthetic(image) AS s;
RESET ROLE;
GRANT EXECUTE ON FUNCTION dfx_synthetic(bytea, text) TO PUBLIC;
ALTER TABLE pics ENABLE ROW LEVEL SECURITY;
CREATE POLICY whole ON pics USING (id + 0 < 3);
CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM pics WHERE id + 0 < 3;
GRANT SELECT ON barrier TO regress_dfx_reader;
SELECT image_errors FROM dfx_stat_engine \gset
SET ROLE regress_dfx_reader;
EXPLAIN (COSTS OFF) SELECT id FROM pics WHERE dfx_synthetic(image) >= 0;
SELECT id FROM pics WHERE dfx_synthetic(image) >= 0;
EXPLAIN (COSTS OFF) SELECT id FROM barrier WHERE dfx_synthetic(image) >= 0;
SELECT id FROM barrier WHERE dfx_synthetic(image) >= 0;
RESET ROLE;
SELECT image_errors - :image_errors AS seen FROM dfx_stat_engine;
DROP VIEW barrier;
DROP POLICY whole ON pics;
ALTER TABLE pics DISABLE ROW LEVEL SECURITY;
SELECT dfx_revoke_model('resnet18', 'regress_dfx_reader');
REVOKE ALL ON pics, good FROM regress_dfx_reader;
DROP ROLE regress_dfx_reader;

-- EXPLAIN's figures
CREATE FUNCTION explained(query text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, FORMAT JSON) ' || query INTO plan;
	RETURN plan -> 0 -> 'Plan';
END $$;
SELECT p ->> 'Custom Plan Provider' AS provider, p -> 'Read-Ahead' AS read_ahead, (p -> 'Max In Flight')::int BETWEEN 2 AND 6 AS in_flight,
	(p -> 'Average Batch')::numeric BETWEEN 1 AND 6 AS batch FROM explained('SELECT dfx_classify(image) FROM good') AS p;
SET dfx.read_ahead = 2;
SELECT p -> 'Read-Ahead' AS read_ahead, p -> 'Max In Flight' AS in_flight FROM explained('SELECT dfx_classify(image) FROM good') AS p;
RESET dfx.read_ahead;
-- ... are those of all processes: here only workers read ahead
CREATE FUNCTION explained_text(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
		RETURN NEXT line;
	END LOOP;
END $$;
ALTER TABLE pics SET (parallel_workers = 2);
SET max_parallel_workers_per_gather = 2;
SET parallel_leader_participation = off;
SELECT p ->> 'Node Type' AS top, s -> 'Parallel Aware' AS parallel, (s -> 'Max In Flight')::int BETWEEN 2 AND 12 AS in_flight,
	(s -> 'Average Batch')::numeric BETWEEN 1 AND 12 AS batch
	FROM explained('SELECT dfx_classify(image) FROM good') AS p, LATERAL (SELECT p -> 'Plans' -> 0) AS l (s);
SELECT regexp_replace(line, '[1-9][0-9.]*$', 'N') FROM explained_text('SELECT dfx_classify(image) FROM good') AS line
	WHERE line ~ 'In Flight|Batch';
RESET parallel_leader_participation;
ALTER TABLE pics RESET (parallel_workers);
RESET max_parallel_workers_per_gather;
SET max_parallel_workers_per_gather = 0;

-- The array form
SELECT dfx_classify_many(array_agg(image ORDER BY id)) = array_agg(dfx_classify(image) ORDER BY id) AS same FROM good;
SELECT (dfx_classify_many(ARRAY[[image, NULL], [NULL, image]]))[2][2] = dfx_classify(image) AS same_shape FROM good WHERE id = 1;
SELECT dfx_classify_many(NULL), dfx_classify_many('{}'), dfx_classify_many(ARRAY[NULL, NULL]::bytea[], 'nobody');
SELECT dfx_classify_many(array_agg(image ORDER BY id)) FROM pics;
SELECT dfx_classify_many(array_agg(image), 'nobody') FROM pics;
SET dfx.read_ahead = 0;
SELECT dfx_classify_many(array_agg(image ORDER BY id)) = array_agg(dfx_classify(image) ORDER BY id) AS same FROM good;
RESET dfx.read_ahead;
SELECT slots FROM held;

DROP VIEW good, held;
DROP TABLE pics, expected;
DROP FUNCTION rows_of, scans_in, compare, requests, inside, first_of, explained, explained_text;
