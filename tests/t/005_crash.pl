
# When the engine crashes, hangs or is killed, does every session get the right answer?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = dfx_node(
	'crash',
	models => ['resnet18'],
	conf   => q{
dfx.max_batch = 4
dfx.queue_slots = 16
dfx.request_timeout = 120s
});
dfx_images($node, 8);
dfx_expect($node, 'resnet18');
is( $node->safe_psql(
		'postgres', 'SELECT count(DISTINCT verdict::text) FROM expected'),
	8,
	'eight images have eight verdicts, so that none passes for another');
my $postmaster_log = -s $node->logfile;

# Load: 8 sessions compare every answer with the stored one until told to stop
dfx_load($node);

foreach my $signal ('KILL', 'SEGV')
{
	$node->safe_psql('postgres', 'TRUNCATE stop');
	my @load = map { start_sql($node, 'SELECT load()') } 1 .. 8;
	my (@engine, @verdict);
	foreach (1 .. 2)
	{
		sleep 0.5;
		kill_engine($node, $signal);
		push @engine,  service_is_back($node);
		push @verdict, sql($node, 'SELECT check_verdict(1)')->{seconds};

		# Who was running has a second crash held against it until it is
		# answered; three rounds of answers later nobody has.
		$node->poll_query_until('postgres',
			'SELECT images >= 24 FROM dfx_stat_engine')
		  if $signal eq 'SEGV';
	}
	$node->safe_psql('postgres', 'INSERT INTO stop DEFAULT VALUES');
	finish_sql($_) foreach @load;
	is( join(' ', map { $_->{state} } @load),
		join(' ', ('00000') x 8),
		"$signal under load: no session lost, no wrong verdict"
	) or diag(map { $_->{err} } @load);
	is(scalar(grep { $_ < 10 } @engine),
		2, '... and a new engine answers within seconds');
	note(sprintf '%s: it answered after %.2f and %.2f s,', $signal, @engine);
	note(sprintf 'and had loaded the model %.2f and %.2f s later', @verdict);
	note('answers in each session: ' . join(' ', map { $_->{out} } @load));
}
ok(queue_is_free($node), 'every slot is free after the load');

# Every slot queued.  A stopped engine starts nothing, so all 16 wait when it is killed.
my $engine = engine_pid($node);
kill 'STOP', $engine;
my @all = map {
	start_sql($node, "SELECT check_verdict(1 + $_ % 8)", name => "queued $_")
} 1 .. 16;
session_pid($node, "queued $_") foreach 1 .. 16;
kill 'KILL', $engine;
is( join(' ', map { finish_sql($_)->{state} } @all),
	join(' ', ('00000') x 16),
	'kill -9 with every slot queued: all are answered');

# Killed from outside, whatever it runs is not to blame
put_image($node, 'slow', 'DFXTEST:SLEEP 3000 ' . png(48, 48, 1));
my $slow = start_sql($node,
	"SELECT dfx_classify(image) = verdict FROM images, expected AS e WHERE name = 'slow' AND e.id = 1");
foreach my $signal ('KILL', 'TERM', 'KILL')
{
	$node->poll_query_until('postgres',
		'SELECT running = 1 FROM dfx_stat_queue');
	kill_engine($node, $signal);
}
finish_sql($slow);
is("$slow->{state} $slow->{out}", '00000 t',
	'a request that was running in three engines that were killed is answered');

# Poison: images that kill the engine each time, four kinds among eight good ones
put_image($node, 'segv',  'DFXTEST:SEGV');
put_image($node, 'abort', 'DFXTEST:ABORT');
put_image($node, 'exit',  'DFXTEST:EXIT3');
put_image($node, 'kill',  'DFXTEST:KILL');
put_image($node, 'hang',  'DFXTEST:HANG');
my @poison = (
	[ 'segv',  qr/engine.*signal 11/ ],
	[ 'abort', qr/engine.*signal 6/ ],
	[ 'exit',  qr/engine.*code 3/ ],
	[ 'kill',  qr/engine was killed again and again.*signal 9/ ]);
my @neighbours = map { start_sql($node, "SELECT check_verdict($_)") } 1 .. 5;
my @poisoned   = map {
	start_sql($node,
		"SELECT dfx_classify(image) FROM images WHERE name = '$_->[0]'")
} @poison;
push @neighbours, map { start_sql($node, "SELECT check_verdict($_)") } 6 .. 8;
foreach (@poison)
{
	my ($name, $crash) = @$_;
	my $job = finish_sql(shift @poisoned);
	is($job->{state}, '58000', "an image that kills the engine ($name)");
	like($job->{err}, $crash, '... is told which crash it was');
	note(sprintf '%s: refused after %.2f s', $name, $job->{seconds});
}
is( join(' ', map { finish_sql($_)->{state} } @neighbours),
	join(' ', ('00000') x 8),
	'their neighbours get their verdicts');
is( $node->safe_psql(
		'postgres',
		"SELECT restarts > 0 AND last_error <> '' FROM dfx_engine_status()"),
	't',
	'dfx_engine_status tells of it');

# One user's poison must not keep the others from their answers
my $poisoner = start_sql($node,
		"\\set ON_ERROR_STOP 0\n"
	  . "SELECT dfx_classify(image) FROM images WHERE name = 'segv';\n" x 2);
my %neighbour;
my $slowest = 0;
while ($poisoner->{run}->pump_nb && $poisoner->{run}->pumpable)
{
	my $job = sql($node, 'SELECT check_verdict(1)');
	$neighbour{ $job->{state} }++;
	$slowest = $job->{seconds} if $job->{seconds} > $slowest;
}
finish_sql($poisoner);
is(join(' ', keys %neighbour),
	'00000', 'a neighbour of repeated poison gets its verdicts');
note(sprintf '%d of them, the slowest after %.2f s',
	$neighbour{'00000'}, $slowest);
is(scalar(() = $poisoner->{err} =~ /58000/g),
	2, '... and the poison is refused each time');

# A hang: the watchdog replaces the engine, twice, then the image is named
$node->append_conf('postgresql.conf', "dfx.engine_timeout = 1500ms");
$node->reload;
my $job =
  state_is($node,
	"SELECT dfx_classify(image) FROM images WHERE name = 'hang'",
	'58000', 'an image that hangs the engine', qr/progress/);
note(sprintf 'hang: refused after %.2f s: %s', $job->{seconds}, $job->{err});
cmp_ok($job->{seconds}, '<', 100,
	'... ends by the watchdog, not by its deadline');
is(sql($node, 'SELECT check_verdict(1)')->{state},
	'00000', '... and service goes on');

ok(queue_is_free($node), 'every slot is free');
unlike(
	slurp_file($node->logfile, $postmaster_log),
	qr/terminating any other active server processes|was terminated by signal/,
	'the postmaster noticed nothing');

done_testing();
