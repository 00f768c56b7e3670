
# Does dfx_heatmap give the command line's picture, whoever asks beside it and whatever happens to the engine meanwhile?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Small batches, so that a heatmap takes many of them
my $node = dfx_node('heatmap', conf => "dfx.max_batch = 4\n");
my $dir  = $node->basedir;
dfx_images($node, 3);

sub make_model
{
	my ($name, $backbone, $kind, $classes, $seed) = @_;
	run_log(
		[   $ENV{DFX_TEST_ENGINE}, 'init', '--backbone', $backbone, '--kind', $kind, '--classes', $classes,
			'--random-weights', $seed, '--out', "$dir/$name.safetensors"
		]) or die "no model $name";
	$node->safe_psql('postgres', "SELECT dfx_import_model('$name', '$dir/$name.safetensors')");
	return;
}
make_model('tree', 'test_tiny', 'hierarchy',  'synthetic,real;dm,gan;a,b;', 42);
make_model('all',  'test_tiny', 'classifier', 'dm,gan,real',                40);
make_model('two',  'test_tiny', 'classifier', 'synthetic,real',             45);
make_model('dm',   'test_tiny', 'base',       'others,dm',                  41);
make_model('slow', 'efficientnet_b0', 'classifier', 'synthetic,real',       1);
$node->safe_psql('postgres', "SELECT dfx_set_default_model('all')");

# The command line's PNG of the nth image, as hexadecimal digits
my $file = "$dir/image";
sub expected
{
	my ($n, $model, @class) = @_;
	open my $out, '>:raw', "$file.png" or die "could not write \"$file.png\": $!";
	print $out png(48, 48, $n);
	close $out or die "could not write \"$file.png\": $!";
	run_log(
		[   $ENV{DFX_TEST_ENGINE}, 'heatmap', '--model', "$dir/$model.safetensors",
			map({ ('--class', $_) } @class), '--out', "$file.out", "$file.png"
		]) or die "no heatmap by $model";
	return unpack 'H*', slurp_file("$file.out");
}

sub heatmap
{
	my ($n, $rest) = @_;
	return "SELECT encode(dfx_heatmap(image$rest), 'hex') FROM images WHERE id = $n";
}

# Pictures
ok($node->safe_psql('postgres', heatmap(1, '')) eq expected(1, 'all'), 'the default model, the class of its verdict');
ok($node->safe_psql('postgres', heatmap(1, ", 'dm'")) eq expected(1, 'all', 'dm'), 'a class');
ok($node->safe_psql('postgres', heatmap(2, ", 'synthetic', 'tree'")) eq expected(2, 'tree', 'synthetic'),
	'a hierarchy, a class and a model');
ok($node->safe_psql('postgres', heatmap(3, ", model => 'two'")) eq expected(3, 'two'), 'a binary model');
is( $node->safe_psql(
		'postgres',
		"SELECT i.* FROM images, dfx_heatmap(image) AS h, dfx_image_info(h) AS i WHERE id = 1"),
	'png|256|256|3|8',
	'what the network sees, as a PNG');
is( $node->safe_psql(
		'postgres', q{
SELECT count(*), count(DISTINCT dfx_heatmap(image, c)), bool_or(dfx_heatmap(image) = dfx_heatmap(image, c) AND c = v.label)
	FROM images, dfx_classify(image) AS v, unnest(enum_range(NULL::dfx_class)) AS c WHERE id = 1}),
	'4|4|t',
	'each class has its own; without one it is the label\'s');
is($node->safe_psql('postgres', 'SELECT dfx_heatmap(NULL) IS NULL'), 't', 'NULL gives NULL');

# What cannot be
state_is($node, heatmap(1, ", 'dm', 'two'"), '22023', 'a class that a binary model does not know', qr/binary.*not dm/);
state_is($node, heatmap(1, ", model => 'dm'"), '22023', 'a model without verdicts', qr/Base Model.*dfx_features/s);
state_is($node, heatmap(1, ", 'cat'"), '22P02', 'no class');
state_is($node, heatmap(1, ", model => 'nobody'"), '42704', 'no model');
state_is($node, "SELECT dfx_heatmap('\\x0102')", '22P03', 'no image');
state_is($node, "SET dfx.max_image_bytes = '1kB'; " . heatmap(1, ''), '54000', 'an image over the limit');

# One that takes its time
sub start_slow
{
	my ($n, $name) = @_;
	return start_sql($node, heatmap($n, ", model => 'slow'"), name => $name);
}

# The engine works on a heatmap for some time
sub under_way
{
	return defined wait_for(
		sub {
			my ($rc, $images) = $node->psql('postgres', 'SELECT images > 20 FROM dfx_stat_engine');
			return $rc == 0 && $images eq 't';
		});
}

sub unanswered
{
	my ($name) = @_;
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE application_name = '$name' AND state = 'active'") == 1;
}
kill_engine($node);
service_is_back($node);
my $slow = start_slow(1, 'slow');
ok(under_way(), 'a heatmap is under way');
my $next = start_sql($node, heatmap(2, ''), name => 'next');
session_pid($node, 'next');
is( $node->safe_psql('postgres', "SELECT count(dfx_classify(image, 'slow')), count(dfx_classify(image)) FROM images"),
	'3|3',
	'others are answered');
ok(unanswered('slow') && unanswered('next'), '... meanwhile, and a second heatmap waits');
is( $node->safe_psql('postgres',
		"SET dfx.priority = 'bulk'; SELECT count(dfx_classify(image, 'two')) FROM images"),
	'3',
	'those of the same priority too');
kill_engine($node);
ok(under_way(), 'a new engine begins them again');
state_is($node, "SELECT dfx_classify('DFXTEST:SEGV')", '58000', 'an image that kills engines is found out');
finish_sql($_) foreach $slow, $next;
ok($slow->{state} eq '00000' && $slow->{out} eq expected(1, 'slow'), 'the heatmap is as if nothing had happened')
  or diag("$slow->{state} $slow->{err}");
ok($next->{state} eq '00000' && $next->{out} eq expected(2, 'all'), '... and so is the second')
  or diag("$next->{state} $next->{err}");
ok(queue_is_free($node), 'every slot is free');

# Ended
kill_engine($node);
service_is_back($node);
my $job = start_slow(1, 'canceled');
ok(under_way(), 'another one is under way');
$node->safe_psql('postgres',
	"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'canceled'");
is(finish_sql($job)->{state}, '57014', 'a heatmap can be canceled');
ok(queue_is_free($node), '... and the engine stops working on it');
state_is($node, "SET dfx.request_timeout = '1ms'; " . heatmap(1, ", model => 'slow'"),
	'58000', 'it has 16 times dfx.request_timeout', qr/within 16 ms/);
ok(queue_is_free($node), 'every slot is free');

done_testing();
