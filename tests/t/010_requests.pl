
# Does a query cost exactly the requests, loads and memory that it must?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('requests', models => ['resnet18']);
dfx_images($node, 12);

# Requests
sub requests_of
{
	my ($sql)  = @_;
	my $count  = 'SELECT requests FROM dfx_stat_engine';
	my $before = $node->safe_psql('postgres', $count);

	$node->safe_psql('postgres', $sql);
	return $node->safe_psql('postgres', $count) - $before;
}
is(requests_of('SELECT name, v.* FROM images, dfx_classify(image) AS v'),
	12, 'one row costs one request');
is(requests_of('SELECT dfx_synthetic(NULL), dfx_classify(NULL)'),
	0, 'NULL costs none');
is( requests_of(
		'SELECT name FROM images WHERE dfx_synthetic(image) >= 0 LIMIT 3'),
	3,
	'LIMIT bounds them');

# Loads: eight sessions ask an engine that has just started
my $engine = kill_engine($node);
my @first  = map {
	start_sql($node, "SELECT dfx_classify(image) FROM images WHERE id = $_")
} 1 .. 8;
is( join(' ', map { finish_sql($_)->{state} } @first),
	join(' ', ('00000') x 8),
	'eight sessions ask at once');
is($node->safe_psql('postgres', 'SELECT model_loads FROM dfx_stat_engine'),
	1, '... and the model is loaded once');

# Parallel query
my $rows   = 'SELECT id, dfx_classify(image) FROM images ORDER BY id';
my $serial = $node->safe_psql('postgres',
	"SET max_parallel_workers_per_gather = 0; $rows");
my $parallel = q{
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
};
like(
	$node->safe_psql(
		'postgres',
		"$parallel EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) $rows"),
	qr/Workers Launched: [12]/,
	'a parallel plan');
is($node->safe_psql('postgres', "$parallel $rows"),
	$serial, '... gives the same rows');
# PostgreSQL 16 renamed it
my $forced = $node->safe_psql('postgres',
	"SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')"
);
is($node->safe_psql('postgres', "SET $forced = on; $rows"),
	$serial, '... and so does a plan that is parallel by force');

# Memory: a backend keeps neither images nor answers
my $side = 590;
put_image($node, 'megabyte', png($side, $side, 99));
my $session = $node->background_psql('postgres');
my $pid     = $session->query_safe('SELECT pg_backend_pid()');
my $many =
  "SELECT count(dfx_classify(image)) FROM images, generate_series(1, %d) WHERE name = 'megabyte'";
$session->query_safe(sprintf $many, 1);
my $before = process_memory($pid);
is($session->query_safe(sprintf $many, 200),
	200, '200 classifications of an image of 1 MB');
my $growth = process_memory($pid) - $before;
note("private memory of the backend: $before kB, then $growth kB more");
cmp_ok(
	$growth, '<',
	2048 + 1024,
	'... leave no more than 2 MB and the image behind');
$session->quit;

# The round trip, for the record
note(
	'round trip without an image, microseconds: ' . $node->safe_psql(
		'postgres', q{
CREATE TEMP TABLE trip (us real);
DO $$
DECLARE began timestamptz;
BEGIN
	FOR i IN 1 .. 2000 LOOP
		began := clock_timestamp();
		PERFORM dfx_ping();
		INSERT INTO trip VALUES (extract(epoch FROM clock_timestamp() - began) * 1e6);
	END LOOP;
END $$;
SELECT 'p50 ' || percentile_disc(0.5) WITHIN GROUP (ORDER BY us) ||
	', p99 ' || percentile_disc(0.99) WITHIN GROUP (ORDER BY us) FROM trip;
}));

ok(queue_is_free($node), 'every slot is free');

done_testing();
