-- How starter.safetensors was made, and the figures of STARTER.md.  With a server that has the extension, in an empty database:
--
--	models/make_start.py --data /path/to/screening --out /path/to/start.safetensors
--	psql -v data=/path/to/screening -v start=/path/to/start.safetensors -v out=/path/to/starter.safetensors -f make_starter.sql
--
-- data: a directory, readable by the server, with the images and manifest.csv (columns below).  The server had dfx.threads = 2
-- in its configuration; from the same start, the same version of deepfeaturex and of oneDNN and a CPU with the same
-- instruction set (AVX-512 with bf16 here) give the same result to the bit.
\set ON_ERROR_STOP on
\timing on
\set manifest :data '/manifest.csv'
CREATE EXTENSION IF NOT EXISTS deepfeaturex;
SHOW dfx.threads;

CREATE TABLE manifest (path text, class text, generator text, "group" text, source_repo text, source_path text, licence text,
	width int, height int, format text, jpeg_quality int, sha256 text);
COPY manifest FROM :'manifest' (FORMAT csv, HEADER);

-- A group is on one side as a whole, drawn by its name: 40 % for the Base Models, 40 % for the head, 20 % test.
CREATE TABLE screening AS
SELECT path, class AS label, generator, "group" AS source,
	CASE WHEN draw < 40 THEN 'base' WHEN draw < 80 THEN 'head' ELSE 'test' END AS part,
	pg_read_binary_file(:'data' || '/' || path) AS image
FROM manifest, mod(('x' || left(md5("group"), 8))::bit(32)::bigint, 100) AS draw;
CREATE VIEW without_head AS SELECT * FROM screening WHERE part <> 'head';
CREATE VIEW test AS SELECT * FROM screening WHERE part = 'test';

-- What every network starts from.
SELECT dfx_import_backbone('start', 'densenet121', :'start');

-- The method: three Base Models on unbalanced subsets, frozen, and the head.
CALL dfx_train('starter', 'screening', backbone => 'densenet121', init => 'start', seed => 1, head_stride => 2, share => 0.25,
	key_column => 'path', group_column => 'source', split_column => 'part', generator_column => 'generator',
	epochs => 4, head_epochs => 25, learning_rate => 0.0001, flip => 0.5, turn => 0.75, "precision" => 'bf16', storage => 'f16');
SELECT dfx_export_model('starter', :'out');

-- The baseline: the same backbone alone, with three classes, on the Base Models' images.
CALL dfx_train_baseline('alone', 'without_head', backbone => 'densenet121', init => 'start', task => 'three', seed => 1,
	key_column => 'path', group_column => 'source', split_column => 'part', generator_column => 'generator',
	epochs => 4, learning_rate => 0.0001, flip => 0.5, turn => 0.75, "precision" => 'bf16', storage => 'f16');

-- The figures: table 1, the generators and the confusion are in metrics.
SELECT model, versions, jsonb_pretty(metrics) FROM dfx_training_runs ORDER BY run;
CREATE VIEW balanced AS
SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY label ORDER BY md5(path)) AS place FROM test) AS t
WHERE place <= (SELECT min(n) FROM (SELECT count(*) AS n FROM test GROUP BY label) AS c);
SELECT * FROM dfx_evaluate('starter', 'balanced', perturb => '{raw,jpeg:90,jpeg:80,jpeg:70,jpeg:60,jpeg:50}');
SELECT * FROM dfx_evaluate('alone', 'balanced', perturb => '{raw,jpeg:90,jpeg:80,jpeg:70,jpeg:60,jpeg:50}');
