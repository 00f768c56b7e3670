
# Does the turn of a bulk request and of a heatmap come while others keep the engine busy without a pause?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Three scans want 32 slots each, of 64: there is always a full queue of normal requests.
my $node = dfx_node(
	'turns',
	models => ['tiny'],
	conf   => "dfx.queue_slots = 64\ndfx.max_batch = 8\ndfx.request_timeout = 0\ndfx.queue_timeout = 120s\n");
dfx_images($node, 4);
$node->safe_psql(
	'postgres', q{
CREATE TABLE archive AS SELECT image FROM generate_series(1, 100), images;
CREATE TABLE stop ();
CREATE FUNCTION load() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE NOT EXISTS (SELECT FROM stop) LOOP
		PERFORM count(dfx_classify(image)) FROM archive;
	END LOOP;
END $$;
});

sub served
{
	return $node->safe_psql('postgres', 'SELECT requests FROM dfx_stat_engine');
}

# One that is asked while the scans run, and how many are served until it is answered
sub turn_comes
{
	my ($what, $sql) = @_;
	my $before = served();

	# Should its turn never come, this is what ends it.
	state_is($node, "SET statement_timeout = '150s'; $sql FROM images WHERE id = 1", '00000', "$what is answered");
	note(served() - $before, ' others were served meanwhile');
	return;
}

my @load = map { start_sql($node, 'SELECT load()', name => "scan $_") } 1 .. 3;
ok( defined wait_for(
		sub {
			return $node->safe_psql('postgres',
				'SELECT queued + running >= 56 FROM dfx_stat_queue') eq 't';
		}),
	'three scans have filled the queue');
turn_comes('a bulk request', "SET dfx.priority = 'bulk'; SELECT dfx_classify(image)");
turn_comes('a heatmap',      'SELECT length(dfx_heatmap(image)) > 0');
is( $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^scan' AND state = 'active'"),
	3,
	'... with the scans still at work');
$node->safe_psql('postgres', 'INSERT INTO stop DEFAULT VALUES');
is(join(' ', map { finish_sql($_)->{state} } @load), join(' ', ('00000') x 3), 'the scans get all their answers');
ok(queue_is_free($node), 'every slot is free');

$node->stop;
done_testing();
