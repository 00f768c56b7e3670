
# Does dfx_quantize make a version that runs on 8-bit integers, say what that costs, and leave nothing behind when it fails?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($devices) = run_command([ $ENV{DFX_TEST_ENGINE}, 'devices', '--json' ]);
plan skip_all => 'this CPU, or its oneDNN, has no fast 8-bit integers'
  unless $devices =~ /int8/;

my $node = dfx_node('quantize', conf => "dfx.queue_slots = 32\ndfx.max_batch = 4\n");
my $dir  = $node->basedir;
dfx_images($node, 24);

sub import_random
{
	my ($name, $backbone, $kind, $classes) = @_;
	my $file = "$dir/$name.safetensors";

	run_log(
		[   $ENV{DFX_TEST_ENGINE}, 'init', '--backbone', $backbone, '--kind', $kind, '--classes', $classes,
			'--random-weights', 3, '--out', $file
		]) or die "no model $name";
	$node->safe_psql('postgres', "SELECT dfx_import_model('$name', '$file')");
	return;
}

sub value { return $node->safe_psql('postgres', shift); }

import_random('tiny', 'test_tiny', 'classifier', 'dm,gan,real');
my $version  = "SELECT version FROM dfx_models WHERE name = 'tiny'";
my $floats   = value($version);
my $verdicts = 'SELECT string_agg(v::text, chr(10) ORDER BY id) FROM images, dfx_classify(image, \'%s\') v';
my $fp32     = value(sprintf $verdicts, 'tiny');
my $call     = "CALL dfx_quantize('tiny', 'samples', label_column => 'label'";

# Labels that the model in fp32 gives: what it loses is then what changed
value(
	q{CREATE TABLE samples AS SELECT image, (dfx_classify(image, 'tiny')).label::text AS label FROM images});

# Before
state_is($node, "SET dfx.precision = 'int8'; SELECT dfx_classify(image, 'tiny') FROM images LIMIT 1",
	'0A000', 'a model that is not calibrated does not run in int8', qr/not been calibrated.*dfx_quantize/s);

# The report
my $versions = 'SELECT count(*) FROM dfx_model_version';
my @report   = split /\|/, value("$call, new_model => 'small')");
is(value($version), $floats, 'with a new name the model stays what it was');
is( value("SELECT version FROM dfx_models WHERE name = 'small'"),
	$report[0], 'the report names the version');
is("@report[2, 3]", '12 12', 'every other row calibrates, the rest is compared');
cmp_ok($report[1], '>', 3, 'most convolutions are calibrated');
ok( $report[5] > 0 && $report[5] <= $report[6] && $report[6] < 0.2,
	'probabilities differ, and not by much')
  or diag("@report");
ok( $report[7] == 1 && abs($report[8] - (1 - $report[4] / 12)) < 1e-9,
	'accuracies are told by the labels, before and after')
  or diag("@report");
is( value("SELECT metrics->'quantization'->>'max_difference' FROM dfx_models WHERE name = 'small'"),
	$report[6], 'the version keeps the report as its metrics');

