/* deepfeaturex--0.1.0.sql: types, tables and functions of the extension. */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION deepfeaturex" to load this file. \quit

-- Types ----------------------------------------------------------------------

CREATE TYPE dfx_class AS ENUM ('dm', 'gan', 'real', 'synthetic');
COMMENT ON TYPE dfx_class IS
	'origin of an image: diffusion model, GAN, camera; synthetic stands for the first two where a model does not tell them apart';

CREATE TYPE dfx_verdict AS (
	label dfx_class,
	confidence real,
	p_synthetic real,
	p_dm real,
	p_gan real,
	p_real real,
	generator text,
	model text,
	version text
);
COMMENT ON TYPE dfx_verdict IS
	'what a model says about one image; confidence is the probability of the label, version the SHA-256 of the weights';

-- Models -----------------------------------------------------------------------
--
-- A version is immutable and addressed by its content; a name points at one.
-- Names and roles are text in collation "C": C code searches these indexes by
-- bytes, and pg_upgrade refuses role OIDs.  Nobody but the owner of the
-- extension reads these tables directly: the functions check dfx_model.owner
-- and dfx_model_grant first.

CREATE TABLE dfx_model_version (
	version bytea PRIMARY KEY CHECK (octet_length(version) = 32),
	kind text COLLATE "C" NOT NULL,
	backbone text COLLATE "C" NOT NULL,
	options jsonb NOT NULL,
	created timestamptz NOT NULL DEFAULT now(),
	metrics jsonb
);
COMMENT ON TABLE dfx_model_version IS
	'immutable model versions: metadata; the key is the SHA-256 of metadata and weights';

CREATE TABLE dfx_model_tensor (
	version bytea NOT NULL REFERENCES dfx_model_version ON DELETE CASCADE,
	number int NOT NULL CHECK (number >= 0),
	name text COLLATE "C" NOT NULL,
	dtype text COLLATE "C" NOT NULL,
	shape bigint[] NOT NULL,
	bytes bigint NOT NULL CHECK (bytes >= 0),
	sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
	PRIMARY KEY (version, number)
);
COMMENT ON TABLE dfx_model_tensor IS
	'tensors of each model version, numbered in byte order of their names';

CREATE TABLE dfx_model_chunk (
	version bytea NOT NULL,
	tensor int NOT NULL,
	chunk int NOT NULL CHECK (chunk >= 0),
	data bytea NOT NULL CHECK (octet_length(data) BETWEEN 1 AND 4194304),
	PRIMARY KEY (version, tensor, chunk),
	FOREIGN KEY (version, tensor) REFERENCES dfx_model_tensor ON DELETE CASCADE
);
-- Weights do not compress, and only uncompressed values can be read by slices.
ALTER TABLE dfx_model_chunk ALTER data SET STORAGE EXTERNAL;
COMMENT ON TABLE dfx_model_chunk IS
	'bytes of each tensor, in pieces small enough for any dump';

CREATE TABLE dfx_model (
	name text COLLATE "C" PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 63),
	version bytea NOT NULL REFERENCES dfx_model_version,
	owner text COLLATE "C" NOT NULL
);
COMMENT ON TABLE dfx_model IS
	'model names: the version each one stands for, and the role that owns it';

CREATE TABLE dfx_model_history (
	name text COLLATE "C" NOT NULL REFERENCES dfx_model ON UPDATE CASCADE ON DELETE CASCADE,
	since timestamptz NOT NULL,
	version bytea NOT NULL REFERENCES dfx_model_version,
	PRIMARY KEY (name, since)
);
CREATE INDEX dfx_model_history_version ON dfx_model_history (version);
COMMENT ON TABLE dfx_model_history IS
	'versions that each model name has stood for, and since when';

CREATE TABLE dfx_model_grant (
	name text COLLATE "C" NOT NULL REFERENCES dfx_model ON UPDATE CASCADE ON DELETE CASCADE,
	grantee text COLLATE "C" NOT NULL,
	PRIMARY KEY (name, grantee)
);
COMMENT ON TABLE dfx_model_grant IS
	'roles that may use a model besides its owner; an empty name stands for PUBLIC';

REVOKE ALL ON dfx_model_version, dfx_model_tensor, dfx_model_chunk, dfx_model, dfx_model_history,
	dfx_model_grant FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('dfx_model_version', '');
SELECT pg_catalog.pg_extension_config_dump('dfx_model_tensor', '');
SELECT pg_catalog.pg_extension_config_dump('dfx_model_chunk', '');
SELECT pg_catalog.pg_extension_config_dump('dfx_model', '');
SELECT pg_catalog.pg_extension_config_dump('dfx_model_history', '');
SELECT pg_catalog.pg_extension_config_dump('dfx_model_grant', '');

-- Screening ----------------------------------------------------------------------
--
-- No function with an optional model is STRICT: a NULL image gives NULL, a NULL
-- model means dfx.default_model.

