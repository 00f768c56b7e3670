-- Evaluation: perturbed images, figures of merit against the same computed in SQL, and what is refused.
\getenv dir DFX_TEST_DIR
\getenv images DFX_TEST_IMAGES
SET client_min_messages = warning;
SELECT length(dfx_import_model('judge', :'dir' || '/tiny.safetensors'));

-- The surface
SELECT oid::regprocedure AS function, prorettype::regtype AS result, provolatile AS v, proparallel AS p, proisstrict AS s
	FROM pg_proc WHERE proname IN ('dfx_perturb', 'dfx_evaluate', 'dfx_confusion') ORDER BY proname;

CREATE TABLE gallery (id int PRIMARY KEY, image bytea, label text, maker text, split text);
INSERT INTO gallery
	SELECT n, pg_read_binary_file(:'images' || '/' || name), (ARRAY['dm', 'gan', 'real'])[1 + n % 3],
		CASE WHEN n % 3 < 2 THEN 'maker ' || n % 2 END, CASE WHEN n % 4 = 0 THEN 'train' ELSE 'test' END
	FROM unnest(ARRAY['photo-420-q90.jpg', 'photo-444-q75.jpg', 'photo-422-q85.jpg', 'photo-progressive.jpg',
		'jpeg-255x257.jpg', 'jpeg-90x256.jpg', 'jpeg-grey.jpg', 'jpeg-cmyk-adobe.jpg', 'jpeg-1x90.jpg', 'png-c0-b16.png',
		'png-c2-b8-adam7.png', 'png-c3-b4.png', 'png-c6-b8.png', 'png-rgb-trns.png']) WITH ORDINALITY AS file(name, n);

-- What becomes of an image
SELECT how, i.* FROM unnest(ARRAY['raw', 'jpeg:70', 'blur:7', 'scale:50', 'scale:200', 'rotate:45', 'flip', 'flip:h', 'flip:v'])
		AS how, gallery, dfx_image_info(dfx_perturb(image, how)) AS i WHERE id = 6;
SELECT how, dfx_perturb(dfx_perturb(image, how), how) = dfx_perturb(image, 'raw') AS undone
	FROM unnest(ARRAY['raw', 'flip', 'flip:h', 'flip:v']) AS how, gallery WHERE id = 3;
SELECT dfx_perturb(image, 'flip') = dfx_perturb(dfx_perturb(image, 'flip:h'), 'flip:v') AS both,
	dfx_perturb(image, 'rotate:180') = dfx_perturb(image, 'flip') AS half_a_turn,
	dfx_perturb(image, 'scale:100') = dfx_perturb(image, 'raw') AS same FROM gallery WHERE id = 3;
SELECT max(length(dfx_perturb(image, 'scale:700'))) > 1048576 AS larger_than_the_room FROM gallery WHERE id = 3;
SELECT dfx_perturb(NULL, 'raw'), dfx_perturb('x', NULL);
\set VERBOSITY default
SELECT dfx_perturb('x', 'jpeg:0');
\set VERBOSITY terse
SELECT dfx_perturb('x', 'blurred');
SELECT dfx_perturb('x', repeat('é', 100));
SELECT dfx_perturb('x', 'raw');
\set VERBOSITY sqlstate
SET dfx.max_image_pixels = 100000;
SELECT dfx_perturb(image, 'scale:1000') FROM gallery WHERE id = 6;
RESET dfx.max_image_pixels;
\set VERBOSITY terse

-- The same figures a second way: verdicts on perturbed files, counted and compared in SQL
\set how '{raw,jpeg:50,blur:7,scale:50,rotate:45,flip}'
CREATE TABLE single AS
	SELECT how, id, g.label AS truth, v.label::text AS said, v.p_synthetic, ARRAY[v.p_dm, v.p_gan, v.p_real] AS p
	FROM unnest(:'how'::text[]) AS how, gallery AS g, dfx_classify(dfx_perturb(g.image, how), 'judge') AS v;
