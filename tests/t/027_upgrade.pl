
# Do models, grants and the default come through pg_upgrade, and through pg_dumpall into a new cluster?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = dfx_node('old', models => ['resnet18']);
dfx_images($old, 2);
$old->safe_psql(
	'postgres', q{
CREATE ROLE curator;
CREATE ROLE reader;
SELECT dfx_copy_model('resnet18', 'second');
SELECT dfx_alter_model_owner('second', 'curator');
SELECT dfx_grant_model('second', 'reader');
});

my @same = (
	'models' =>
	  'SELECT name, version, kind, backbone, owner, bytes, is_default FROM dfx_models ORDER BY name',
	'history' => 'SELECT * FROM dfx_model_history ORDER BY name, since',
	'grants'  => 'TABLE dfx_model_grant',
	'what a role may use' =>
	  q{SET ROLE reader; SELECT name FROM dfx_models},
	'verdicts' =>
	  q{SELECT id, dfx_classify(image), dfx_classify(image, 'second') FROM images ORDER BY id});
my %expected = map { ($_ => $old->safe_psql('postgres', {@same}->{$_})) } keys %{ {@same} };

sub is_same
{
	my ($node, $how) = @_;

	for (my $i = 0; $i < @same; $i += 2)
	{
		is($node->safe_psql('postgres', $same[ $i + 1 ]), $expected{ $same[$i] }, "$how: $same[$i]");
	}
	state_is($node, "SELECT dfx_set_default_model(NULL); SELECT dfx_drop_model(name) FROM dfx_models", '00000', "$how: models can be dropped");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM dfx_model_chunk'), 0, '... and their rows go');
	return;
}

# A cluster ready to take another's content
sub new_cluster
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init;
	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = 'deepfeaturex'\ndfx.engine_path = '$ENV{DFX_TEST_ENGINE}'\ndfx.threads = 2\n");
	return $node;
}

my $dump = $old->basedir . '/dumpall.sql';
$old->command_ok([ 'pg_dumpall', '--clean', '--if-exists', '-f', $dump, '-d', $old->connstr('postgres') ], 'pg_dumpall');
my $dumped = new_cluster('dumped');
$dumped->start;
# That its own superuser cannot be dropped is the one error.
$dumped->command_ok([ 'psql', '-qX', '-d', $dumped->connstr('template1'), '-f', $dump, '-o', '/dev/null' ], '... restored');
is_same($dumped, 'pg_dumpall');
$dumped->stop;

my $new = new_cluster('new');
my $bin = $old->config_data('--bindir');
$old->stop;
chdir $new->basedir or die "could not enter the new cluster's directory: $!";
command_ok(
	[
		'pg_upgrade', '--no-sync',
		'-b', $bin, '-B', $bin, '-d', $old->data_dir, '-D', $new->data_dir,
		'-s', $new->host, '-p', $old->port, '-P', $new->port,
	],
	'pg_upgrade');
$new->start;
is_same($new, 'pg_upgrade');

done_testing();
