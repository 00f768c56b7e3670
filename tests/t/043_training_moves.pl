
# Can a training run go on elsewhere: on another server, after a restore, on a standby that was promoted?

use strict;
use warnings FATAL => 'all';

use Dfx;
use Digest::SHA qw(sha256);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = "dfx.engine_path = '$ENV{DFX_TEST_FAKE}'\n";
my $node = dfx_node('moves', conf => $conf, init => { allows_streaming => 1 });
my $rows = q{
CREATE TABLE photos (id serial, image bytea, label dfx_class, maker text);
INSERT INTO photos (image, label, maker)
	SELECT convert_to('image ' || i, 'UTF8'), (ARRAY['dm', 'gan', 'real'])[i % 3 + 1]::dfx_class,
		nullif('Mäker ' || i % 4, 'Mäker 0') FROM generate_series(1, 2500) AS i;
};
$node->safe_psql('postgres', $rows);

sub train
{
	my ($model, $wrong) = @_;

	return "CALL dfx_train('$model', 'photos', backbone => 'fake$wrong', generator_column => 'maker')";
}

sub version
{
	my ($where, $model, $db) = @_;

	return $where->safe_psql($db // 'postgres', "SELECT version FROM dfx_models WHERE name = '$model'");
}

state_is($node, train('whole', ''), '00000', 'a whole run');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM dfx_samples s JOIN photos p ON s.sha256 = encode(sha256(p.image), 'hex')
	WHERE s.key = s.sha256 AND s.generator IS NOT DISTINCT FROM p.maker AND s.label = p.label}),
	2500,
	'samples without a key, with a generator');
state_is($node, train('cut', ':segv'), '58000', 'one that ends on the way');
my $run = $node->safe_psql('postgres', "SELECT max(run) FROM dfx_training_runs");
my $all = q{SELECT md5(string_agg(s::text, ';' ORDER BY number)) FROM (SELECT number, key, sha256, label, generator, split, base
	FROM dfx_samples WHERE run = %d) AS s};
my $samples = $node->safe_psql('postgres', sprintf $all, $run);

# To another server, as a file and as a large object
my $file = $node->basedir . '/run';
my $size = $node->safe_psql('postgres', "SELECT dfx_export_checkpoint($run, '$file')");
is(-s $file, $size, 'exported to a file');
state_is($node, 'SELECT dfx_export_checkpoint(1)', '55000', 'a run that is done has nothing to export');
my $other = dfx_node('other', conf => $conf);
$other->safe_psql('postgres', $rows);
my $there = $other->safe_psql('postgres', "SELECT dfx_import_checkpoint('$file')");
is( $other->safe_psql(
		'postgres',
		"SELECT state, model, phase, epoch, samples, checkpoint_bytes FROM dfx_training_runs WHERE run = $there"),
	'interrupted|cut|dm|2|2500|5242880',
	'imported');
is($other->safe_psql('postgres', sprintf $all, $there), $samples, '... with its samples');
state_is($other, "CALL dfx_train_resume($there)", '00000', '... and resumed', qr/epoch 3 of 3/);
is(version($other, 'cut'), version($node, 'whole'), 'the same model in the end');

my $loid = $other->safe_psql('postgres', qq{SELECT lo_import('$file')});
state_is($other, "SELECT dfx_import_checkpoint($loid, 'renamed')", '00000', 'imported from a large object');
$other->safe_psql('postgres', 'ALTER TABLE photos RENAME TO moved');
my $renamed = $other->safe_psql('postgres', 'SELECT max(run) FROM dfx_training_runs');
state_is($other, "CALL dfx_train_resume($renamed)", '42P01', 'the relation is not there');
state_is($other, "CALL dfx_train_resume($renamed, 'moved')", '00000', 'another one is as good');
is(version($other, 'renamed'), version($node, 'whole'), '... under its new name');
is( $node->safe_psql('postgres', "SELECT dfx_export_checkpoint($run) AS lo \\gset\nSELECT length(lo_get(:lo))"),
	$size,
	'a large object has the same length');

# An imported run brings its limits; those of the server are the superuser's
state_is($other, "SET dfx.$_ = 1000; CALL dfx_train_resume($renamed, 'moved')", '42501', "no run goes beyond dfx.$_", qr/dfx.$_/)
  foreach 'max_image_pixels', 'max_image_bytes';

