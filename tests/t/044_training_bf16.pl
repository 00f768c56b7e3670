
# Does "precision => 'bf16'" train from SQL, to the same model again, interrupted or not?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('bf16');
dfx_images($node, 60);
$node->safe_psql(
	'postgres', q{
ALTER TABLE images ADD label text, ADD part text;
UPDATE images SET part = (ARRAY['base', 'base', 'base_train', 'base_val', 'head_train', 'head_val', 'test'])[id / 3 % 7 + 1];
UPDATE images SET label = (ARRAY['dm', 'gan', 'real'])[id % 3 + 1];
});

sub train
{
	my ($model, $precision) = @_;

	return "CALL dfx_train('$model', 'images', backbone => 'test_tiny', key_column => 'name', split_column => 'part',
	seed => 5, batch => 8, share => 0.66, epochs => 2, head_epochs => 3, \"precision\" => '$precision')";
}

sub version
{
	my ($model) = @_;

	return $node->safe_psql('postgres', "SELECT version FROM dfx_models WHERE name = '$model'");
}

# The engine says whether this CPU has it.
my $whole = sql($node, train('whole', 'bf16'));
if ($whole->{state} eq '0A000' && $whole->{err} =~ /(this CPU has neither avx512_bf16 nor amx_bf16[^\n]*)/)
{
	plan skip_all => $1;
}
is($whole->{state}, '00000', 'a whole run') or diag $whole->{err};
is( $node->safe_psql(
		'postgres',
		q{SELECT state, options ->> 'precision', metrics IS NOT NULL FROM dfx_training_runs WHERE model = 'whole'}),
	'done|bf16|t',
	'its row');
is( $node->safe_psql(
		'postgres', q{SELECT count(*) FROM images, dfx_classify(image, 'whole') AS v WHERE v.label IS NOT NULL}),
	60,
	'its model classifies');

state_is($node, train('fp32', 'fp32'), '00000', 'in fp32');
isnt(version('fp32'), version('whole'), '... it becomes another model');

my $run = start_sql($node, train('cut', 'bf16'), name => 'cut');
$node->poll_query_until('postgres',
	q{SELECT count(*) > 2 FROM dfx_training_epochs JOIN dfx_training_runs USING (run) WHERE model = 'cut'});
$node->safe_psql('postgres',
	q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cut'});
finish_sql($run);
state_is(
	$node,
	q{DO $$DECLARE r bigint; BEGIN
	SELECT run INTO r FROM dfx_training_runs WHERE model = 'cut'; CALL dfx_train_resume(r); END$$},
	'00000',
	'terminated and resumed');
is(version('cut'), version('whole'), '... it ends with the same version');

state_is($node, train('half', 'fp16'), '0A000', 'fp16 is refused by name', qr/fp16/);

done_testing();
