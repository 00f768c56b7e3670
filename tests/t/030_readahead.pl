
# Does a query that reads ahead give the right rows, and every slot back, whatever happens meanwhile?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Half of the slots, 16, are what one query may use.
my $node = dfx_node(
	'readahead',
	models => ['resnet18'],
	conf   => "dfx.queue_slots = 32\ndfx.max_batch = 4\n");
dfx_images($node, 6);
$node->safe_psql('postgres', 'ALTER TABLE images ADD verdict dfx_verdict');
dfx_expect($node, 'resnet18');

my $from  = 'FROM generate_series(1, 4) AS n, images JOIN expected USING (id)';
my $check = "SELECT count(*), count(*) FILTER (WHERE dfx_classify(image) = expected.verdict) $from";
like($node->safe_psql('postgres', "EXPLAIN $check"),
	qr/DfxReadAhead/, 'the query reads ahead');

# An engine that dies in the middle
my $job = start_sql($node, $check, name => 'killed');
session_pid($node, 'killed');
kill_engine($node);
finish_sql($job);
is("$job->{state} $job->{out}",
	'00000 24|24', 'the engine is killed: no error, no wrong row');
ok(queue_is_free($node), '... and every slot is free');

# An image that kills engines
$node->safe_psql('postgres',
	"INSERT INTO images (id, name, image) VALUES (100, 'poison', 'DFXTEST:SEGV')"
);
my $scan =
  'SELECT id, dfx_classify(image) = expected.verdict FROM images LEFT JOIN expected USING (id)';
$job = sql($node, "$scan ORDER BY id LIMIT 6");
is( "$job->{state} $job->{out}",
	'00000 ' . join("\n", map { "$_|t" } 1 .. 6),
	'an image that kills engines is not asked about beyond a LIMIT');
$job = sql($node,
	"BEGIN; DECLARE c CURSOR FOR $scan ORDER BY id; FETCH 6 FROM c; FETCH 1 FROM c"
);
is("$job->{state} $job->{out}",
	'58000 ' . join("\n", map { "$_|t" } 1 .. 6),
	'... and it is an error at its own row');
$job = sql($node,
	"SELECT count(*) FILTER (WHERE dfx_classify(image) = expected.verdict) FROM images LEFT JOIN expected USING (id)"
);
is($job->{state}, '58000', '... also where all rows are wanted');
ok(service_is_back($node) && queue_is_free($node),
	'... and every slot is free');
$node->safe_psql('postgres', "DELETE FROM images WHERE name = 'poison'");

# Many requests in flight, ended by every means
$node->safe_psql(
	'postgres', q{
CREATE TABLE slow AS
	SELECT n AS id, 'DFXTEST:SLEEP 400 '::bytea || image AS image
	FROM images, generate_series(1, 16) AS n WHERE name = 'noise 1'
});
my $slow = 'SELECT count(dfx_synthetic(image)) FROM slow';
$job = start_sql($node, $slow, name => 'cancelled');
my $pid = session_pid($node, 'cancelled');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
is(finish_sql($job)->{state}, '57014', 'pg_cancel_backend');
ok(queue_is_free($node), '... then every slot is free');
$job = start_sql($node, $slow, name => 'terminated');
$pid = session_pid($node, 'terminated');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
is(finish_sql($job)->{state}, '57P01', 'pg_terminate_backend');
ok(queue_is_free($node), '... then every slot is free');
state_is($node, "SET statement_timeout = 600; $slow",
	'57014', 'statement_timeout');
ok(queue_is_free($node), '... then every slot is free');
$job = sql(
	$node, qq{
BEGIN;
SAVEPOINT s;
SET LOCAL statement_timeout = 600;
\\set ON_ERROR_STOP 0
$slow;
ROLLBACK TO s;
\\set ON_ERROR_STOP 1
SELECT claimed + queued + running + done FROM dfx_stat_queue;
$check;
COMMIT;
});
is("$job->{state} $job->{out}",
	"57014 0\n24|24", 'a savepoint: nothing is held, and the session goes on');

# The last of a window waits behind the others: that is not the engine's fault.
$job = sql($node, "SET dfx.request_timeout = '2s'; $slow");
is("$job->{state} $job->{out}", '00000 16',
	'dfx.request_timeout is for one image, not for those before it');
cmp_ok($job->{seconds}, '>', 2, '... though all took longer');

# Calls that must wait for a slot, by sessions that hold some
my @crowd =
  map { start_sql($node, "SET dfx.queue_timeout = '60s'; $_") } (
	"SELECT count(*), count(*) FILTER (WHERE dfx_classify(image) = expected.verdict AND (dfx_image_info(image)).width = 48) $from"
  ) x 5;
is( join(' ', map { "$_->{state} $_->{out}" } map { finish_sql($_) } @crowd),
	join(' ', ('00000 24|24') x 5),
	'five sessions with nested calls: no deadlock, no wrong row');
ok(queue_is_free($node), '... and every slot is free');

# A row that changes while its verdict is being computed
sub changed_under
{
	my ($statement, $expected, $test) = @_;
	my $other = $node->background_psql('postgres');

	$other->query_safe(
		q{BEGIN; UPDATE images SET image = (SELECT image FROM images WHERE id = 2) WHERE id = 1}
	);
	my $waiting = start_sql($node, $statement, name => 'waiting');
	ok( $node->poll_query_until(
			'postgres',
			"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'waiting' AND wait_event_type = 'Lock'"
		),
		"$test: waits for the row");
	is( $node->safe_psql('postgres',
			'SELECT claimed + queued + running + done FROM dfx_stat_queue'),
		0,
		'... and holds no slot');
	$other->query_safe('COMMIT');
	$other->quit;
	finish_sql($waiting);
	is("$waiting->{state} $waiting->{out}",
		$expected, '... then classifies the new image');
	$node->safe_psql('postgres',
		q{UPDATE images SET image = (SELECT image FROM images AS i WHERE i.name = 'spare') WHERE id = 1}
	);
	return;
}
$node->safe_psql('postgres',
	"INSERT INTO images (id, name, image) SELECT 50, 'spare', image FROM images WHERE id = 1"
);
changed_under(
	'UPDATE images SET verdict = dfx_classify(image) WHERE id <= 3'
	  . ' RETURNING id, verdict = (SELECT verdict FROM expected AS e WHERE e.id = greatest(images.id, 2))',
	"00000 1|t\n2|t\n3|t", 'UPDATE');
my $new = $node->safe_psql('postgres',
	'SELECT (verdict).p_synthetic FROM expected WHERE id = 2');
changed_under(
	'SELECT id, dfx_synthetic(image) FROM images WHERE id = 1 FOR UPDATE',
	"00000 1|$new", 'SELECT FOR UPDATE');
ok(queue_is_free($node), 'every slot is free');

# A session whose first look at what is installed is cut short looks again.
my $locker = $node->background_psql('postgres');
my $session = $node->background_psql('postgres', on_error_stop => 0);
$locker->query_safe('BEGIN; LOCK TABLE pg_extension');
$session->query("SET lock_timeout = '100ms'");
$session->query('SELECT 1');
like($session->{stderr}, qr/lock timeout/, 'a first statement that cannot see what is installed');
$session->{stderr} = '';
$locker->query_safe('COMMIT');
$locker->quit;
like($session->query("EXPLAIN $check"), qr/DfxReadAhead/, '... does not keep the next one from reading ahead');
$session->quit;

done_testing();
