-- Names and versions: rename, copy, promote, prune.
\getenv dir DFX_TEST_DIR
SET client_min_messages = warning;
\set VERBOSITY terse
CREATE VIEW history AS
	SELECT name, dense_rank() OVER (ORDER BY version) AS version, current FROM dfx_model_versions
	WHERE name <> 'resnet18' ORDER BY name, since;
CREATE ROLE regress_dfx_owner;
CREATE ROLE regress_dfx_user;

-- Copy: the same version under a name of one's own, without rights of others on it.
SELECT dfx_import_model('a', :'dir' || '/resnet18.safetensors') AS v7 \gset
SELECT dfx_grant_model('a', 'regress_dfx_user');
SET ROLE regress_dfx_user;
SELECT dfx_copy_model('a', 'mine') = :'v7' AS copied;
SELECT name, owner, version = :'v7' AS v7 FROM dfx_models ORDER BY name;
SELECT dfx_rename_model('a', 'stolen');
SELECT dfx_promote_model('a', :'v7');
SELECT dfx_prune_model('a', 1);
SET ROLE regress_dfx_owner;
SELECT dfx_copy_model('a', 'b');
SELECT dfx_copy_model('mine', 'b');
SELECT count(*) FROM dfx_model_versions;
RESET ROLE;
SELECT dfx_copy_model('a', 'mine');
SELECT dfx_copy_model('a', 'a');
SELECT dfx_copy_model('nobody', 'b');
SELECT dfx_copy_model('a', NULL);
SELECT dfx_copy_model(NULL, 'b');
SELECT dfx_copy_model('a', '');
SELECT count(*) AS versions FROM dfx_model_version;

-- Rename: history and grants go along.
SELECT dfx_rename_model('a', 'b');
SELECT dfx_rename_model('a', 'c');
SELECT dfx_rename_model('b', 'mine');
SELECT dfx_rename_model('b', 'b');
SELECT * FROM history;
SELECT grantee FROM dfx_model_grant WHERE name = 'b';
SET ROLE regress_dfx_user;
SELECT dfx_model_usable('b'), dfx_model_usable('a');
RESET ROLE;
SELECT dfx_rename_model('resnet18', 'other');
BEGIN;
SELECT dfx_rename_model('b', 'c');
SELECT count((dfx_classify(image, 'c')).model = 'c') FROM photos;
SELECT dfx_classify(image, 'b') FROM photos;
ROLLBACK;
SELECT count((dfx_classify(image, 'b')).model = 'b') FROM photos;

-- Owner: given away by who owns it and could be the new one; and see below for a role that is gone.
SET ROLE regress_dfx_owner;
SELECT dfx_alter_model_owner('b', 'regress_dfx_owner');
SET ROLE regress_dfx_user;
\set VERBOSITY sqlstate
SELECT dfx_alter_model_owner('mine', 'regress_dfx_owner');
\set VERBOSITY terse
RESET ROLE;
SELECT dfx_alter_model_owner('mine', 'regress_dfx_nobody');
SELECT dfx_alter_model_owner('mine', NULL);
SELECT dfx_alter_model_owner('nobody', 'regress_dfx_owner');
GRANT regress_dfx_owner TO regress_dfx_user;
SET ROLE regress_dfx_user;
BEGIN;
SELECT dfx_alter_model_owner('mine', 'regress_dfx_owner');
SELECT owner FROM dfx_models WHERE name = 'mine';
ROLLBACK;
SELECT owner FROM dfx_models WHERE name = 'mine';
SELECT dfx_alter_model_owner('mine', 'regress_dfx_owner');
RESET ROLE;
REVOKE regress_dfx_owner FROM regress_dfx_user;
SET ROLE regress_dfx_user;
SELECT dfx_alter_model_owner('mine', 'regress_dfx_user');
RESET ROLE;
ALTER ROLE regress_dfx_owner RENAME TO regress_dfx_renamed;
SELECT count(dfx_alter_model_owner(name, 'regress_dfx_renamed')) FROM dfx_models WHERE owner = 'regress_dfx_owner';
SELECT owner FROM dfx_models WHERE name = 'mine';
ALTER ROLE regress_dfx_renamed RENAME TO regress_dfx_gone;

