
# Do sessions that import and drop the same content or the same name at the same time keep the tables whole?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('concurrent');
dfx_images($node, 1);
my $file = "$ENV{DFX_TEST_DIR}/resnet18.safetensors";
my $rows = 'SELECT (SELECT count(*) FROM dfx_model_version),'
  . ' (SELECT count(*) FROM dfx_model), (SELECT count(*) FROM dfx_model_history)';

sub import_as
{
	my ($name) = @_;
	return "SELECT dfx_import_model('$name', '$file') IS NOT NULL";
}

# A session with an open transaction in which $sql has run.
sub holding
{
	my ($sql) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_safe('BEGIN');
	$session->query_safe($sql);
	return $session;
}

# Start $sql, which must wait for a lock, and end the holder's transaction.
sub waits_for
{
	my ($holder, $sql, $end, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $job = start_sql($node, $sql, name => 'waiter');

	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'waiter' AND wait_event_type = 'Lock'"
		),
		"$test: waits");
	$holder->query_safe($end);
	$holder->quit;
	is(finish_sql($job)->{state}, '00000', "$test: goes on after $end");
	return;
}

# The same content under two names
waits_for(holding(import_as('a')),
	import_as('b'), 'COMMIT', 'import beside an import of the same content');
is($node->safe_psql('postgres', $rows), '1|2|2', '... shares its rows');
waits_for(holding(import_as('c')),
	"SELECT dfx_drop_model('c')", 'COMMIT', 'drop of a name being imported');
is($node->safe_psql('postgres', $rows), '1|2|2', '... drops it');

# A new reference against the drop of the last one
$node->safe_psql('postgres', "SELECT dfx_drop_model('b')");
waits_for(holding(import_as('b')),
	"SELECT dfx_drop_model('a')", 'COMMIT',
	'drop of the last name but the one being imported');
is($node->safe_psql('postgres', $rows), '1|1|1', '... leaves the version');
waits_for(holding("SELECT dfx_drop_model('b')"),
	import_as('a'), 'COMMIT', 'import beside the drop of the last name');
is($node->safe_psql('postgres', $rows), '1|1|1', '... stores it again');
kill_engine($node);
is( $node->safe_psql(
		'postgres', "SELECT count(dfx_classify(image, 'a')) FROM images"),
	1,
	'... whole');
waits_for(holding("SELECT dfx_drop_model('a')"),
	import_as('b'), 'ROLLBACK', 'import beside a drop that is taken back');
is($node->safe_psql('postgres', $rows), '1|2|2', '... shares its rows');

# The same name
waits_for(holding(import_as('same')),
	import_as('same'), 'COMMIT', 'import of a name being imported');
is($node->safe_psql('postgres', $rows),
	'1|3|3', '... finds nothing to change');
$node->safe_psql('postgres', "SELECT dfx_drop_model('same')");

# Everything at once: an order of locks that could deadlock would show here.
my $mixed = join '', map {
	my $n = $_;
	map { "SELECT dfx_import_model('$_', '$file');\nSELECT dfx_drop_model('$_');\n" } "n$n", 'm';
} 1 .. 3;
my @jobs = map { start_sql($node, "\\set ON_ERROR_STOP 0\n$mixed") } 1 .. 3;
my $errors = join '', map { finish_sql($_)->{err} } @jobs;
my %states = map { $_ => 1 } $errors =~ /ERROR:\s+(\w{5}):/g;
delete $states{'42704'};
is(join(' ', sort keys %states),
	'', 'sessions that import and drop the same names: nothing but 42704');
is($node->safe_psql('postgres', $rows), '1|2|2', '... and nothing left over');

done_testing();
