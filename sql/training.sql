-- What is refused before anything is trained, and who may train, see and drop what.
\set VERBOSITY terse
CREATE TABLE shots (id int, image bytea, label text, part text, maker text);
INSERT INTO shots SELECT i, 'x', (ARRAY['dm', 'gan', 'real'])[i % 3 + 1], NULL, NULL FROM generate_series(1, 9) AS i;
CREATE ROLE regress_dfx_trainer;
CREATE ROLE regress_dfx_other;
CREATE ROLE regress_dfx_monitor;
GRANT pg_monitor TO regress_dfx_monitor;

-- Transactions
BEGIN;
CALL dfx_train('m', 'shots');
ROLLBACK;
BEGIN;
CALL dfx_train_resume(1);
ROLLBACK;
DO $$BEGIN CALL dfx_train_base('m', 'shots', 'dm'); EXCEPTION WHEN division_by_zero THEN NULL; END$$;
SET default_transaction_read_only = on;
CALL dfx_train_baseline('m', 'shots', backbone => 'test_tiny');
RESET default_transaction_read_only;

-- Arguments
CALL dfx_train(NULL, 'shots');
CALL dfx_train('', 'shots');
CALL dfx_train('m', NULL);
CALL dfx_train('m', 'nowhere');
CALL dfx_train('m', 'dfx_training_run_id_seq');
CALL dfx_train('m', 'shots', 'picture');
CALL dfx_train('m', 'shots', 'part');
CALL dfx_train('m', 'shots', label_column => NULL);
CALL dfx_train('m', 'shots', group_column => 'nobody');
CALL dfx_train('m', 'shots', backbone => NULL);
CALL dfx_train('m', 'shots', init => 'nobody');
CALL dfx_train('m', 'shots', max_errors => -1);
CALL dfx_train('m', 'shots', learning_rate => 'NaN');
CALL dfx_train('m', 'shots', labels => '[]');
CALL dfx_train('m', 'shots', labels => '{"dm": "robot"}');
CALL dfx_train('m', 'shots', labels => '{"dm": 1}');
CALL dfx_train_baseline('m', 'shots');
CALL dfx_train_baseline('m', 'shots', recipe => 'nobody2099');
CALL dfx_train_head('m', 'shots', 'resnet18', NULL, 'resnet18');
CALL dfx_train_resume(NULL);
CALL dfx_train_resume(4711);
SELECT dfx_drop_training_run(NULL), dfx_drop_training_run(4711);
SELECT dfx_plot_training(4711), dfx_plot_training(NULL);
SELECT dfx_export_checkpoint(4711);
SELECT dfx_import_checkpoint(NULL::text), dfx_import_checkpoint(NULL::oid);

-- Labels: all that stand for nothing are named at once.
UPDATE shots SET label = 'robot ' || id WHERE id > 2;
CALL dfx_train('m', 'shots', backbone => 'test_tiny');
UPDATE shots SET label = (ARRAY['dm', 'gan', 'real'])[id % 3 + 1];

-- Rooms that are too small
SET dfx.train_cache = '1MB';
CALL dfx_train('m', 'shots', backbone => 'test_tiny');
RESET dfx.train_cache;
SET dfx.train_cache_dir = 'relative';

-- No run has been made of any of these.
SELECT count(*) FROM dfx_training_runs;

-- What the engine refuses makes a run that has failed.
CREATE VIEW what AS SELECT kind, state, sqlstate, error, samples, errors FROM dfx_training_runs ORDER BY run DESC LIMIT 1;
CALL dfx_train('m', 'shots', backbone => 'nonet');
CALL dfx_train('m', 'shots', backbone => 'test_tiny', epochs => 0);
CALL dfx_train_base('m', 'shots', 'robot', backbone => 'test_tiny');
TABLE what;
CALL dfx_train('m', 'shots', backbone => 'test_tiny', key_column => 'id', max_errors => 2);
TABLE what;
SELECT key, message IS NOT NULL AS message FROM dfx_training_errors;
UPDATE shots SET image = NULL;
CALL dfx_train('m', 'shots', backbone => 'test_tiny', key_column => 'id');
UPDATE shots SET part = 'nowhere', image = 'x';
CALL dfx_train('m', 'shots', backbone => 'test_tiny', key_column => 'id', split_column => 'part');
SET dfx.train_cache_dir = '/nonexistent/directory';
\set VERBOSITY sqlstate
CALL dfx_train('m', 'shots', backbone => 'test_tiny');
\set VERBOSITY terse
RESET dfx.train_cache_dir;

-- Privileges: to train is granted, to read is the caller's own.
SET ROLE regress_dfx_trainer;
CALL dfx_train('m', 'shots');
CALL dfx_train_base('m', 'shots', 'dm');
CALL dfx_train_head('m', 'shots', 'a', 'b', 'c');
CALL dfx_train_baseline('m', 'shots');
CALL dfx_train_resume(1);
SELECT dfx_import_checkpoint(1);
SET dfx.train_cache = '1GB';
SELECT count(*) FROM dfx_training_runs;
SELECT count(*) FROM dfx_training_run;
RESET ROLE;
GRANT EXECUTE ON PROCEDURE dfx_train, dfx_train_resume TO regress_dfx_trainer, regress_dfx_other;
SET ROLE regress_dfx_trainer;
CALL dfx_train('m', 'shots', backbone => 'test_tiny');
RESET ROLE;
GRANT SELECT (id, image) ON shots TO regress_dfx_trainer;
SET ROLE regress_dfx_trainer;
CALL dfx_train('m', 'shots', backbone => 'test_tiny');
RESET ROLE;
GRANT SELECT ON shots TO regress_dfx_trainer;
SET ROLE regress_dfx_trainer;
CALL dfx_train('resnet18', 'shots', backbone => 'test_tiny');
CALL dfx_train('m', 'shots', backbone => 'test_tiny', init => 'resnet18');
CALL dfx_train('m', 'shots', backbone => 'test_tiny', key_column => 'id');
SELECT model, owner, state, sqlstate FROM dfx_training_runs;
SELECT count(*), count(DISTINCT run) FROM dfx_training_errors;
SELECT run AS mine FROM dfx_training_runs \gset
RESET ROLE;
SET ROLE regress_dfx_other;
SELECT count(*) FROM dfx_training_runs;
CALL dfx_train_resume(:mine);
SELECT dfx_drop_training_run(:mine);
SELECT dfx_export_checkpoint(:mine);
SELECT dfx_plot_training(:mine);
RESET ROLE;
SET ROLE regress_dfx_monitor;
SELECT count(*) > 1 AS all_of_them FROM dfx_training_runs;
SELECT dfx_drop_training_run(:mine);
RESET ROLE;
SET ROLE regress_dfx_trainer;
SELECT dfx_plot_training(:mine) LIKE '<svg%No epoch%' AS nothing_yet;
SELECT dfx_drop_training_run(:mine);
SELECT count(*) FROM dfx_training_runs;
RESET ROLE;

SELECT count(dfx_drop_training_run(run)) > 0 AS dropped FROM dfx_training_runs;
DROP VIEW what;
DROP TABLE shots;
DROP OWNED BY regress_dfx_trainer, regress_dfx_other;
DROP ROLE regress_dfx_trainer, regress_dfx_other, regress_dfx_monitor;
