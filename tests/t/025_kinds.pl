
# Do Base Models, lone classifiers and hierarchies live in SQL as the tri-branch net does, with the engine's own verdicts?

use strict;
use warnings FATAL => 'all';

use Dfx;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $generators = 'synthetic,real;dm,gan;ddpm,Stable "D" 1.5,a\\b;progan,stylegan';
my %kinds      = (
	real => [ 'base',       'others,real',             42 ],
	dm   => [ 'base',       'others,dm',               41 ],
	two  => [ 'classifier', 'synthetic,real',          45 ],
	all  => [ 'classifier', 'dm,gan,real',             40 ],
	tree => [ 'hierarchy',  $generators,               42 ],
	wood => [ 'hierarchy',  $generators,               43 ],
	stem => [ 'hierarchy',  'synthetic,real;dm,gan;;', 44 ]);
my $node = dfx_node('kinds');
my $dir  = $node->basedir;
dfx_images($node, 5);

sub write_file
{
	my ($file, $bytes) = @_;
	open my $out, '>:raw', $file or die "could not write \"$file\": $!";
	print $out $bytes;
	close $out or die "could not write \"$file\": $!";
	return $file;
}

# Import what the engine makes
foreach my $name (sort keys %kinds)
{
	my ($kind, $classes, $seed) = @{ $kinds{$name} };
	my $file = "$dir/$name.safetensors";
	run_log(
		[   $ENV{DFX_TEST_ENGINE}, 'init', '--backbone', 'test_tiny', '--kind', $kind, '--classes', $classes,
			'--random-weights', $seed, '--out', $file
		]) or die "no model $name";
	$node->safe_psql('postgres', "SELECT dfx_import_model('$name', '$file')");
	is( $node->safe_psql(
			'postgres',
			"SELECT kind, options->>'classes', options->>'head_stride' FROM dfx_models WHERE name = '$name'"
		),
		"$kind|$classes|0",
		"$name: what it is");

	# Out again: the same file, and so the same version
	$node->safe_psql('postgres', "SELECT dfx_export_model('$name', '$file.copy')");
	ok(slurp_file("$file.copy") eq slurp_file($file), "$name: exported as it was imported");
}