# What the precision does with it
my $runs_in = "SELECT string_agg(precision, ',' ORDER BY precision) FROM dfx_stat_models WHERE '%s' = ANY (names)";
is(value(sprintf $runs_in, 'small'), 'int8', 'it was loaded for int8');
my $auto = value(sprintf $verdicts, 'small');
isnt($auto =~ s/,small,\w+//gr, $fp32 =~ s/,tiny,\w+//gr, 'auto is int8 for a calibrated model');
is(value("SET dfx.precision = 'int8'; " . sprintf $verdicts, 'small'), $auto, '... which int8 says as well');
is( value("SET dfx.precision = 'fp32'; " . sprintf $verdicts, 'small') =~ s/,small,\w+//gr,
	$fp32 =~ s/,tiny,\w+//gr,
	'in fp32 it is the model that it was made of');
is(value(sprintf $runs_in, 'small'), 'fp32,int8', '... beside the other');

# Out and in again, and what the command line makes of it
value("SELECT dfx_export_model('small', '$dir/small.safetensors')");
is( value("SELECT dfx_import_model('again', '$dir/small.safetensors')"),
	$report[0], 'exported and imported it is the same version');
my $image = value('SELECT image FROM images WHERE id = 1');
open my $out, '>:raw', "$dir/1.png" or die $!;
print $out pack 'H*', substr $image, 2;
close $out or die $!;
my ($told) = run_command(
	[ $ENV{DFX_TEST_ENGINE}, 'classify', '--json', '--model', "$dir/small.safetensors", "$dir/1.png" ]);
my ($confidence) = $told =~ /"confidence":\s*([0-9.e-]+)/;
is( value("SELECT ($confidence)::real = v.confidence FROM images, dfx_classify(image, 'small') v WHERE id = 1"),
	't', 'the command line gives the same verdict');

# In place, and once more over a version that is calibrated already
value("$call)");
isnt(value($version), $floats, 'without a new name the model gets a new version');
@report = split /\|/, value("$call, images => 3)");
is("@report[0, 2, 3]", value($version) . ' 3 3', 'again, on as many images as asked for');
is( value("SET dfx.precision = 'fp32'; " . sprintf $verdicts, 'tiny') =~ s/,tiny,\w+//gr,
	$fp32 =~ s/,tiny,\w+//gr,
	'... from the same weights');

# Mistakes leave nothing behind
my $before = value($versions);
state_is($node, 'CALL dfx_quantize(NULL, \'samples\')', '22004', 'no model');
state_is($node, 'CALL dfx_quantize(\'tiny\', NULL)', '22004', 'no samples');
state_is($node, 'CALL dfx_quantize(\'tiny\', \'samples\', images => 0)', '22023', 'no images');
state_is($node, 'CALL dfx_quantize(\'none\', \'samples\')', '42704', 'no such model');
state_is($node, 'CALL dfx_quantize(\'tiny\', \'samples\', \'label\')', '42804', 'a column of another type');
value('CREATE TABLE empty (image bytea)');
state_is($node, 'CALL dfx_quantize(\'tiny\', \'empty\')', '22023', 'a relation without rows', qr/no images/);
value('CREATE VIEW bad AS SELECT image FROM images UNION ALL SELECT NULL UNION ALL SELECT \'no image\'');
like(sql($node, "CALL dfx_quantize('tiny', 'bad', max_errors => 1)")->{state},
	qr/^22(004|P03)$/, 'one image more than may be unreadable');
import_random('flow', 'efficientnet_b0', 'classifier', 'synthetic,real');
$before++;
state_is($node, "CALL dfx_quantize('flow', 'samples')",
	'0A000', 'a network that is not covered is refused by name', qr/efficientnet_b0.*DenseNets and ResNets/s);
is(value($versions), $before, 'none of these made a version');
@report = split /\|/, value("CALL dfx_quantize('tiny', 'bad', new_model => 'most', max_errors => 2)");
is($report[2] + $report[3], 24, 'with max_errors the others do');
ok(queue_is_free($node), 'every slot is free');

# Rights
value(q{
CREATE ROLE owner LOGIN; CREATE ROLE guest LOGIN;
SELECT dfx_alter_model_owner('small', 'owner');
GRANT SELECT ON empty TO guest});
sub as_guest
{
	my ($sql, $state, $test) = @_;
	state_is($node, "SET SESSION AUTHORIZATION guest; $sql", $state, $test);
	return;
}
as_guest("CALL dfx_quantize('small', 'empty', new_model => 'mine')", '42501', 'a model that one may not use');
value(q{SELECT dfx_grant_model('small', 'guest')});
as_guest("CALL dfx_quantize('small', 'empty')", '42501', 'a model that is not one\'s own');
as_guest("CALL dfx_quantize('small', 'samples', new_model => 'mine')", '42501', 'rows that one may not read');
value('GRANT SELECT ON samples TO guest');
as_guest("CALL dfx_quantize('small', 'samples', new_model => 'mine')", '00000', 'one\'s own version of a model to use');
is(value("SELECT owner FROM dfx_models WHERE name = 'mine'"), 'guest', '... is one\'s own');

# An engine that dies in the middle
value(q{CREATE VIEW slow AS SELECT convert_to('DFXTEST:SLEEP 300 ', 'UTF8') || image AS image FROM images});
my $job = start_sql($node, "CALL dfx_quantize('tiny', 'slow', new_model => 'survivor')", name => 'killed');
session_pid($node, 'killed');
kill_engine($node);
is(finish_sql($job)->{state}, '00000', 'the engine is killed: no error');
ok(queue_is_free($node), '... and every slot is free');

# Canceled
$job = start_sql($node, "CALL dfx_quantize('tiny', 'slow', new_model => 'never')", name => 'canceled');
value('SELECT pg_cancel_backend(' . session_pid($node, 'canceled') . ')');
is(finish_sql($job)->{state}, '57014', 'canceled');
ok(queue_is_free($node), '... every slot is free');
is(value("SELECT count(*) FROM dfx_models WHERE name = 'never'"), '0', '... and there is no model');

# A CPU without it: the library is told to use nothing newer than AVX2.
my $wrapper = "$dir/old-cpu";
append_to_file($wrapper, "#!/bin/sh\nONEDNN_MAX_CPU_ISA=AVX2 exec '$ENV{DFX_TEST_ENGINE}' \"\$@\"\n");
chmod 0755, $wrapper;
$node->append_conf('postgresql.conf', "dfx.engine_path = '$wrapper'\n");
$node->restart;
value(sprintf $verdicts, 'small');
is(value(sprintf $runs_in, 'small'), 'fp32', 'on a CPU without int8 auto runs the weights that there are');
state_is($node, "SET dfx.precision = 'int8'; SELECT dfx_classify(image, 'small') FROM images LIMIT 1",
	'0A000', '... and int8 is refused', qr/int8: this CPU has no VNNI/);
$before = value($versions);
state_is($node, "CALL dfx_quantize('tiny', 'samples', new_model => 'never')",
	'0A000', '... where nothing can be compared with it', qr/does not run in precision int8/);
is(value($versions), $before, '... and no version is left');

done_testing();
