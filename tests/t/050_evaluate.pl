
# Does an evaluation give the right counts, and every slot back, whatever happens meanwhile?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node(
	'evaluate',
	models => ['tiny'],
	conf   => "dfx.queue_slots = 32\ndfx.max_batch = 4\n");
dfx_images($node, 12);
$node->safe_psql(
	'postgres', q{
CREATE VIEW samples AS
	SELECT image, (ARRAY['dm', 'gan', 'real'])[1 + id % 3] AS label FROM images;
CREATE VIEW slow AS
	SELECT convert_to('DFXTEST:SLEEP 100 ', 'UTF8') || image AS image, label FROM samples;
CREATE VIEW hanging AS
	SELECT convert_to('DFXTEST:SLEEP 60000 ', 'UTF8') || image AS image, label FROM samples;
CREATE VIEW poisoned AS
	SELECT * FROM samples UNION ALL SELECT 'DFXTEST:SEGV', 'real';
});

my $perturb = "perturb => '{raw,jpeg:70,blur:3,flip}'";
my $evaluate =
  "SELECT * FROM dfx_evaluate('tiny', '%s', $perturb) ORDER BY perturbation";
my $expected = $node->safe_psql('postgres', sprintf $evaluate, 'samples');
my $images   = 'SELECT images FROM dfx_stat_engine';

# Many in flight
my $requests = 'SELECT requests FROM dfx_stat_engine';
my $before   = $node->safe_psql('postgres', $requests);
$node->safe_psql('postgres', sprintf $evaluate, 'samples');
is($node->safe_psql('postgres', $requests) - $before,
	48, 'an image under a perturbation is one request');
cmp_ok(
	$node->safe_psql('postgres', 'SELECT largest_batch FROM dfx_stat_engine'),
	'>', 1, '... and they run in batches');

# An engine that dies in the middle
my $seen = $node->safe_psql('postgres', $images);
my $job  = start_sql($node, sprintf($evaluate, 'slow'), name => 'killed');
session_pid($node, 'killed');
$node->poll_query_until('postgres',
	"SELECT images > $seen + 4 FROM dfx_stat_engine")
  // die 'the evaluation never began';
kill_engine($node);
finish_sql($job);
is( "$job->{state} $job->{out}",
	"00000 $expected",
	'the engine is killed: no error, no wrong figure');
ok(queue_is_free($node), '... and every slot is free');

# An image that kills engines
$job = sql($node,
	"SELECT * FROM dfx_evaluate('tiny', 'poisoned', max_errors => 100)");
is($job->{state}, '58000',
	'an image that kills engines is an error, however many may be unreadable'
);
like(
	$job->{err},
	qr/image 13 of public\.poisoned, perturbation raw/,
	'... that says which');
ok(service_is_back($node) && queue_is_free($node),
	'... and every slot is free');

# Ended by every means
foreach my $end ([ 'pg_cancel_backend', '57014' ],
	[ 'pg_terminate_backend', '57P01' ])
{
	my ($how, $state) = @$end;

	$job = start_sql($node, sprintf($evaluate, 'hanging'), name => $how);
	my $pid = session_pid($node, $how);
	$node->safe_psql('postgres', "SELECT $how($pid)");
	finish_sql($job);
	is($job->{state}, $state, "$how ends an evaluation");
	kill_engine($node);
	ok(queue_is_free($node), '... which leaves nothing behind');
}
$job = sql($node,
	"SET statement_timeout = '1s'; " . sprintf($evaluate, 'hanging'));
is($job->{state}, '57014', 'so does statement_timeout');
$job = sql($node,
	"SET dfx.request_timeout = '1s'; " . sprintf($evaluate, 'hanging'));
is($job->{state}, '58000', '... and dfx.request_timeout');
kill_engine($node);
ok(queue_is_free($node), '... all of which give every slot back');

# Inside a subtransaction
$job = sql(
	$node, q{
SET statement_timeout = '30s';
DO $$
BEGIN
	PERFORM dfx_evaluate('tiny', 'poisoned');
EXCEPTION WHEN system_error THEN
	RAISE NOTICE 'caught';
END $$;
} . sprintf($evaluate, 'samples'));
is( "$job->{state} $job->{out}",
	"00000 $expected",
	'after an error that was caught all goes on');

# Memory: one image at a time
put_image($node, 'megabyte', png(590, 590, 99));
$node->safe_psql('postgres',
	q{CREATE VIEW large AS SELECT image, 'real' AS label FROM images, generate_series(1, 100) WHERE name = 'megabyte'}
);
my $session = $node->background_psql('postgres');
my $pid     = $session->query_safe('SELECT pg_backend_pid()');
my $count =
  q{SELECT sum(n) FROM dfx_evaluate('tiny', 'large', perturb => '{raw,blur:3}')};
$session->query_safe($count . ' WHERE false');
my $held = process_memory($pid);
is($session->query_safe($count), 200, '100 images of 1 MB, twice each');
my $growth = process_memory($pid) - $held;
note("private memory of the backend: $held kB, then $growth kB more");
cmp_ok($growth, '<', 4096 + 1024, '... of which the backend keeps none');
$session->quit;

# No engine
$node->append_conf('postgresql.conf', "dfx.device = 'cuda:63'");
$node->reload;
wait_for(
	sub {
		$node->psql('postgres', 'SELECT dfx_ping()') != 0;
	});
state_is(
	$node,   sprintf($evaluate, 'samples'),
	'57P03', 'without an engine it says so');
$node->stop;

done_testing();
