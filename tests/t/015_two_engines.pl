
# Do two engines on one queue do the work of one, and does the death of one leave the other alone?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node(
	'two',
	models => ['resnet18'],
	conf   => q{
dfx.device = 'cpu'
dfx.max_batch = 8
dfx.queue_slots = 16
dfx.request_timeout = 120s
});
dfx_images($node, 8);
dfx_expect($node, 'resnet18');

# A column of dfx_engine_status(), by engine.
sub status
{
	my ($column) = @_;

	return $node->safe_psql('postgres',
		"SELECT string_agg(coalesce($column\::text, '-'), ' ' ORDER BY engine) FROM dfx_engine_status()"
	);
}

sub becomes
{
	my ($column, $expected, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok(defined wait_for(sub { return status($column) eq $expected }), $test)
	  or diag("$column: " . status($column));
	return;
}

sub pid_of { return (split ' ', status('pid'))[ $_[0] ] }

# Engine number $engine is another process than $old, and all are ready.
sub is_replaced
{
	my ($engine, $old, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	ok( defined wait_for(
			sub {
				my $pid = pid_of($engine);
				return $pid ne '-' && $pid != $old && status('state') eq 'ready ready';
			}),
		$test);
	return;
}

sub set_device
{
	my ($device) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET dfx.device = '$device'");
	$node->reload;
	return;
}

sub queue
{
	my ($columns) = @_;

	return $node->safe_psql('postgres', "SELECT $columns FROM dfx_stat_queue");
}

# From one engine to two
is(status('state'), 'ready', 'one device, one engine');
my $log = -s $node->logfile;
set_device('cpu,cpu');
becomes('state', 'ready ready', 'a list of two, and two engines are ready');
my @pids = sort { $a <=> $b } engine_pids($node);
is( join(' ', sort { $a <=> $b } split ' ', status('pid')),
	"@pids", '... which dfx_engine_status() knows');
like(
	slurp_file("/proc/$pids[0]/cmdline"),
	qr/--device\0cpu\0--engine\0\d\0--engines\0002\0/,
	'... each with a device and a number');
like(
	slurp_file($node->logfile, $log),
	qr/dfx\.max_batch is 4 here, not 8.*\n.*HINT:.*for each device/,
	'two batches for each must find room in the queue, or they are smaller');

# Load: every answer is compared with that of the one engine.
dfx_load($node);
my @load = map { start_sql($node, 'SELECT load()') } 1 .. 6;
ok( $node->poll_query_until(
		'postgres',
		'SELECT count(*) = 2 FROM dfx_stat_engine WHERE images >= 24'),
	'both do work');
is( $node->safe_psql(
		'postgres',
		"SELECT string_agg(engine::text, ' ' ORDER BY engine) FROM dfx_stat_models WHERE resident"
	),
	'0 1',
	'... with a model of their own');

# One after the other is killed under load
foreach my $dead (0, 1)
{
	my @before = (pid_of(0), pid_of(1));
	kill 'KILL', $before[$dead];
	is_replaced($dead, $before[$dead], "kill -9 of engine $dead under load: it is replaced");
	is(pid_of(1 - $dead), $before[ 1 - $dead ], '... the other one stays');
	ok( $node->poll_query_until(
			'postgres',
			"SELECT images >= 12 FROM dfx_stat_engine WHERE engine = $dead"),
		'... and it takes its part of the work');
}
$node->safe_psql('postgres', 'INSERT INTO stop DEFAULT VALUES');
finish_sql($_) foreach @load;
is( join(' ', map { $_->{state} } @load),
	join(' ', ('00000') x 6),
	'no session lost anything, and no verdict differs from those of one engine'
) or diag(map { $_->{err} } @load);
note('answers in each session: ' . join(' ', map { $_->{out} } @load));
ok(queue_is_free($node), 'every slot is free');

# What one engine has is not touched when another one dies.  A stopped engine takes nothing,
# so it is known who has the slow image.
put_image($node, 'slow', 'DFXTEST:SLEEP 3000 ' . png(48, 48, 1));
my $slow =
  "SELECT dfx_classify(image) = (SELECT verdict FROM expected WHERE id = 1) FROM images WHERE name = 'slow'";

sub start_slow
{
	my ($stopped) = @_;
	my $pid = pid_of($stopped);

	kill 'STOP', $pid;
	my $job = start_sql($node, $slow);
	ok( $node->poll_query_until(
			'postgres', 'SELECT running = 1 FROM dfx_stat_queue'),
		"engine $stopped is stopped, so the other one takes what comes");
	return ($job, $pid);
}
my $retried = queue('retried');
my ($job, $pid) = start_slow(0);
is(sql($node, 'SELECT check_verdict(2)')->{state},
	'00000', '... and others with it');
kill 'KILL', $pid;
is_replaced(0, $pid, 'the stopped one is killed and replaced');
is(finish_sql($job)->{out}, 't', '... the slow image gets its verdict');
is(queue('retried'), $retried, '... from the engine that had it');

($job, $pid) = start_slow(0);
my $other = pid_of(1);
kill 'CONT', $pid;
kill 'KILL', $other;
is(finish_sql($job)->{out},
	't', 'the engine that has it is killed: another one answers');
cmp_ok(queue('retried'), '<=', $retried + 1, '... which it alone had to be asked for again');
is_replaced(1, $other, '... and it is replaced');
is(pid_of(0), $pid, '... the other one was not touched');

# Poison dies with each engine that takes it.
put_image($node, 'segv', 'DFXTEST:SEGV');
my $restarts = 'SELECT sum(restarts) FROM dfx_engine_status()';
my $before   = $node->safe_psql('postgres', $restarts);
my @good     = map { start_sql($node, "SELECT check_verdict($_)") } 1 .. 4;
state_is($node, "SELECT dfx_classify(image) FROM images WHERE name = 'segv'",
	'58000', 'an image that kills its engine twice is named');
is($node->safe_psql('postgres', $restarts) - $before,
	2, '... after two engines, whichever');
is( join(' ', map { finish_sql($_)->{state} } @good),
	join(' ', ('00000') x 4),
	'... its neighbours get their verdicts');
becomes('state', 'ready ready', '... and all engines are back');

# Models are loaded into all engines, and forgotten by all.
my $resident = 'SELECT count(*) FROM dfx_stat_models WHERE resident';
$node->safe_psql('postgres', "SELECT dfx_preload('resnet18')");
is($node->safe_psql('postgres', $resident), 2, 'dfx_preload() is for every engine');
$node->safe_psql('postgres', "SELECT dfx_evict('resnet18')");
is($node->safe_psql('postgres', $resident), 0, '... and so is dfx_evict()');
is( $node->safe_psql(
		'postgres',
		"SELECT count(*) FROM images JOIN expected USING (id) WHERE name LIKE 'noise%' AND dfx_classify(image) IS NOT DISTINCT FROM verdict"
	),
	8,
	'a query that reads ahead gets the same verdicts, its model loaded on the way'
);

# What one device cannot do is asked of the next before it is an error.
my $asked = "SELECT string_agg(requests::text, ' ' ORDER BY engine) FROM dfx_stat_engine";
my @asked = split ' ', $node->safe_psql('postgres', $asked);
state_is($node, "SET dfx.read_ahead = 0; SET dfx.precision = fp16; SELECT dfx_classify(image) FROM images WHERE name = 'noise 1'",
	'0A000', 'a precision that no CPU has is refused', qr/cpu does not run in precision fp16/);
is($node->safe_psql('postgres', $asked), join(' ', map { $_ + 1 } @asked), '... by each engine, once');

# A hung engine is replaced while the other one serves.
$node->append_conf('postgresql.conf', 'dfx.engine_timeout = 8s');
$node->reload;
($job, $pid) = start_slow(0);
$other = pid_of(1);
kill 'STOP', $other;
kill 'CONT', $pid;
is(finish_sql($job)->{out}, 't', 'an engine that hangs: another one answers');
is_replaced(1, $other, '... and it is replaced');
is(pid_of(0), $pid, '... the other one was not touched');

# The list gets shorter while the engine that goes is loading a model.
$node->safe_psql('postgres', "SELECT dfx_evict('resnet18')");
kill 'STOP', pid_of(0);
$job = start_sql($node, 'SELECT check_verdict(3)', name => 'loading');
session_pid($node, 'loading');
set_device('cpu');
is(finish_sql($job)->{state}, '00000', 'who waits for an engine that is no longer wanted is answered by another');

# A device that is not there
$log = -s $node->logfile;
set_device('cuda:1,cpu');
becomes('state', 'failed ready', 'a device that cannot be opened is one engine less');
like(status('last_error'), qr/device "cuda:1" cannot be used: /, '... with the reason');
like(
	slurp_file($node->logfile, $log),
	qr/dfx engine 0 \(cuda:1\) cannot be started: device "cuda:1" cannot be used: /,
	'... which the log has too');
is(sql($node, 'SELECT check_verdict(1)')->{state}, '00000', '... the other one serves');
$pid = pid_of(1);
kill 'STOP', $pid;
$job = start_sql($node, 'SELECT check_verdict(2)', name => 'queued');
session_pid($node, 'queued');
kill 'KILL', $pid;
is(finish_sql($job)->{state}, '00000',
	'... and when that one is killed, what waits is not told that no engine can be started');
my $reasons = qr/DETAIL:  engine 0: device "cuda:1" cannot be used: [^;]+; engine 1: device "cuda:2" cannot be used: \S/;
kill 'STOP', pid_of(1);
$job = start_sql($node, 'SELECT check_verdict(2)', name => 'caught');
session_pid($node, 'caught');
set_device('cuda:1,cuda:2');
finish_sql($job);
is($job->{state}, '57P03', 'no device that can be opened is an error, also for who waits');
like($job->{err}, $reasons, '... with the reason of each');
state_is($node, 'SELECT dfx_ping()', '57P03', '... and so it is for who comes later', $reasons);

# Back to one
set_device('cpu');
becomes('state', 'ready', 'from a list back to one device');
is(scalar(engine_pids($node)), 1, '... and one process');
is(sql($node, 'SELECT check_verdict(1)')->{state}, '00000', '... that serves');
ok(queue_is_free($node), 'every slot is free');

# What is no list
foreach my $bad ('', ',', 'cpu,', ',cpu', 'cpu,,cpu', 'cpu, cpu', 'cpu,auto', 'auto,cpu', 'auto,auto', 'gpu',
	'cpu:0', 'cuda:', 'cuda:x', 'cuda:0,cuda:0', 'cuda,cpu,cuda:0', 'cuda:1,cuda:01',
	join(',', ('cpu') x 9), 'cpu,' x 40 . 'cpu')
{
	state_is($node, "ALTER SYSTEM SET dfx.device = '$bad'",
		'22023', "refused: $bad", qr/DETAIL: .*HINT: .*list such as/s);
}

unlike(
	slurp_file($node->logfile),
	qr/terminating any other active server processes|was terminated by signal/,
	'the postmaster noticed nothing');

done_testing();
