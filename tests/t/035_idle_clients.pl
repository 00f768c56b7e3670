
# Can clients that do not read their answers, or statements that wait for something else, keep the queue from others?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# A scan may have 4 images in flight, so a few that stand still leave one slot of 8 to all others.
my $node = dfx_node(
	'idle',
	models => ['tiny'],
	conf   => "dfx.queue_slots = 8\ndfx.max_batch = 4\ndfx.queue_timeout = 10s\n");
dfx_images($node, 4);
dfx_expect($node, 'tiny');
# The first row is quick, and too long for a socket's buffer; the others' answers come when it is on its way.
$node->safe_psql('postgres',
		"CREATE TABLE archive AS SELECT n, verdict, CASE WHEN n > 1 THEN 'DFXTEST:SLEEP 100 '::bytea || image ELSE image END AS image"
	  . ' FROM generate_series(1, 12) AS n JOIN images ON id = 1 + n % 4 JOIN expected USING (id) ORDER BY n');
my $wide = "SELECT dfx_classify(image) = verdict, repeat('x', CASE n WHEN 1 THEN 5000000 ELSE 1 END) FROM archive";
my $engine = engine_pid($node);

sub waiting
{
	my ($event) = @_;
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE wait_event = '$event'");
}

sub taken_back
{
	return $node->safe_psql('postgres', 'SELECT taken_back FROM dfx_stat_queue');
}

sub scan_has_room
{
	return defined wait_for(
		sub {
			return $node->safe_psql('postgres',
				'EXPLAIN (ANALYZE) SELECT count(*) FROM archive WHERE dfx_classify(image) = verdict') =~ /Max In Flight: 4/;
		});
}

# A client that stops reading, which it does while its statement waits for a lock
sub start_stopped
{
	my ($n)  = @_;
	my $lock = start_sql($node, "SELECT pg_advisory_lock($n), pg_sleep(3600)", name => 'lock');
	defined wait_for(sub { waiting('PgSleep') == 1 }) or die 'no lock';
	my $job = start_sql($node, "SELECT pg_advisory_lock_shared($n)\\; $wide");
	defined wait_for(sub { waiting('advisory') == 1 }) or die 'nobody waits for the lock';
	kill 'STOP', client_pid($job);
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'lock'");
	finish_sql($lock);
	ok(defined wait_for(sub { waiting('ClientWrite') == $n }), "scan $n stands still: its client does not read");
	return $job;
}

sub client_pid
{
	my ($job) = @_;
	return $job->{run}{KIDS}[0]{PID};
}
my @stopped = map { start_stopped($_) } 1 .. 4;
state_is($node, 'SELECT check_verdict(1)', '00000', 'a call of another session is answered');
ok(scan_has_room(), '... and a scan has 4 images in flight, as if nobody else were there');
cmp_ok(taken_back(), '>', 0, 'slots were taken back');
kill 'CONT', map { client_pid($_) } @stopped;
finish_sql($_) foreach @stopped;
is(join(' ', map { $_->{state} } @stopped), join(' ', ('00000') x 4), 'the scans go on when their clients read again');
is(join(' ', map { scalar(() = $_->{out} =~ /^t\|x/mg) } @stopped), join(' ', (12) x 4), '... and have all their verdicts');
ok(queue_is_free($node), 'every slot is free');

# Statements that wait for something else
my @asleep = map { start_sql($node, 'SELECT dfx_classify(image), pg_sleep(3600) FROM archive') } 1 .. 4;
ok(defined wait_for(sub { waiting('PgSleep') == 4 }), 'four scans sleep in their first rows');
ok(scan_has_room(), 'a scan of another session has 4 images in flight');
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
is(join(' ', map { finish_sql($_)->{state} } @asleep), join(' ', ('57014') x 4), 'they can be canceled');
ok(queue_is_free($node), 'every slot is free');

is(engine_pid($node), $engine, 'one engine did it all');

$node->stop;
done_testing();
