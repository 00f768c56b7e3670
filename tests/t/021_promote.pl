
# Do queries that run while a model is promoted, rolled back or renamed see one version each, and the right one?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('promote', models => [ 'resnet18', 'resnet18b' ]);
dfx_images($node, 6);
dfx_expect($node, $_) foreach 'resnet18', 'resnet18b';
my %version = map {
	$_ => $node->safe_psql('postgres',
		"SELECT version FROM dfx_models WHERE name = '$_'")
} 'resnet18', 'resnet18b';
$node->safe_psql('postgres',
	"SELECT dfx_import_model('m', '$ENV{DFX_TEST_DIR}/$_.safetensors')")
  foreach 'resnet18', 'resnet18b';

# One row a statement: how many versions its verdicts carry, which, and whether each verdict is that version's
my $query = q{
SELECT count(DISTINCT (x.v).version), min((x.v).version), count(*), bool_and((x.v).p_real = (e.verdict).p_real)
	FROM (SELECT id, dfx_classify(image, 'm') AS v FROM images OFFSET 0) AS x
	JOIN expected AS e ON e.id = x.id AND (e.verdict).version = (x.v).version;
};
my $stop = $node->basedir . '/stop';
my $promoter = start_sql(
	$node, qq{
DO \$\$
BEGIN
	WHILE pg_stat_file('$stop', true) IS NULL LOOP
		PERFORM dfx_promote_model('m', '$version{resnet18}');
		COMMIT;
		PERFORM pg_sleep(0.05);
		PERFORM dfx_promote_model('m', '$version{resnet18b}');
		COMMIT;
		PERFORM pg_sleep(0.05);
	END LOOP;
END \$\$});
my (%seen, @wrong);
foreach my $round (1 .. 20)
{
	foreach my $job (map { start_sql($node, $query x 3) } 1 .. 3)
	{
		my $out = finish_sql($job)->{out};
		foreach my $row (split /\n/, $out)
		{
			my ($versions, $which, $images, $right) = split /\|/, $row;
			$seen{$which} = 1;
			push @wrong, $row
			  unless $versions == 1 && $images == 6 && $right eq 't';
		}
		push @wrong, $job->{err} if $job->{state} ne '00000';
	}
	last if keys %seen == 2 && $round >= 3;
}
append_to_file($stop, '');
is(finish_sql($promoter)->{state},
	'00000', 'promotes back and forth while others classify');
is_deeply(\@wrong, [],
	'every statement has the verdicts of one version, and the right ones');
is_deeply(
	[ sort keys %seen ],
	[ sort values %version ],
	'... now the one, now the other');
is( $node->safe_psql(
		'postgres',
		"SELECT bool_and(current = (since = last)) FROM (SELECT *, max(since) OVER () AS last"
		  . " FROM dfx_model_versions WHERE name = 'm') AS v"),
	't',
	'the history ends with the present version');

# A transaction that sees its own change only
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe('BEGIN');
$session->query_safe("SELECT dfx_rename_model('m', 'n')");
is($session->query_safe("SELECT count(dfx_classify(image, 'n')) FROM images"),
	6, 'a renamed model serves its own transaction');
is( $node->safe_psql(
		'postgres', "SELECT count(dfx_classify(image, 'm')) FROM images"),
	6,
	'... others go on under the old name');
$session->query_safe('COMMIT');
$session->quit;
state_is($node, "SELECT dfx_classify(image, 'm') FROM images LIMIT 1",
	'42704', '... until it commits');
is( $node->safe_psql(
		'postgres', "SELECT count(dfx_classify(image, 'n')) FROM images"),
	6,
	'... then under the new one');

# Renames in opposite directions: an order of locks that could deadlock would show here.
my $swap = join '', map {
	"SELECT dfx_rename_model('n', 'o');\nSELECT dfx_rename_model('o', 'n');\n"
} 1 .. 30;
my @jobs = map { start_sql($node, "\\set ON_ERROR_STOP 0\n$swap") } 1 .. 3;
my $errors = join '', map { finish_sql($_)->{err} } @jobs;
my %states = map { $_ => 1 } $errors =~ /ERROR:\s+(\w{5}):/g;
delete @states{ '42704', '42710' };
is(join(' ', sort keys %states),
	'', 'sessions that rename to and fro: nothing but 42704 and 42710');
is( $node->safe_psql(
		'postgres',
		"SELECT count(*) FROM dfx_model WHERE name IN ('n', 'o')"),
	1,
	'... and one model left');

done_testing();