CREATE FUNCTION dfx_classify(image bytea, model text DEFAULT NULL) RETURNS dfx_verdict
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION dfx_classify(bytea, text) IS
	'whether an image is real or generated, by the model named or dfx.default_model';

CREATE FUNCTION dfx_try_classify(image bytea, model text DEFAULT NULL) RETURNS dfx_verdict
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION dfx_try_classify(bytea, text) IS
	'dfx_classify, but NULL for an image that cannot be read or is over a limit';

CREATE FUNCTION dfx_classify_many(images bytea[], model text DEFAULT NULL) RETURNS dfx_verdict[]
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION dfx_classify_many(bytea[], text) IS
	'dfx_classify for each image of an array, many at a time; NULL elements give NULL';

CREATE FUNCTION dfx_synthetic(image bytea, model text DEFAULT NULL) RETURNS real
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION dfx_synthetic(bytea, text) IS
	'probability that an image is generated, for WHERE clauses';

CREATE FUNCTION dfx_features(image bytea, model text DEFAULT NULL) RETURNS real[]
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION dfx_features(bytea, text) IS
	'feature vectors of the three branches, one after the other: dm, gan, real';

CREATE FUNCTION dfx_heatmap(image bytea, class dfx_class DEFAULT NULL, model text DEFAULT NULL) RETURNS bytea
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE COST 1000000;
COMMENT ON FUNCTION dfx_heatmap(bytea, dfx_class, text) IS
	'which parts of an image the verdict, or the class named, rests on: a PNG of what the network sees, those parts in red';

CREATE FUNCTION dfx_image_info(image bytea,
		OUT format text, OUT width int, OUT height int, OUT channels int, OUT bits int) RETURNS record
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION dfx_image_info(bytea) IS
	'format, size, channels and bits per channel of an image, without classifying it';

-- Automation ----------------------------------------------------------------------

CREATE FUNCTION dfx_flag() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_flag() IS
	'BEFORE ROW trigger (image_column, verdict_column [, model]): fills the verdict column';

CREATE FUNCTION dfx_reject() RETURNS trigger
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_reject() IS
	'BEFORE ROW trigger (image_column, threshold [, model]): refuses images whose p_synthetic reaches the threshold';

-- Evaluation ------------------------------------------------------------------
--
-- Both functions read the samples with the rights of whoever calls them.

CREATE FUNCTION dfx_perturb(image bytea, how text) RETURNS bytea
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION dfx_perturb(bytea, text) IS
	'an image after raw, jpeg:Q, blur:K, scale:P, rotate:D, flip, flip:h or flip:v: a JPEG for jpeg:Q, a PNG otherwise';

CREATE FUNCTION dfx_evaluate(
	model text,
	samples regclass,
	image_column name DEFAULT 'image',
	label_column name DEFAULT 'label',
	perturb text[] DEFAULT '{raw}',
	group_by name DEFAULT NULL,
	labels jsonb DEFAULT NULL,
	split_column name DEFAULT NULL,
	split text DEFAULT 'test',
	max_errors int DEFAULT 0,
	OUT perturbation text,
	OUT group_value text,
	OUT n bigint,
	OUT unreadable bigint,
	OUT accuracy float8, OUT accuracy_low float8, OUT accuracy_high float8,
	OUT balanced_accuracy float8, OUT balanced_accuracy_low float8, OUT balanced_accuracy_high float8,
	OUT "precision" float8, OUT precision_low float8, OUT precision_high float8,
	OUT recall float8, OUT recall_low float8, OUT recall_high float8,
	OUT f1 float8, OUT f1_low float8, OUT f1_high float8,
	OUT auc float8, OUT auc_low float8, OUT auc_high float8,
	OUT binary_accuracy float8, OUT binary_accuracy_low float8, OUT binary_accuracy_high float8,
	OUT binary_balanced_accuracy float8, OUT binary_balanced_accuracy_low float8, OUT binary_balanced_accuracy_high float8,
	OUT binary_precision float8, OUT binary_precision_low float8, OUT binary_precision_high float8,
	OUT binary_recall float8, OUT binary_recall_low float8, OUT binary_recall_high float8,
	OUT binary_f1 float8, OUT binary_f1_low float8, OUT binary_f1_high float8,
	OUT binary_auc float8, OUT binary_auc_low float8, OUT binary_auc_high float8)
RETURNS SETOF record
LANGUAGE C STABLE PARALLEL RESTRICTED COST 1000000 ROWS 10
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION dfx_evaluate(text, regclass, name, name, text[], name, jsonb, name, text, int) IS
	'figures of merit of a model on labelled images, by three classes and as real or not, with 95 % intervals: a row for each perturbation and group';

