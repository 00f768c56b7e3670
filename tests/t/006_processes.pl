
# When a backend, the supervisor or the postmaster dies, what becomes of the engine and of service?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = dfx_node('processes', models => ['resnet18']);
dfx_images($node, 1);
dfx_expect($node, 'resnet18');
put_image($node, 'slow', 'DFXTEST:SLEEP 1500 ' . png(48, 48, 1));
my $slow = "SELECT dfx_synthetic(image) >= 0 FROM images WHERE name = 'slow'";
my $check = 'SELECT check_verdict(1)';
my $dead  = sub {
	my ($pid) = @_;
	return sub { return !kill 0, $pid }
};

# Signals that are not meant for the engine
my $engine     = engine_pid($node);
my $supervisor = supervisor_pid($node);
my $job        = start_sql($node, $slow, name => 'slow');
session_pid($node, 'slow');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($supervisor)");
is(finish_sql($job)->{state},
	'00000', 'pg_cancel_backend on the supervisor: the request is answered');
is(engine_pid($node),     $engine,     '... by the same engine');
is(supervisor_pid($node), $supervisor, '... and the same supervisor');
is($node->safe_psql('postgres', "SELECT pg_cancel_backend($engine)"),
	'f', 'pg_cancel_backend does not know the engine');
is(engine_pid($node), $engine, '... and leaves it alone');

# The engine is a stranger to PostgreSQL
ok( !grep({ m{/dev/zero|/dev/shm|SYSV} } split /\n/,
		slurp_file("/proc/$engine/maps")),
	'the engine maps no shared memory of PostgreSQL');
is( join(' ',
		grep { !m{^/memfd:deepfeaturex|^socket:} }
		map  { readlink("/proc/$engine/fd/$_") // () } 3 .. 255),
	'',
	'... and holds open the ring and its socket, no file of the server');
is(slurp_file("/proc/$engine/oom_score_adj") + 0,
	500, 'the kernel would take the engine first');

# The supervisor is terminated under load: no client sees an error
$job = start_sql($node, $slow, name => 'survives');
session_pid($node, 'survives');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($supervisor)");
is(finish_sql($job)->{state},
	'00000',
	'pg_terminate_backend on the supervisor: the request is answered');
isnt(supervisor_pid($node), $supervisor, '... under a new supervisor');
new_engine($node, $engine);
ok(defined wait_for($dead->($engine)),
	'... by a new engine, and the old one is gone');
is(sql($node, $check)->{state}, '00000', '... with the same verdict');

# kill -9 of a backend: PostgreSQL's crash restart, a new ring, a new engine, nothing leaked
sub crash_restart
{
	my ($victim) = @_;
	my $old = engine_pid($node);

	kill 'KILL', $victim or die "could not kill $victim: $!";
	wait_for(sub { return (engine_pid($node) // 0) != $old; });
	my $seconds = service_is_back($node);
	new_engine($node, $old);
	ok(defined wait_for($dead->($old)),
		'a new engine serves, the old one is gone');
	is(sql($node, $check)->{state}, '00000', '... with the same verdict');
	return $seconds;
}

sub postmaster_fds
{
	my ($pid) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	return scalar(my @fds = glob "/proc/$pid/fd/*");
}

my $fds = postmaster_fds();
foreach my $round (1 .. 2)
{
	$job = start_sql($node, $slow, name => "victim $round");
	my $victim = session_pid($node, "victim $round");
	note(sprintf 'kill -9 of a backend: service back after %.3f s',
		crash_restart($victim));
	is(finish_sql($job)->{state}, 'lost', 'the victim lost its connection');
}
note(sprintf 'kill -9 of the supervisor: service back after %.3f s',
	crash_restart(supervisor_pid($node)));
is(postmaster_fds(), $fds,
	'three crash restarts leaked no descriptor in the postmaster');
ok(queue_is_free($node), 'every slot is free');

# Fast shutdown with an engine that cannot react
$engine = engine_pid($node);
kill 'STOP', $engine;
my $began = time();
$node->stop('fast');
note(sprintf 'fast shutdown with a stopped engine: %.3f s', time() - $began);
cmp_ok(time() - $began,
	'<', 10, 'fast shutdown does not wait for a stopped engine');
ok(defined wait_for($dead->($engine), 1), '... which is gone');
$node->start;
is(sql($node, $check)->{state}, '00000', 'the next start serves');

# The postmaster dies
$engine = engine_pid($node);
$node->kill9;
my $gone = wait_for($dead->($engine), 10);
note(sprintf 'kill -9 of the postmaster: the engine was gone after %.3f s',
	$gone // -1);
cmp_ok($gone // 99,
	'<', 1, 'kill -9 of the postmaster: the engine is gone within a second');
ok( defined wait_for(
		sub {
			return 1 if $node->start(fail_ok => 1);
			$node->stop('fast', fail_ok => 1);
			return 0;
		}),
	'... and a restart works');
is(sql($node, $check)->{state}, '00000', '... with the same verdict');

done_testing();
