
# Is a backend's own memory bounded, however large the model that it imports, loads and exports?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

# By default the 142 MB of a tri-branch ResNet-18.  DFX_TEST_LARGE=1 takes the 1 GB of ViT-b16, and two minutes and
# 5 GB of disk and memory with it: the bound is the same.
my $limit_kb = 64 * 1024;
my $file     = "$ENV{DFX_TEST_DIR}/resnet18.safetensors";
my $node     = dfx_node(
	'large',
	conf => "shared_buffers = 8MB\nmax_wal_size = 4GB\ndfx.model_memory = 6GB\ndfx.request_timeout = 300s\n");
dfx_images($node, 1);
if ($ENV{DFX_TEST_LARGE})
{
	$file = $node->basedir . '/vit.safetensors';
	system($ENV{DFX_TEST_ENGINE}, 'init', '--backbone', 'vit_b_16', '--random-weights', 1, '--out', $file) == 0
	  or die 'no model';
}

# Private memory of a process in kB, as the kernel counts it now
sub private_memory
{
	my ($pid) = @_;
	my $kb = 0;

	open my $in, '<', "/proc/$pid/smaps_rollup" or return 0;
	while (<$in>)
	{
		$kb += $1 if /^Private_\w+:\s+(\d+) kB/;
	}
	return $kb;
}

# Run a statement in a session of its own, and watch it.
sub peak_is_bounded
{
	my ($sql, $test) = @_;
	my $sign = $node->basedir . '/pid';
	my ($peak, $samples) = (0, 0);

	unlink $sign;
	my $job = start_sql($node, "\\o $sign\nSELECT pg_backend_pid();\n\\o\n$sql;");
	my $pid;
	wait_for(sub { return -s $sign && (($pid) = slurp_file($sign) =~ /^(\d+)\n/) }) // die 'no session';
	while ($job->{run}->pumpable && kill 0, $pid)
	{
		my $kb = private_memory($pid);
		$peak = $kb if $kb > $peak;
		$samples++;
		sleep 0.01;
	}
	finish_sql($job);
	is($job->{state}, '00000', $test) or diag($job->{err});
	cmp_ok($peak, '<', $limit_kb, sprintf '... with at most %.1f MB of its own, in %d looks', $peak / 1024, $samples);
	cmp_ok($samples, '>', 2, '... which was watched') or diag("$samples looks");
	note(sprintf '%.1f s', $job->{seconds});
	return;
}

note(sprintf '%.0f MB of weights', (-s $file) / (1 << 20));
peak_is_bounded("SELECT dfx_import_model('m', '$file')", 'import');
kill_engine($node);
service_is_back($node);
peak_is_bounded("SELECT (dfx_classify(image, 'm')).label IS NOT NULL FROM images", 'load and classify');
peak_is_bounded("SELECT dfx_export_model('m')", 'export to a large object');

done_testing();