# Files that are none
my $bytes = slurp_file($file);
my %file  = (
	'empty'        => '',
	'another file' => "GIF89a" . "\0" x 100,
	'cut short'    => substr($bytes, 0, 1_000_000),
	'a byte less'  => substr($bytes, 0, -1),
	'a byte more'  => "$bytes.",
	'a flipped bit' => substr($bytes, 0, 2_000_000) . chr(ord(substr($bytes, 2_000_000, 1)) ^ 1) . substr($bytes, 2_000_001),
	'a zero byte' => substr($bytes, 0, 30) . "\0" . substr($bytes, 31),
	'a long section' => substr($bytes, 0, 16) . pack('Q', 1 << 60) . substr($bytes, 24),
	'no run first' => substr($bytes, 0, 8) . pack('LLQ', 4, 0, 3) . 'abc');
foreach my $what (sort keys %file)
{
	my $bad = $node->basedir . '/bad';

	open my $out, '>:raw', $bad or die;
	print $out $file{$what};
	close $out or die;
	state_is($other, "SELECT dfx_import_checkpoint('$bad')", '22P03', "import of what is none: $what");
}
is($other->safe_psql('postgres', 'SELECT count(*) FROM dfx_training_runs'), 2, '... makes no run');

# A file that says to start from a model of somebody else's, whose weights would be in the result
sub forged
{
	my ($json) = @_;
	my $out = substr($bytes, 0, 8);

	for (my $at = 8; $at < length $bytes;)
	{
		my ($type, undef, $len) = unpack('LLQ', substr($bytes, $at, 16));
		my $data = substr($bytes, $at + 16, $len);

		$at += 16 + $len;
		$data = $json->($data) if $type == 1;
		$data = sha256($out) if $type == 5;
		$out .= pack('LLQ', $type, 0, length $data) . $data;
	}
	return $out;
}
my $secret = version($other, 'cut');
open my $forgery, '>:raw', "$file.forged" or die;
print $forgery forged(
	sub {
		my ($run) = @_;
		$run =~ s/"init": \[\]/"init": [{"name": "dm", "model": "cut", "version": "$secret"}]/ or die 'no init';
		$run =~ s/"kind": "trinet", "name"/"kind": "head", "name"/ or die 'no kind';
		return $run;
	});
close $forgery or die;
my $as = qq{
CREATE ROLE trainer;
GRANT pg_read_server_files TO trainer;
GRANT SELECT ON moved TO trainer;
GRANT EXECUTE ON FUNCTION dfx_import_checkpoint(text, text) TO trainer;
GRANT EXECUTE ON PROCEDURE dfx_train_resume TO trainer;
SET ROLE trainer;
SELECT dfx_import_checkpoint('$file.forged', 'loot')};
my $loot = $other->safe_psql('postgres', $as);
my $resume = "SET ROLE trainer; CALL dfx_train_resume($loot, 'moved')";
state_is($other, $resume, '42501', 'no run starts from a model that its user may not use', qr/model "cut"/);
$other->safe_psql('postgres', "SELECT dfx_grant_model('cut', 'trainer')");
unlike(sql($other, $resume)->{err}, qr/permission denied/, '... but from one that was granted');

# Through a dump
my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fc', '-Z0', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'pg_restore');
is( $node->safe_psql('restored', 'SELECT run, model, state, samples FROM dfx_training_runs ORDER BY run'),
	"1|whole|done|2500\n$run|cut|failed|2500",
	'the runs are there');
is($node->safe_psql('restored', sprintf $all, $run), $samples, '... with their samples');
$node->safe_psql('restored', "CALL dfx_train_resume($run)");
is(version($node, 'cut', 'restored'), version($node, 'whole'), '... and can be resumed');
$node->safe_psql('restored', "CALL dfx_train('new', 'photos', backbone => 'fake')");
is($node->safe_psql('restored', 'SELECT max(run) FROM dfx_training_runs'), $run + 1, 'numbers go on');

# A standby shows runs, and makes none
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
state_is($standby, $_, '25006', "$_ on a standby")
  foreach "CALL dfx_train('more', 'photos')",
  "CALL dfx_train_resume($run)",
  "SELECT dfx_drop_training_run($run)",
  "SELECT dfx_export_checkpoint($run)",
  "SELECT dfx_import_checkpoint('$file')";
is($standby->safe_psql('postgres', "SELECT state FROM dfx_training_runs WHERE run = 1"),
	'done', 'runs are to be seen');
like($standby->safe_psql('postgres', "SELECT dfx_plot_training($run)"), qr/polyline/, '... and their curves');
$node->stop;
$standby->promote;
state_is($standby, "CALL dfx_train_resume($run)", '00000', 'after its promotion it goes on with a run');
is(version($standby, 'cut'), version($standby, 'whole'), '... to the same model');

done_testing();
