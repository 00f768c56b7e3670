
# Do models survive pg_dump and restore, with the same version and the same verdicts?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('dump', models => ['resnet18']);
dfx_images($node, 2);
$node->safe_psql('postgres', 'CREATE ROLE reader');
$node->safe_psql('postgres', "SELECT dfx_grant_model('resnet18', 'reader')");

my @same = (
	'versions' =>
	  'SELECT name, version, kind, backbone, owner FROM dfx_models',
	'bytes' =>
	  'SELECT count(*), md5(string_agg(md5(data), NULL ORDER BY tensor, chunk)) FROM dfx_model_chunk',
	'history'      => 'SELECT name, since, version FROM dfx_model_history',
	'grants'       => 'SELECT name, grantee FROM dfx_model_grant',
	'the verdicts' =>
	  "SELECT id, dfx_classify(image, 'resnet18') FROM images ORDER BY id");
my %expected;

for (my $i = 0; $i < @same; $i += 2)
{
	$expected{ $same[$i] } = $node->safe_psql('postgres', $same[ $i + 1 ]);
}

my $dump = $node->basedir . '/dump';
$node->command_ok(
	[ 'pg_dump', '-Fc', '-Z0', '-f', $dump, $node->connstr('postgres') ],
	'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
$node->command_ok(
	[
		'pg_restore', '--exit-on-error',
		'-d',         $node->connstr('restored'),
		$dump
	],
	'pg_restore');

# What the engine holds is keyed by content, so it would answer without a look
# at the restored tables.
kill_engine($node);
while (my ($what, $sql) = splice @same, 0, 2)
{
	is($node->safe_psql('restored', $sql),
		$expected{$what}, "$what are the same");
}
is( $node->safe_psql(
		'restored',
		"SELECT dfx_drop_model('resnet18'); SELECT count(*) FROM dfx_model_chunk"
	),
	"\n0",
	'the copy can be dropped');
is( $node->safe_psql(
		'postgres',
		"SELECT id, dfx_classify(image, 'resnet18') FROM images ORDER BY id"),
	$expected{'the verdicts'},
	'... and the original stays');

done_testing();
