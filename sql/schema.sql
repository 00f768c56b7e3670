-- Any schema, any search_path: the extension finds its own tables and PostgreSQL's own operators.
\getenv dir DFX_TEST_DIR
\getenv images DFX_TEST_IMAGES
CREATE DATABASE regress_dfx_schema;
\c regress_dfx_schema
SET client_min_messages = warning;
\set VERBOSITY terse

-- The library is there, the extension is not.
CREATE FUNCTION classify(bytea, text) RETURNS text AS 'deepfeaturex', 'dfx_classify' LANGUAGE C;
SELECT classify('x', 'm');
DROP FUNCTION classify;

CREATE SCHEMA "Odd ""Schema""";
CREATE EXTENSION deepfeaturex SCHEMA "Odd ""Schema""";
SELECT count(*) AS elsewhere
	FROM pg_depend d, pg_identify_object(d.classid, d.objid, d.objsubid) AS o
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
		AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'deepfeaturex')
		AND o.schema <> '"Odd ""Schema"""';

-- A user's schema in front of everything, with traps in it.
CREATE SCHEMA trap;
CREATE FUNCTION trap.fail(bytea, bytea) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$;
CREATE FUNCTION trap.fail(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$;
CREATE OPERATOR trap.= (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = trap.fail);
CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.fail);
CREATE OPERATOR trap.<> (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = trap.fail);
CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$;
CREATE TABLE trap.dfx_model (name text, version bytea, owner text);
CREATE TABLE trap.dfx_model_version (version bytea);
SET search_path = trap, pg_catalog;
SELECT "Odd ""Schema""".dfx_import_model('m', :'dir' || '/resnet18.safetensors') IS NOT NULL AS imported;
SELECT "Odd ""Schema""".dfx_import_model('m', :'dir' || '/resnet18b.safetensors') IS NOT NULL AS replaced;
SELECT "Odd ""Schema""".dfx_grant_model('m', 'public');
SELECT "Odd ""Schema""".dfx_set_default_model('m');
SELECT ("Odd ""Schema""".dfx_classify(pg_read_binary_file(:'images' || '/photo-420-q90.jpg'))).model;
SELECT name, is_default FROM "Odd ""Schema""".dfx_models;
SELECT "Odd ""Schema""".dfx_set_default_model(NULL);
SELECT "Odd ""Schema""".dfx_drop_model('m');
SELECT count(*) FROM trap.dfx_model;
SHOW search_path;
RESET search_path;

-- Away and back, in one session
DROP EXTENSION deepfeaturex;
CREATE EXTENSION deepfeaturex;
SELECT dfx_classify('x', 'm');
BEGIN;
DROP EXTENSION deepfeaturex;
CREATE SCHEMA other;
CREATE EXTENSION deepfeaturex SCHEMA other;
SELECT other.dfx_classify('x', 'm');
ROLLBACK;
SELECT dfx_classify('x', 'm');
\c contrib_regression
DROP DATABASE regress_dfx_schema;
