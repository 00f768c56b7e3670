\echo
\echo == CREATE EXTENSION, and the model as a database object
CREATE EXTENSION deepfeaturex;
SELECT dfx_install_starter_model() AS version;
SELECT name, kind, backbone, owner, is_default FROM dfx_models;

\echo == Photographs in a table
CREATE TABLE photos (name text PRIMARY KEY, image bytea NOT NULL);
INSERT INTO photos
SELECT f, pg_read_binary_file(:'photos' || '/' || f) FROM pg_ls_dir(:'photos') AS f ORDER BY f;
SELECT name, i.*, pg_size_pretty(length(image)::bigint) AS size FROM photos, dfx_image_info(image) AS i ORDER BY name;

\echo == SELECT name, v.* FROM photos, dfx_classify(image) AS v
SELECT name, label, round(confidence::numeric, 4) AS confidence, round(p_dm::numeric, 4) AS p_dm,
	round(p_gan::numeric, 4) AS p_gan, round(p_real::numeric, 4) AS p_real, v.model, left(v.version, 12) || '...' AS version
FROM photos, dfx_classify(image) AS v ORDER BY name;

\echo NOTE: the starter model learnt from 2,300 small pictures: it shows how screening works, and is wrong more often than one time in three.
\echo NOTE: models/STARTER.md has its figures, and what it must not be used for.

\echo
\echo == The engine
\x on
SELECT state, device, restarts, last_error FROM dfx_engine_status();
SELECT requests, images, batches, largest_batch, model_bytes FROM dfx_stat_engine;
