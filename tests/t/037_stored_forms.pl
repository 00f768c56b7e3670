
# Is an image the same however it is stored, is nothing lost when it cannot be read, and can reading it be ended?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant CHUNK => 1996;           # bytes of a value in one chunk of toast
use constant SLICE => 512 * CHUNK;    # that are read between two looks at cancels

my $node = dfx_node('forms', models => ['tiny']);

# A PNG of exactly so many bytes, each of them under a checksum: what does not
# arrive as it was is no image.  Filled with noise, or with what compresses.
sub image_of
{
	my ($bytes, $filler) = @_;
	my $small = png(2, 2, $bytes);
	my $fill  = substr($filler x (1 + $bytes / length $filler), 0, $bytes - length($small) - 12);

	substr($small, 33, 0, png_chunk('fiLl', $fill));
	length $small == $bytes or die "made $bytes bytes into " . length $small;
	return $small;
}

sub toast_of
{
	my ($table) = @_;

	return $node->safe_psql('postgres', "SELECT reltoastrelid::regclass FROM pg_class WHERE oid = '$table'::regclass");
}

my $noise = png(150, 150, 7);
my %size  = (
	inline             => 1500,
	'two chunks'       => 2 * CHUNK,
	'below two chunks' => 2 * CHUNK - 1,
	'above two chunks' => 2 * CHUNK + 1,
	'a slice'          => SLICE,
	'below a slice'    => SLICE - 1,
	'above a slice'    => SLICE + 1,
	'two slices'       => 2 * SLICE,
	'above two slices' => 2 * SLICE + 1,
	'three chunks on'  => 2 * SLICE + 3 * CHUNK + 7);
put_image($node, $_, image_of($size{$_}, $noise)) foreach sort keys %size;
put_image($node, 'short',      image_of(120,       $noise));
put_image($node, 'compressed', image_of(5000,      'ab'));
put_image($node, 'much of it', image_of(2_000_000, join '', 'a' .. 'zz'));

# The same images in columns of every kind.  What memory holds is what they are compared with.
$node->safe_psql(
	'postgres', q{
CREATE TABLE forms (form text, name text, image bytea);
CREATE FUNCTION fill(form text, settings text, most int DEFAULT 10000000) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE %I (form text, name text, image bytea)', form);
	EXECUTE format('ALTER TABLE %I ALTER image %s', form, settings);
	EXECUTE format('INSERT INTO %1$I SELECT %1$L, name, image || %2$L FROM images WHERE length(image) <= %3$s',
		form, '', most);
	EXECUTE format('ALTER TABLE %I INHERIT forms', form);
END $$;
SELECT fill('plain', 'SET STORAGE PLAIN', 5000);
SELECT fill('main', 'SET STORAGE MAIN');
SELECT fill('external', 'SET STORAGE EXTERNAL');
SELECT fill('pglz', 'SET COMPRESSION pglz');
SELECT fill('lz4', 'SET COMPRESSION lz4') FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals);
CREATE TABLE truth AS SELECT name, dfx_classify(image || '') AS verdict, dfx_image_info(image || '')::text AS info FROM images;
ANALYZE;
});

# How many values there are, how many are compressed, and how many lie outside of their rows
my %found = (external => '13|0|11', main => '13|2|7', pglz => '13|2|10', lz4 => '13|2|10', plain => '6|0|0');
my $forms = $node->safe_psql('postgres', 'SELECT DISTINCT form FROM forms ORDER BY form');
foreach my $form (split /\n/, $forms)
{
	my $toast = toast_of($form);
	is( $node->safe_psql('postgres',
			"SELECT count(*), count(pg_column_compression(image)), (SELECT count(DISTINCT chunk_id) FROM $toast) FROM $form"),
		$found{$form},
		"values of the form $form, compressed, outside");
}

my $wrong = q{SELECT string_agg(form || ' ' || name, ', ') FROM forms JOIN truth USING (name) WHERE };
foreach my $ahead (0, 64)
{
	my $set = "SET dfx.read_ahead = $ahead;";

	is( $node->safe_psql('postgres', "$set $wrong (dfx_classify(image) = verdict) IS NOT TRUE"),
		'', "every form is classified alike, dfx.read_ahead = $ahead");
}
is($node->safe_psql('postgres', "$wrong (dfx_image_info(image)::text = info) IS NOT TRUE"),
	'', '... described alike');
is( $node->safe_psql(
		'postgres', q{
SELECT count(*) FROM (SELECT form, array_agg(verdict ORDER BY name) AS verdicts, array_agg(image ORDER BY name) AS images
	FROM forms JOIN truth USING (name) GROUP BY form) AS f WHERE (dfx_classify_many(images) = verdicts) IS NOT TRUE}),
	0, '... and classified alike in arrays');

