
# Does dfx_quantize leave those blocks in floating point that would move verdicts too far, and only then?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($devices) = run_command([ $ENV{DFX_TEST_ENGINE}, 'devices', '--json' ]);
plan skip_all => 'this CPU, or its oneDNN, has no fast 8-bit integers'
  unless $devices =~ /int8/;

my $node = dfx_node('blocks', conf => "dfx.queue_slots = 32\ndfx.max_batch = 4\n");
dfx_images($node, 8);
$node->safe_psql('postgres', 'SELECT dfx_install_starter_model()');
$node->safe_psql('postgres', q{CREATE TABLE mixed AS
	SELECT image FROM images UNION ALL SELECT dfx_perturb(image, 'blur:15') FROM images});
my $file = $node->basedir . '/plain.safetensors';
run_log([ $ENV{DFX_TEST_ENGINE}, 'init', '--backbone', 'densenet121', '--kind', 'classifier', '--classes', 'dm,gan,real',
	'--random-weights', 3, '--out', $file ]) or die 'no model';
$node->safe_psql('postgres', "SELECT dfx_import_model('plain', '$file')");

# Half of the images are of noise, half smooth.  The starter model measures what is faint, and of smooth ones a step that
# noise needs leaves little; a network of random weights does not mind.
sub check
{
	my ($model, $branches, $some) = @_;
	my ($name, $block) = ("${model}_int8", 12 * $branches);
	my ($rc, $out, $err, @left);

	# Which images calibrate is drawn, and now and then a draw does well.
	for (my $draw = 0; $draw < ($some ? 6 : 1) && !@left; $draw++)
	{
		($rc, $out, $err) = $node->psql('postgres', "CALL dfx_quantize('$model', 'mixed', new_model => '$name')");
		@left = $err =~ /differ by [0-9.]+ on average: block (\d) stays in floating point/g;
	}
	my ($version, $convolutions, $calibrated, $compared, $changed, $mean) = split /\|/, $out;
	my $scales = q{SELECT count(*) FROM dfx_model_tensor t JOIN dfx_model m USING (version)
		WHERE m.name = '%s' AND t.name ~ '%s.*[.]input_scale$'};
	my $kept = sub { return $node->safe_psql('postgres', sprintf $scales, $name, shift); };

	is($rc, 0, "$model: calibrated") or diag($err);
	ok($some ? @left > 0 : @left == 0, '... ' . @left . ' blocks stay in floating point, told in notices')
	  or diag("$out\n$err");
	is($convolutions, 116 * $branches - $block * (@left > 0) - 2 * $block * (@left > 1), '... the report counts what is on integers');
	is($kept->(''), $convolutions, '... and the version has no other scales');
	is($kept->('transition'), 0, '... transitions have none');
	is($kept->("denseblock$_"), 0, "... nor has block $_") foreach @left;
	ok(@left == 2 || $mean <= 0.02, '... probabilities hold, or all was tried') or diag($out);
	return;
}

check('starter', 3, 1);
check('plain', 1, 0);
is( $node->safe_psql(
		'postgres', 'SELECT count(*) FROM dfx_model_version WHERE version NOT IN (SELECT version FROM dfx_model_history)'),
	'0', 'what was tried is not left behind');
ok(queue_is_free($node), 'every slot is free');
done_testing();
