
# Does a scan that has asked for many images ahead leave the engine to others in between?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# A scan may have 32 images in flight; the engine takes two at a time, 50 ms each.
my $node = dfx_node(
	'fairness',
	models => ['resnet18'],
	conf   => "dfx.queue_slots = 64\ndfx.max_batch = 2\ndfx.threads = 1\n");
put_image($node, 'quick', png(48, 48, 1));
$node->safe_psql('postgres',
		"CREATE TABLE archive AS SELECT i AS id, 'DFXTEST:SLEEP 50 '::bytea || image AS image, dfx_classify(image) AS verdict"
	  . " FROM images, generate_series(1, 60) AS i WHERE name = 'quick'");
my $scan = 'SELECT count(*) FROM archive WHERE dfx_classify(image) = verdict';
my $served = 'SELECT requests FROM dfx_stat_engine';

sub scan_is_ahead
{
	return defined wait_for(
		sub {
			return $node->safe_psql('postgres',
				'SELECT queued + running >= 24 FROM dfx_stat_queue') eq 't';
		});
}

my $job = start_sql($node, $scan, name => 'scan');
ok(scan_is_ahead(), 'a scan has filled its window');
my $before = $node->safe_psql('postgres', $served);
$node->safe_psql('postgres',
	"SELECT dfx_classify(image) FROM images WHERE name = 'quick'");
my $after = $node->safe_psql('postgres', $served);
cmp_ok($after - $before, '<', 16,
	'a single call does not wait for the window of a scan');
is(finish_sql($job)->{out}, 60, 'the scan gets all its answers');

# Interactive calls go before all others, even those that were there first.
$job = start_sql($node, "SET dfx.priority = 'bulk'; $scan", name => 'bulk');
ok(scan_is_ahead(), 'a bulk scan has filled its window');
$before = $node->safe_psql('postgres', $served);
$node->safe_psql('postgres',
	"SET dfx.priority = 'interactive'; SELECT dfx_classify(image) FROM images WHERE name = 'quick'"
);
$after = $node->safe_psql('postgres', $served);
cmp_ok($after - $before, '<', 8, 'an interactive call is served next');
is(finish_sql($job)->{out}, 60, 'the bulk scan gets all its answers');

ok(queue_is_free($node), '... and every slot is free');

$node->stop;
done_testing();
