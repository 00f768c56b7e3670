-- What needs no model: NULLs, arguments, descriptions of images, refusals.
CREATE EXTENSION deepfeaturex;
\getenv images DFX_TEST_IMAGES

-- The surface: every function, its result and whether it can see other rows' changes.
SELECT p.oid::regprocedure AS function, p.prorettype::regtype AS result, p.provolatile AS v, p.proparallel AS p
	FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
		AND p.proname ~ '^dfx_(classify|try_classify|synthetic|features|image_info|flag|reject|.*_model|preload|model_usable)$'
	ORDER BY p.proname, p.pronargs, 1;

-- A NULL image is NULL before anything is asked for, a model included.
SELECT dfx_classify(NULL), dfx_try_classify(NULL), dfx_synthetic(NULL), dfx_features(NULL), dfx_image_info(NULL);
SELECT dfx_classify(NULL, 'nobody') IS NULL AS null_image;

-- No model, unknown model
SELECT dfx_classify('x');
\set VERBOSITY terse
SELECT dfx_try_classify('x');
SELECT dfx_synthetic('x');
SELECT dfx_features('x');
SELECT dfx_preload();
SELECT dfx_classify('x', 'nobody');
SELECT dfx_classify('x', '');
SELECT dfx_export_model('nobody');
SELECT dfx_drop_model('nobody');
SELECT dfx_grant_model('nobody', 'public');
SELECT dfx_revoke_model('nobody', 'public');
SELECT dfx_set_default_model('nobody');
SELECT dfx_model_usable('nobody'), dfx_model_usable(NULL);
SELECT count(*) FROM dfx_models;

-- Arguments
SELECT dfx_import_model(NULL, 'x');
SELECT dfx_import_model('m', NULL::text);
SELECT dfx_import_model('m', NULL::oid);
SELECT dfx_import_model('', 'x');
SELECT dfx_import_model(repeat('m', 64), 'x');
SELECT dfx_drop_model(NULL);
SELECT dfx_export_model('m', NULL);
SELECT dfx_grant_model('m', NULL);

-- What an image is
SELECT name, i.*
	FROM unnest(ARRAY['photo-420-q90.jpg', 'photo-progressive.jpg', 'jpeg-grey.jpg', 'jpeg-cmyk-adobe.jpg',
			'png-c0-b1.png', 'png-c2-b16.png', 'png-c3-b8.png', 'png-c6-b8-adam7.png']) AS name,
		dfx_image_info(pg_read_binary_file(:'images' || '/' || name)) AS i;

-- What is none.  The wording is the decoder's; the class is ours.
\set VERBOSITY sqlstate
SELECT dfx_image_info('');
SELECT dfx_image_info('hello');
SELECT dfx_image_info('GIF89a');
SELECT dfx_image_info(substr(pg_read_binary_file(:'images' || '/photo-420-q90.jpg'), 1, 20));
SELECT dfx_image_info(substr(pg_read_binary_file(:'images' || '/png-c2-b8-adam7.png'), 1, 20));