# Verdicts, one by one and all in flight, are those of the command line
my @files = map { write_file("$dir/image$_", png(48, 48, $_)) } 1 .. 5;
my @keys  = qw(label confidence p_synthetic p_dm p_gan p_real generator version);
my (%label, %generator);
foreach my $name (grep { $_ ne 'dm' } sort keys %kinds)
{
	my ($out, $err) = run_command(
		[ $ENV{DFX_TEST_ENGINE}, 'classify', '--json', '--model', "$dir/$name.safetensors", @files ]);
	my @want = map { decode_json($_) } split /\n/, $out;
	my $sql =
	  "SELECT row_to_json(v) FROM (SELECT * FROM images ORDER BY id) AS i, dfx_classify(image, '$name') AS v";
	foreach my $ahead (0, 64)
	{
		my @got = map { decode_json($_) }
		  split /\n/, $node->safe_psql('postgres', "SET dfx.read_ahead = $ahead; $sql");
		my $same = @got == 5 && @want == 5;
		foreach my $i (0 .. $#got)
		{
			foreach my $key (@keys)
			{
				my ($g, $w) = ($got[$i]{$key}, $want[$i]{$key});
				$same &&= defined $g == defined $w && (!defined $g || $g eq $w || $g =~ /^[0-9.e-]+$/ && abs($g - $w) < 1e-5);
			}
			$label{$name}{ $got[$i]{label} }++;
			$generator{ $got[$i]{generator} // 'none' }++;
		}
		ok($same, "$name: the command line's verdicts, read_ahead = $ahead")
		  or diag(encode_json(\@got), "\n", encode_json(\@want));
	}
}
ok(!grep({ !/^(?:real|synthetic)$/ } keys %{ $label{$_} }), "$_: real or synthetic") foreach qw(two real);
ok(!grep({ !/^(?:real|dm|gan)$/ } keys %{ $label{$_} }), "$_: real, dm or gan") foreach qw(all tree wood stem);
is( join('|', sort keys %generator),
	'Stable "D" 1.5|none|progan|stylegan',
	'hierarchies name generators, the others none');
is( $node->safe_psql(
		'postgres',
		q{SELECT m, count(v.p_dm), count(v.p_gan), count(v.p_real), bool_and(abs(v.p_synthetic + v.p_real - 1) < 1e-6)
	FROM images, unnest(ARRAY['all', 'real', 'tree', 'two']) AS m, dfx_classify(image, m) AS v GROUP BY m ORDER BY m}),
	"all|5|5|5|t\nreal|0|0|5|t\ntree|5|5|5|t\ntwo|0|0|5|t",
	'binary models know nothing of dm and gan');
is( $node->safe_psql(
		'postgres',
		q{SELECT bool_and(abs(dfx_synthetic(image, 'tree') - v.p_dm - v.p_gan) < 1e-6)
	FROM images, dfx_classify(image, 'tree') AS v}),
	't',
	'dfx_synthetic of a hierarchy');

# Features
foreach ([ dm => 64 ], [ two => 64 ], [ tree => 256 ], [ stem => 128 ])
{
	my ($name, $n) = @$_;
	is( $node->safe_psql('postgres', "SELECT DISTINCT cardinality(dfx_features(image, '$name')) FROM images"),
		$n,
		"$name: $n features");
}

# A Base Model of dm cannot say what is real
foreach my $function (qw(dfx_classify dfx_try_classify dfx_synthetic))
{
	state_is($node, "SELECT $function(image, 'dm') FROM images",
		'22023', "$function by a Base Model of dm", qr/"dm".*HINT.*dfx_features.*dfx_train_head/s);
}

# Triggers
$node->safe_psql(
	'postgres', q{
CREATE TABLE uploads (image bytea, verdict dfx_verdict);
CREATE TRIGGER flag BEFORE INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION dfx_flag('image', 'verdict', 'two');
INSERT INTO uploads SELECT image FROM images;
CREATE TRIGGER reject BEFORE INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION dfx_reject('image', '0', 'two')});
is( $node->safe_psql(
		'postgres',
		"SELECT bool_and(verdict = dfx_classify(image, 'two') OR verdict IS NULL), count((verdict).label) FROM uploads"),
	't|5',
	'dfx_flag by a binary model');
state_is($node, 'INSERT INTO uploads SELECT image FROM images',
	'23514', 'dfx_reject by a binary model', qr/\(real 0\.\d+\)/);

# Administration is nobody's concern but the model's name
$node->safe_psql('postgres',
	"SELECT dfx_copy_model('tree', 'tree2'); SELECT dfx_rename_model('tree2', 'tree3'); SELECT dfx_evict('tree3')");
is( $node->safe_psql(
		'postgres',
		"SELECT bool_and(dfx_features(image, 'tree3') = dfx_features(image, 'tree')), count(*) FROM images"),
	't|5',
	'a copy under another name, loaded anew');

# Metadata that do not fit
sub import_state
{
	my ($name, $meta, $state, $test, $pattern) = @_;
	my $bytes  = slurp_file("$dir/$name.safetensors");
	my $n      = unpack 'Q<', $bytes;
	my $header = decode_json(substr $bytes, 8, $n);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$header->{__metadata__} = { %{ $header->{__metadata__} }, %$meta };
	my $json = encode_json($header);
	my $file = write_file("$dir/bad.safetensors",
		pack('Q<', length $json) . $json . substr $bytes, 8 + $n);
	state_is($node, "SELECT dfx_import_model('bad', '$file')", $state, $test, $pattern);
	return;
}
import_state('two', { classes => 'real,synthetic' },
	'22P03', 'classes in another order', qr/"real,synthetic".*"dm,gan,real" or "synthetic,real"/s);
import_state('two', { classes => 'dm,gan,real' },
	'22P03', 'weights for two classes as one of three', qr/fc\.weight/);
import_state('two', { kind => 'hierarchy', classes => $generators },
	'22P03', 'weights of one network as four', qr/ai\./);
import_state('tree', { classes => "$generators;" }, '22P03', 'a fifth list', qr/hierarchy/);
import_state('tree', { classes => $generators =~ s/progan/x\ny/r },
	'22P03', 'a generator of two lines');
import_state('tree', { classes => $generators =~ s/progan/caf\x{e9}/r },
	'22P03', 'a generator that is not ASCII');
import_state('tree', { classes => $generators =~ s/progan/'x' x 64/er },
	'22P03', 'a generator with too long a name', qr/63/);
import_state('tree', { classes => $generators . ',x' x 600 }, '22P03', 'too many generators');
import_state('two', { head_stride => '1' }, '22P03', 'a stride without a head', qr/stride/);
import_state('two', { kind => 'oracle' }, '0A000', 'an unknown kind', qr/oracle/);
is($node->safe_psql('postgres', "SELECT count(*) FROM dfx_models WHERE name = 'bad'"),
	0, 'nothing is left of these');

done_testing();
