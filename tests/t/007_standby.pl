
# Does a hot standby give the same verdicts, before and after its promotion?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = dfx_node(
	'primary',
	init   => { allows_streaming => 1 },
	models => ['resnet18']);
dfx_images($primary, 2);
my $classify = 'SELECT id, dfx_classify(image) FROM images ORDER BY id';
my $expected = $primary->safe_psql('postgres', $classify);

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

is($standby->safe_psql('postgres', $classify),
	$expected, 'a standby gives the same verdicts');
my $evaluate =
  q{SELECT * FROM dfx_evaluate('resnet18', 'images', label_column => 'name', perturb => '{jpeg:70}',
	labels => '{"noise 1": "real", "noise 2": "gan"}')};
is($standby->safe_psql('postgres', $evaluate),
	$primary->safe_psql('postgres', $evaluate),
	'... and evaluates alike');
my $file = "$ENV{DFX_TEST_DIR}/resnet18b.safetensors";
state_is(
	$standby, "SELECT dfx_import_model('other', '$file')",
	'25006',  'import is refused on a standby');
state_is(
	$standby, "SELECT dfx_drop_model('resnet18')",
	'25006',  'drop is refused on a standby');
state_is(
	$standby, "SELECT dfx_set_default_model('resnet18')",
	'25006',  'setting the default is refused on a standby');

$standby->safe_psql('postgres',
	"SELECT dfx_evict('resnet18'); SELECT dfx_preload('resnet18')");
is( $standby->safe_psql(
		'postgres',
		"SELECT resident, loads FROM dfx_stat_models WHERE names = '{resnet18}'"
	),
	't|2',
	'evicting and preloading are not');

# What the primary imports arrives by replication
dfx_model($primary, 'resnet18b');
$primary->wait_for_catchup($standby);
my $other =
  "SELECT id, dfx_classify(image, 'resnet18b') FROM images ORDER BY id";
is( $standby->safe_psql('postgres', $other),
	$primary->safe_psql('postgres', $other),
	'a model imported on the primary serves on the standby');
isnt($standby->safe_psql('postgres', $other),
	$expected, '... and is another model');

my $engine = engine_pid($standby);
$primary->stop;
$standby->promote;
is($standby->safe_psql('postgres', $classify),
	$expected, 'after promotion, the same verdicts');
is(engine_pid($standby), $engine, '... by the same engine');
is(sql($standby, "SELECT dfx_drop_model('resnet18b')")->{state},
	'00000', '... and models can be changed');

done_testing();
