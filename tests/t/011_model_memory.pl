
# Do models that do not fit into memory together make progress, and one that does not fit at all a clear error?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = dfx_node('memory', models => [ 'resnet18', 'resnet18b' ]);
dfx_images($node, 4);
dfx_expect($node, $_) foreach 'resnet18', 'resnet18b';

# Restarts the engine with that limit; returns the new one's pid.
sub limit_is
{
	my ($mb) = @_;
	my $old = engine_pid($node);
	$node->safe_psql('postgres',
		"ALTER SYSTEM SET dfx.model_memory = '${mb}MB'");
	$node->reload;
	return new_engine($node, $old);
}

# What one of them takes
my $engine = kill_engine($node);
$node->safe_psql('postgres', "SELECT dfx_preload('resnet18')");
my $one =
  $node->safe_psql('postgres', 'SELECT model_bytes FROM dfx_stat_engine') /
  (1 << 20);
note(sprintf 'resnet18 takes %.0f MB', $one);

# Room for one and a half: both are asked for by six sessions, interleaved
$engine = limit_is(int($one * 1.5));
my $mixed = join '', map {
	"SELECT check_verdict($_, 'resnet18'); SELECT check_verdict($_, 'resnet18b');\n"
} 1 .. 2;
my @jobs = map { start_sql($node, $mixed) } 1 .. 6;
is( join(' ', map { finish_sql($_)->{state} } @jobs),
	join(' ', ('00000') x 6),
	'two models that do not fit together: every answer is right');
my ($slowest) = sort { $b <=> $a } map { $_->{seconds} } @jobs;
note(sprintf '24 requests of 6 sessions, %s loads, %.1f s',
	$node->safe_psql('postgres', 'SELECT model_loads FROM dfx_stat_engine'),
	$slowest);
is(engine_pid($node), $engine, '... by one engine');
cmp_ok(
	$node->safe_psql(
		'postgres', 'SELECT model_evictions FROM dfx_stat_engine'),
	'>', 0,
	'... which gave one way to the other');
cmp_ok(
	$node->safe_psql('postgres', 'SELECT model_bytes FROM dfx_stat_engine'),
	'<=',
	$one * 1.5 * (1 << 20),
	'... within the limit');

# Not even one
limit_is(int($one / 2));
state_is(
	$node,   "SELECT check_verdict(1, 'resnet18')",
	'54000', 'a model larger than dfx.model_memory',
	qr/model_memory/);
limit_is(2048);
is(sql($node, "SELECT check_verdict(1, 'resnet18')")->{state},
	'00000', '... serves again when there is room');

# The loader dies half-way: the others go on.  A stopped engine holds it there.
my ($loader, @others);
foreach my $try (1 .. 10)
{
	$engine = kill_engine($node);
	service_is_back($node);
	$loader = start_sql(
		$node,
		"SELECT dfx_preload('resnet18b')",
		name => "loader $try");
	my $pid = session_pid($node, "loader $try");
	sleep 0.02 * $try;
	kill 'STOP', $engine;
	@others = map {
		start_sql(
			$node,
			"SELECT dfx_preload('resnet18b')",
			name => "other $try.$_")
	} 1 .. 3;
	session_pid($node, "other $try.$_") foreach 1 .. 3;
	my $loaded =
	  $node->safe_psql('postgres', 'SELECT model_loads FROM dfx_stat_engine');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)")
	  if $loaded == 0;
	kill 'CONT', $engine;
	finish_sql($_) foreach $loader, @others;
	last if $loaded == 0;
}
is($loader->{state}, '57P01',
	'a backend is terminated while it loads a model');
is( join(' ', map { $_->{state} } @others),
	'00000 00000 00000',
	'... and those who waited for it have the model');
is($node->safe_psql('postgres', 'SELECT model_loads FROM dfx_stat_engine'),
	1, '... loaded once');
is(engine_pid($node), $engine, '... by the same engine');

# A load that is given up leaves nothing behind, whenever that happens; as good
# as done, it may still be finished
my @left;
foreach my $ms (40, 80, 120, 160, 200)
{
	$engine = kill_engine($node);
	service_is_back($node);
	my $before = process_memory($engine);
	next
	  if sql($node,
		"SET statement_timeout = $ms; SELECT dfx_preload('resnet18b')")
	  ->{state} ne '57014';
	push @left, $ms
	  unless defined wait_for(
		sub {
			return process_memory($engine) < $before + 8192
			  || $node->safe_psql('postgres',
				'SELECT model_loads FROM dfx_stat_engine') == 1;
		},
		5);
}
is("@left", '', 'the engine forgets loads that were given up');

# The engine dies half-way
$engine = kill_engine($node);
service_is_back($node);
$loader =
  start_sql($node, "SELECT dfx_preload('resnet18b')", name => 'loader');
session_pid($node, 'loader');
sleep 0.05;
kill_engine($node);
is(finish_sql($loader)->{state},
	'00000', 'kill -9 of the engine while it is loading: loaded again');
ok(queue_is_free($node), 'every slot is free');

done_testing();
