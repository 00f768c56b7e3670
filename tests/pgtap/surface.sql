-- Is the SQL surface what docs and dumps rely on?
\set QUIET 1
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION pgtap;
CREATE EXTENSION deepfeaturex;
\pset format unaligned
\pset tuples_only true
\pset pager off
-- several tests in one row
\pset fieldsep '\n'
SELECT no_plan();

-- PostgreSQL 17 also counts array types and the row types of relations, which have neither a comment nor a life of their own.
CREATE TEMP VIEW member AS
	SELECT d.classid, d.objid, o.type, o.schema, o.name, o.identity
	FROM pg_depend AS d, pg_identify_object(d.classid, d.objid, 0) AS o
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
		AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'deepfeaturex')
		AND NOT EXISTS (SELECT FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
			WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid AND (t.typcategory = 'A' OR c.relkind <> 'c'));
SELECT cmp_ok((SELECT count(*) FROM member), '>', 25::bigint, 'the extension has members');

-- Everything has a name of ours and a comment
SELECT is_empty($$SELECT identity FROM member WHERE COALESCE(name, identity) !~ '^(public\.)?_?dfx_'$$,
	'every name begins with dfx_');
SELECT is_empty($$SELECT identity FROM member WHERE obj_description(objid, classid::regclass::name) IS NULL$$,
	'every object has a comment');
SELECT isnt(obj_description(oid, 'pg_extension'), NULL, 'and so has the extension')
	FROM pg_extension WHERE extname = 'deepfeaturex';

-- Types
SELECT enum_has_labels('dfx_class', ARRAY['dm', 'gan', 'real', 'synthetic']);
SELECT results_eq(
	$$SELECT attname::text COLLATE "default", atttypid::regtype::text FROM pg_attribute
		WHERE attrelid = 'dfx_verdict'::regclass AND attnum > 0 ORDER BY attnum$$,
	$$VALUES ('label', 'dfx_class'), ('confidence', 'real'), ('p_synthetic', 'real'), ('p_dm', 'real'),
		('p_gan', 'real'), ('p_real', 'real'), ('generator', 'text'), ('model', 'text'), ('version', 'text')$$,
	'columns of dfx_verdict');

-- Screening functions
SELECT function_returns(name, ARRAY['bytea', 'text'], result),
		volatility_is(name, ARRAY['bytea', 'text'], 'stable'),
		isnt_strict(name, ARRAY['bytea', 'text'])
	FROM (VALUES ('dfx_classify', 'dfx_verdict'), ('dfx_try_classify', 'dfx_verdict'),
		('dfx_synthetic', 'real'), ('dfx_features', 'real[]')) AS f(name, result);
SELECT volatility_is('dfx_image_info', ARRAY['bytea'], 'stable');
SELECT function_returns('dfx_heatmap', ARRAY['bytea', 'dfx_class', 'text'], 'bytea'),
	volatility_is('dfx_heatmap', ARRAY['bytea', 'dfx_class', 'text'], 'stable'),
	isnt_strict('dfx_heatmap', ARRAY['bytea', 'dfx_class', 'text']);
SELECT function_returns('dfx_classify_many', ARRAY['bytea[]', 'text'], 'dfx_verdict[]'),
	volatility_is('dfx_classify_many', ARRAY['bytea[]', 'text'], 'stable'),
	isnt_strict('dfx_classify_many', ARRAY['bytea[]', 'text']);
SELECT results_eq(
	$$SELECT DISTINCT proparallel, procost >= 10000, proargnames::text COLLATE "default", pronargdefaults FROM pg_proc JOIN member ON objid = pg_proc.oid
		WHERE proname IN ('dfx_classify', 'dfx_try_classify', 'dfx_synthetic', 'dfx_features')$$,
	$$VALUES ('s'::"char", true, '{image,model}', 1::smallint)$$,
	'they are parallel safe and dear, and the model is optional');
SELECT function_returns('dfx_flag', ARRAY[]::name[], 'trigger');
SELECT function_returns('dfx_reject', ARRAY[]::name[], 'trigger');

-- Functions on models
SELECT is_procedure('dfx_quantize');
SELECT function_returns(name, args, result), volatility_is(name, args, 'volatile')
	FROM (VALUES ('dfx_import_model', ARRAY['text', 'text', 'integer'], 'text'), ('dfx_import_model', ARRAY['text', 'oid', 'integer'], 'text'),
		('dfx_export_model', ARRAY['text', 'text'], 'bigint'), ('dfx_export_model', ARRAY['text'], 'oid'),
		('dfx_set_default_model', ARRAY['text'], 'void'), ('dfx_drop_model', ARRAY['text'], 'void'),
		('dfx_rename_model', ARRAY['text', 'text'], 'void'), ('dfx_alter_model_owner', ARRAY['text', 'text'], 'void'), ('dfx_copy_model', ARRAY['text', 'text'], 'text'),
		('dfx_promote_model', ARRAY['text', 'text'], 'text'), ('dfx_import_backbone', ARRAY['text', 'text', 'text'], 'text'),
		('dfx_import_backbone', ARRAY['text', 'text', 'oid'], 'text'), ('dfx_install_starter_model', ARRAY['text', 'boolean'], 'text'),
		('dfx_evict', ARRAY['text'], 'void'), ('dfx_prune_model', ARRAY['text', 'integer'], 'bigint'),
		('dfx_grant_model', ARRAY['text', 'text'], 'void'), ('dfx_revoke_model', ARRAY['text', 'text'], 'void'))
		AS f(name, args, result);
