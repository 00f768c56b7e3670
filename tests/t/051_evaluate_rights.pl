
# Does an evaluation see exactly the rows that its caller may see?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = dfx_node('evaluaterights', models => ['tiny']);
dfx_images($node, 4);
$node->safe_psql(
	'postgres', q{
CREATE ROLE judge LOGIN;
CREATE ROLE curator LOGIN;
CREATE TABLE samples AS
	SELECT id, image, 'real' AS label, CASE WHEN id < 3 THEN 'judge' ELSE 'curator' END AS owner FROM images;
});

sub as
{
	my ($user, $sql, $state, $test, $pattern) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return state_is($node, "SET SESSION AUTHORIZATION $user; $sql",
		$state, "$user: $test", $pattern);
}

sub counts
{
	my ($user, $n, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $job = as($user, q{SELECT n FROM dfx_evaluate('tiny', 'samples')},
		'00000', $test);
	is($job->{out}, $n, "... $n images");
	return;
}

my $evaluate = q{SELECT n FROM dfx_evaluate('tiny', '%s')};
my $samples  = sprintf $evaluate, 'samples';

# The model, then the samples
as('judge', $samples, '42501', 'without the model', qr/model "tiny"/);
$node->safe_psql('postgres', q{SELECT dfx_grant_model('tiny', 'public')});
as('judge', $samples, '42501', 'without the samples', qr/table samples/);
$node->safe_psql('postgres', 'GRANT SELECT (image) ON samples TO judge');
as('judge', $samples, '42501', 'without the labels', qr/table samples/);
$node->safe_psql('postgres', 'GRANT SELECT (label) ON samples TO judge');
counts('judge', 4, 'with the two columns');
as( 'judge',
	q{SELECT n FROM dfx_evaluate('tiny', 'samples', group_by => 'owner')},
	'42501',
	'without the column to group by',
	qr/table samples/);
as( 'judge',
	q{SELECT n FROM dfx_confusion('tiny', 'samples', split_column => 'owner')},
	'42501',
	'without the column of splits',
	qr/table samples/);

# Rows
$node->safe_psql(
	'postgres', q{
GRANT SELECT ON samples TO judge, curator;
ALTER TABLE samples ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON samples USING (owner = current_user AND id <> 4);
});
counts('judge',    2, 'row-level security: only its own');
counts('curator',  1, 'row-level security: another role');
counts('postgres', 4, 'a superuser sees all');
as( 'judge', "SET row_security = off; $samples",
	'42501',
	'row_security = off',
	qr/row-level security/);

# A view shows what its owner may see; a security invoker's does not
$node->safe_psql(
	'postgres', q{
CREATE VIEW shown AS SELECT * FROM samples;
CREATE VIEW invoker WITH (security_invoker) AS SELECT * FROM samples;
GRANT SELECT ON shown, invoker TO judge;
});
is(as('judge', sprintf($evaluate, 'shown'), '00000', 'a view')->{out},
	4, '... with the rows of its owner');
is( as( 'judge', sprintf($evaluate, 'invoker'),
		'00000', 'a view with security_invoker')->{out},
	2,
	'... with its own');

# Names are names, in every position
$node->safe_psql(
	'postgres', q{
CREATE SCHEMA "a schema";
CREATE TABLE "a schema"."it's; a ""table""" ("an ""image""" bytea, "it's" text, "DROP" text);
INSERT INTO "a schema"."it's; a ""table""" SELECT image, 'fo''to', 'x' FROM images;
GRANT USAGE ON SCHEMA "a schema" TO judge;
GRANT SELECT ON "a schema"."it's; a ""table""" TO judge;
});
is( as( 'judge',
		q{SELECT group_value, sum(n) FROM dfx_confusion('tiny', $$"a schema"."it's; a ""table"""$$,
	'an "image"', $$it's$$, group_by => 'DROP', labels => '{"fo''to": "real"}', split_column => 'DROP', split => 'x')
	GROUP BY 1}, '00000', 'names that need quotes')->{out},
	'x|4',
	'... are quoted');

# Partitions, materialised views
$node->safe_psql(
	'postgres', q{
CREATE TABLE parted (image bytea, label text) PARTITION BY LIST (label);
CREATE TABLE parted_real PARTITION OF parted FOR VALUES IN ('real');
INSERT INTO parted SELECT image, label FROM samples;
CREATE MATERIALIZED VIEW kept AS SELECT image, label FROM samples;
CREATE INDEX kept_label ON kept (label);
});
is($node->safe_psql('postgres', sprintf $evaluate, 'parted'),
	4, 'a partitioned table');
is($node->safe_psql('postgres', sprintf $evaluate, 'kept'),
	4, 'a materialised view');
state_is(
	$node,   sprintf($evaluate, 'kept_label'),
	'42703', 'an index has no images');

ok(queue_is_free($node), 'every slot is free');

done_testing();
