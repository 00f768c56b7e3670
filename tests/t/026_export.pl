
# Is an exported model, imported into another cluster, the same version with the same verdicts?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $here  = dfx_node('here', models => ['resnet18']);
my $there = dfx_node('there');
my $file  = $here->basedir . '/model.safetensors';
dfx_images($_, 4) foreach $here, $there;

# float4 is written so that reading gives the same bits again
my $verdicts =
  "SELECT id, dfx_classify(image, 'resnet18') FROM images ORDER BY id";
my $features =
  "SELECT md5(string_agg(dfx_features(image, 'resnet18')::text, ',' ORDER BY id)) FROM images";
my $version =
  "SELECT version, kind, backbone, options, bytes FROM dfx_models WHERE name = 'resnet18'";

is( $here->safe_psql('postgres', "SELECT dfx_export_model('resnet18', '$file')"),
	-s $file,
	'exported: the size is what it says');
$there->safe_psql('postgres', "SELECT dfx_import_model('resnet18', '$file')");
is($there->safe_psql('postgres', $_), $here->safe_psql('postgres', $_), 'there: ' . s/ FROM.*//r)
  foreach $version, $verdicts, $features;

is( $there->safe_psql(
		'postgres', "SELECT dfx_export_model('resnet18', '$file.again')"),
	-s $file,
	'exported again from there');
ok(slurp_file("$file.again") eq slurp_file($file), '... the same file');

# Through a client: no server file, no file privilege
my $lo = $here->safe_psql('postgres', "SELECT dfx_export_model('resnet18')");
$here->command_ok(
	[ 'psql', '-qXd', $here->connstr('postgres'), '-c', "\\lo_export $lo $file.client" ],
	'a large object, fetched by a client');
ok(slurp_file("$file.client") eq slurp_file($file), '... is the same file too');

# A session that is terminated before its file is whole takes it with it
my $locker = $here->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE dfx_model_tensor');
my $job = start_sql($here, "SELECT dfx_export_model('resnet18', '$file.ended')", name => 'export');
my $export = "FROM pg_stat_activity WHERE application_name = 'export'";
ok($here->poll_query_until('postgres', "SELECT count(*) = 1 $export AND wait_event_type = 'Lock'"), 'an export that waits');
my @left = glob "$file.ended*";
is(scalar(@left), 1, '... has begun a file');
$here->safe_psql('postgres', "SELECT pg_terminate_backend(pid) $export");
is(finish_sql($job)->{state}, '57P01', '... is terminated');
ok(defined wait_for(sub { @left = glob "$file.ended*"; return !@left }), '... and leaves none');
$locker->quit;

done_testing();
