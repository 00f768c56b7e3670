
# Does dfx_stat_models say what the engine holds, and does dfx_evict change it?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('statmodels', models => [ 'resnet18', 'resnet18b' ]);
dfx_images($node, 4);
put_image($node, 'slow', 'DFXTEST:SLEEP 3000 ' . png(48, 48, 9));
$node->safe_psql('postgres', q{
CREATE ROLE reader LOGIN;
GRANT ALL ON images TO reader;
SELECT dfx_grant_model('resnet18', 'reader');
SELECT dfx_copy_model('resnet18', 'copy');
});

sub stat_is
{
	my ($names, $columns, $expected, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is( $node->safe_psql(
			'postgres',
			"SELECT $columns FROM dfx_stat_models WHERE names = '$names'"),
		$expected, $test);
	return;
}

kill_engine($node);
service_is_back($node);
is($node->safe_psql('postgres', 'SELECT count(*) FROM dfx_stat_models'),
	0, 'a new engine knows no model');
$node->safe_psql('postgres', "SELECT dfx_preload('resnet18')");
stat_is(
	'{copy,resnet18}',
	'precision, resident, bytes > 0, loads, hits, last_use',
	'fp32|t|t|1|0|', 'a model that was loaded and not used');
is( $node->safe_psql(
		'postgres',
		'SELECT s.bytes = e.model_bytes AND s.version = m.version FROM dfx_stat_models AS s, dfx_stat_engine AS e, dfx_models AS m'
		  . " WHERE m.name = 'resnet18'"),
	't',
	'... its bytes are those of dfx_stat_engine, its version that of dfx_models');
$node->safe_psql('postgres',
	"SELECT dfx_classify(image) FROM images WHERE name LIKE 'noise%'");
stat_is(
	'{copy,resnet18}',
	"resident, loads, hits, last_use BETWEEN now() - interval '1 min' AND now()",
	't|1|4|t',
	'it has served four requests, just now');
$node->safe_psql('postgres', "SELECT dfx_preload('resnet18b')");
stat_is('{resnet18b}', 'resident, loads, hits', 't|1|0', 'a second model');

# Who sees what, and who may
is( $node->safe_psql(
		'postgres',
		'SELECT names FROM dfx_stat_models ORDER BY names',
		extra_params => [ '-U', 'reader' ]),
	"{resnet18}\n",
	'others see the figures, and the names that they may use');
foreach ([ "'resnet18'", '42501', 'by another role' ],
	[ "'resnet18b'", '42501', 'by a role that may not use it' ],
	[ "'nobody'", '42704', 'of no model' ],
	[ 'NULL', '22004', 'of NULL' ])
{
	my ($model, $state, $test) = @$_;
	state_is($node, "SET ROLE reader; SELECT dfx_evict($model)",
		$state, "dfx_evict $test");
}

# Evict
$node->safe_psql('postgres', "SELECT dfx_evict('copy')");
stat_is('{copy,resnet18}', 'resident, bytes > 0, loads, hits',
	'f|t|1|4', 'evicted under either name: its figures stay');
is( $node->safe_psql(
		'postgres',
		'SELECT models, model_evictions FROM dfx_stat_engine'),
	'1|1',
	'... and the engine has one model left');
$node->safe_psql('postgres', "SELECT dfx_evict('copy')");
is($node->safe_psql('postgres', 'SELECT model_evictions FROM dfx_stat_engine'),
	1, 'evicting what is not there does nothing');
$node->safe_psql('postgres',
	"SELECT dfx_classify(image) FROM images WHERE name = 'noise 1'");
stat_is('{copy,resnet18}', 'resident, loads, hits',
	't|2|5', 'the next request loads it again');

# In use
my $slow = start_sql(
	$node,
	"SELECT dfx_features(image) IS NOT NULL FROM images WHERE name = 'slow'",
	name => 'slow');
session_pid($node, 'slow');
state_is($node,
	"SET dfx.queue_timeout = '300ms'; SELECT dfx_evict('resnet18')",
	'55006', 'a model in use is not evicted');
stat_is('{copy,resnet18}', 'resident', 't', '... and stays');
is(sql($node, "SELECT dfx_evict('resnet18')")->{state},
	'00000', 'with more patience it is, when the request has ended');
is(finish_sql($slow)->{state}, '00000', '... which did not notice');
stat_is('{copy,resnet18}', 'resident', 'f', '... and it is gone');

# A new engine
kill_engine($node);
service_is_back($node);
is($node->safe_psql('postgres', 'SELECT count(*) FROM dfx_stat_models'),
	0, 'the next engine begins anew');
ok(queue_is_free($node), 'every slot is free');

done_testing();
