-- Models: import, use, share, replace, export, drop.
\getenv dir DFX_TEST_DIR
\getenv images DFX_TEST_IMAGES
SET client_min_messages = warning;
CREATE TABLE photos (name text PRIMARY KEY, image bytea);
INSERT INTO photos
	SELECT name, pg_read_binary_file(:'images' || '/' || name)
	FROM unnest(ARRAY['photo-420-q90.jpg', 'photo-progressive.jpg', 'png-c6-b8-adam7.png']) AS name;
CREATE VIEW stored AS
	SELECT (SELECT count(*) FROM dfx_model) AS names, (SELECT count(*) FROM dfx_model_history) AS history,
		(SELECT count(*) FROM dfx_model_version) AS versions,
		(SELECT count(*) > 0 FROM dfx_model_tensor) AS tensors, (SELECT count(*) > 0 FROM dfx_model_chunk) AS chunks;

-- Files that are no models, in large objects.  Nothing is left of the attempts.
CREATE FUNCTION safetensors(header text, data bytea DEFAULT '\x00000000') RETURNS bytea
	RETURN set_byte(set_byte('\x0000000000000000', 0, length(header) % 256), 1, length(header) / 256)
		|| convert_to(header, 'UTF8') || data;
\set tensor '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
\set meta '{"__metadata__":{"format":"dfx1","kind":"trinet","backbone":"resnet18","head_stride":"1","input_size":"256","classes":"dm,gan,real"},'
CREATE TABLE bad AS SELECT what, lo_from_bytea(0, content) AS lo FROM (VALUES
	('nothing', ''),
	('five bytes', 'short'),
	('no tensors', safetensors('{}', '')),
	('data missing', safetensors('{' || :'tensor', '')),
	('no metadata', safetensors('{' || :'tensor')),
	('another format', safetensors('{"__metadata__":{"format":"pt"},' || :'tensor')),
	('no backbone', safetensors('{"__metadata__":{"format":"dfx1","kind":"trinet"},' || :'tensor')),
	('negative stride', safetensors(replace(:'meta', '"head_stride":"1"', '"head_stride":"-1"') || :'tensor')),
	('large stride', safetensors(replace(:'meta', '"head_stride":"1"', '"head_stride":"2147483648"') || :'tensor')),
	('large input', safetensors(replace(:'meta', '"input_size":"256"', '"input_size":"4294967295"') || :'tensor')),
	('two lines', safetensors(replace(:'meta', 'resnet18', 'resnet18\nclasses=') || :'tensor')),
	('unknown backbone', safetensors(replace(:'meta', 'resnet18', 'resnet19') || :'tensor')),
	('other tensors', safetensors(:'meta' || :'tensor'))) AS v(what, content);
CREATE FUNCTION refusal(lo oid) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dfx_import_model('bad', lo);
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SELECT what, refusal(lo) FROM bad;
\set VERBOSITY terse
SELECT dfx_import_model('bad', 0);
SELECT dfx_import_model('bad', 'no/such/file');
SELECT dfx_import_model('bad', 'base');
\set VERBOSITY sqlstate
SELECT dfx_import_model('bad', :'images' || '/photo-420-q90.jpg');
SELECT count(lo_unlink(lo)) FROM bad;
\set VERBOSITY terse
SELECT * FROM stored;

-- A good one, twice: the version is its content's, so the second changes nothing.
SELECT dfx_import_model('resnet18', :'dir' || '/resnet18.safetensors') AS v7 \gset
SELECT :'v7' ~ '^[0-9a-f]{64}$' AS is_sha256;
SELECT dfx_import_model('resnet18', :'dir' || '/resnet18.safetensors') = :'v7' AS same;
SELECT * FROM stored;
SELECT name, version = :'v7' AS version, kind, backbone, owner, bytes > 100000000 AS bytes, is_default, options, metrics
	FROM dfx_models;

-- Verdicts
SELECT name, v.label::text = (ARRAY['dm', 'gan', 'real'])[array_position(p, greatest(v.p_dm, v.p_gan, v.p_real))] AS label,
		v.confidence = greatest(v.p_dm, v.p_gan, v.p_real) AS confidence,
		abs(v.p_synthetic - v.p_dm - v.p_gan) < 1e-6 AS p_synthetic,
		abs(v.p_dm + v.p_gan + v.p_real - 1) < 1e-6 AS sum,
		v.generator, v.model, v.version = :'v7' AS version
	FROM photos, dfx_classify(image, 'resnet18') AS v, LATERAL (SELECT ARRAY[v.p_dm, v.p_gan, v.p_real]) AS a(p)
	ORDER BY name;
