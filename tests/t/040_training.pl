
# Does a training run end with the same model whatever ends its session on the way?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The fake engine makes models of the samples it was sent, and stops where it is told to.
my $node = dfx_node('training', conf => "dfx.engine_path = '$ENV{DFX_TEST_FAKE}'\n");
$node->safe_psql(
	'postgres', q{
CREATE TABLE photos (id serial, image bytea, label text, grp int);
ALTER TABLE photos ALTER image SET STORAGE EXTERNAL;
INSERT INTO photos (image, label, grp)
	SELECT convert_to('image ' || i, 'UTF8') || decode(repeat('00', 5000 * (i % 3)), 'hex'),
		(ARRAY['dm', 'gan', 'real'])[i % 3 + 1], i / 2 FROM generate_series(1, 40) AS i;
});

# CALL dfx_train for that model and way to go wrong, with further arguments
sub train
{
	my ($model, $wrong, $more) = @_;
	my $backbone = $wrong ? "fake:$wrong" : 'fake';

	return "CALL dfx_train('$model', 'photos', backbone => '$backbone', key_column => 'id'"
	  . ($more // '') . ')';
}

# Columns of the newest run
sub newest
{
	my ($columns) = @_;

	return $node->safe_psql('postgres',
		"SELECT $columns FROM dfx_training_runs ORDER BY run DESC LIMIT 1");
}

sub versions
{
	my ($model) = @_;

	return $node->safe_psql('postgres',
		"SELECT versions ->> model FROM dfx_training_runs WHERE model = '$model' AND state = 'done'");
}

sub no_engine_left
{
	my ($test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return ok(defined wait_for(sub { my @left = training_engines($node); return @left == 0 }), $test);
}

# Without a hitch
my $job = state_is($node, train('whole'), '00000', 'a whole run',
	qr/NOTICE:.*training run \d+ for model "whole".*dm, epoch 1 of 3.*epoch 3 of 3/s);
is( newest('state, phase, epoch, samples, errors, checkpoint_bytes, device'),
	'done|dm|3|40|0||a fake ?? device',
	'its row');
is( $node->safe_psql(
		'postgres',
		"SELECT name, kind, owner, version = '" . versions('whole') . "', metrics ->> 'note' FROM dfx_models"
	),
	'whole|trinet|postgres|t|gemessen für nichts',
	'its model');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*), count(DISTINCT key), bool_and(s.sha256 = encode(sha256(p.image), 'hex')),
	bool_and(s.label::text = p.label), array_agg(DISTINCT s.split ORDER BY s.split)
	FROM dfx_samples s JOIN photos p ON p.id = s.key::int}),
	'40|40|t|t|{base_train,test}',
	'its samples');
is( $node->safe_psql(
		'postgres',
		'SELECT number, epoch, best, train_loss FROM dfx_training_epochs ORDER BY number'),
	"1|1|t|1\n2|2|t|0.5\n3|3|t|0.3333333333333333",
	'its epochs');
like($node->safe_psql('postgres', 'SELECT dfx_plot_training(1)'),
	qr{^<svg .*polyline.*</svg>\s*$}s, 'its curves');
no_engine_left('and no process');

# Ends on the way.  The engine hangs behind its second epoch; who resumes gets the rest.
sub interrupted
{
	my ($what, $end, $state, $epochs) = @_;
	my $model = $what =~ s/\W/_/gr;
	my $run   = start_sql($node, train($model, 'hang'), name => $what);
	my $pid   = session_pid($node, $what);

	$node->poll_query_until('postgres',
		"SELECT epoch = 2 FROM dfx_training_runs WHERE model = '$model'")
	  or die "$what: no second epoch";
	is( $node->safe_psql(
			'postgres',
			"SELECT p.state, p.phase, p.epoch, p.epochs, p.step, p.steps, p.images_per_second, p.loss, p.samples,
				p.pid = $pid, p.estimated_end > now(), r.state FROM dfx_training_progress p JOIN dfx_training_runs r USING (run)"
		),
		'training|dm|2|3|1|2|12.5|0.5|40|t|t|training',
		"$what: while it runs");
	is( $node->safe_psql(
			'postgres',
			"SELECT backend_xmin IS NULL AND backend_xid IS NULL FROM pg_stat_activity WHERE pid = $pid"),
		't',
		"$what: it holds no snapshot");
	$end->($pid, $run);
	finish_sql($run);
	is($run->{state}, $state, "$what: the caller hears of it") if $state;
	no_engine_left("$what: the engine is gone");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM dfx_training_progress'),
		0, "$what: nothing is shown to be at work");
	is(newest('epoch, checkpoint_bytes'),
		"2|5242880", "$what: two epochs are kept");
	is($node->safe_psql('postgres', "SELECT count(*) FROM dfx_models WHERE name = '$model'"),
		0, "$what: there is no model");
	state_is($node, 'CALL dfx_train_resume(' . newest('run') . ')',
		'00000', "$what: resume", qr/epoch 3 of 3/);
	is( $node->safe_psql(
			'postgres',
			"SELECT string_agg(e.epoch::text, ',' ORDER BY number) FROM dfx_training_epochs e JOIN dfx_training_runs USING (run) WHERE model = '$model'"
		),
		'1,2,3',
		"$what: each epoch once");
	is(versions($model), versions('whole'), "$what: the same model in the end");
	return;
}

sub query
{
	my ($sql) = @_;
	return sub { $node->safe_psql('postgres', $sql =~ s/PID/$_[0]/r) };
}
interrupted('cancel', query('SELECT pg_cancel_backend(PID)'), '57014');
interrupted('terminate', query('SELECT pg_terminate_backend(PID)'), '57P01');
interrupted(
	'engine killed',
	sub { kill 'KILL', training_engines($node) or die 'no engine to kill' },
	'58000');
interrupted('server restarted', sub { $node->restart }, '57P01');
interrupted(
	'server crashed',
	sub { $node->stop('immediate'); $node->start },
	'lost');
interrupted(
	'client gone',
	sub { $_[1]->{run}->signal('KILL') },
	undef);

done_testing();