SELECT count(*), count(DISTINCT said) > 1 AS various FROM single;
CREATE TABLE whole AS SELECT * FROM dfx_evaluate('judge', 'gallery', perturb => :'how');

CREATE VIEW counted AS
	SELECT how, truth, said, count(*) AS n FROM single GROUP BY 1, 2, 3;
SELECT count(*), count(*) FILTER (WHERE c.n IS DISTINCT FROM d.n AND (c.n > 0 OR d.n IS NOT NULL)) AS wrong
	FROM dfx_confusion('judge', 'gallery', perturb => :'how') AS c
	FULL JOIN counted AS d ON (d.how, d.truth, d.said) = (c.perturbation, c.truth::text, c.predicted::text);

CREATE VIEW class AS	-- each class of each perturbation: hits, images, verdicts
	SELECT how, class, count(*) FILTER (WHERE truth = class AND said = class) AS hits,
		count(*) FILTER (WHERE truth = class) AS images, count(*) FILTER (WHERE said = class) AS verdicts
	FROM single, unnest(ARRAY['dm', 'gan', 'real']) AS class GROUP BY 1, 2;
CREATE VIEW class_area AS
	SELECT a.how, c, avg(CASE WHEN a.p[c] > b.p[c] THEN 1 WHEN a.p[c] = b.p[c] THEN 0.5 ELSE 0 END) AS area
	FROM generate_series(1, 3) AS c, single AS a JOIN single AS b USING (how)
	WHERE a.truth = (ARRAY['dm', 'gan', 'real'])[c] AND b.truth <> a.truth GROUP BY 1, 2;
CREATE FUNCTION near(a float8, b float8) RETURNS boolean RETURN abs(a - b) < 1e-9;
SELECT w.perturbation, near(accuracy, hits / n::float8) AS accuracy, near(balanced_accuracy, recalls) AS balanced,
		near("precision", precisions) AS "precision", near(recall, recalls) AS recall, near(f1, f1s) AS f1, near(auc, area) AS auc
	FROM whole AS w,
		LATERAL (SELECT sum(hits) AS hits, avg(hits / images::float8) AS recalls,
			avg(coalesce(hits / nullif(verdicts, 0)::float8, 0)) AS precisions,
			avg(2 * hits / (images + verdicts)::float8) AS f1s FROM class WHERE how = w.perturbation) AS c,
		LATERAL (SELECT avg(area) AS area FROM class_area WHERE how = w.perturbation) AS a;

CREATE VIEW fake AS	-- and as synthetic or not
	SELECT how, truth <> 'real' AS truth, said <> 'real' AS said, p_synthetic AS p FROM single;
SELECT w.perturbation, near(binary_accuracy, right_ones / n::float8) AS accuracy,
		near(binary_balanced_accuracy, (hits / fakes::float8 + rejects / reals::float8) / 2) AS balanced,
		binary_precision IS NOT DISTINCT FROM hits / nullif(verdicts, 0)::float8 AS "precision",
		near(binary_recall, hits / fakes::float8) AS recall, near(binary_f1, 2 * hits / (fakes + verdicts)::float8) AS f1,
		near(binary_auc, area) AS auc
	FROM whole AS w,
		LATERAL (SELECT count(*) FILTER (WHERE truth = said) AS right_ones, count(*) FILTER (WHERE truth AND said) AS hits,
			count(*) FILTER (WHERE NOT truth AND NOT said) AS rejects, count(*) FILTER (WHERE truth) AS fakes,
			count(*) FILTER (WHERE NOT truth) AS reals, count(*) FILTER (WHERE said) AS verdicts
			FROM fake WHERE how = w.perturbation) AS f,
		LATERAL (SELECT avg(CASE WHEN a.p > b.p THEN 1 WHEN a.p = b.p THEN 0.5 ELSE 0 END) AS area
			FROM fake AS a JOIN fake AS b USING (how) WHERE how = w.perturbation AND a.truth AND NOT b.truth) AS a;

