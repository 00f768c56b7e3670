
# Is a checkpoint with torchvision's names imported as the network it is, and one that does not fit refused by name?

use strict;
use warnings FATAL => 'all';

use Dfx;
use DfxTensors;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('backbone', models => ['resnet18']);
dfx_images($node, 2);

sub import_state
{
	my ($tensor, $backbone, $state, $test, $pattern) = @_;
	my $file = $node->basedir . '/backbone.safetensors';
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	write_tensors($file, $tensor);
	return state_is($node, "SELECT dfx_import_backbone('b', '$backbone', '$file')",
		$state, $test, $pattern);
}

# The first branch of a complete model, as torchvision would have saved it
my $model = read_tensors("$ENV{DFX_TEST_DIR}/resnet18.safetensors");
my %net = map { /^dm\.(.*)/ ? ($1 => $model->{$_}) : () } keys %$model;
my %classifier = (
	'fc.weight' => [ 'F32', [ 10, 512 ], pack('f<*', (0.5) x 5120) ],
	'fc.bias'   => [ 'F32', [10],        pack('f<*', (0.5) x 10) ],
	'bn1.num_batches_tracked' => [ 'I64', [], pack('q<', 7) ]);
import_state({ %net, %classifier },
	'resnet18', '00000', 'a checkpoint with a classifier of ten classes');
my $features = q{
SELECT count(*), bool_and(abs(b - m) <= 1e-4 * (1 + abs(m)))
	FROM images, LATERAL (SELECT dfx_features(image, 'b') AS f, (dfx_features(image, 'resnet18'))[1:512] AS g OFFSET 0) AS x,
		unnest(f, g) AS u(b, m)};
is($node->safe_psql('postgres', $features),
	'1024|t', 'its features are those of the branch that it came from');
my $meta =
  q{SELECT kind, backbone, options->>'input_size' FROM dfx_models WHERE name = 'b'};
is($node->safe_psql('postgres', $meta), 'backbone|resnet18|256', 'what it is');
my $version = q{SELECT version FROM dfx_models WHERE name = 'b'};
my $with    = $node->safe_psql('postgres', $version);
import_state(\%net, 'resnet18', '00000', 'the same without one');
is($node->safe_psql('postgres', $version),
	$with, '... is the same version: only what the features need counts');
state_is($node, "SELECT dfx_classify(image, 'b') FROM images",
	'22023', 'it gives no verdicts', qr/features/);

my $lo = $node->safe_psql('postgres',
	"SELECT lo_from_bytea(0, pg_read_binary_file('"
	  . $node->basedir
	  . "/backbone.safetensors'))");
state_is($node, "SELECT dfx_import_backbone('c', 'resnet18', $lo)",
	'00000', 'from a large object');
is( $node->safe_psql(
		'postgres', "SELECT count(DISTINCT version) FROM dfx_models WHERE name IN ('b', 'c')"
	),
	1,
	'... the same version');

# From the upper half of each number: BF16
my %half = map {
	my ($dtype, $shape, $bytes) = @{ $net{$_} };
	$_ => [ 'BF16', $shape, pack('v*', map { $_ >> 16 } unpack 'V*', $bytes) ]
} keys %net;
import_state(\%half, 'resnet18', '00000', 'BF16');
is( $node->safe_psql(
		'postgres',
		"SELECT DISTINCT t.dtype FROM dfx_model_tensor AS t JOIN dfx_model AS m USING (version) WHERE m.name = 'b'"
	),
	'BF16',
	'... is kept as it came');

# What does not fit
my %bad = (%net, 'layer9.weight' => [ 'F32', [1], pack('f<', 1) ]);
delete $bad{'conv1.weight'};
$bad{'bn1.bias'} = [ 'F32', [2], pack('f<*', 1, 2) ];
import_state(\%bad, 'resnet18', '22P03',
	'missing, unexpected and misshapen tensors, in one error',
	qr/1 missing, 1 unexpected, 1 misshapen.*conv1\.weight.*layer9\.weight.*bn1\.bias/s);
my %other = map { ("x.$_" => $net{$_}) } keys %net;
my $job = import_state(\%other, 'resnet18', '22P03', 'a file of other names throughout');
my @unnamed = grep { $job->{err} !~ /^DETAIL: .*(?: |: )\Q$_\E[,;.]/m } keys %net, keys %other;
is("@unnamed", '', '... every single one is named');
import_state(\%net, 'resnet19', '0A000', 'an unknown backbone', qr/resnet19/);
import_state(\%net, '', '22023', 'no backbone');
import_state({ 'fc.bias' => $classifier{'fc.bias'} },
	'resnet18', '22P03', 'nothing but a classifier');
import_state(
	{   'features.denseblock1.denselayer1.norm.1.bias' => $net{'bn1.bias'},
		'features.denseblock1.denselayer1.norm1.bias'  => $net{'bn1.bias'}
	},
	'densenet121',
	'22P03',
	'an old name and a new one for the same tensor',
	qr/denselayer1\.norm1\.bias.* twice/);

done_testing();
