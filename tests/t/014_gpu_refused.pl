
# With dfx_cuda.so installed and no GPU, does auto go on to the CPU and say why, and is an explicit cuda an error?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $engine = "$ENV{DFX_TEST_DIR}/engine/cuda/dfx-engine";
plan skip_all => 'dfx_cuda.so was not built: nvcc is missing' unless -e $engine;
plan skip_all => 'this machine has an NVIDIA driver'
  if `ldconfig -p` =~ /libcuda\.so\.1/;

my $node = dfx_node(
	'gpu_refused',
	models => ['resnet18'],
	conf   => "dfx.engine_path = '$engine'\n");
dfx_images($node, 1);
my $classify = "SELECT (dfx_classify(image)).label IS NOT NULL FROM images";

is($node->safe_psql('postgres', 'SHOW dfx.device'), 'auto', 'auto is the default');
is($node->safe_psql('postgres', $classify), 't', '... and gives verdicts');
like(
	$node->safe_psql('postgres', 'SELECT device FROM dfx_engine_status()'),
	qr/^cpu: /, '... on the CPU');
like(
	$node->safe_psql('postgres', 'SELECT refused FROM dfx_engine_status()'),
	qr/^cuda: the NVIDIA driver is missing: libcuda/,
	'dfx_engine_status says why not on a GPU');
like(
	slurp_file($node->logfile),
	qr/device cuda refused: the NVIDIA driver is missing/,
	'... and so does the log');

$node->safe_psql('postgres', "ALTER SYSTEM SET dfx.device = 'cuda'");
$node->reload;
ok( defined wait_for(sub { return sql($node, $classify)->{state} eq '57P03' }),
	'an explicit cuda is an error');
like(
	$node->safe_psql(
		'postgres', 'SELECT last_error FROM dfx_engine_status()'),
	qr/device "cuda" cannot be used: the NVIDIA driver is missing/,
	'... with the reason');

done_testing();