# Values that are in no table: of a row made on the way, of a variable, of the row that a trigger gets
is( $node->safe_psql(
		'postgres', q{
CREATE TABLE triggered (form text, name text, image bytea, verdict dfx_verdict);
CREATE TRIGGER flag BEFORE INSERT OR UPDATE ON triggered FOR EACH ROW EXECUTE FUNCTION dfx_flag('image', 'verdict');
INSERT INTO triggered SELECT form, name, image FROM forms;
CREATE TABLE own (form text, name text, image bytea, verdict dfx_verdict);
CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	image bytea := NEW.image;
BEGIN
	IF dfx_classify(image) = dfx_classify(NEW.image) THEN
		NEW.verdict := dfx_classify(NEW.image);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER own BEFORE INSERT ON own FOR EACH ROW EXECUTE FUNCTION own();
INSERT INTO own SELECT form, name, image FROM forms;
SELECT count(*) FROM (
	SELECT t.name, t.verdict, (row).image FROM (SELECT name, verdict, i AS row FROM triggered AS i) AS t
	UNION ALL SELECT name, verdict, image FROM own) AS a JOIN truth USING (name)
WHERE (a.verdict = truth.verdict) IS NOT TRUE OR (dfx_classify(a.image) = truth.verdict) IS NOT TRUE}),
	0, 'values of rows, variables and triggers are classified alike');
ok(queue_is_free($node), 'every slot is free');

# Locks are waited for before a slot is taken: others may wait for that one, and hold the lock
my $toast  = toast_of('external');
my $one    = "SELECT dfx_classify(image) FROM external WHERE name = 'three chunks on'";
my $locker = $node->background_psql('postgres');
$locker->query_safe("BEGIN; REINDEX TABLE $toast;");
my $job    = start_sql($node, $one, name => 'locked out');
my $locked = q{SELECT pid FROM pg_stat_activity WHERE application_name = 'locked out' AND wait_event_type = 'Lock'};
ok($node->poll_query_until('postgres', "SELECT EXISTS ($locked)"), 'a lock on the toast index is waited for');
is($node->safe_psql('postgres', 'SELECT slots - free FROM dfx_stat_queue'), 0, '... without a slot');
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM ($locked) AS p");
is(finish_sql($job)->{state}, '57014', '... and can be cancelled');
$locker->query_safe('ROLLBACK;');
$locker->quit;
state_is($node, $one, '00000', '... or is got');

# Reading can be ended half-way: nothing is submitted, nothing stays taken, nothing is put together in memory
my $huge = 60 << 20;
put_image($node, 'huge', "no image" . $noise x ($huge / length $noise));
my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid     = $session->query_safe('SELECT pg_backend_pid()');
my $ask     = "SELECT dfx_try_classify(image) IS NULL FROM images WHERE name = 'huge'";
$session->query_safe("SELECT dfx_try_classify('x')");
my $before = process_memory($pid, 'VmPeak');
is($session->query_safe($ask), 't', '60 MB that are no image');
cmp_ok(process_memory($pid, 'VmPeak') - $before, '<', 16384, '... are never held in memory');
my $submitted = $node->safe_psql('postgres', 'SELECT submitted FROM dfx_stat_queue');
my $ended     = 0;
foreach my $ms (1 .. 3)
{
	$session->query_safe("SET statement_timeout = $ms");
	$session->query($ask);
	$ended += $session->{stderr} =~ /statement timeout/;
	$session->{stderr} = '';
}
is($ended, 3, 'statement_timeout while they are read');
is($node->safe_psql('postgres', 'SELECT submitted FROM dfx_stat_queue'),
	$submitted, '... ends it at once');
ok(queue_is_free($node), '... and nothing stays taken');
$session->query_safe('RESET statement_timeout');
is($session->query_safe($ask), 't', '... and the session goes on');
$session->quit;

# Chunks that are gone: PostgreSQL's error, and nobody's slot
my $file = $node->safe_psql('postgres', "CHECKPOINT; SELECT pg_relation_filepath('$toast')");
my $size = $node->safe_psql('postgres', "SELECT pg_relation_size('$toast')");
$node->stop;
open my $out, '+<:raw', $node->data_dir . "/$file" or die "could not open \"$file\": $!";
seek $out, int($size / 8192 / 2) * 8192, 0;
print $out "\0" x 8192;
close $out or die "could not write \"$file\": $!";
$node->start;
my $damaged = $node->safe_psql(
	'postgres', q{
CREATE FUNCTION outcome(query text, name text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE query USING name;
	RETURN 'fine';
EXCEPTION WHEN data_corrupted THEN
	RETURN SQLERRM;
END $$;
SELECT name FROM external WHERE outcome('SELECT md5(image) FROM external WHERE name = $1', name) <> 'fine' LIMIT 1});
isnt($damaged, '', 'a table with a page of chunks less');
my $whole =
  $node->safe_psql('postgres', "SELECT outcome('SELECT md5(image) FROM external WHERE name = \$1', '$damaged')");
note("$damaged: $whole");
foreach my $call ('dfx_classify(image)', 'dfx_try_classify(image)', 'dfx_image_info(image)', 'dfx_classify_many(ARRAY[image])')
{
	is( $node->safe_psql('postgres', "SELECT outcome('SELECT $call FROM external WHERE name = \$1', '$damaged')"),
		$whole, "$call raises what md5() does");
}
is( $node->safe_psql(
		'postgres', qq{
SELECT count(*) FROM (SELECT outcome('SELECT dfx_classify(image) FROM external WHERE name = \$1', name) AS o, name
	FROM external) AS f WHERE (o = 'fine') <> (outcome('SELECT md5(image) FROM external WHERE name = \$1', name) = 'fine')}),
	0, 'the others are as they were');
state_is($node, 'SELECT name, dfx_classify(image) FROM external',
	'XX001', 'so does a scan that reads ahead');
ok(queue_is_free($node), 'every slot is free');

done_testing();
