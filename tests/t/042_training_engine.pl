
# Can a user with a table train, interrupt, move, evaluate and use models of every kind?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('engine');
dfx_images($node, 60);
put_image($node, 'broken', 'no image at all');
$node->safe_psql(
	'postgres', q{
ALTER TABLE images ADD label text, ADD maker text;
ALTER TABLE images ADD part text;
UPDATE images SET part = (ARRAY['base', 'base', 'base_train', 'base_train', 'base_val', 'head_train', 'head_train',
	'head_val', 'head_val', 'test'])[id / 3 % 10 + 1];
UPDATE images SET label = (ARRAY['diffusion', 'gan', 'photo'])[id % 3 + 1], maker = 'maker ' || (id % 3) || (id / 3 % 2);
});

my $common = q{backbone => 'test_tiny', key_column => 'name', split_column => 'part',
	labels => '{"diffusion": "dm", "gan": "gan", "photo": "real"}', seed => 5, batch => 8, epochs => 2, max_errors => 1};

sub train
{
	my ($procedure, $model, $more) = @_;

	$more = join ', ', 'share => 0.66', $more // () if $procedure !~ /baseline/;
	return "CALL $procedure('$model', 'images', $common" . ($more ? ", $more" : '') . ')';
}

sub version
{
	my ($model) = @_;

	return $node->safe_psql('postgres', "SELECT version FROM dfx_models WHERE name = '$model'");
}

# Everything at once
state_is($node, train('dfx_train', 'whole', 'head_epochs => 3'), '00000', 'dfx_train', qr/head, epoch 3 of 3/);
is( $node->safe_psql(
		'postgres',
		q{SELECT state, samples, errors, kind, backbone, device LIKE '%CPU%' OR device <> '', metrics IS NOT NULL, ended > started
	FROM dfx_training_runs WHERE model = 'whole'}),
	'done|60|1|trinet|test_tiny|t|t|t',
	'its row');
is( $node->safe_psql('postgres', 'SELECT key, message IS NOT NULL FROM dfx_training_errors'),
	'broken|t',
	'the row that is no image');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(phase || epochs, ' ' ORDER BY first) FROM
	(SELECT phase, count(*) AS epochs, min(number) AS first FROM dfx_training_epochs GROUP BY phase) AS p}),
	'dm2 gan2 real2 head3',
	'its phases');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM dfx_samples WHERE split LIKE 'base%' AND label = ANY (base)
	UNION ALL SELECT count(*) FROM dfx_samples WHERE split LIKE 'base%'}) =~ /^(\d+)\n\1$/ ? 1 : 0,
	1,
	'every image of the Base Models serves its class');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM images, dfx_try_classify(image, 'whole') AS v WHERE v.label IS NOT NULL}),
	60,
	'the model classifies');
like(
	$node->safe_psql('postgres', 'SELECT dfx_plot_training(run) FROM dfx_training_runs'),
	qr/>head: accuracy</, 'its curves');

# The same again, with an end in the middle: the same numbers
state_is($node, train('dfx_train', 'again', 'head_epochs => 3'), '00000', 'again');
is(version('again'), version('whole'), 'the same seed gives the same version');
isnt(version('whole'), '', '... which there is');

my $run = start_sql($node, train('dfx_train', 'cut', 'head_epochs => 3'), name => 'cut');
$node->poll_query_until('postgres',
	q{SELECT count(*) > 2 FROM dfx_training_epochs JOIN dfx_training_runs USING (run) WHERE model = 'cut'});
$node->stop('immediate');
finish_sql($run);
$node->start;
is( $node->safe_psql('postgres',
		q{SELECT state FROM dfx_training_runs WHERE model = 'cut' AND state <> 'done'}),
	'interrupted',
	'a crash of the server interrupts');
$node->safe_psql('postgres', 'CREATE TABLE shuffled AS SELECT * FROM images ORDER BY md5(name)');
state_is(
	$node,
	q{DO $$DECLARE r bigint; BEGIN
	SELECT run INTO r FROM dfx_training_runs WHERE model = 'cut'; CALL dfx_train_resume(r, 'shuffled'); END$$},
	'00000',
	'resumed over the same rows elsewhere, in another order');
is(version('cut'), version('whole'), '... it ends with the same version');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(DISTINCT (number, phase, epoch, train_loss, val_loss, val_accuracy)), count(*)
	FROM dfx_training_epochs}),
	'9|27',
	'... and with the same history');

# The parts, from parts
foreach my $class ('dm', 'gan', 'real')
{
	state_is($node, train('dfx_train_base', "base_$class", "main_class => '$class'"), '00000', "dfx_train_base: $class");
}
state_is(
	$node,
	"CALL dfx_train_head('assembled', 'images', 'base_dm', 'base_gan', 'base_real', key_column => 'name', split_column => 'part',
	labels => '{\"diffusion\": \"dm\", \"gan\": \"gan\", \"photo\": \"real\"}', seed => 5, batch => 8, head_epochs => 2, max_errors => 1)",
	'00000',
	'dfx_train_head');
state_is($node, train('dfx_train_baseline', 'three'), '00000', 'dfx_train_baseline');
state_is($node, train('dfx_train_baseline', 'wang', "recipe => 'wang2020', init => 'three'"),
	'00000', 'a recipe, from the weights of another model');
is( $node->safe_psql(
		'postgres',
		q{SELECT options ->> 'task', options ->> 'backbone', options ->> 'jpeg_max', source -> 'init' -> 0 ->> 'model'
	FROM dfx_training_runs WHERE model = 'wang'}),
	'binary|test_tiny|100|three',
	'... whose options are those of the recipe, but for what was said');
state_is($node, train('dfx_train_baseline', 'guarnera', "recipe => 'guarnera2024', generator_column => 'maker'"),
	'00000', 'a hierarchy');
is( $node->safe_psql(
		'postgres',
		q{SELECT name, kind, (dfx_classify((SELECT image FROM images WHERE name = 'noise 1'), name)).label IS NOT NULL
	FROM dfx_models WHERE name IN ('assembled', 'three', 'wang', 'guarnera') ORDER BY name}),
	"assembled|trinet|t\nguarnera|hierarchy|t\nthree|classifier|t\nwang|classifier|t",
	'all of them classify');
is( $node->safe_psql(
		'postgres',
		q{SELECT array_length(dfx_features(image, 'base_dm'), 1) FROM images WHERE name = 'noise 1'}),
	64,
	'... but a Base Model, which gives features');

done_testing();
