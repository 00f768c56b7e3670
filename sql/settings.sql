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

\set VERBOSITY terse
SET dfx.no_such_setting = 1;
DROP ROLE regress_dfx_user;
