-- The model that comes with the extension.
\getenv images DFX_TEST_IMAGES
SET client_min_messages = warning;
\set VERBOSITY terse

-- Who has no model is told about it.
SELECT dfx_set_default_model(NULL);
\set VERBOSITY default
SELECT dfx_synthetic('');
\set VERBOSITY terse

-- Nobody needs file privileges for it; the default is the database owner's.
CREATE ROLE regress_dfx_starter;
SET ROLE regress_dfx_starter;
SELECT dfx_install_starter_model();
SELECT dfx_install_starter_model('mine', make_default => false) AS mine \gset
SELECT name, owner, is_default, version = :'mine' AS version FROM dfx_models WHERE name = 'mine';
SELECT dfx_install_starter_model(NULL);
SELECT dfx_install_starter_model('');
RESET ROLE;

-- The same version under its own name, and what classifies from now on.
SELECT dfx_install_starter_model() = :'mine' AS same_version;
SELECT name, kind, owner, is_default, bytes < 64 * 1024 * 1024 AS small FROM dfx_models WHERE name = 'starter';
SHOW dfx.default_model;
SELECT v.model, v.version = :'mine' AS version, v.label IN ('dm', 'gan', 'real') AS labelled,
	abs(v.p_dm + v.p_gan + v.p_real - 1) < 1e-5 AS probabilities
FROM dfx_classify(pg_read_binary_file(:'images' || '/photo-420-q90.jpg')) AS v;

-- Again: nothing changes.  Of a name that is somebody else's: refused.
SELECT dfx_install_starter_model() = :'mine' AS same_version;
SELECT count(*) FROM dfx_model_versions WHERE name = 'starter';
SET ROLE regress_dfx_starter;
SELECT dfx_install_starter_model('starter', make_default => false);
RESET ROLE;

SELECT dfx_set_default_model('resnet18');
SELECT dfx_drop_model('starter'), dfx_drop_model('mine');
DROP ROLE regress_dfx_starter;
