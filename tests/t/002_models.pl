
# What does a query get when its model is unknown, dropped under it, or damaged?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('models');
dfx_images($node, 2);

my $classify = 'SELECT dfx_classify(image) FROM images WHERE id = 1';
my $verdict =
  "SELECT dfx_classify(image, 'resnet18') FROM images WHERE id = 1";

state_is($node, $classify, '42704', 'no model at all');
# A cancelled import leaves nothing behind
my $file = "$ENV{DFX_TEST_DIR}/resnet18.safetensors";
state_is(
	$node,
	"SET statement_timeout = 200; SELECT dfx_import_model('resnet18', '$file')",
	'57014',
	'an import is cancelled');
is( $node->safe_psql(
		'postgres',
		'SELECT count(*) FROM dfx_model_version UNION ALL SELECT count(*) FROM dfx_model'
	),
	"0\n0",
	'... and leaves nothing behind');
dfx_model($node, 'resnet18');
dfx_model($node, 'resnet18b');
state_is($node, "SELECT dfx_classify(image, 'nobody') FROM images",
	'42704', 'unknown model', qr/nobody/);
state_is($node, "SET dfx.default_model = 'nobody'; $classify",
	'42704', 'unknown default model', qr/nobody/);

# Dropped meanwhile: a snapshot that still sees the model keeps its answer, also
# when the engine has forgotten the model and it must be read again.
my $expected = $node->safe_psql('postgres', $verdict);
my $reader   = $node->background_psql('postgres', on_error_stop => 0);
my $cursor   = $node->background_psql('postgres', on_error_stop => 0);
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$cursor->query_safe(
	"BEGIN; DECLARE c CURSOR FOR SELECT dfx_classify(i.image, 'resnet18')
		FROM images AS i, generate_series(1, 3) WHERE id = 1");
is($cursor->query_safe('FETCH c'), $expected, 'an open cursor');
$node->safe_psql('postgres', "SELECT dfx_drop_model('resnet18')");
state_is($node, $verdict, '42704', 'a dropped model is gone for new queries');
is($reader->query_safe($verdict),
	$expected, 'a snapshot from before the drop has its answer');
kill_engine($node);
is($reader->query_safe($verdict),
	$expected, '... also from an engine that must load it again');
is($cursor->query_safe('FETCH c'), $expected,
	'... and so has an open cursor');
$reader->quit;
$cursor->quit;

# A snapshot that does not see a version's other name must not take it for unused
dfx_model($node, 'resnet18');
my $dropper = $node->background_psql('postgres', on_error_stop => 0);
$dropper->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$node->safe_psql('postgres', "SELECT dfx_copy_model('resnet18', 'since')");
$dropper->query(
	"\\set VERBOSITY verbose\nSELECT dfx_drop_model('resnet18')");
like($dropper->{stderr}, qr/ERROR:\s+40001:/,
	'a version that got another name since the snapshot is not dropped');
$dropper->quit;
is($node->safe_psql('postgres', $verdict),
	$expected, '... and both names go on');
$node->safe_psql('postgres', "SELECT dfx_drop_model('$_')")
  foreach 'since', 'resnet18';

# Damaged rows.  What the engine holds is still good, so it must forget it first.
my $other =
  "SELECT dfx_classify(image, 'resnet18b') FROM images WHERE id = 1";
my $chunk =
  '(version, tensor, chunk) = (SELECT version, number, 1 FROM dfx_model_tensor ORDER BY bytes DESC, number LIMIT 1)';
my @damage = (
	'a flipped bit' =>
	  "UPDATE dfx_model_chunk SET data = set_byte(data, 99, get_byte(data, 99) # 1) WHERE $chunk",
	'a missing chunk' => "DELETE FROM dfx_model_chunk WHERE $chunk",
	'a short chunk'   =>
	  "UPDATE dfx_model_chunk SET data = substr(data, 5) WHERE $chunk",
	'a long chunk' =>
	  "UPDATE dfx_model_chunk SET data = data || '\\x00000000' WHERE $chunk",
	'a chunk doubled' =>
	  "UPDATE dfx_model_chunk AS c SET data = (SELECT data FROM dfx_model_chunk AS o WHERE (o.version, o.tensor, o.chunk) = (c.version, c.tensor, 0)) WHERE $chunk",
	'a chunk too many' =>
	  "INSERT INTO dfx_model_chunk SELECT version, tensor, 1000, data FROM dfx_model_chunk WHERE $chunk",
	'a chunk elsewhere' =>
	  "UPDATE dfx_model_chunk SET chunk = 1000 WHERE $chunk");
my @retouch = (
	'another name'  => q{name = name || 'x'},
	'another shape' => q{shape = shape || 1::bigint},
	'another type'  => q{dtype = 'BF16'});
while (my ($what, $set) = splice @retouch, 0, 2)
{
	push @damage, "$what of a tensor",
	  "UPDATE dfx_model_tensor SET $set WHERE number = (SELECT number FROM dfx_model_tensor ORDER BY bytes DESC, number LIMIT 1)";
}
my $tensor = $node->safe_psql('postgres',
	'SELECT name FROM dfx_model_tensor ORDER BY bytes DESC, number LIMIT 1');
$expected = $node->safe_psql('postgres', $other);

# Importing the same file again would share the damaged rows: it must say so,
# although the engine still has them right, and its advice must work.
my $again =
  "SELECT dfx_import_model('again', '$ENV{DFX_TEST_DIR}/resnet18b.safetensors')";
$node->safe_psql('postgres',
	"UPDATE dfx_model_chunk SET data = set_byte(data, 7, get_byte(data, 7) # 1) WHERE $chunk"
);
state_is(
	$node, $again, 'XX001',
	'a second import of a damaged version',
	qr/hash.*Drop all models of this version/s);
is( $node->safe_psql(
		'postgres', "SELECT count(*) FROM dfx_models WHERE name = 'again'"),
	0,
	'... makes no model');
$node->safe_psql('postgres', "SELECT dfx_drop_model('resnet18b')");
dfx_model($node, 'resnet18b');
state_is($node, $again, '00000',
	'dropped and imported again it is whole, and can be shared');
$node->safe_psql('postgres', "SELECT dfx_drop_model('again')");

my $engine = kill_engine($node);
while (my ($what, $sql) = splice @damage, 0, 2)
{
	# The error takes the damage back.
	state_is($node, "BEGIN; $sql; $other",
		'XX001', $what, qr/model "resnet18b".*(?:tensor "\Q$tensor\Ex?"|names, shapes)/s);
}
is($node->safe_psql('postgres', $other),
	$expected, 'undamaged, the model works at once');
is(engine_pid($node), $engine, '... in an engine that outlived all damage');
ok(queue_is_free($node), 'every slot is free');

done_testing();