CREATE FUNCTION dfx_confusion(
	model text,
	samples regclass,
	image_column name DEFAULT 'image',
	label_column name DEFAULT 'label',
	perturb text[] DEFAULT '{raw}',
	group_by name DEFAULT NULL,
	labels jsonb DEFAULT NULL,
	split_column name DEFAULT NULL,
	split text DEFAULT 'test',
	max_errors int DEFAULT 0,
	OUT perturbation text,
	OUT group_value text,
	OUT truth dfx_class,
	OUT predicted dfx_class,
	OUT n bigint)
RETURNS SETOF record
LANGUAGE C STABLE PARALLEL RESTRICTED COST 1000000 ROWS 100
AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION dfx_confusion(text, regclass, name, name, text[], name, jsonb, name, text, int) IS
	'how many images of each class were taken for which, for each perturbation and group; predicted is NULL for images that cannot be read';

-- Managing models ----------------------------------------------------------------

-- head_stride is for complete checkpoints of the paper's authors, which do not say it; NULL is their code's, 2.
CREATE FUNCTION dfx_import_model(name text, file text, head_stride int DEFAULT NULL) RETURNS text
	AS 'MODULE_PATHNAME', 'dfx_import_model_file' LANGUAGE C;
COMMENT ON FUNCTION dfx_import_model(text, text, int) IS
	'import a model, or a complete checkpoint of the paper''s authors, from a safetensors file of the server; returns its version';

CREATE FUNCTION dfx_import_model(name text, large_object oid, head_stride int DEFAULT NULL) RETURNS text
	AS 'MODULE_PATHNAME', 'dfx_import_model_lo' LANGUAGE C;
COMMENT ON FUNCTION dfx_import_model(text, oid, int) IS
	'import a model, or a complete checkpoint of the paper''s authors, from a safetensors file in a large object; returns its version';

CREATE FUNCTION dfx_import_backbone(name text, backbone text, file text) RETURNS text
	AS 'MODULE_PATHNAME', 'dfx_import_backbone_file' LANGUAGE C;
COMMENT ON FUNCTION dfx_import_backbone(text, text, text) IS
	'import one backbone, with torchvision''s or timm''s names and without its classifier, from a safetensors file of the server; returns its version';

CREATE FUNCTION dfx_import_backbone(name text, backbone text, large_object oid) RETURNS text
	AS 'MODULE_PATHNAME', 'dfx_import_backbone_lo' LANGUAGE C;
COMMENT ON FUNCTION dfx_import_backbone(text, text, oid) IS
	'import one backbone, with torchvision''s or timm''s names and without its classifier, from a safetensors file in a large object; returns its version';

CREATE PROCEDURE dfx_quantize(model text, samples regclass, image_column name DEFAULT 'image', images int DEFAULT 256,
		label_column name DEFAULT NULL, labels jsonb DEFAULT NULL, new_model text DEFAULT NULL, max_errors int DEFAULT 0,
		INOUT version text DEFAULT NULL, INOUT convolutions int DEFAULT NULL, INOUT calibrated bigint DEFAULT NULL,
		INOUT compared bigint DEFAULT NULL, INOUT changed bigint DEFAULT NULL,
		INOUT mean_difference double precision DEFAULT NULL, INOUT max_difference double precision DEFAULT NULL,
		INOUT accuracy_fp32 double precision DEFAULT NULL, INOUT accuracy_int8 double precision DEFAULT NULL)
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON PROCEDURE dfx_quantize IS
	'make a version of a model that runs on 8-bit integers, calibrated on images of a relation; reports how its verdicts differ';

CREATE FUNCTION dfx_install_starter_model(name text DEFAULT 'starter', make_default boolean DEFAULT true) RETURNS text
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_install_starter_model(text, boolean) IS
	'import the model that comes with the extension and make it the default of this database; returns its version';

CREATE FUNCTION dfx_export_model(name text, file text) RETURNS bigint
	AS 'MODULE_PATHNAME', 'dfx_export_model_file' LANGUAGE C;
COMMENT ON FUNCTION dfx_export_model(text, text) IS
	'write a model to a safetensors file of the server; returns its size in bytes';

CREATE FUNCTION dfx_export_model(name text) RETURNS oid
	AS 'MODULE_PATHNAME', 'dfx_export_model_lo' LANGUAGE C;
COMMENT ON FUNCTION dfx_export_model(text) IS
	'write a model as a safetensors file to a new large object; returns its OID';

CREATE FUNCTION dfx_preload(model text DEFAULT NULL) RETURNS text
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE COST 10000;
COMMENT ON FUNCTION dfx_preload(text) IS
	'have the engine load a model now rather than at its first use; returns its version';

