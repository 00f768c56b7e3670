
# When the engine's device is lost, does the engine end, and does a new one serve?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('device_lost', models => ['resnet18']);
dfx_images($node, 3);
dfx_expect($node, 'resnet18');
put_image($node, 'lost', 'DFXTEST:LOST ' . png(48, 48, 1));

# With nothing else in flight it is the image that gets the blame, after a second try alone.
my $engine = engine_pid($node);
my $log    = -s $node->logfile;
state_is($node, "SELECT dfx_classify(image) FROM images WHERE name = 'lost'",
	'58000', 'an image with which the device is lost twice is named',
	qr/engine.*code 1/);
isnt(new_engine($node, $engine), $engine, 'there is a new engine');
like(
	slurp_file($node->logfile, $log),
	qr/the device is lost, the engine ends: the test has taken the device away/,
	'the log says why the old one ended');
is(sql($node, "SELECT check_verdict($_)")->{state}, '00000', "image $_ is served")
  foreach 1 .. 3;

# Those who shared a batch with it are answered by the next engine.
my $lost = start_sql($node,
	"SELECT dfx_classify(image) FROM images WHERE name = 'lost'");
my @others = map { start_sql($node, "SELECT check_verdict($_)") } 1 .. 3;
is(finish_sql($lost)->{state}, '58000', 'once more, among others');
is( join(' ', map { finish_sql($_)->{state} } @others),
	join(' ', ('00000') x 3),
	'the others get their verdicts');
ok(queue_is_free($node), 'every slot is free');

done_testing();
