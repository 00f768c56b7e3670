
# Can a role do with models only what it was granted?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('privileges');
dfx_images($node, 1);
$node->safe_psql(
	'postgres', q{
CREATE ROLE importer LOGIN;
CREATE ROLE reader LOGIN;
CREATE ROLE team;
CREATE ROLE member LOGIN IN ROLE team;
GRANT pg_read_server_files TO importer;
GRANT SELECT ON images TO PUBLIC;
});
my $file   = "$ENV{DFX_TEST_DIR}/resnet18.safetensors";
my $import = "SELECT dfx_import_model('mine', '$file')";
my $classify =
  "SELECT (dfx_classify(image, 'mine')).label IS NOT NULL FROM images";

sub as
{
	my ($user, $sql, $state, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return state_is($node, "SET SESSION AUTHORIZATION $user; $sql",
		$state, "$user: $test");
}

# Files of the server
as('reader',   $import,   '42501', 'import without pg_read_server_files');
as('importer', $import,   '00000', 'import with pg_read_server_files');
as('importer', $classify, '00000', 'the owner classifies');
as( 'importer', "SELECT dfx_export_model('mine', '/tmp/never')",
	'42501',    'export without pg_write_server_files');

# Use
foreach my $call (
	'dfx_classify(image',  'dfx_try_classify(image',
	'dfx_synthetic(image', 'dfx_features(image',
	'dfx_preload(')
{
	my $comma = $call =~ /image/ ? ', ' : '';
	as( 'reader', "SELECT $call${comma}'mine') FROM images",
		'42501',  "$call...) without a grant");
}
is( as('reader', 'SELECT count(*) FROM dfx_models', '00000', 'dfx_models')
	  ->{out},
	0,
	'reader: does not see the model');
as( 'importer', "SELECT dfx_grant_model('mine', 'reader')",
	'00000',    'the owner grants');
as('reader', $classify, '00000', 'classifies after the grant');
is( as('reader', 'SELECT count(*) FROM dfx_models', '00000', 'dfx_models')
	  ->{out},
	1,
	'reader: sees the model');
as( 'importer', "SELECT dfx_revoke_model('mine', 'reader')",
	'00000',    'the owner revokes');
as('reader', $classify, '42501', 'no more after the revoke');
as( 'importer', "SELECT dfx_grant_model('mine', 'team')",
	'00000',    'the owner grants to a group');
as('member', $classify, '00000', 'classifies as a member of it');
as('reader', $classify, '42501', 'is not a member of it');
as( 'importer', "SELECT dfx_grant_model('mine', 'public')",
	'00000',    'the owner grants to all');
as('reader', $classify, '00000', 'classifies as anyone');

# A grant of use is no more than that
foreach my $change (
	"dfx_drop_model('mine')",
	"dfx_grant_model('mine', 'member')",
	"dfx_revoke_model('mine', 'public')",
	"dfx_export_model('mine')",
	"dfx_export_model('mine', '/tmp/never')")
{
	as('reader', "SELECT $change", '42501', $change);
}
$node->safe_psql('postgres', 'GRANT pg_read_server_files TO reader');
as('reader', $import, '42501', 'cannot replace the model of another');
foreach my $table ('version', 'tensor', 'chunk', 'history', 'grant')
{
	as( 'reader', "SELECT FROM dfx_model_$table",
		'42501',  "cannot read dfx_model_$table");
}
as( 'reader', "INSERT INTO dfx_model VALUES ('x', '', 'reader')",
	'42501',  'cannot write dfx_model');
as('reader',   'SET dfx.max_image_pixels = 1',  '42501', 'cannot set limits');
# What the README tells administrators
$node->safe_psql('postgres', 'ALTER ROLE importer RENAME TO curator');
as( 'curator', "SELECT dfx_export_model('mine')",
	'42501',    'a renamed role does not own what it owned');
$node->safe_psql('postgres',
	"SELECT dfx_alter_model_owner(name, 'curator') FROM dfx_models WHERE owner = 'importer'"
);
as( 'curator', "SELECT dfx_export_model('mine') > 0",
	'00000',   '... until the models are given to its new name');
$node->safe_psql(
	'postgres', q{
ALTER ROLE curator RENAME TO importer;
SELECT dfx_alter_model_owner('mine', 'importer');
REVOKE EXECUTE ON FUNCTION dfx_import_model(text, oid, int), dfx_import_model(text, text, int), dfx_import_backbone(text, text, oid),
	dfx_import_backbone(text, text, text), dfx_install_starter_model(text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION dfx_import_model(text, oid, int) TO importer;
});
as( 'reader', "SELECT dfx_import_model('theirs', 1)",
	'42501',  'import without EXECUTE');
as( 'importer', "SELECT dfx_import_model('theirs', 1)",
	'42704',    'import with EXECUTE, of a large object that is not there');
as( 'importer', "SELECT dfx_export_model('mine') > 0",
	'00000',    'the owner exports');
as('importer', "SELECT dfx_drop_model('mine')", '00000', 'the owner drops');

done_testing();
