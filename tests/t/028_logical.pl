
# Do models come through logical replication of their tables, changes included?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = dfx_node(
	'publisher',
	init   => { allows_streaming => 'logical' },
	models => ['resnet18']);
my $subscriber = dfx_node('subscriber');
dfx_images($_, 2) foreach $publisher, $subscriber;

# As the README has it
$publisher->safe_psql('postgres',
	'CREATE PUBLICATION models FOR TABLE dfx_model_version, dfx_model_tensor, dfx_model_chunk, dfx_model, dfx_model_history, dfx_model_grant'
);
my $connection = $publisher->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres',
	"CREATE SUBSCRIPTION models CONNECTION '$connection' PUBLICATION models");
$subscriber->wait_for_subscription_sync($publisher, 'models');

my $verdicts =
  "SELECT id, dfx_classify(image, 'resnet18') FROM images ORDER BY id";
my $models = 'SELECT name, version, owner FROM dfx_models ORDER BY name';

sub is_same
{
	my ($sql, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$publisher->wait_for_catchup('models');
	is($subscriber->safe_psql('postgres', $sql), $publisher->safe_psql('postgres', $sql), $test);
	return;
}

is_same($models,   'what was there before');
is_same($verdicts, '... with the same verdicts');

dfx_model($publisher, 'resnet18b');
is_same($models, 'an import');
is_same($verdicts =~ s/resnet18/resnet18b/r, '... with the same verdicts');
$publisher->safe_psql('postgres',
	"SELECT dfx_import_model('resnet18', '$ENV{DFX_TEST_DIR}/resnet18b.safetensors')");
is_same($models,   'a new version');
is_same($verdicts, '... with its verdicts');
$publisher->safe_psql('postgres',
	"SELECT dfx_promote_model('resnet18', encode(version, 'hex')) FROM dfx_model_history WHERE name = 'resnet18' ORDER BY since LIMIT 1");
$publisher->safe_psql('postgres', "SELECT dfx_rename_model('resnet18b', 'other')");
is_same('SELECT * FROM dfx_model_history ORDER BY name, since', 'a rollback, and a name\'s history after a rename');
$publisher->safe_psql('postgres', "SELECT dfx_prune_model('resnet18', 1); SELECT dfx_drop_model('other')");
is_same($models, 'a model is dropped');
is_same('SELECT count(*) FROM dfx_model_chunk', '... and its rows go');
is_same($verdicts, '... the other one is whole');

done_testing();