-- Wilson's interval holds the shares that a test at 5 % does not reject: its bounds are those where the test just does.
SELECT bool_and(near(abs(accuracy - bound), 1.959963984540054 * sqrt(bound * (1 - bound) / n))) AS wilson
	FROM whole, unnest(ARRAY[accuracy_low, accuracy_high]) AS bound WHERE bound > 0 AND bound < 1;
SELECT count(*) FILTER (WHERE NOT low <= value OR NOT value <= high OR low < 0 OR high > 1) AS wrong, count(*) > 60 AS enough
	FROM whole AS w, to_jsonb(w) AS j, jsonb_object_keys(j) AS key,
		LATERAL (SELECT (j ->> key)::float8 AS value, (j ->> (key || '_low'))::float8 AS low, (j ->> (key || '_high'))::float8 AS high)
			AS v
	WHERE j ? (key || '_low') AND j -> key <> 'null';

-- Groups, splits, mappings, views: the same images give the same counts
SELECT perturbation, group_value, n, unreadable, n = (SELECT count(*) FROM gallery WHERE maker IS NOT DISTINCT FROM group_value) AS good,
		binary_auc IS NULL AS one_kind
	FROM dfx_evaluate('judge', 'gallery', perturb => '{flip,raw}', group_by => 'maker');
SELECT sum(n) FROM dfx_confusion('judge', 'gallery', split_column => 'split');
SELECT sum(n) FROM dfx_confusion('judge', 'gallery', split_column => 'split', split => 'train');
CREATE VIEW exhibits AS SELECT id AS "No.", dfx_perturb(image, 'flip') AS "the picture",
	CASE label WHEN 'real' THEN 'taken' ELSE 'made' END AS "how it came" FROM gallery;
SELECT truth, sum(n) FROM dfx_confusion('judge', 'exhibits', 'the picture', 'how it came',
	labels => '{"taken": "real", "made": "synthetic", "unused": "dm"}') GROUP BY 1;
SELECT n, accuracy, auc, near(e.binary_accuracy, w.binary_accuracy) AS binary FROM dfx_evaluate('judge', 'exhibits', 'the picture',
	'how it came', labels => '{"taken": "real", "made": "synthetic"}') AS e(p, g, n), LATERAL (SELECT binary_accuracy FROM whole
	WHERE perturbation = 'flip') AS w;
CREATE TABLE typed AS SELECT image, label::dfx_class AS label FROM gallery;
SELECT count(*) FILTER (WHERE a IS DISTINCT FROM b) AS wrong
	FROM dfx_evaluate('judge', 'typed') AS a FULL JOIN (SELECT * FROM whole WHERE perturbation = 'raw') AS b USING (perturbation);

-- One at a time or many, with the default model or a named one
SET dfx.read_ahead = 0;
SELECT count(*) AS same FROM (SELECT * FROM dfx_evaluate('judge', 'gallery', perturb => :'how') INTERSECT SELECT * FROM whole) AS s;
SET dfx.read_ahead = 3;
SET dfx.default_model = 'judge';
SELECT count(*) AS same FROM (SELECT * FROM dfx_evaluate(NULL, 'gallery', perturb => :'how') INTERSECT SELECT * FROM whole) AS s;
RESET dfx.read_ahead;
RESET dfx.default_model;

-- Nothing there
CREATE TABLE empty (image bytea, label text, maker text);
SELECT perturbation, group_value, n, unreadable, accuracy, accuracy_low, binary_auc FROM dfx_evaluate('judge', 'empty');
SELECT count(*) FROM dfx_evaluate('judge', 'empty', group_by => 'maker');
SELECT count(*) FROM dfx_confusion('judge', 'empty');

-- Images that cannot be read
INSERT INTO gallery VALUES (20, 'no image', 'gan', 'broken'), (21, NULL, 'real', 'broken'),
	(22, substr((SELECT image FROM gallery WHERE id = 1), 1, 500), 'gan', 'broken');
