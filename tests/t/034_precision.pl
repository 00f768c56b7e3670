
# Does dfx.precision = bf16 give fp32's verdicts where the CPU has it, say what is missing where it has not, and is
# what auto stands for to be seen?

use strict;
use warnings FATAL => 'all';

use Dfx;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $images = 6;
my $node   = dfx_node('precision', models => ['resnet18']);
dfx_images($node, $images);

# What the engine says of this CPU
my ($cpu) = grep { $_->{backend} eq 'cpu' }
  map { decode_json($_) } split /\n/,
  `$ENV{DFX_TEST_ENGINE} devices --json`;
my %has = map { $_ => 1 } split /,/, $cpu->{precisions};
ok($has{fp32},               'the CPU computes in fp32');
ok($has{ $cpu->{automatic} }, "auto stands for $cpu->{automatic}, which it has");

# The probabilities of all images in one precision, in one query or image by image.
sub probabilities
{
	my ($precision, $alone) = @_;
	my $columns = '(v).p_dm, (v).p_gan, (v).p_real';
	my $query =
	  $alone
	  ? join ' UNION ALL ',
	  map {
		"(SELECT $columns FROM (SELECT dfx_classify(image) AS v FROM images WHERE id = $_ OFFSET 0) AS s)"
	  } 1 .. $images
	  : "SELECT $columns FROM (SELECT dfx_classify(image) AS v FROM images ORDER BY id OFFSET 0) AS s";

	return $node->safe_psql('postgres',
		"SET dfx.precision = '$precision'; SET dfx.read_ahead = "
		  . ($alone ? 0 : 64)
		  . "; $query");
}

sub models_in
{
	my ($precision) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(*) FROM dfx_stat_models WHERE precision = '$precision'"
	);
}

my $fp32 = probabilities('fp32');
is(models_in('fp32'), 1, 'dfx_stat_models says fp32');
is(probabilities('auto'),
	probabilities($cpu->{automatic}),
	"auto gives the bits of $cpu->{automatic}");

SKIP:
{
	skip 'this CPU has no bf16', 4 unless $has{bf16};
	my $bf16  = probabilities('bf16');
	my @want  = split /[|\n]/, $fp32;
	my @got   = split /[|\n]/, $bf16;
	my $moved = 0;

	foreach my $i (0 .. $#want)
	{
		my $by = abs($want[$i] - $got[$i]);
		$moved = $by if $by > $moved;
	}
	is(scalar @got, 3 * $images, 'bf16 gives a verdict of every image');
	ok($moved > 0 && $moved < 0.02, "... near fp32's, and not the same")
	  or diag("the largest difference is $moved");
	is(probabilities('bf16', 1),
		$bf16, 'alone an image gives the bits that it gives among others');
	is(models_in('bf16'), 1, 'dfx_stat_models says bf16');
}

# A CPU that has it not: the library is told to use nothing newer than AVX2.
my $wrapper = $node->basedir . '/old-cpu';
append_to_file($wrapper,
	"#!/bin/sh\nONEDNN_MAX_CPU_ISA=AVX2 exec '$ENV{DFX_TEST_ENGINE}' \"\$@\"\n"
);
chmod 0755, $wrapper;
$node->append_conf('postgresql.conf', "dfx.engine_path = '$wrapper'\n");
$node->restart;
state_is(
	$node,
	"SET dfx.precision = 'bf16'; SELECT dfx_classify(image) FROM images WHERE id = 1",
	'0A000',
	'bf16 is refused by a CPU without it',
	qr/bf16: this CPU has neither avx512_bf16 nor amx_bf16/);
state_is(
	$node,
	"SET dfx.precision = 'int4'",
	'22023', 'what is no precision is no setting');
ok(probabilities('auto') ne '', 'auto gives verdicts there');
is(models_in('fp32'), 1, '... in fp32');
ok(queue_is_free($node), 'every slot is free');

done_testing();
