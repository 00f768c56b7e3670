-- Settings of a session: which model, how large an image may be.
\set VERBOSITY terse
CREATE ROLE regress_dfx_user;

-- The default model is the session's own affair; whether it exists is asked at use.
SHOW dfx.default_model;
SET dfx.default_model = 'nobody';
SELECT dfx_classify(image) FROM photos;
SELECT name, is_default FROM dfx_models;
SELECT count(dfx_classify(image, 'resnet18')) FROM photos;
SET dfx.default_model = '';
SELECT dfx_classify(image) FROM photos;
RESET dfx.default_model;
SELECT DISTINCT (dfx_classify(image)).model FROM photos;
ALTER ROLE regress_dfx_user SET dfx.default_model = 'whatever';

-- Limits on images are the administrator's.
SET ROLE regress_dfx_user;
SET dfx.max_image_bytes = '1GB';
SET dfx.max_image_pixels = 1;
RESET ROLE;
SELECT min(length(image)) > 1024 AS larger_than_1kb FROM photos WHERE name LIKE 'photo%';
SET dfx.max_image_bytes = '1kB';
SELECT count(*), count(dfx_try_classify(image)) AS verdicts FROM photos WHERE name LIKE 'photo%';
\set VERBOSITY sqlstate
SELECT dfx_classify(image) FROM photos WHERE name LIKE 'photo%';
SELECT dfx_image_info(image) FROM photos WHERE name LIKE 'photo%';
RESET dfx.max_image_bytes;
SET dfx.max_image_pixels = 1000;
SELECT dfx_classify(image) FROM photos WHERE name LIKE 'photo%';
SELECT dfx_image_info(image) FROM photos WHERE name LIKE 'photo%';
SELECT count(*), count(dfx_try_classify(image)) AS verdicts FROM photos WHERE name LIKE 'photo%';
RESET dfx.max_image_pixels;

-- The size is known before the value is fetched, however it is stored.
SET dfx.max_image_bytes = '100kB';
CREATE TEMP TABLE stored_large (image bytea);
INSERT INTO stored_large SELECT convert_to(repeat('x', 200 * 1024), 'UTF8');
SELECT pg_column_size(image) < 10000 AS compressed FROM stored_large;
SELECT dfx_classify(image) FROM stored_large;
RESET dfx.max_image_bytes;
SELECT dfx_classify(image) FROM stored_large;

-- Fast decoding is a session's choice.  It concerns large JPEGs only, and those as the network sees them.
SHOW dfx.fast_decode;
CREATE TEMP TABLE sized AS SELECT name, image FROM photos;
INSERT INTO sized SELECT 'large.png', dfx_perturb(image, 'scale:400') FROM photos WHERE name = 'photo-420-q90.jpg';
INSERT INTO sized SELECT 'large.jpg', dfx_perturb(image, 'jpeg:90') FROM sized WHERE name = 'large.png';
CREATE TEMP TABLE seen AS SELECT false AS fast, name, dfx_features(image) AS features, dfx_synthetic(image) AS p,
	dfx_perturb(image, 'scale:50') AS half FROM sized;
SET dfx.fast_decode = on;
INSERT INTO seen SELECT true, name, dfx_features(image), dfx_synthetic(image), dfx_perturb(image, 'scale:50') FROM sized;
RESET dfx.fast_decode;
SELECT name, exact.features <> fast.features AS differ, abs(exact.p - fast.p) < 0.05 AS near, exact.half = fast.half AS same_file
	FROM seen AS exact JOIN seen AS fast USING (name) WHERE fast.fast AND NOT exact.fast ORDER BY name COLLATE "C";

-- A scan that reads ahead obeys it from row to row.
CREATE TEMP TABLE scanned AS SELECT n, image FROM generate_series(1, 6) AS n, sized WHERE name = 'large.jpg';
CREATE TEMP TABLE answers AS SELECT n, set_config('dfx.fast_decode', CASE WHEN n % 3 = 0 THEN 'on' ELSE 'off' END, false)::bool AS fast,
	dfx_features(image) AS features FROM scanned;
SELECT n, fast, answers.features = seen.features AS right FROM answers JOIN seen USING (fast) WHERE name = 'large.jpg' ORDER BY n;
RESET dfx.fast_decode;

\set VERBOSITY terse
SET dfx.no_such_setting = 1;
DROP ROLE regress_dfx_user;
