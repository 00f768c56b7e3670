
# Which SQLSTATE does each odd or hostile image get, and does the engine live on?

use strict;
use warnings FATAL => 'all';

use Compress::Zlib qw(compress);
use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node   = dfx_node('images', models => ['resnet18']);
my $engine = engine_pid($node);

# The SQLSTATE of every row of a query, in one round trip.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION state_of(image bytea) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dfx_classify(image);
	RETURN '00000';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
});

sub states_are
{
	my ($query, $expected, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is( $node->safe_psql(
			'postgres',
			"SELECT string_agg(DISTINCT state_of(i), ' ') FROM ($query) AS q(i)"
		),
		$expected,
		$test);
	return;
}

my $jpeg = slurp_file("$ENV{DFX_TEST_IMAGES}/photo-420-q90.jpg");
put_image($node, 'jpeg',  $jpeg);
put_image($node, 'noise', png(64, 64, 1));
states_are('SELECT image FROM images', '00000', 'whole images get a verdict');

# What is not an image
is( $node->safe_psql(
		'postgres',
		'SELECT dfx_classify(NULL) IS NULL, dfx_image_info(NULL) IS NULL'),
	't|t',
	'NULL gives NULL');
states_are("VALUES (''::bytea)", '22P03', 'empty');
states_are(
	"VALUES ('GIF89a'::bytea), ('hello'), ('\\xFF'), ('\\xFFD8FF'), ('\\x89504E470D0A1A0A')",
	'22P03',
	'not an image, or nothing but its first bytes');
states_are(
	"SELECT substr(image, 1, length(image) * part / 16)
		FROM images, generate_series(1, 15) AS part",
	'22P03',
	'truncated at every sixteenth');
is( $node->safe_psql(
		'postgres',
		"SELECT dfx_try_classify('hello') IS NULL, dfx_try_classify(image) IS NULL"
		  . " FROM images WHERE name = 'noise'"),
	't|f',
	'dfx_try_classify gives NULL for what is not an image, and for that only'
);

# Odd shapes
sub images_are
{
	my ($images, $expected, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->safe_psql('postgres', 'TRUNCATE images');
	put_image($node, $_, $images->{$_}) foreach keys %$images;
	states_are('SELECT image FROM images', $expected, $test);
	return;
}

images_are(
	{
		'one pixel' => png(1,     1,     2),
		'tall'      => png(1,     30000, 3),
		'wide'      => png(30000, 1,     4)
	},
	'00000',
	'1 x 1, 1 x 30000 and 30000 x 1');

# Bombs: a few kB that claim, or really hold, many megapixels
sub black_png
{
	my ($side, $rows) = @_;

	return
		"\x89PNG\r\n\x1A\n"
	  . png_chunk('IHDR', pack('NNCCCCC', $side, $side, 1, 0, 0, 0, 0))
	  . png_chunk('IDAT', compress("\0" x ($rows * (1 + $side / 8))))
	  . png_chunk('IEND', '');
}

images_are({ bomb => black_png(8000, 8000) },
	'00000', '8 kB that hold 64 megapixels are only large');
images_are({ bomb => black_png(30000, 500) }, '54000',
	'PNG of 30000 x 30000');
state_is(
	$node, 'SELECT dfx_classify(image) FROM images',
	'54000',
	'... and the message says so',
	qr/30000 x 30000/);
state_is($node, 'SELECT dfx_image_info(image) FROM images',
	'54000', '... from every function');

# JPEG headers that lie
sub jpeg_with
{
	my ($offset, $bytes) = @_;
	my $copy = $jpeg;

	$copy =~ /\xFF\xC0\x00\x11\x08/g;
	substr($copy, pos($copy) + $offset, length $bytes) = $bytes;
	return $copy;
}

images_are({ lie => jpeg_with(0, pack('nn', 65000, 65000)) },
	'54000', 'JPEG that claims 65000 x 65000');
images_are(
	{
		'no pixels'             => jpeg_with(0, pack('nn', 0, 0)),
		'255 components'        => jpeg_with(4, "\xFF"),
		'sampling factors of 0' => jpeg_with(6, "\x00")
	},
	'22P03',
	'JPEG with no pixels, 255 components, sampling factors of 0');

# More bytes than allowed.  Nothing of them may be read: the size stands in the
# TOAST pointer.
$node->safe_psql(
	'postgres', q{
TRUNCATE images;
INSERT INTO images (name, image) VALUES ('huge', convert_to(repeat('x', 200 << 20), 'UTF8'))
});
my $huge = state_is($node, 'SELECT dfx_classify(image) FROM images',
	'54000', '200 MB');
cmp_ok($huge->{seconds}, '<', 2, '... are refused at once');

my $session = $node->background_psql('postgres');
my $pid     = $session->query_safe('SELECT pg_backend_pid()');
$session->query_safe("SELECT dfx_try_classify('x')");
my $before = process_memory($pid, 'VmHWM');
is( $session->query_safe(
		'SELECT dfx_try_classify(image) IS NULL FROM images'),
	't',
	'... give NULL where an error is not wanted');
cmp_ok(process_memory($pid, 'VmHWM') - $before,
	'<', 8192, '... and are never read');
$session->quit;

state_is(
	$node,
	"SET dfx.max_image_bytes = '300MB'; SELECT dfx_classify(image) FROM images",
	'54000',
	'what is larger than the arena does not wait for room');

is(engine_pid($node), $engine, 'none of these ended the engine');
ok(queue_is_free($node), 'every slot is free');

done_testing();