CREATE FUNCTION dfx_evict(model text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_evict(text) IS
	'have the engine forget a model until it is needed again';

CREATE FUNCTION dfx_set_default_model(name text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_set_default_model(text) IS
	'make a model the default of this database and this session; NULL for none';

CREATE FUNCTION dfx_drop_model(name text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_drop_model(text) IS
	'remove a model, its history and the versions that nothing else uses';

CREATE FUNCTION dfx_rename_model(name text, new_name text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_rename_model(text, text) IS
	'give a model another name; its history and grants go with it';

CREATE FUNCTION dfx_copy_model(name text, new_name text) RETURNS text
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_copy_model(text, text) IS
	'make a new model, owned by the current user, of the version that a model stands for; returns the version';

CREATE FUNCTION dfx_promote_model(name text, version text) RETURNS text
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_promote_model(text, text) IS
	'make a model stand for a version of its history again, given by its first digits or all; returns the version';

CREATE FUNCTION dfx_prune_model(name text, keep int) RETURNS bigint
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_prune_model(text, int) IS
	'forget all but the newest entries of a model''s history, and versions that nothing uses; returns how many entries went';

CREATE FUNCTION dfx_alter_model_owner(name text, new_owner text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_alter_model_owner(text, text) IS
	'give a model to another role, which its present owner (the database''s, if that role is gone) must be a member of';

CREATE FUNCTION dfx_grant_model(name text, role text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_grant_model(text, text) IS
	'let a role, or public, use a model';

CREATE FUNCTION dfx_revoke_model(name text, role text) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_revoke_model(text, text) IS
	'take back what dfx_grant_model() gave';

CREATE FUNCTION dfx_model_usable(name text) RETURNS boolean
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION dfx_model_usable(text) IS
	'whether the current user may use a model';

-- The owner of the view reads the tables, dfx_model_usable() asks about the user.
CREATE VIEW dfx_models WITH (security_barrier) AS
SELECT m.name,
	pg_catalog.encode(m.version, 'hex') AS version,
	v.kind,
	v.backbone,
	m.owner,
	v.created,
	(SELECT pg_catalog.sum(t.bytes)::bigint FROM dfx_model_tensor t WHERE t.version = m.version) AS bytes,
	m.name = pg_catalog.current_setting('dfx.default_model', true) COLLATE "C" AS is_default,
	v.options,
	v.metrics
FROM dfx_model m
	JOIN dfx_model_version v ON v.version = m.version
WHERE dfx_model_usable(m.name);
COMMENT ON VIEW dfx_models IS
	'models that the current user may use';
GRANT SELECT ON dfx_models TO PUBLIC;

CREATE VIEW dfx_model_versions WITH (security_barrier) AS
SELECT h.name,
	pg_catalog.encode(h.version, 'hex') AS version,
	h.since,
	h.since = pg_catalog.max(h.since) OVER (PARTITION BY h.name) AS current
FROM dfx_model_history h
WHERE dfx_model_usable(h.name);
COMMENT ON VIEW dfx_model_versions IS
	'versions that the models the current user may use have stood for, and since when';
GRANT SELECT ON dfx_model_versions TO PUBLIC;

-- Operations ----------------------------------------------------------------
--
-- For everybody to read: figures about the engine and the queue, none about
-- anybody's images.

CREATE FUNCTION dfx_engine_status(
	OUT engine bigint,
	OUT state text,
	OUT pid int,
	OUT device text,
	OUT started timestamptz,
	OUT restarts bigint,
	OUT last_error text,
	OUT refused text,
	OUT epoch bigint)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 1
AS 'MODULE_PATHNAME', 'dfx_engine_status';
COMMENT ON FUNCTION dfx_engine_status() IS
	'state of the engine of each device: starting, ready, down or failed; its process, its device, and why it last ended';

CREATE FUNCTION dfx_ping()
RETURNS double precision
LANGUAGE C VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dfx_ping';
COMMENT ON FUNCTION dfx_ping() IS
	'round trip to the engine, in milliseconds';

CREATE FUNCTION dfx_stat_get_engine(
	OUT engine bigint,
	OUT requests bigint,
	OUT images bigint,
	OUT batches bigint,
	OUT average_batch double precision,
	OUT largest_batch bigint,
	OUT image_errors bigint,
	OUT canceled bigint,
	OUT decode_seconds double precision,
	OUT inference_seconds double precision,
	OUT models bigint,
	OUT model_bytes bigint,
	OUT model_limit bigint,
	OUT model_loads bigint,
	OUT model_evictions bigint)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 1
AS 'MODULE_PATHNAME', 'dfx_stat_get_engine';
COMMENT ON FUNCTION dfx_stat_get_engine() IS
	'see view dfx_stat_engine';

CREATE FUNCTION dfx_stat_get_queue(
	OUT slots bigint,
	OUT free bigint,
	OUT claimed bigint,
	OUT queued bigint,
	OUT running bigint,
	OUT done bigint,
	OUT abandoned bigint,
	OUT waiting bigint,
	OUT arena_bytes bigint,
	OUT arena_used bigint,
	OUT submitted bigint,
	OUT retried bigint,
	OUT crashed bigint,
	OUT reclaimed bigint,
	OUT taken_back bigint,
	OUT request_timeouts bigint,
	OUT queue_timeouts bigint)
RETURNS record
LANGUAGE C VOLATILE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dfx_stat_get_queue';
COMMENT ON FUNCTION dfx_stat_get_queue() IS
	'see view dfx_stat_queue';

CREATE VIEW dfx_stat_engine AS SELECT * FROM dfx_stat_get_engine();
COMMENT ON VIEW dfx_stat_engine IS
	'work done by the present engine process of each device: requests, batches, time, models in memory';

CREATE VIEW dfx_stat_queue AS SELECT * FROM dfx_stat_get_queue();
COMMENT ON VIEW dfx_stat_queue IS
	'the queue: slots by state, backends waiting for one, memory in use, and what went wrong since the server started';

CREATE FUNCTION dfx_stat_get_models(
	OUT engine bigint,
	OUT version text,
	OUT "precision" text,
	OUT resident boolean,
	OUT bytes bigint,
	OUT loads bigint,
	OUT hits bigint,
	OUT last_use timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 10
AS 'MODULE_PATHNAME', 'dfx_stat_get_models';
COMMENT ON FUNCTION dfx_stat_get_models() IS
	'see view dfx_stat_models';

-- The owner of the view reads the names, dfx_model_usable() asks about the user.
CREATE VIEW dfx_stat_models WITH (security_barrier) AS
SELECT s.version,
	(SELECT pg_catalog.array_agg(m.name ORDER BY m.name) FROM dfx_model m
		WHERE m.version = pg_catalog.decode(s.version, 'hex') AND dfx_model_usable(m.name)) AS names,
	s."precision", s.resident, s.bytes, s.loads, s.hits, s.last_use, s.engine
FROM dfx_stat_get_models() s;
COMMENT ON VIEW dfx_stat_models IS
	'model versions that the present engine process of each device has loaded, of all databases; names are those of this one that the current user may use';

GRANT SELECT ON dfx_stat_engine, dfx_stat_queue, dfx_stat_models TO PUBLIC;

-- Training ------------------------------------------------------------------
--
-- Rows of these tables are written by the procedures alone, as the owner of
-- the extension, and survive dumps: a run can be resumed after a restore.
-- Owners and classes are text, as above.

CREATE TABLE dfx_training_run (
	id bigserial PRIMARY KEY,
	name text COLLATE "C" NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 63),
	kind text COLLATE "C" NOT NULL,
	options jsonb NOT NULL,
	source jsonb NOT NULL,
	relation text COLLATE "C" NOT NULL,
	owner text COLLATE "C" NOT NULL,
	state text COLLATE "C" NOT NULL CHECK (state IN ('reading', 'training', 'done', 'failed', 'canceled')),
	started timestamptz NOT NULL DEFAULT clock_timestamp(),
	ended timestamptz,
	error text COLLATE "C",
	sqlstate text COLLATE "C",
	device text COLLATE "C",
	versions jsonb,
	metrics jsonb
);
COMMENT ON TABLE dfx_training_run IS
	'training runs: what was asked for, how it went, and the versions of the models made; state is what a session wrote down last';
COMMENT ON SEQUENCE dfx_training_run_id_seq IS
	'numbers of training runs';

CREATE TABLE dfx_training_epoch (
	run bigint NOT NULL REFERENCES dfx_training_run ON DELETE CASCADE,
	number int NOT NULL CHECK (number > 0),
	phase text COLLATE "C" NOT NULL,
	epoch int NOT NULL,
	epochs int NOT NULL,
	best boolean NOT NULL,
	learning_rate double precision NOT NULL,
	train_loss double precision NOT NULL,
	train_accuracy double precision NOT NULL,
	val_loss double precision NOT NULL,
	val_accuracy double precision NOT NULL,
	seconds double precision NOT NULL,
	images_per_second double precision NOT NULL,
	finished timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (run, number)
);
COMMENT ON TABLE dfx_training_epoch IS
	'history of training runs; number counts the epochs of all phases';

CREATE TABLE dfx_sample (
	run bigint NOT NULL REFERENCES dfx_training_run ON DELETE CASCADE,
	number bigint NOT NULL CHECK (number >= 0),
	key text COLLATE "C" NOT NULL,
	sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
	label text COLLATE "C" NOT NULL CHECK (label IN ('dm', 'gan', 'real')),
	generator text COLLATE "C",
	split text COLLATE "C" NOT NULL,
	base int NOT NULL CHECK (base BETWEEN 0 AND 7),
	PRIMARY KEY (run, number)
);
COMMENT ON TABLE dfx_sample IS
	'rows that training runs were given, and the split of each; bits of base: subset of the Base Model for dm (1), gan (2), real (4)';

CREATE TABLE dfx_training_error (
	run bigint NOT NULL REFERENCES dfx_training_run ON DELETE CASCADE,
	number bigint NOT NULL,
	key text COLLATE "C",
	message text COLLATE "C" NOT NULL,
	PRIMARY KEY (run, number)
);
COMMENT ON TABLE dfx_training_error IS
	'rows that could not be samples of a training run, and why';

CREATE TABLE dfx_checkpoint (
	run bigint PRIMARY KEY REFERENCES dfx_training_run ON DELETE CASCADE,
	bytes bigint NOT NULL CHECK (bytes > 0),
	sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
	epochs int NOT NULL,
	created timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE dfx_checkpoint IS
	'where each training run that is not done can go on: the last state and the best weights, after that many epochs';

CREATE TABLE dfx_checkpoint_chunk (
	run bigint NOT NULL REFERENCES dfx_training_run ON DELETE CASCADE,
	number int NOT NULL CHECK (number >= 0),
	data bytea NOT NULL CHECK (octet_length(data) BETWEEN 1 AND 4194304),
	PRIMARY KEY (run, number)
);
ALTER TABLE dfx_checkpoint_chunk ALTER data SET STORAGE EXTERNAL;
COMMENT ON TABLE dfx_checkpoint_chunk IS
	'bytes of each checkpoint, in pieces small enough for any dump';

REVOKE ALL ON dfx_training_run, dfx_training_epoch, dfx_sample, dfx_training_error, dfx_checkpoint,
	dfx_checkpoint_chunk FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('dfx_training_run', '');
SELECT pg_catalog.pg_extension_config_dump('dfx_training_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('dfx_training_epoch', '');
SELECT pg_catalog.pg_extension_config_dump('dfx_sample', '');
SELECT pg_catalog.pg_extension_config_dump('dfx_training_error', '');
SELECT pg_catalog.pg_extension_config_dump('dfx_checkpoint', '');
SELECT pg_catalog.pg_extension_config_dump('dfx_checkpoint_chunk', '');

-- An argument that is null is left to the engine's default, which
-- docs/TRAINING.md names.

CREATE PROCEDURE dfx_train(model text, samples regclass, image_column text DEFAULT 'image',
		label_column text DEFAULT 'label', backbone text DEFAULT 'densenet121', group_column text DEFAULT NULL,
		split_column text DEFAULT NULL, key_column text DEFAULT NULL, generator_column text DEFAULT NULL,
		labels jsonb DEFAULT NULL, init text DEFAULT NULL, head_stride int DEFAULT NULL, epochs int DEFAULT NULL,
		head_epochs int DEFAULT NULL, batch int DEFAULT NULL, learning_rate double precision DEFAULT NULL,
		weight_decay double precision DEFAULT NULL, step_size int DEFAULT NULL, gamma double precision DEFAULT NULL,
		share double precision DEFAULT NULL, weighted boolean DEFAULT NULL, flip double precision DEFAULT NULL,
		turn double precision DEFAULT NULL, shuffle double precision DEFAULT NULL,
		crop double precision DEFAULT NULL, crop_min double precision DEFAULT NULL,
		jpeg double precision DEFAULT NULL, jpeg_min double precision DEFAULT NULL,
		jpeg_max double precision DEFAULT NULL, blur double precision DEFAULT NULL,
		blur_min double precision DEFAULT NULL, blur_max double precision DEFAULT NULL,
		"precision" text DEFAULT NULL, storage text DEFAULT NULL, seed bigint DEFAULT NULL, max_errors int DEFAULT 0)
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON PROCEDURE dfx_train IS
	'train a model of three Base Models and a head from the images and labels of a relation';

CREATE PROCEDURE dfx_train_base(model text, samples regclass, main_class text, image_column text DEFAULT 'image',
		label_column text DEFAULT 'label', backbone text DEFAULT 'densenet121', group_column text DEFAULT NULL,
		split_column text DEFAULT NULL, key_column text DEFAULT NULL, generator_column text DEFAULT NULL,
		labels jsonb DEFAULT NULL, init text DEFAULT NULL, epochs int DEFAULT NULL, batch int DEFAULT NULL,
		learning_rate double precision DEFAULT NULL, weight_decay double precision DEFAULT NULL,
		step_size int DEFAULT NULL, gamma double precision DEFAULT NULL, share double precision DEFAULT NULL,
		flip double precision DEFAULT NULL, turn double precision DEFAULT NULL,
		shuffle double precision DEFAULT NULL, crop double precision DEFAULT NULL,
		crop_min double precision DEFAULT NULL, jpeg double precision DEFAULT NULL,
		jpeg_min double precision DEFAULT NULL, jpeg_max double precision DEFAULT NULL,
		blur double precision DEFAULT NULL, blur_min double precision DEFAULT NULL,
		blur_max double precision DEFAULT NULL, "precision" text DEFAULT NULL, storage text DEFAULT NULL,
		seed bigint DEFAULT NULL, max_errors int DEFAULT 0)
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON PROCEDURE dfx_train_base IS
	'train one Base Model: main_class against the others';

CREATE PROCEDURE dfx_train_head(model text, samples regclass, dm_model text, gan_model text, real_model text,
		image_column text DEFAULT 'image', label_column text DEFAULT 'label', group_column text DEFAULT NULL,
		split_column text DEFAULT NULL, key_column text DEFAULT NULL, generator_column text DEFAULT NULL,
		labels jsonb DEFAULT NULL, head_stride int DEFAULT NULL, head_epochs int DEFAULT NULL,
		batch int DEFAULT NULL, learning_rate double precision DEFAULT NULL,
		weight_decay double precision DEFAULT NULL, step_size int DEFAULT NULL, gamma double precision DEFAULT NULL,
		weighted boolean DEFAULT NULL, "precision" text DEFAULT NULL, storage text DEFAULT NULL,
		seed bigint DEFAULT NULL, max_errors int DEFAULT 0)
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON PROCEDURE dfx_train_head IS
	'train a head over three Base Models that there are';

CREATE PROCEDURE dfx_train_baseline(model text, samples regclass, image_column text DEFAULT 'image',
		label_column text DEFAULT 'label', backbone text DEFAULT NULL, recipe text DEFAULT NULL,
		task text DEFAULT NULL, group_column text DEFAULT NULL, split_column text DEFAULT NULL,
		key_column text DEFAULT NULL, generator_column text DEFAULT NULL, labels jsonb DEFAULT NULL,
		init text DEFAULT NULL, epochs int DEFAULT NULL, batch int DEFAULT NULL,
		learning_rate double precision DEFAULT NULL, weight_decay double precision DEFAULT NULL,
		step_size int DEFAULT NULL, gamma double precision DEFAULT NULL, weighted boolean DEFAULT NULL,
		flip double precision DEFAULT NULL, turn double precision DEFAULT NULL,
		shuffle double precision DEFAULT NULL, crop double precision DEFAULT NULL,
		crop_min double precision DEFAULT NULL, jpeg double precision DEFAULT NULL,
		jpeg_min double precision DEFAULT NULL, jpeg_max double precision DEFAULT NULL,
		blur double precision DEFAULT NULL, blur_min double precision DEFAULT NULL,
		blur_max double precision DEFAULT NULL, "precision" text DEFAULT NULL, storage text DEFAULT NULL,
		seed bigint DEFAULT NULL, max_errors int DEFAULT 0)
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON PROCEDURE dfx_train_baseline IS
	'train one backbone as a classifier, or what a recipe says: wang2020, guarnera2024, arshed2024';

CREATE PROCEDURE dfx_train_resume(run bigint, samples regclass DEFAULT NULL)
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON PROCEDURE dfx_train_resume(bigint, regclass) IS
	'go on with a training run that has ended before it was done, over the same rows, in the same relation or another';

CREATE FUNCTION dfx_drop_training_run(run bigint) RETURNS void
	AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dfx_drop_training_run(bigint) IS
	'forget a training run: its history, samples, errors and checkpoint; models it made stay';

CREATE FUNCTION dfx_export_checkpoint(run bigint, file text) RETURNS bigint
	AS 'MODULE_PATHNAME', 'dfx_export_checkpoint_file' LANGUAGE C;
COMMENT ON FUNCTION dfx_export_checkpoint(bigint, text) IS
	'write a training run that is not done to a file of the server, so that another server can go on with it; returns its size in bytes';

CREATE FUNCTION dfx_export_checkpoint(run bigint) RETURNS oid
	AS 'MODULE_PATHNAME', 'dfx_export_checkpoint_lo' LANGUAGE C;
COMMENT ON FUNCTION dfx_export_checkpoint(bigint) IS
	'write a training run that is not done to a new large object; returns its OID';

CREATE FUNCTION dfx_import_checkpoint(file text, model text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'dfx_import_checkpoint_file' LANGUAGE C;
COMMENT ON FUNCTION dfx_import_checkpoint(text, text) IS
	'make a training run of what dfx_export_checkpoint() wrote, for a model of that or another name; returns its number';

CREATE FUNCTION dfx_import_checkpoint(large_object oid, model text DEFAULT NULL) RETURNS bigint
	AS 'MODULE_PATHNAME', 'dfx_import_checkpoint_lo' LANGUAGE C;
COMMENT ON FUNCTION dfx_import_checkpoint(oid, text) IS
	'make a training run of what dfx_export_checkpoint() wrote, for a model of that or another name; returns its number';

CREATE FUNCTION dfx_plot_training(run bigint) RETURNS text
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION dfx_plot_training(bigint) IS
	'curves of loss and accuracy of a training run, one row of two for each phase, as SVG';

REVOKE EXECUTE ON FUNCTION dfx_import_checkpoint(text, text), dfx_import_checkpoint(oid, text) FROM PUBLIC;
REVOKE EXECUTE ON PROCEDURE dfx_train, dfx_train_base, dfx_train_head, dfx_train_baseline, dfx_train_resume FROM PUBLIC;

CREATE FUNCTION dfx_training_visible(owner text) RETURNS boolean
	AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION dfx_training_visible(text) IS
	'whether the current user may see the training runs of a role: its members, and pg_monitor';

CREATE FUNCTION dfx_training_state(run bigint, stored text) RETURNS text
	AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION dfx_training_state(bigint, text) IS
	'the state of a training run: interrupted when its row says that it is at work and no session is';

CREATE FUNCTION dfx_training_get_progress(
	OUT run bigint,
	OUT pid int,
	OUT state text,
	OUT phase text,
	OUT epoch int,
	OUT epochs int,
	OUT step bigint,
	OUT steps bigint,
	OUT images_per_second double precision,
	OUT loss double precision,
	OUT estimated_end timestamptz,
	OUT samples bigint,
	OUT errors bigint,
	OUT updated timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE ROWS 10
AS 'MODULE_PATHNAME', 'dfx_training_get_progress';
COMMENT ON FUNCTION dfx_training_get_progress() IS
	'see view dfx_training_progress';

-- The owner of the views reads the tables, dfx_training_visible() asks about the user.
CREATE VIEW dfx_training_runs WITH (security_barrier) AS
SELECT r.id AS run,
	r.name AS model,
	r.kind,
	r.options ->> 'backbone' AS backbone,
	r.relation,
	r.owner,
	dfx_training_state(r.id, r.state) AS state,
	e.phase,
	e.epoch,
	e.epochs,
	r.started,
	r.ended,
	r.device,
	r.sqlstate,
	r.error,
	(SELECT pg_catalog.count(*) FROM dfx_sample s WHERE s.run = r.id) AS samples,
	(SELECT pg_catalog.count(*) FROM dfx_training_error x WHERE x.run = r.id) AS errors,
	(SELECT c.bytes FROM dfx_checkpoint c WHERE c.run = r.id) AS checkpoint_bytes,
	r.options,
	r.source,
	r.versions,
	r.metrics
FROM dfx_training_run r
	LEFT JOIN LATERAL (SELECT t.phase, t.epoch, t.epochs FROM dfx_training_epoch t
		WHERE t.run = r.id ORDER BY t.number DESC LIMIT 1) e ON true
WHERE dfx_training_visible(r.owner);
COMMENT ON VIEW dfx_training_runs IS
	'training runs of the current user: state, the last epoch written down, versions of the models made';

CREATE VIEW dfx_training_epochs WITH (security_barrier) AS
SELECT e.*
FROM dfx_training_epoch e
	JOIN dfx_training_run r ON r.id = e.run
WHERE dfx_training_visible(r.owner);
COMMENT ON VIEW dfx_training_epochs IS
	'history of the current user''s training runs, an epoch a row';

CREATE VIEW dfx_samples WITH (security_barrier) AS
SELECT s.run,
	s.number,
	s.key,
	pg_catalog.encode(s.sha256, 'hex') AS sha256,
	s.label::dfx_class AS label,
	s.generator,
	s.split,
	ARRAY(SELECT c.name FROM (VALUES (1, 'dm'::dfx_class), (2, 'gan'), (4, 'real')) AS c (bit, name)
		WHERE s.base & c.bit <> 0 ORDER BY c.bit) AS base
FROM dfx_sample s
	JOIN dfx_training_run r ON r.id = s.run
WHERE dfx_training_visible(r.owner);
COMMENT ON VIEW dfx_samples IS
	'which row, by its key and the SHA-256 of its image, went to which split and into the subsets of which Base Models';

CREATE VIEW dfx_training_errors WITH (security_barrier) AS
SELECT x.run, x.number, x.key, x.message
FROM dfx_training_error x
	JOIN dfx_training_run r ON r.id = x.run
WHERE dfx_training_visible(r.owner);
COMMENT ON VIEW dfx_training_errors IS
	'rows that could not be samples of the current user''s training runs, and why';

CREATE VIEW dfx_training_progress WITH (security_barrier) AS
SELECT p.run, r.name AS model, p.pid, p.state, p.phase, p.epoch, p.epochs, p.step, p.steps, p.images_per_second,
	p.loss, p.estimated_end, p.samples, p.errors, p.updated
FROM dfx_training_get_progress() p
	JOIN dfx_training_run r ON r.id = p.run
WHERE dfx_training_visible(r.owner);
COMMENT ON VIEW dfx_training_progress IS
	'training runs that a session is busy with now: how far, how fast, until when';

GRANT SELECT ON dfx_training_runs, dfx_training_epochs, dfx_samples, dfx_training_errors, dfx_training_progress
	TO PUBLIC;
