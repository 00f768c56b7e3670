
# Can a wait be ended by every means PostgreSQL has, and are all slots free afterwards?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = dfx_node(
	'waiting',
	models => ['resnet18'],
	conf   =>
	  "dfx.max_batch = 1\ndfx.queue_slots = 2\ndfx.queue_memory = 3MB\n");

# Images that take their time.  Nothing waits for the end of one that does not have to.
put_image($node, 'quick',  png(48, 48, 1));
put_image($node, 'slow',   'DFXTEST:SLEEP 1000 ' . png(48, 48, 1));
put_image($node, 'slower', 'DFXTEST:SLEEP 3000 ' . png(48, 48, 1));
my $ask = "SELECT dfx_synthetic(image) >= 0 FROM images WHERE name";

# Wait event
my $job = start_sql($node, "$ask = 'slow'", name => 'slow');
my $pid = session_pid($node, 'slow');
is( $node->safe_psql(
		'postgres',
		"SELECT wait_event_type, wait_event <> '' FROM pg_stat_activity WHERE pid = $pid"
	),
	'Extension|t',
	'the wait is visible in pg_stat_activity');
is(finish_sql($job)->{out}, 't', '... and ends with the answer');

# Cancel, terminate
foreach my $case ([ 'pg_cancel_backend', '57014' ],
	[ 'pg_terminate_backend', '57P01' ])
{
	my ($function, $state) = @$case;
	$job = start_sql($node, "$ask = 'slower'", name => $function);
	$pid = session_pid($node, $function);
	my $began = time();
	$node->safe_psql('postgres', "SELECT $function($pid)");
	is(finish_sql($job)->{state}, $state, $function);
	cmp_ok(time() - $began, '<', 1.5, '... at once');
}
is($node->safe_psql('postgres', 'SELECT abandoned FROM dfx_stat_queue'),
	2, 'the engine finishes what nobody waits for');
ok(queue_is_free($node), '... then the slots are free');

# statement_timeout, the request's own deadline
state_is($node, "SET statement_timeout = 200; $ask = 'slow'",
	'57014', 'statement_timeout', qr/statement timeout/);
state_is($node, "SET dfx.request_timeout = 200; $ask = 'slow'",
	'58000', 'dfx.request_timeout');
ok(queue_is_free($node), '... then the slots are free');

# A savepoint gives back what was in flight under it, and the session goes on
my $savepoint = qq{
BEGIN;
SAVEPOINT s;
SET LOCAL statement_timeout = 200;
\\set ON_ERROR_STOP 0
$ask = 'slow';
ROLLBACK TO s;
\\set ON_ERROR_STOP 1
$ask = 'quick';
SELECT claimed + queued + running + done FROM dfx_stat_queue;
COMMIT;
};
$job = sql($node, $savepoint);
is($job->{state}, '57014', 'an error under a savepoint');
is($job->{out},   "t\n0",  '... the transaction goes on, and holds no slot');
ok(queue_is_free($node), '... then the slot is free');

# A full queue: room is waited for, within dfx.queue_timeout
my @full =
  map { start_sql($node, "$ask = 'slower'", name => "full $_") } 1 .. 2;
session_pid($node, "full $_") foreach 1 .. 2;
$job = state_is($node, "SET dfx.queue_timeout = 200; $ask = 'quick'",
	'53000', 'a full queue');
cmp_ok($job->{seconds}, '>=', 0.2,
	'... is waited for as long as dfx.queue_timeout says');
$job = start_sql($node, "$ask = 'quick'", name => 'outside');
$pid = session_pid($node, 'outside');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
is(finish_sql($job)->{state}, '57014', '... or until pg_cancel_backend');
state_is($node, "$ask = 'quick'", '00000', '... or until there is room');
is(join(' ', map { finish_sql($_)->{state} } @full),
	'00000 00000', '... as those in it have their answers');
ok(queue_is_free($node), '... then every slot is free');

# Full memory: large images wait for each other, small ones do not starve them
put_image($node, 'large', png(850, 850, 2));
my @large = map { start_sql($node, "$ask = '$_'") } ('large', 'quick') x 4;
is( join(' ', map { finish_sql($_)->{state} } @large),
	join(' ', ('00000') x 8),
	'images that do not fit into the queue together');
ok(queue_is_free($node), '... then all memory is free');

# Cancels at every moment of a request's life: right answers or 57014, nothing
# else.  Every other statement is let through.
my $storm = "\\set ON_ERROR_STOP 0\n";
foreach my $ms (map { 20 * $_ } 1 .. 15)
{
	$storm .= "SET statement_timeout = $ms;\n$ask = 'quick';\n"
	  . "RESET statement_timeout;\n$ask = 'quick';\n";
}
my @storm  = map { finish_sql($_) } map { start_sql($node, $storm) } 1 .. 3;
my %errors = map { $_ => 1 }
  map { $_->{err} =~ /(?:ERROR|FATAL):\s+([0-9A-Z]{5}):/g } @storm;
my @answers = map { split /\n/, $_->{out} } @storm;
note(@answers . ' of 90 were answered');
is(join(' ', keys %errors),
	'57014', 'a storm of cancels gives no other error');
cmp_ok(scalar(@answers), '>=', 45, '... and all the answers it must');
is(scalar(grep { $_ ne 't' } @answers), 0, '... all of them right');
ok(queue_is_free($node), '... and every slot is free');

done_testing();