SELECT results_eq(
	$$SELECT attname::text COLLATE "default", atttypid::regtype::text FROM pg_attribute
		WHERE attrelid = 'dfx_models'::regclass AND attnum > 0 ORDER BY attnum$$,
	$$VALUES ('name', 'text'), ('version', 'text'), ('kind', 'text'), ('backbone', 'text'), ('owner', 'text'),
		('created', 'timestamp with time zone'), ('bytes', 'bigint'), ('is_default', 'boolean'), ('options', 'jsonb'),
		('metrics', 'jsonb')$$,
	'columns of dfx_models');

SELECT results_eq(
	$$SELECT attname::text COLLATE "default", atttypid::regtype::text FROM pg_attribute
		WHERE attrelid = 'dfx_model_versions'::regclass AND attnum > 0 ORDER BY attnum$$,
	$$VALUES ('name', 'text'), ('version', 'text'), ('since', 'timestamp with time zone'), ('current', 'boolean')$$,
	'columns of dfx_model_versions');
SELECT results_eq(
	$$SELECT attname::text COLLATE "default", atttypid::regtype::text FROM pg_attribute
		WHERE attrelid = 'dfx_stat_models'::regclass AND attnum > 0 ORDER BY attnum$$,
	$$VALUES ('version', 'text'), ('names', 'text[]'), ('precision', 'text'), ('resident', 'boolean'), ('bytes', 'bigint'),
		('loads', 'bigint'), ('hits', 'bigint'), ('last_use', 'timestamp with time zone'), ('engine', 'bigint')$$,
	'columns of dfx_stat_models');

-- Tables: private, dumped, and nothing in them that pg_upgrade or a standby could stumble over
CREATE TEMP VIEW own_table AS SELECT objid AS oid, name FROM member WHERE type = 'table';
SELECT set_eq('SELECT name FROM own_table',
	ARRAY['dfx_model', 'dfx_model_version', 'dfx_model_tensor', 'dfx_model_chunk', 'dfx_model_history', 'dfx_model_grant',
		'dfx_training_run', 'dfx_training_epoch', 'dfx_training_error', 'dfx_sample', 'dfx_checkpoint', 'dfx_checkpoint_chunk'],
	'tables');
SELECT is_empty(
	$$SELECT name, p FROM own_table, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p
		WHERE has_table_privilege('public', oid, p)$$,
	'PUBLIC has no privilege on them');
SELECT set_eq($$SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'deepfeaturex'$$,
	$$SELECT oid FROM own_table UNION SELECT objid FROM member WHERE type = 'sequence'$$, 'pg_dump keeps the rows of all of them');
SELECT is_empty('SELECT * FROM own_table AS t, LATERAL (SELECT FROM pg_trigger WHERE tgrelid = t.oid AND NOT tgisinternal) AS x',
	'no triggers');
SELECT is_empty(
	$$SELECT attrelid::regclass, attname FROM pg_attribute JOIN own_table AS t ON attrelid = t.oid
		WHERE attnum > 0 AND atttypid NOT IN ('text'::regtype, 'bytea'::regtype, 'int'::regtype, 'bigint'::regtype,
			'bigint[]'::regtype, 'jsonb'::regtype, 'timestamptz'::regtype, 'boolean'::regtype, 'double precision'::regtype)$$,
	'no column holds an OID');
SELECT is_empty(
	$$SELECT attrelid::regclass, attname FROM pg_attribute JOIN own_table AS t ON attrelid = t.oid
		WHERE attnum > 0 AND atttypid = 'text'::regtype AND attcollation <> (SELECT oid FROM pg_collation WHERE collname = 'C')$$,
	'every text column is compared by bytes');
SELECT is_empty($$SELECT attname FROM pg_attribute WHERE attrelid = 'dfx_model_chunk'::regclass AND attname = 'data' AND attstorage <> 'e'$$,
	'weights are stored uncompressed');
SELECT is_empty(
	$$WITH RECURSIVE edge AS (SELECT conrelid, confrelid FROM pg_constraint JOIN own_table AS t ON conrelid = t.oid WHERE contype = 'f'),
		walk AS (SELECT conrelid AS start, confrelid AS reached FROM edge
			UNION SELECT start, confrelid FROM walk JOIN edge ON conrelid = reached)
	SELECT start::regclass FROM walk WHERE start = reached$$,
	'foreign keys form no cycle');
SELECT is_empty('SELECT FROM dfx_model_version', 'CREATE EXTENSION inserts no rows');

-- Who may call and see
SELECT is_empty(
	$$SELECT identity FROM member WHERE type = 'function' AND NOT has_function_privilege('public', objid, 'EXECUTE')
		AND name !~ '^dfx_train'$$,
	'PUBLIC may call the functions: they ask who may do what');
SELECT is_empty(
	$$SELECT identity FROM member WHERE type = 'view' AND NOT has_table_privilege('public', objid, 'SELECT')$$,
	'PUBLIC may read the views');
SELECT set_has('SELECT name FROM member WHERE type = ''view''',
	$$VALUES ('dfx_models'), ('dfx_model_versions'), ('dfx_stat_models'), ('dfx_stat_engine'), ('dfx_stat_queue')$$, 'views');

SELECT finish();
ROLLBACK;
