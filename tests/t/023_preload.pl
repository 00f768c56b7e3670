
# Does every engine load the models of dfx.preload_models, and does a list that is partly wrong harm nobody?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The list names what does not exist (yet).
my $node = dfx_node(
	'preload',
	init => { allows_streaming => 1 },
	conf =>
	  "dfx.preload_models = 'postgres.resnet18, other.b , nowhere.m,postgres.nobody'\n",
	models => [ 'resnet18', 'resnet18b' ]);
dfx_images($node, 1);
is(sql($node, 'SELECT dfx_ping()')->{state},
	'00000', 'a list of databases and models that are not there delays nothing');
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other',    'CREATE EXTENSION deepfeaturex');
$node->safe_psql('other',
	"SELECT dfx_import_model('b', '$ENV{DFX_TEST_DIR}/resnet18b.safetensors')"
);

# "loads hits" of each version by name, resident ones only
my $resident =
  q{SELECT string_agg(names::text || ' ' || loads || ' ' || hits, ', ' ORDER BY names)}
  . q{ FROM dfx_stat_models WHERE resident};

sub becomes
{
	my ($where, $expected, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok($where->poll_query_until('postgres', $resident, $expected), $test);
	return;
}
my $both = '{resnet18} 1 0, {resnet18b} 1 0';

my $from = -s $node->logfile;
$node->restart;
becomes($node, $both,
	'after a start, the models of two databases are there before anyone asks'
);
ok($node->poll_query_until(
		'postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'deepfeaturex preload'"
	),
	'... and the workers are gone');
my $log = slurp_file($node->logfile, $from);
like(
	$log,
	qr/could not preload model "nobody" of database "postgres": model "nobody" does not exist/,
	'... a model that does not exist is logged');
like($log, qr/database "nowhere" does not exist/,
	'... and so is a database');
is( $node->safe_psql(
		'postgres', 'SELECT count(dfx_classify(image)) FROM images'),
	1,
	'they serve');

# Another engine: preloaded again
kill_engine($node);
becomes($node, $both, 'a new engine has them too');
my $supervisor = supervisor_pid($node);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($supervisor)");
ok( $node->poll_query_until(
		'postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'deepfeaturex supervisor' AND pid <> $supervisor"
	),
	'a new supervisor');
becomes($node, $both, '... sees to it as well');

# A change of the list reaches the engine that is there
my $engine = engine_pid($node);
$node->safe_psql('postgres',
	"SELECT dfx_evict('resnet18'); SELECT dfx_evict('resnet18b')");
$node->reload;
$node->safe_psql('postgres', 'SELECT pg_sleep(1)');
is($node->safe_psql('postgres', $resident),
	'', 'a reload without a change loads nothing');
$node->safe_psql('postgres',
	"SELECT dfx_copy_model('resnet18b', 'odd \"name\", v1.2')");
$node->safe_psql('postgres',
	q{ALTER SYSTEM SET dfx.preload_models = ' "postgres"."odd ""name"", v1.2" '}
);
$node->reload;
becomes(
	$node,
	'{"odd \"name\", v1.2",resnet18b} 2 0',
	'a change of the list loads what it names, whatever its name');
is(engine_pid($node), $engine, '... into the same engine');

# What is no list
foreach my $bad ('resnet18', 'postgres.', '.m', 'a.b,', ',a.b', 'a.b c.d,,',
	'"a".b"c', '"a.b', '"a"""', 'a."b""', 'a."b"c', 'x' x 64 . '.m')
{
	state_is($node, "ALTER SYSTEM SET dfx.preload_models = '$bad'",
		'22023', "refused: $bad");
}

# On a standby
$node->safe_psql('postgres',
	"ALTER SYSTEM SET dfx.preload_models = 'postgres.resnet18'");
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('preload_standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
becomes($standby, '{resnet18} 1 0', 'a standby preloads too');
is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'),
	't', '... as a standby');

done_testing();
