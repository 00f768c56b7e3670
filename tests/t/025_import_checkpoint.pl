
# Are other people's files imported as the networks they are: the authors' complete checkpoints, timm's backbones?

use strict;
use warnings FATAL => 'all';

use Dfx;
use DfxTensors;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('checkpoint', models => ['resnet18']);
dfx_images($node, 2);
my $file = $node->basedir . '/theirs.safetensors';

sub version_of
{
	my ($name) = @_;
	return $node->safe_psql('postgres',
		"SELECT version FROM dfx_models WHERE name = '$name'");
}

# ---- complete models ----

# One of ours, under the authors' names; $inside renames within a branch.
sub authors_names
{
	my ($model, $inside) = @_;
	my %part = (dm => 'model1.', gan => 'model2.', real => 'model3.', head => '');

	return {
		map {
			my ($part, $name) = /^(dm|gan|real|head)\.(.*)/;
			$name = $inside->($name) if $inside && $part ne 'head';
			("$part{$part}$name" => $model->{$_})
		} keys %$model
	};
}

my $ours = read_tensors("$ENV{DFX_TEST_DIR}/resnet18.safetensors");
my %theirs = (
	%{ authors_names($ours) },
	'model1.fc.weight' => [ 'F32', [ 2, 512 ], pack('f<*', (0.5) x 1024) ],
	'model1.fc.bias'   => [ 'F32', [2], pack('f<*', 1, 2) ],
	map { ("$_.num_batches_tracked" => [ 'I64', [], pack('q<', 7) ]) } 'model2.bn1', 'convs.2');
write_tensors($file, \%theirs, { format => 'pt' });

state_is($node, "SELECT dfx_import_model('paper', '$file', 1)",
	'00000', 'a checkpoint of the authors, of which the paper\'s stride is said');
is(version_of('paper'), version_of('resnet18'),
	'... is the very model that it was made from: names and leftovers do not count');
state_is($node, "SELECT dfx_import_model('reference', '$file')",
	'00000', 'without a word about the stride');
is( $node->safe_psql(
		'postgres',
		"SELECT kind, backbone, options->>'classes', options->>'head_stride', options->>'input_size' FROM dfx_models WHERE name = 'reference'"),
	'trinet|resnet18|dm,gan,real|2|256',
	'... it is that of the authors\' code');
is( $node->safe_psql(
		'postgres',
		"SELECT count(DISTINCT (dfx_classify(image, m)).p_dm) > 2 FROM images, unnest('{paper,reference}'::text[]) AS m"
	),
	't',
	'both give verdicts, and not the same ones');
is( $node->safe_psql(
		'postgres',
		"SELECT bool_and(dfx_features(image, 'paper') = dfx_features(image, 'reference')) FROM images"
	),
	't',
	'... from the same features');
my $lo = $node->safe_psql('postgres', "SELECT lo_import('$file')");
state_is($node, "SELECT dfx_import_model('lo', $lo, head_stride => 2)",
	'00000', 'from a large object');
is(version_of('lo'), version_of('reference'), '... the same version');

state_is($node, "SELECT dfx_import_model('bad', '$file', 3)",
	'22023', 'a stride that no such model has', qr/head_stride/);
state_is(
	$node,
	"SELECT dfx_import_model('bad', '$ENV{DFX_TEST_DIR}/resnet18.safetensors', 2)",
	'22023',
	'a stride that contradicts the file',
	qr/stride of its head is 1/);
my @branch = grep { /^model2\.layer1\./ } keys %theirs;
write_tensors($file, { map { ($_ => $theirs{$_}) } grep { !/^model2\.layer1\./ } keys %theirs });
my $job = state_is($node, "SELECT dfx_import_model('bad', '$file')",
	'22P03', 'a checkpoint with a hole', qr/"bad".*missing/);
my @unnamed = grep { my $name = s/^model2/gan/r; $job->{err} !~ /^DETAIL: .*\b\Q$name\E[,;.]/m } @branch;
is("@unnamed", '', '... all of it is named');
write_tensors($file, { 'model1.stem.conv.weight' => [ 'F32', [1], pack('f<', 1) ] });
state_is($node, "SELECT dfx_import_model('bad', '$file')",
	'22P03', 'NVIDIA\'s EfficientNet', qr/eps 1e-3.*HINT:.*convert_weights/s);
write_tensors($file, { 'model1.x' => [ 'F32', [1], pack('f<', 1) ] });
state_is($node, "SELECT dfx_import_model('bad', '$file')",
	'22P03', 'a backbone that is not known', qr/none of the backbones/);
write_tensors($file, { 'conv1.weight' => [ 'F32', [1], pack('f<', 1) ] });
state_is($node, "SELECT dfx_import_model('bad', '$file')",
	'22P03', 'a file that is no complete model', qr/dfx_import_backbone/);

# ---- timm ----

my $engine = $ENV{DFX_TEST_ENGINE};
my %timm   = map { /^([^#]\S+) (\S+)/ ? ($2 => $1) : () }
  split /\n/, slurp_file("$ENV{DFX_TEST_DIR}/names/efficientnet_b0.txt");
my $b0 = $node->basedir . '/b0.safetensors';
system($engine, 'init', '--backbone', 'efficientnet_b0', '--random-weights', 9, '--out', $b0) == 0
  or die 'no model';
$ours = read_tensors($b0);
$node->safe_psql('postgres', "SELECT dfx_import_model('b0', '$b0')");

write_tensors($file, authors_names($ours, sub { $timm{ $_[0] } // die $_[0] }));
state_is($node, "SELECT dfx_import_model('b0timm', '$file', 1)",
	'00000', 'a complete model with timm\'s EfficientNet inside');
is(version_of('b0timm'), version_of('b0'), '... is the one with torchvision\'s');

my %net = map { /^gan\.(.*)/ ? ($timm{$1} => $ours->{$_}) : () } keys %$ours;
write_tensors($file, { %net, 'classifier.weight' => [ 'F32', [ 1, 1280 ], pack('f<*', (1) x 1280) ] });
state_is($node, "SELECT dfx_import_backbone('gan', 'efficientnet_b0', '$file')",
	'00000', 'timm\'s EfficientNet alone');
is( $node->safe_psql(
		'postgres', q{
SELECT count(*), bool_and(abs(b - m) <= 1e-4 * (1 + abs(m)))
	FROM images, LATERAL (SELECT dfx_features(image, 'gan') AS f, (dfx_features(image, 'b0'))[1281:2560] AS g OFFSET 0) AS x,
		unnest(f, g) AS u(b, m)}),
	'2560|t',
	'... has the features of the branch that it came from');
state_is($node, "SELECT dfx_import_backbone('bad', 'efficientnet_b4', '$file')",
	'22P03', '... and is no other network', qr/DETAIL:.*features\.0\.0\.weight \(F32 \[32,3,3,3\], not \[48,3,3,3\]\)/s);
ok(queue_is_free($node), 'every slot is free');

done_testing();