SELECT n, unreadable FROM dfx_evaluate('judge', 'gallery', perturb => '{raw,blur:3}', max_errors => 3);
SELECT group_value, n, unreadable, accuracy, binary_f1 FROM dfx_evaluate('judge', 'gallery', group_by => 'maker', max_errors => NULL)
	WHERE group_value = 'broken';
SELECT truth, predicted, n FROM dfx_confusion('judge', 'gallery', max_errors => 3) WHERE predicted IS NULL;
\set VERBOSITY default
SELECT count(*) FROM dfx_evaluate('judge', 'gallery', perturb => '{raw,blur:3}', max_errors => 2);
\set VERBOSITY terse
DELETE FROM gallery WHERE id > 20;
SELECT count(*) FROM dfx_confusion('judge', 'gallery');
DELETE FROM gallery WHERE id = 20;
INSERT INTO gallery VALUES (21, NULL, 'real', 'broken');
SELECT count(*) FROM dfx_confusion('judge', 'gallery');
DELETE FROM gallery WHERE id = 21;

-- Labels that are none
UPDATE gallery SET label = 'Midjourney' WHERE id = 2;
UPDATE gallery SET label = NULL WHERE id = 3;
\set VERBOSITY default
SELECT count(*) FROM dfx_evaluate('judge', 'gallery');
\set VERBOSITY terse
SELECT count(*) FROM dfx_confusion('judge', 'gallery', labels => '{"dm": "dm"}');
SELECT count(*) FROM dfx_confusion('judge', 'gallery', labels => '{"dm": "diffusion"}');
SELECT count(*) FROM dfx_confusion('judge', 'gallery', labels => '{"dm": 1}');
SELECT count(*) FROM dfx_confusion('judge', 'gallery', labels => '["dm"]');
SELECT count(*) FROM dfx_confusion('judge', 'gallery', labels => '{}');
SELECT sum(n) FROM dfx_confusion('judge', 'gallery', group_by => 'id', split_column => 'split', split => 'train');

-- Arguments
SELECT count(*) FROM dfx_evaluate('nobody', 'empty');
SELECT count(*) FROM dfx_evaluate('judge', NULL);
SELECT count(*) FROM dfx_evaluate('judge', 0::oid::regclass);
SELECT count(*) FROM dfx_evaluate('judge', 'empty', NULL);
SELECT count(*) FROM dfx_evaluate('judge', 'empty', 'label');
SELECT count(*) FROM dfx_evaluate('judge', 'empty', 'picture');
SELECT count(*) FROM dfx_evaluate('judge', 'empty', label_column => 'class');
SELECT count(*) FROM dfx_evaluate('judge', 'empty', group_by => 'generator');
SELECT count(*) FROM dfx_evaluate('judge', 'empty', split_column => 'maker', split => NULL);
SELECT count(*) FROM dfx_evaluate('judge', 'empty', perturb => '{}');
SELECT count(*) FROM dfx_evaluate('judge', 'empty', perturb => NULL);
SELECT count(*) FROM dfx_evaluate('judge', 'empty', perturb => '{raw,NULL}');
SELECT count(*) FROM dfx_evaluate('judge', 'empty', perturb => '{raw,jpeg:101}');
SELECT count(*) FROM dfx_evaluate('judge', 'empty', perturb => array_fill('raw'::text, ARRAY[65]));
SELECT count(*) FROM dfx_evaluate('judge', 'empty', max_errors => -1);
CREATE VIEW fine AS SELECT ''::bytea AS image, 'real' AS label, n AS id FROM generate_series(1, 1001) AS n;
SELECT count(*) FROM dfx_evaluate('judge', 'fine', group_by => 'id');
SELECT slots = free AND arena_used = 0 AS all_free FROM dfx_stat_queue;

DROP VIEW fine, exhibits, fake, class_area, class, counted;
DROP TABLE gallery, single, whole, typed, empty;
DROP FUNCTION near;
SELECT dfx_drop_model('judge');