SELECT bool_and(dfx_classify(image, 'resnet18') = dfx_try_classify(image, 'resnet18')) AS try_is_the_same,
		bool_and(dfx_synthetic(image, 'resnet18') = (dfx_classify(image, 'resnet18')).p_synthetic) AS synthetic_too
	FROM photos;
SELECT name, array_dims(f) AS features, (SELECT bool_and(x >= 0 AND x < 'infinity') FROM unnest(f) AS x) AS after_relu
	FROM photos, dfx_features(image, 'resnet18') AS f ORDER BY name;
\set VERBOSITY sqlstate
SELECT dfx_classify('hello', 'resnet18');
SELECT dfx_classify('', 'resnet18');
\set VERBOSITY terse
SELECT dfx_try_classify('hello', 'resnet18') IS NULL AS undecodable, dfx_try_classify('', 'resnet18') IS NULL AS empty;
SELECT dfx_preload('resnet18') = :'v7' AS preload;

-- Another name for the same content shares its rows; another version of a name keeps the old one.
SELECT dfx_import_model('second', :'dir' || '/resnet18.safetensors') = :'v7' AS same;
SELECT * FROM stored;
SELECT dfx_import_model('second', :'dir' || '/resnet18b.safetensors') AS v8 \gset
SELECT name, h.version = decode(:'v7', 'hex') AS v7, h.version = decode(:'v8', 'hex') AS v8
	FROM dfx_model_history AS h ORDER BY since;
SELECT count(DISTINCT (dfx_classify(image, m)).version) FROM photos, unnest(ARRAY['resnet18', 'second']) AS m;

-- Everything is transactional.
BEGIN;
SELECT dfx_import_model('resnet18', :'dir' || '/resnet18b.safetensors') = :'v8' AS v8;
SAVEPOINT a;
SELECT dfx_drop_model('second');
SELECT (dfx_classify(image, 'resnet18')).version = :'v8' AS v8 FROM photos LIMIT 1;
SELECT * FROM stored;
ROLLBACK TO a;
SELECT * FROM stored;
ROLLBACK;
SELECT name, version = :'v7' AS v7 FROM dfx_models ORDER BY name;
BEGIN READ ONLY;
SELECT count(dfx_classify(image, 'second')) FROM photos;
SELECT dfx_import_model('third', :'dir' || '/resnet18.safetensors');
ROLLBACK;
BEGIN READ ONLY; SELECT dfx_drop_model('second'); ROLLBACK;
BEGIN READ ONLY; SELECT dfx_set_default_model('second'); ROLLBACK;
BEGIN READ ONLY; SELECT dfx_grant_model('second', 'public'); ROLLBACK;
BEGIN READ ONLY; SELECT dfx_revoke_model('second', 'public'); ROLLBACK;

-- Export gives the file that was imported.
SELECT dfx_export_model('second') AS lo \gset
SELECT dfx_import_model('copy', :lo) = :'v8' AS same_version;
SELECT sha256(lo_get(:lo)) = sha256(pg_read_binary_file(:'dir' || '/resnet18b.safetensors')) AS same_file;
SELECT dfx_export_model('second', current_setting('data_directory') || '/second.safetensors')
	= (pg_stat_file('second.safetensors')).size AS size;
SELECT dfx_import_model('copy', 'second.safetensors') = :'v8' AS relative_to_the_data_directory;
SELECT sha256(pg_read_binary_file('second.safetensors')) = sha256(lo_get(:lo)) AS same_file;
SELECT count(*) AS temporary_files FROM pg_ls_dir('.') AS f WHERE f LIKE 'second.safetensors.%';
SELECT dfx_export_model('second', 'second.safetensors');
SELECT lo_unlink(:lo);
SELECT dfx_drop_model('copy');

