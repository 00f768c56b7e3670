
=pod

=head1 NAME

Dfx - what the fault tests share

=head1 DESCRIPTION

Clusters with the extension in them, statements whose outcome is a SQLSTATE,
images made from nothing, and the engine as an operating system process.

Statements run through psql at VERBOSITY verbose, so that every outcome is a
SQLSTATE and never a matter of wording.  Processes are found through /proc, not
through the extension: a test must see the engine also when nothing answers.

=cut

package Dfx;

use strict;
use warnings FATAL => 'all';

use Compress::Zlib qw(compress crc32);
use Exporter       qw(import);
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  dfx_node dfx_model dfx_images dfx_expect dfx_load put_image
  png png_chunk
  start_sql finish_sql sql state_is
  session_pid wait_for
  training_engines
  engine_pid engine_pids supervisor_pid kill_engine new_engine service_is_back
  queue_is_free process_memory
);

# Long enough for a machine ten times as slow; nothing below waits it out
# unless it fails.
my $patience = 30;

my $jobs = 0;

=pod

=head1 CLUSTERS

=over

=item dfx_node($name, %params)

A started cluster with the extension created.  C<conf> is added to
postgresql.conf, C<init> goes to the node's init(), C<models> names the models
to import, the first of which becomes the default.

=cut

