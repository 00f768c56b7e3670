
# What can a training engine that keeps to no protocol do to a session?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('hostile', conf => "dfx.engine_path = '$ENV{DFX_TEST_FAKE}'\n");
$node->safe_psql(
	'postgres', q{
CREATE TABLE photos (id serial, image bytea, label text);
INSERT INTO photos (image, label)
	SELECT convert_to('image ' || i, 'UTF8'), (ARRAY['dm', 'gan', 'real'])[i % 3 + 1] FROM generate_series(1, 20) AS i;
CREATE TABLE broken AS TABLE photos;
UPDATE broken SET image = 'bad' WHERE id = 7;
});

sub train
{
	my ($wrong, $samples) = @_;

	return "CALL dfx_train('model', '" . ($samples // 'photos') . "', backbone => 'fake:$wrong', key_column => 'id')";
}

# How it goes wrong, the SQLSTATE of it, and what else is said
my @wrong = (
	version  => 'XX000', qr/another version/,
	garbage  => 'XX000', qr/protocol/,
	taken    => 'XX000', qr/was not sent/,
	die      => '58000', qr/signal 6/,
	flood    => 'XX000', qr/protocol/,
	half     => 'XX000', qr/half a plan/,
	plan     => 'XX000', qr/more samples than there are/,
	split    => 'XX000', qr/no split/,
	fail     => '22023', qr/too few images.*HINT:.*Take more/s,
	epochs   => 'XX000', qr/epoch after epoch/,
	blob     => 'XX000', qr/more bytes than it has/,
	exit     => '58000', qr/exited with code 0/,
	segv     => '58000', qr/signal 11/,
	type     => 'XX000', qr/may not send/,
	long     => 'XX000', qr/length/,
	early    => 'XX000', qr/wrong time/,
	metrics  => '22P02', undef,
	model    => '22P03', undef,
	nothing  => 'XX000', qr/without a result/);
my $n = 0;

while (my ($wrong, $state, $says) = splice @wrong, 0, 3)
{
	state_is($node, train($wrong), $state, $wrong, $says);
	$n++;
}
is( $node->safe_psql(
		'postgres',
		'SELECT count(*), count(*) FILTER (WHERE state = \'failed\' AND sqlstate IS NOT NULL AND error IS NOT NULL) FROM dfx_training_runs'
	),
	"$n|$n",
	'each run has its error');
is($node->safe_psql('postgres', 'SELECT count(*) FROM dfx_models'), 0, 'none has a model');
ok( defined wait_for(
		sub {
			my @left = training_engines($node);
			return @left == 0;
		}),
	'no engine is left');

# Nonsense in a text is shown as nonsense, in a database that knows its encoding
state_is($node, train('text'), '00000', 'bytes that are no text');

# A run that failed behind an epoch can go on, with an engine that behaves
my $resume = sub {
	my ($run) = @_;
	return "CALL dfx_train_resume($run)";
};
my $segv = $node->safe_psql('postgres',
	"SELECT run FROM dfx_training_runs WHERE options ->> 'backbone' = 'fake:segv'");
state_is($node, $resume->($segv), '00000', 'a run whose engine crashed goes on', qr/epoch 3 of 3/);
is($node->safe_psql('postgres', "SELECT state, error IS NULL FROM dfx_training_runs WHERE run = $segv"),
	'done|t', '... and is done');
my $fail = $node->safe_psql('postgres',
	"SELECT run FROM dfx_training_runs WHERE options ->> 'backbone' = 'fake:fail'");
state_is($node, $resume->($fail), '55000', 'one that never had a plan does not');

# Two sessions cannot have the same run
my $hang = start_sql($node, train('hang'), name => 'hang');
my $pid  = session_pid($node, 'hang');
$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM dfx_training_progress WHERE epoch = 2');
my $run = $node->safe_psql('postgres', 'SELECT run FROM dfx_training_progress');
state_is($node, $resume->($run), '55006', 'a run that is at work is not resumed');
state_is($node, "SELECT dfx_drop_training_run($run)", '55006', '... nor dropped');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
finish_sql($hang);
is($node->safe_psql('postgres', "SELECT state, sqlstate FROM dfx_training_runs WHERE run = $run"),
	'canceled|57014', 'a canceled run says so');
$node->safe_psql('postgres', "SELECT dfx_drop_training_run($run)");
is( $node->safe_psql(
		'postgres',
		"SELECT (SELECT count(*) FROM dfx_sample WHERE run = $run), (SELECT count(*) FROM dfx_checkpoint_chunk WHERE run = $run)"
	),
	'0|0',
	'a dropped run leaves nothing');

# Rows that the engine refuses
state_is($node, train('none', 'broken'), '22P03', 'a row too many', qr/"7": not an image/);
is( $node->safe_psql(
		'postgres',
		'SELECT key, message FROM dfx_training_errors WHERE run = (SELECT max(run) FROM dfx_training_runs)'),
	'7|not an image',
	'... is listed all the same');
state_is($node, train('status', 'broken'), 'XX000', 'a row that is refused for no reason');

# Rows that are not what they were.  A run is interrupted behind its first samples.
sub changed
{
	my ($change, $state, $test, $says) = @_;
	my $failed;

	$node->safe_psql('postgres', 'CREATE TABLE now AS TABLE photos');
	state_is($node, train('segv', 'now'), '58000', "$test: begin");
	$failed = $node->safe_psql('postgres', 'SELECT max(run) FROM dfx_training_runs');
	$node->safe_psql('postgres', $change);
	state_is($node, $resume->($failed), $state, $test, $says);
	$node->safe_psql('postgres', 'DROP TABLE IF EXISTS now, later');
	return;
}
changed("UPDATE now SET image = 'another' WHERE id IN (3, 5)",
	'55000', 'two images have changed', qr/2 rows.*"3", "5"/);
changed('DELETE FROM now WHERE id = 4', '55000', 'a row is gone', qr/1 rows.*"4"/);
changed("UPDATE now SET label = 'gan' WHERE id = 3", '55000', 'a label has changed', qr/"3"/);
changed('UPDATE now SET image = NULL WHERE id = 3', '55000', 'an image is gone', qr/"3"/);
changed("INSERT INTO now VALUES (99, 'new', 'dm')", '00000', 'a row is new', qr/epoch 3 of 3/);
changed('ALTER TABLE now DROP image', '42703', 'a column is gone');
changed('DROP TABLE now', '42P01', 'the table is gone');
changed('ALTER TABLE now RENAME TO later', '42P01', 'the table has another name');

done_testing();