-- Owners, grants, membership
CREATE ROLE regress_dfx_owner;
CREATE ROLE regress_dfx_user;
CREATE ROLE regress_dfx_group;
GRANT ALL ON photos TO PUBLIC;
SET ROLE regress_dfx_owner;
SELECT dfx_import_model('owned', :'dir' || '/resnet18.safetensors');
SELECT dfx_export_model('second', '/tmp/never');
RESET ROLE;
GRANT pg_read_server_files TO regress_dfx_owner, regress_dfx_user;
SET ROLE regress_dfx_owner;
SELECT dfx_import_model('owned', :'dir' || '/resnet18.safetensors') = :'v7' AS owned;
SELECT name, owner FROM dfx_models ORDER BY name;
SELECT dfx_classify(image, 'second') FROM photos;
SELECT dfx_drop_model('second');
SELECT dfx_import_model('second', :'dir' || '/resnet18.safetensors');
SELECT dfx_export_model('owned') AS lo \gset
SELECT dfx_set_default_model('owned');
SELECT FROM dfx_model;
SELECT FROM dfx_model_chunk;
SET ROLE regress_dfx_user;
SELECT name FROM dfx_models;
SELECT dfx_model_usable('owned');
SELECT dfx_classify(image, 'owned') FROM photos;
SELECT dfx_try_classify(image, 'owned') FROM photos;
SELECT dfx_features(image, 'owned') FROM photos;
SELECT dfx_export_model('owned');
\set VERBOSITY sqlstate
SELECT dfx_import_model('mine', :lo);
\set VERBOSITY terse
SELECT dfx_grant_model('owned', 'regress_dfx_user');
SET ROLE regress_dfx_owner;
SELECT dfx_grant_model('owned', 'regress_dfx_nobody');
SELECT dfx_grant_model('owned', 'regress_dfx_group');
SELECT dfx_grant_model('owned', 'regress_dfx_group');
SET ROLE regress_dfx_user;
SELECT dfx_model_usable('owned') AS as_stranger;
RESET ROLE;
GRANT regress_dfx_group TO regress_dfx_user;
SET ROLE regress_dfx_user;
SELECT dfx_model_usable('owned') AS as_member;
SELECT name, owner FROM dfx_models;
SELECT count(dfx_classify(image, 'owned')) FROM photos;
SELECT dfx_export_model('owned');
SELECT dfx_drop_model('owned');
SELECT dfx_revoke_model('owned', 'regress_dfx_group');
SET ROLE regress_dfx_owner;
SELECT dfx_revoke_model('owned', 'regress_dfx_group');
SELECT dfx_revoke_model('owned', 'regress_dfx_nobody');
SET ROLE regress_dfx_user;
SELECT dfx_model_usable('owned') AS as_member;
SET ROLE regress_dfx_owner;
SELECT dfx_grant_model('owned', 'public');
SET ROLE regress_dfx_user;
SELECT dfx_model_usable('owned') AS as_anyone;
SET ROLE regress_dfx_owner;
SELECT dfx_revoke_model('owned', 'public');

-- A replaced model stays its owner's, whoever replaced it.
RESET ROLE;
SELECT dfx_import_model('owned', :'dir' || '/resnet18b.safetensors') = :'v8' AS replaced;
SELECT owner FROM dfx_models WHERE name = 'owned';
SET ROLE regress_dfx_owner;
SELECT dfx_drop_model('owned');
RESET ROLE;
SELECT lo_unlink(:lo);
REVOKE pg_read_server_files FROM regress_dfx_owner, regress_dfx_user;
REVOKE ALL ON photos FROM PUBLIC;
DROP ROLE regress_dfx_owner, regress_dfx_user, regress_dfx_group;

-- The default: of this session at once, of others from their start.
SELECT dfx_set_default_model('second');
SELECT count(dfx_classify(image)) FROM photos WHERE (dfx_classify(image)).model = 'second';
\c -
\set VERBOSITY terse
SELECT current_setting('dfx.default_model');
SELECT name, is_default FROM dfx_models ORDER BY name;
SELECT dfx_drop_model('second');
SELECT dfx_set_default_model(NULL);
SELECT dfx_classify(image) FROM photos;
SELECT dfx_drop_model('second');
SELECT * FROM stored;
SELECT dfx_set_default_model('resnet18');
SELECT name, is_default FROM dfx_models ORDER BY name;