sub dfx_node
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(%{ $params{init} // {} });
	$node->append_conf(
		'postgresql.conf', qq{
shared_preload_libraries = 'deepfeaturex'
dfx.engine_path = '$ENV{DFX_TEST_ENGINE}'
dfx.threads = 2
restart_after_crash = on
shared_buffers = 32MB
max_connections = 30
autovacuum = off
} . ($params{conf} // ''));
	$node->start;

	$node->safe_psql('postgres', 'CREATE EXTENSION deepfeaturex');
	$node->safe_psql('postgres',
		'CREATE TABLE images (id serial, name text PRIMARY KEY, image bytea)'
	);
	$node->safe_psql('postgres',
		'ALTER TABLE images ALTER image SET STORAGE EXTERNAL');

	my @models = @{ $params{models} // [] };
	dfx_model($node, $_) foreach @models;
	$node->safe_psql('postgres', "SELECT dfx_set_default_model('$models[0]')")
	  if @models;
	return $node;
}

=pod

=item dfx_model($node, $model)

Import DFX_TEST_DIR/$model.safetensors under its own name.

=cut

sub dfx_model
{
	my ($node, $model) = @_;

	$node->safe_psql('postgres',
		"SELECT dfx_import_model('$model', '$ENV{DFX_TEST_DIR}/$model.safetensors')"
	);
	return;
}

=pod

=item put_image($node, $name, $bytes)

Put bytes into the table images, through a file: hex literals of megabytes
would fill the server's log.

=cut

sub put_image
{
	my ($node, $name, $bytes) = @_;
	my $file = $node->basedir . '/image';

	open my $out, '>:raw', $file or die "could not write \"$file\": $!";
	print $out $bytes;
	close $out or die "could not write \"$file\": $!";
	$node->safe_psql('postgres',
		"INSERT INTO images (name, image) VALUES ('$name', pg_read_binary_file('$file'))"
	);
	return;
}

=pod

=item dfx_images($node, $n)

Fill the table images with $n small PNGs of noise, 'noise 1' and so on.

=cut

sub dfx_images
{
	my ($node, $n) = @_;

	put_image($node, "noise $_", png(48, 48, $_)) foreach 1 .. $n;
	return;
}

=pod

=item dfx_expect($node, $model)

Store what $model says of every image in the table expected, and make the
function check_verdict(n): classifies the nth image and raises ZZ001 when the
answer differs.  For load: pgbench stops a client that gets an error.

=cut

sub dfx_expect
{
	my ($node, $model) = @_;

	$node->safe_psql(
		'postgres', qq{
CREATE TABLE IF NOT EXISTS expected (id int, model text, verdict dfx_verdict);
INSERT INTO expected SELECT id, '$model', dfx_classify(image, '$model') FROM images;
CREATE OR REPLACE FUNCTION check_verdict(n int, with_model text DEFAULT '$model')
RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
	got dfx_verdict;
	want dfx_verdict;
BEGIN
	got := (SELECT dfx_classify(image, with_model) FROM images WHERE id = n);
	want := (SELECT verdict FROM expected WHERE id = n AND model = with_model);
	IF got IS NULL OR got IS DISTINCT FROM want THEN
		RAISE EXCEPTION 'image %: % instead of %', n, got, want USING ERRCODE = 'ZZ001';
	END IF;
END \$\$;
});
	return;
}

=pod

=item dfx_load($node)

Make the function load(), which checks the verdicts of eight images in turn
until the table stop has a row, and returns how many they were.

=cut

sub dfx_load
{
	my ($node) = @_;

	$node->safe_psql(
		'postgres', q{
CREATE TABLE stop ();
CREATE FUNCTION load() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answers int := 0;
BEGIN
	WHILE NOT EXISTS (SELECT FROM stop) LOOP
		PERFORM check_verdict(1 + answers % 8);
		answers := answers + 1;
	END LOOP;
	RETURN answers;
END $$;
});
	return;
}

=pod

=back

=head1 STATEMENTS

=over

=item start_sql($node, $sql, %params)

Send $sql through a psql of its own and return at once.  C<name> becomes the
application_name.

=cut

sub start_sql
{
	my ($node, $sql, %params) = @_;
	my $job     = { out => '', err => '', began => time() };
	my $file    = $node->basedir . '/job' . ++$jobs . '.sql';
	my $connstr = $node->connstr('postgres');

	# A file, because IPC::Run feeds a pipe only while somebody pumps it.
	append_to_file($file, $sql);
	$connstr .= " application_name='$params{name}'" if $params{name};
	$job->{run} = IPC::Run::start(
		[
			'psql', '-XAtq',           '-v', 'VERBOSITY=verbose',
			'-v',   'ON_ERROR_STOP=1', '-d', $connstr,
			'-f',   $file
		],
		'>',
		\$job->{out},
		'2>',
		\$job->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $job;
}

=pod

=item finish_sql($job)

Wait for its end; fills and returns $job: out, err, seconds and state: the
SQLSTATE, '00000' when all went well, 'lost' when the connection broke
without a word.

=cut

sub finish_sql
{
	my ($job) = @_;

	$job->{run}->finish;
	$job->{seconds} = time() - $job->{began};
	chomp $job->{out};
	if ($job->{err} =~ /(?:ERROR|FATAL|PANIC):\s+([0-9A-Z]{5}):/)
	{
		$job->{state} = $1;
	}
	else
	{
		$job->{state} = $job->{run}->result(0) == 0 ? '00000' : 'lost';
	}
	return $job;
}

sub sql
{
	return finish_sql(start_sql(@_));
}

=pod

=item state_is($node, $sql, $state, $test, [$pattern, %params])

One assertion: the SQLSTATE, and, where given, what message and hint match.
Returns the job.

=cut

sub state_is
{
	my ($node, $sql, $state, $test, $pattern, %params) = @_;
	my $job = sql($node, $sql, %params);
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my $good = $job->{state} eq $state
	  && (!defined $pattern || $job->{err} =~ $pattern);
	ok($good, $test)
	  or diag("got $job->{state}, expected $state: $job->{out}$job->{err}");
	return $job;
}

=pod

=item session_pid($node, $name)

The backend of the job of that name, once it is waiting for the engine.

=cut

sub session_pid
{
	my ($node, $name) = @_;

	my $pid;

	wait_for(
		sub {
			$pid = $node->safe_psql('postgres',
				"SELECT pid FROM pg_stat_activity WHERE application_name = '$name'"
				  . " AND state = 'active' AND wait_event_type = 'Extension'"
			);
			return $pid ne '';
		}) // die "$name never waited for the engine";
	return $pid;
}

=pod

=item wait_for($condition, [$seconds])

Poll a sub every 10 ms; returns the seconds it took, undef when it never
became true.

=cut

sub wait_for
{
	my ($condition, $seconds) = @_;
	my $began = time();

	while (!$condition->())
	{
		return undef if time() - $began > ($seconds // $patience);
		sleep 0.01;
	}
	return time() - $began;
}

=pod

=back

=head1 PROCESSES

=over

=item engine_pid($node)

The engine below this cluster's postmaster, from /proc; undef when there is
none right now.

=item engine_pids($node)

All of them, where dfx.device is a list.

=cut

# (command, parent) of a process; empty when it is gone.  The command stands in
# parentheses and may hold anything, so it is matched greedily.
sub process_stat
{
	my ($pid) = @_;

	open my $in, '<', "/proc/$pid/stat" or return;
	my $line = <$in> // '';
	close $in;
	return $line =~ /^\d+ \((.*)\) \S (\d+)/s;
}

sub engine_pid
{
	my ($pid) = engine_pids(@_);

	return $pid;
}

sub engine_pids
{
	my ($node) = @_;
	my $postmaster = postmaster_pid($node);
	my @pids;

	foreach my $dir (glob '/proc/[0-9]*')
	{
		my ($pid) = $dir =~ /(\d+)$/;
		my ($command, $parent) = process_stat($pid);
		next unless defined $command && $command eq 'dfx-engine';
		my (undef, $grandparent) = process_stat($parent);
		push @pids, $pid
		  if defined $grandparent && $grandparent == $postmaster;
	}
	return @pids;
}

sub postmaster_pid
{
	my ($node) = @_;
	my ($pid)  = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;

	return $pid;
}

=pod

=item training_engines($node)

The pids of the cluster's training engines, whoever their parent is by now.

=cut

sub training_engines
{
	my ($node) = @_;
	my $data = $node->data_dir;
	my @pids;

	foreach my $dir (glob '/proc/[0-9]*')
	{
		open my $in, '<', "$dir/cmdline" or next;
		my $line = <$in> // '';
		close $in;
		push @pids, $dir =~ /(\d+)$/
		  if $line =~ /\0train\0--stream\0/ && $line =~ /\0\Q$data\E\//;
	}
	return @pids;
}

=pod

=item supervisor_pid($node)

=cut

sub supervisor_pid
{
	my ($node) = @_;

	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'deepfeaturex supervisor'"
	);
}

=pod

=item new_engine($node, $old)

Wait until an engine other than $old runs; returns its pid.

=cut

sub new_engine
{
	my ($node, $old) = @_;
	my $pid;

	wait_for(
		sub {
			$pid = engine_pid($node);
			return defined $pid && $pid != ($old // 0);
		}) // die "no new engine came up";
	return $pid;
}

=pod

=item kill_engine($node, [$signal])

Send KILL, or $signal, to the engine and wait for its successor.

=cut

sub kill_engine
{
	my ($node, $signal) = @_;
	my $old = engine_pid($node) // die "no engine to kill";

	kill $signal // 'KILL', $old or die "could not signal engine $old: $!";
	return new_engine($node, $old);
}

=pod

=item service_is_back($node, [$seconds])

How long until the engine answers; undef when it never does.

=cut

sub service_is_back
{
	my ($node, $seconds) = @_;

	return wait_for(
		sub {
			return $node->psql('postgres', 'SELECT dfx_ping()') == 0;
		},
		$seconds);
}

=pod

=item queue_is_free($node)

True once no slot and no memory of the queue is in use by anyone.

=cut

sub queue_is_free
{
	my ($node) = @_;

	return $node->poll_query_until('postgres',
		'SELECT slots = free AND arena_used = 0 FROM dfx_stat_queue');
}

=pod

=item process_memory($pid, [$what])

Private memory of a process in kB; or VmHWM, the most it ever held, shared
memory included.

=back

=cut

sub process_memory
{
	my ($pid, $what) = @_;

	$what //= 'RssAnon';
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^$what:\s+(\d+) kB/m;

	return $kb;
}

=pod

=head1 IMAGES

=over

=item png($width, $height, $seed)

An RGB PNG of noise that depends on $seed alone.

=back

=cut

sub png_chunk
{
	my ($type, $data) = @_;

	return
		pack('N', length $data)
	  . $type
	  . $data
	  . pack('N', crc32($type . $data));
}

sub png
{
	my ($width, $height, $seed) = @_;
	my $state = $seed * 2654435761 % 4294967296;
	my $rows  = '';

	# xorshift32: rand() is not the same everywhere
	foreach my $y (1 .. $height)
	{
		my $row = '';
		while (length $row < 3 * $width)
		{
			$state ^= $state << 13 & 0xFFFFFFFF;
			$state ^= $state >> 17;
			$state ^= $state << 5 & 0xFFFFFFFF;
			$row .= pack('N', $state);
		}
		$rows .= "\0" . substr($row, 0, 3 * $width);
	}
	return
		"\x89PNG\r\n\x1A\n"
	  . png_chunk('IHDR', pack('NNCCCCC', $width, $height, 8, 2, 0, 0, 0))
	  . png_chunk('IDAT', compress($rows))
	  . png_chunk('IEND', '');
}

1;
