
# Does a model that kills every engine which preloads it leave room for everybody else?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node(
	'killer',
	conf   => "log_line_prefix = '%n '\n",
	models => ['resnet18']);
dfx_images($node, 1);
dfx_expect($node, 'resnet18');

# Such a model cannot be imported, for importing loads it: so these are rows of a restored dump, say.
$node->safe_psql(
	'postgres', q{
INSERT INTO dfx_model_version VALUES (decode(repeat('11', 32), 'hex'), 'trinet', 'DFXTEST:SEGV',
	'{"classes": "dm,gan,real", "head_stride": 1, "input_size": 256}');
INSERT INTO dfx_model_tensor VALUES (decode(repeat('11', 32), 'hex'), 0, 'x', 'F32', '{1}', 4, decode(repeat('11', 32), 'hex'));
INSERT INTO dfx_model_chunk VALUES (decode(repeat('11', 32), 'hex'), 0, 0, '\x00000000');
INSERT INTO dfx_model VALUES ('killer', decode(repeat('11', 32), 'hex'), 'postgres');
ALTER SYSTEM SET dfx.preload_models = 'postgres.killer, postgres.resnet18';
});
my $from = -s $node->logfile;
my $engine = engine_pid($node);
$node->reload;

# The longest that an engine has lived which then died, in seconds
sub longest_life
{
	my ($longest, $ready) = (0, undef);

	foreach (split /\n/, slurp_file($node->logfile, $from))
	{
		$ready = $1 if /^(\d+\.\d+) LOG: .*engine is ready/;
		$longest = $1 - $ready
		  if defined $ready && /^(\d+\.\d+) LOG: .*engine .* died/ && $1 - $ready > $longest;
	}
	return $longest;
}
ok( defined wait_for(
		sub { slurp_file($node->logfile, $from) =~ /could not preload model "killer"/ }),
	'the worker gives up, and says so');
isnt(engine_pid($node), $engine, '... after the engine has died of it');
state_is($node, 'SELECT check_verdict(1)', '00000', 'meanwhile others are served');
$engine = engine_pid($node);
ok( $node->poll_query_until(
		'postgres', q{SELECT resident FROM dfx_stat_models WHERE names = '{resnet18}'}),
	'... and what comes after it in the list is loaded');
# Without a pause between tries no engine would live for long.
ok(defined wait_for(sub { longest_life() > 7 }), 'the tries are further and further apart');
state_is($node, 'SELECT check_verdict(1)', '00000', '... and others are served still');
ok(queue_is_free($node), 'every slot is free');

done_testing();