-- What a role left that is gone is the database owner's: to see, to use and to give to a role that it is a member of.
CREATE ROLE regress_dfx_dba;
SELECT datdba::regrole AS dba FROM pg_database WHERE datname = current_database() \gset
SELECT format('ALTER DATABASE %I OWNER TO regress_dfx_dba', current_database()) \gexec
SET ROLE regress_dfx_dba;
SELECT name, owner FROM dfx_models WHERE name = 'mine';
SELECT dfx_model_usable('mine');
SELECT dfx_alter_model_owner('b', 'regress_dfx_dba');
SELECT dfx_alter_model_owner('mine', 'regress_dfx_gone');
SELECT dfx_alter_model_owner('mine', 'regress_dfx_dba');
SELECT name, owner FROM dfx_models WHERE name = 'mine';
RESET ROLE;
SELECT dfx_grant_model('b', 'regress_dfx_gone');
ALTER ROLE regress_dfx_gone RENAME TO regress_dfx_owner;
SET ROLE regress_dfx_dba;
SELECT dfx_model_usable('b') AS granted_to_one_that_is_gone;
RESET ROLE;
SELECT dfx_revoke_model('b', 'regress_dfx_gone');
SELECT format('ALTER DATABASE %I OWNER TO %s', current_database(), :'dba') \gexec
DROP ROLE regress_dfx_dba;
SELECT dfx_alter_model_owner('mine', 'regress_dfx_user');
BEGIN READ ONLY; SELECT dfx_alter_model_owner('mine', 'regress_dfx_owner'); ROLLBACK;

-- Promote: back and forth, and taken back.
SELECT dfx_import_model('b', :'dir' || '/resnet18b.safetensors') AS v8 \gset
SELECT dfx_promote_model('b', :'v7') = :'v7' AS back;
SELECT DISTINCT (dfx_classify(image, 'b')).version = :'v7' AS v7 FROM photos;
BEGIN;
SELECT dfx_promote_model('b', upper(left(:'v8', 8))) = :'v8' AS forth;
SELECT DISTINCT (dfx_classify(image, 'b')).version = :'v8' AS v8 FROM photos;
ROLLBACK;
SELECT DISTINCT (dfx_classify(image, 'b')).version = :'v7' AS v7 FROM photos;
SELECT dfx_promote_model('b', :'v7') = :'v7' AS no_change;
SELECT name, version = :'v7' AS v7, version = :'v8' AS v8, current FROM dfx_model_versions WHERE name = 'b' ORDER BY since;
\set VERBOSITY sqlstate
SELECT dfx_promote_model('mine', :'v8') = :'v8' AS not_of_this_name;
SELECT dfx_promote_model('b', left(:'v7', 7));
SELECT dfx_promote_model('b', :'v7' || '0');
\set VERBOSITY terse
SELECT dfx_promote_model('b', repeat('0', 64));
SELECT dfx_promote_model('b', 'latest');
SELECT dfx_promote_model('b', NULL);
SELECT dfx_promote_model('nobody', :'v7');

-- Two versions that begin alike cannot be imported at will, but stored.
BEGIN;
INSERT INTO dfx_model_version (version, kind, backbone, options)
	SELECT substr(version, 1, 8) || decode(repeat('00', 24), 'hex'), kind, backbone, options
	FROM dfx_model_version WHERE version = decode(:'v8', 'hex');
INSERT INTO dfx_model_history SELECT 'b', '2020-01-01', version
	FROM dfx_model_version WHERE version = decode(rpad(left(:'v8', 16), 64, '0'), 'hex');
\set VERBOSITY sqlstate
SELECT dfx_promote_model('b', left(:'v8', 16));
ROLLBACK;
\set VERBOSITY terse

-- The clock is set back: the newest entry is still the present version.
BEGIN;
UPDATE dfx_model_history SET since = since + interval '1 day' WHERE name = 'b';
SELECT dfx_promote_model('b', :'v8') = :'v8' AS v8;
SELECT version = :'v8' AS v8 FROM dfx_model_versions WHERE name = 'b' AND current;
ROLLBACK;

-- Prune: a version goes with its last entry in any history.
SELECT dfx_prune_model('b', 0);
SELECT dfx_prune_model('b', NULL);
SELECT dfx_prune_model('b', 3);
SELECT count(*) AS versions FROM dfx_model_version;
SELECT dfx_prune_model('b', 2);
SELECT count(*) AS versions FROM dfx_model_version;
BEGIN;
SELECT dfx_prune_model('b', 1);
SELECT count(*) AS versions FROM dfx_model_version;
ROLLBACK;
SELECT dfx_copy_model('b', 'c') = :'v7' AS copied;
SELECT dfx_promote_model('b', :'v8') = :'v8' AS v8;
SELECT dfx_prune_model('b', 1);
SELECT * FROM history;
SELECT count(*) AS versions FROM dfx_model_version;
SELECT dfx_prune_model('b', 1);
SELECT dfx_prune_model('nobody', 1);

-- Nothing of it in a read-only transaction
BEGIN READ ONLY; SELECT dfx_rename_model('b', 'd'); ROLLBACK;
BEGIN READ ONLY; SELECT dfx_copy_model('b', 'd'); ROLLBACK;
BEGIN READ ONLY; SELECT dfx_promote_model('b', :'v8'); ROLLBACK;
BEGIN READ ONLY; SELECT dfx_prune_model('b', 1); ROLLBACK;
SELECT dfx_drop_model(name) FROM unnest(ARRAY['b', 'c', 'mine']) AS name;
SELECT names, history, versions FROM stored;
DROP VIEW history;
DROP ROLE regress_dfx_owner, regress_dfx_user;
