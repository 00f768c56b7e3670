
# Does the server start, and say why, when the library or its engine cannot serve?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('unavailable', models => ['resnet18']);
dfx_images($node, 1);
my $classify = 'SELECT dfx_classify(image) FROM images';
my $expected = $node->safe_psql('postgres', $classify);

# A device that is not there.  The test engine stands alone in its directory,
# so that no CUDA backend is beside it on any machine.
$node->append_conf('postgresql.conf', "dfx.device = 'cuda'");
$node->restart;
is($node->safe_psql('postgres', 'SELECT 1'),
	1, 'the server starts without its device');
state_is($node, $classify, '57P03', 'no such device', qr/cuda/i);
like(
	$node->safe_psql(
		'postgres', 'SELECT last_error FROM dfx_engine_status()'),
	qr/cuda/i,
	'dfx_engine_status says which');
$node->safe_psql('postgres', "ALTER SYSTEM SET dfx.device = 'cpu'");
$node->reload;
ok(defined service_is_back($node), 'a reload brings service back');
is($node->safe_psql('postgres', $classify),
	$expected, '... with the same verdict');

# A device that goes away under a running server
$node->safe_psql('postgres', "ALTER SYSTEM SET dfx.device = 'cuda'");
$node->reload;
ok( defined wait_for(sub { return sql($node, $classify)->{state} eq '57P03' }
	),
	'a reload to an absent device is refused service');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET dfx.device');
$node->append_conf('postgresql.conf', "dfx.device = 'cpu'");
$node->reload;
ok(defined service_is_back($node), '... until the next reload');

# No engine at all
$node->append_conf('postgresql.conf',
	"dfx.engine_path = '/nonexistent/dfx-engine'");
$node->restart;
is($node->safe_psql('postgres', 'SELECT 1'),
	1, 'the server starts without an engine');
my $refused = state_is($node, $classify, '57P03', 'no engine',
	qr{/nonexistent/dfx-engine});
cmp_ok($refused->{seconds}, '<', 10, '... is said within seconds');

# No supervisor: there is no room for one more background worker
$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
$node->restart;
like(
	$node->safe_psql(
		'postgres',
		"SELECT state || ': ' || last_error FROM dfx_engine_status()"),
	qr/^down: .*max_worker_processes/,
	'dfx_engine_status says that there is no supervisor');
foreach my $alone (map { start_sql($node, $_) }
	$classify, "SELECT dfx_preload('resnet18')")
{
	finish_sql($alone);
	is($alone->{state}, '57P03', 'no supervisor');
	like(
		$alone->{err},
		qr/HINT:.*max_worker_processes/,
		'... with what to do about it');
	cmp_ok($alone->{seconds}, '<', 20, '... is said within seconds');
}
$node->append_conf('postgresql.conf', 'max_worker_processes = 8');

# A queue that no machine has the memory for
SKIP:
{
	my ($memory) = slurp_file('/proc/meminfo') =~ /^MemTotal:\s+(\d+) kB/m;
	skip 'this machine has memory for any queue', 3
	  if $memory > 200 * 1024 * 1024;
	$node->append_conf('postgresql.conf', 'dfx.queue_memory = 256GB');
	$node->restart;
	is($node->safe_psql('postgres', 'SELECT 1'),
		1, 'the server starts without a queue');
	state_is($node, $classify, '57P03', 'no queue', qr/dfx\.queue_memory/);
	like(slurp_file($node->logfile),
		qr/WARNING:.*has no queue/, '... the log says so too');
	$node->append_conf('postgresql.conf', 'dfx.queue_memory = 128MB');
}

# The library not in shared_preload_libraries
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
state_is(
	$node, $classify, '55000',
	'library not preloaded',
	qr/HINT:.*shared_preload_libraries/);
is($node->safe_psql('postgres', 'SELECT name FROM dfx_models'),
	'resnet18', '... the models can still be looked at');
is( $node->safe_psql('postgres', 'CREATE DATABASE other; ')
	  . $node->safe_psql('other', 'CREATE EXTENSION deepfeaturex; SELECT 1'),
	1,
	'... and the extension be created');

done_testing();
