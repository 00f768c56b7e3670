
# Are the figures of a model that says only synthetic or real those that its answers make?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# An engine whose verdicts are known: an "image" is the probability of being
# synthetic, as text.  Only what a binary model has is filled in.
my $engine = <<'END_OF_ENGINE';
#!/usr/bin/perl
use strict;
use warnings;

open my $ring, '+<&=', 3 or exit 1;
open my $socket, '+<&=', 4 or exit 1;

sub get
{
	my ($offset, $length) = @_;
	sysseek $ring, $offset, 0;
	sysread $ring, my $bytes, $length;
	return $bytes;
}

sub put
{
	my ($offset, $bytes) = @_;
	sysseek $ring, $offset, 0;
	syswrite $ring, $bytes;
}

my ($nslots, $slots) = unpack 'x8 L x4 Q', get(0, 24);
syswrite $socket, 'R';
while (1)
{
	my $ready = '';
	vec($ready, 4, 1) = 1;
	exit 0 if select $ready, undef, undef, 0.001;
	foreach my $slot (map { $slots + 1024 * $_ } 0 .. $nslots)
	{
		my ($in, $len, $reply) = unpack 'Q3', get($slot + 24, 24);
		my $gen = get($slot + 120, 8);
		next if $gen eq "\0" x 8 || $gen eq get($slot + 200, 8);
		my $p = $len > 0 ? get($in, $len) : 0;
		my $synthetic = $p >= 0.5;
		put($reply, pack 'L L f5 a64', $synthetic ? 3 : 2, 1, $synthetic ? $p : 1 - $p, $p, 'nan', 'nan', 1 - $p, '');
		put($slot + 208, pack 'L L Q', 0, 1, 92);
		put($slot + 192, $gen . $gen);
		syswrite $socket, 'D';
	}
}
END_OF_ENGINE

my $node    = dfx_node('binary', models => ['tiny']);
my $program = $node->basedir . '/binary-engine';
append_to_file($program, $engine);
chmod 0755, $program;
$node->safe_psql(
	'postgres', q{
CREATE TABLE samples (image bytea, label text, source text);
INSERT INTO samples VALUES ('0.9', 'gan', 'a'), ('0.8', 'dm', 'a'), ('0.3', 'synthetic', 'b'),
	('0.1', 'real', 'a'), ('0.2', 'real', 'b'), ('0.6', 'real', 'b'), ('0.7', 'real', 'c');
});
$node->append_conf('postgresql.conf', "dfx.engine_path = '$program'");
$node->restart;

# By hand: of 3 synthetic ones 2 are found, of 4 real ones 2; 10 of 12 pairs are in order
my $figures = join ', ',
  map { "round(binary_$_\::numeric, 6)" }
  qw(accuracy balanced_accuracy precision recall f1 auc);
is( $node->safe_psql(
		'postgres', "SELECT n, $figures FROM dfx_evaluate('tiny', 'samples')"
	),
	'7|0.571429|0.583333|0.500000|0.666667|0.571429|0.833333',
	'binary figures');

# DeLong: placements of the positives 1, 1, 1/2, of the negatives 1, 1, 2/3, 2/3
my $half = 1.959963984540054 * sqrt(1 / 12 / 3 + 1 / 27 / 4);
is( $node->safe_psql(
		'postgres',
		"SELECT round(binary_auc_low::numeric, 6), binary_auc_high FROM dfx_evaluate('tiny', 'samples')"
	),
	sprintf('%.6f|1', 10 / 12 - $half),
	'... with the interval of the area');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*), count(value) FROM dfx_evaluate('tiny', 'samples') AS e,
			jsonb_each_text(to_jsonb(e)) WHERE key !~ '^(binary_.*|n|unreadable|perturbation|group_value)$'}
	),
	'18|0',
	'no figures by three classes');

is( $node->safe_psql(
		'postgres',
		"SELECT truth, predicted, n FROM dfx_confusion('tiny', 'samples')"),
	join("\n",
		'dm|real|0',        'dm|synthetic|1',
		'gan|real|0',       'gan|synthetic|1',
		'real|real|2',      'real|synthetic|2',
		'synthetic|real|1', 'synthetic|synthetic|0'),
	'who is taken for whom');

# Groups of one kind, and of one image
is( $node->safe_psql(
		'postgres',
		q{SELECT group_value, n, binary_accuracy, binary_recall, binary_f1, binary_auc, binary_auc_low, binary_auc_high
			FROM dfx_evaluate('tiny', 'samples', group_by => 'source')}
	),
	join("\n",
		'a|3|1|1|1|1|0|1', 'b|3|0.3333333333333333|0|0|0.5|0|1',
		'c|1|0|||||'),
	'small groups');

$node->stop;

done_testing();
