
# Does a step of the wall clock, forward or back, end a wait too early or never?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The server gets a wall clock that this test can set (tests/tools/fake_clock.c).
my $clock = PostgreSQL::Test::Utils::tempdir() . '/clock';
my $day   = 24 * 60 * 60;

sub set_clock
{
	my ($seconds) = @_;

	open my $out, '>', "$clock.new" or die "could not open \"$clock.new\": $!";
	print $out $seconds;
	close $out or die "could not write \"$clock.new\": $!";
	rename "$clock.new", $clock or die "could not rename \"$clock.new\": $!";
	return;
}

# Whatever starts a server gets it too; the engine does not, its environment is its own.
set_clock(0);
$ENV{DFX_TEST_CLOCK} = $clock;
$ENV{LD_PRELOAD}     = $ENV{DFX_TEST_FAKE_CLOCK};
my $node = dfx_node(
	'clock',
	models => ['tiny'],
	conf   => q{
dfx.max_batch = 1
dfx.queue_slots = 2
dfx.engine_timeout = 0
dfx.queue_timeout = 600s
dfx.request_timeout = 600s
});
dfx_images($node, 1);
dfx_expect($node, 'tiny');

# What the server's clock is ahead of ours, in days
sub days_ahead
{
	return $node->safe_psql('postgres',
		'SELECT round((extract(epoch FROM clock_timestamp()) - ' . time() . ") / $day)");
}

# Two requests that a stopped engine does not answer, and one that finds no room.
sub start_waits
{
	my ($settings) = @_;

	kill 'STOP', engine_pid($node);
	my @jobs = map { start_sql($node, "$settings SELECT check_verdict(1)") } 1 .. 2;
	ok($node->poll_query_until('postgres', 'SELECT queued + running = 2 FROM dfx_stat_queue'), 'two requests wait for an answer');
	push @jobs, start_sql($node, "$settings SELECT check_verdict(1)");
	ok($node->poll_query_until('postgres', 'SELECT waiting = 1 FROM dfx_stat_queue'), '... and one for room');
	return @jobs;
}

sub outcomes { return join(' ', map { finish_sql($_)->{state} } @_); }

is(days_ahead(), 0, 'the clock is right');
my @jobs = start_waits('');
set_clock($day);
is(days_ahead(), 1, '... and then a day ahead');
$node->safe_psql('postgres', 'SELECT pg_sleep(2)');	# who waits looks at the clock once a second
kill 'CONT', engine_pid($node);
is(outcomes(@jobs), '00000 00000 00000', 'a step forward: all are answered, none has been waiting for a day');

@jobs = start_waits(q{SET dfx.request_timeout = '15s'; SET dfx.queue_timeout = '10s';});
set_clock(-$day);
is(days_ahead(), -1, 'the clock is a day behind');
is(outcomes($jobs[2]), '53000', 'a step back: who waits for room still gives up at its time');
is(outcomes(@jobs[ 0, 1 ]), '58000 58000', '... and so does who waits for an answer');
kill 'CONT', engine_pid($node);
ok(queue_is_free($node), 'every slot is free');

# A machine without a battery for its clock
set_clock(-time());
$node->restart;
like($node->safe_psql('postgres', 'SELECT now()'), qr/^19(?:69|70)/, 'the server has started in 1970');
is(sql($node, 'SELECT check_verdict(1)')->{state}, '00000', '... and its engine answers');

done_testing();
