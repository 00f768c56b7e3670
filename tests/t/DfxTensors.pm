
=pod

=head1 NAME

DfxTensors - safetensors files, to be taken apart and put together by tests

=over

=item read_tensors($file)

A safetensors file as name => [dtype, shape, bytes].

=cut

package DfxTensors;

use strict;
use warnings FATAL => 'all';

use Exporter qw(import);
use JSON::PP;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(read_tensors write_tensors);

sub read_tensors
{
	my ($file) = @_;
	my $bytes  = slurp_file($file);
	my $n      = unpack 'Q<', $bytes;
	my $header = decode_json(substr $bytes, 8, $n);
	my %tensor;

	delete $header->{__metadata__};
	while (my ($name, $t) = each %$header)
	{
		my ($begin, $end) = @{ $t->{data_offsets} };
		$tensor{$name} =
		  [ $t->{dtype}, $t->{shape}, substr $bytes, 8 + $n + $begin, $end - $begin ];
	}
	return \%tensor;
}

=pod

=item write_tensors($file, $tensor, [$metadata])

The reverse.

=back

=cut

sub write_tensors
{
	my ($file, $tensor, $metadata) = @_;
	my $data   = '';
	my %header = $metadata ? (__metadata__ => $metadata) : ();

	foreach my $name (sort keys %$tensor)
	{
		my ($dtype, $shape, $bytes) = @{ $tensor->{$name} };
		my $begin = length $data;
		$data .= $bytes;
		$header{$name} = { dtype => $dtype, shape => $shape, data_offsets => [ $begin, length $data ] };
	}
	my $json = encode_json(\%header);
	open my $out, '>:raw', $file or die "could not write \"$file\": $!";
	print $out pack('Q<', length $json), $json, $data;
	close $out or die "could not write \"$file\": $!";
	return;
}

1;
