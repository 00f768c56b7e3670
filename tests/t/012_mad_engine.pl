
# Can an engine that has gone mad do more than give wrong answers?

use strict;
use warnings FATAL => 'all';

use Dfx;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The ring belongs to the engine as much as to PostgreSQL, and the engine reads
# hostile images.  So here is what an attacker would put in its place: it answers
# each request with random words where status, lengths and text should be, sends
# messages that mean nothing, and overwrites the ring's header.
my $mad = <<'END_OF_ENGINE';
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

sub garbage { return join '', map { chr int rand 256 } 1 .. $_[0] }
sub any { return $_[ rand @_ ] }

my ($nslots, $slots, $arena, $arena_bytes) = unpack 'x8 L x4 Q Q Q', get(0, 40);
srand 1;
syswrite $socket, 'R';
while (1)
{
	my $ready = '';
	vec($ready, 4, 1) = 1;
	exit 0 if select $ready, undef, undef, 0.001;
	foreach my $slot (map { $slots + 1024 * $_ } 0 .. $nslots)
	{
		my ($reply, $cap) = unpack 'Q2', get($slot + 40, 16);
		my $gen = get($slot + 120, 8);
		next if $gen eq "\0" x 8 || $gen eq get($slot + 200, 8);
		put($reply, garbage(any(64, 128, $cap)))
		  if $reply >= $arena && $reply + $cap <= $arena + $arena_bytes;
		put($slot + 208, pack 'L L Q',
			any(0, 0, 0, 1 .. 17, 0xFFFFFFFF), int rand 2**32,
			any(0, 20, 24, 44, 96, 2048, $cap, $cap + 1, 2**40, 2**63));
		put($slot + 224, garbage(800));
		put($slot + 192, $gen . $gen);
		syswrite $socket, any('D', 'D', 'D', 'DLLL', 'X' . garbage(60), 'L' . garbage(900), 'R');
	}
	put(0, garbage(4096)) if rand() < 0.01;
}
END_OF_ENGINE

my $node = dfx_node('mad', models => ['resnet18']);
dfx_images($node, 1);
dfx_expect($node, 'resnet18');
my $program = $node->basedir . '/mad-engine';
append_to_file($program, $mad);
chmod 0755, $program;
my $log = -s $node->logfile;
$node->append_conf(
	'postgresql.conf', qq{
dfx.engine_path = '$program'
dfx.request_timeout = 1000
dfx.queue_timeout = 1000
});
$node->restart;

# Every call, many times, from several sessions
my $calls = "\\set ON_ERROR_STOP 0\n" . q{
SELECT dfx_classify(image) FROM images;
SELECT dfx_try_classify(image) FROM images;
SELECT dfx_synthetic(image) FROM images;
SELECT array_length(dfx_features(image), 1) FROM images;
SELECT dfx_image_info(image) FROM images;
SELECT length(dfx_perturb(image, 'blur:3')) FROM images;
SELECT n FROM dfx_evaluate('resnet18', 'images', label_column => 'name', labels => '{"noise 1": "real"}', max_errors => 1);
SELECT dfx_ping();
SELECT * FROM dfx_engine_status(), dfx_stat_engine, dfx_stat_queue;
} x 20;
my @jobs = map { start_sql($node, $calls) } 1 .. 3;
my %outcome;
foreach my $job (map { finish_sql($_) } @jobs)
{
	$outcome{$1}++ while $job->{err} =~ /(?:ERROR|FATAL):\s+([0-9A-Z]{5}):/g;
	$outcome{lost}++
	  if $job->{err} =~
	  /server closed the connection|connection to server was lost/;
	$outcome{answered} += () = $job->{out} =~ /^/mg;
}
note(join ', ', map { "$_: $outcome{$_}" } sort keys %outcome);
cmp_ok(scalar(keys %outcome),
	'>', 3, 'a mad engine makes errors of many kinds');
is($outcome{lost}, undef, '... but no session ends');
unlike(
	slurp_file($node->logfile, $log),
	qr/was terminated by signal|PANIC|TRAP/,
	'... and no process dies');
ok(queue_is_free($node), 'every slot is free');

$node->append_conf('postgresql.conf',
	"dfx.engine_path = '$ENV{DFX_TEST_ENGINE}'");
$node->restart;
is(sql($node, 'SELECT check_verdict(1)')->{state},
	'00000', 'a sane engine serves as before');

done_testing();
