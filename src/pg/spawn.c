/*
 * spawn.c
 *	  The engine as a process: starting it, and knowing that it has ended.
 *
 * Every rule of the start stands for a failure that was seen.  The child
 *
 *	- runs no PostgreSQL signal handler: all signals are blocked over fork(),
 *	  and handlers reset before the mask is emptied (the mask survives exec);
 *	- calls setsid(), or pg_cancel_backend(), which signals process groups,
 *	  would end it;
 *	- keeps only the standard descriptors, the ring and its control socket:
 *	  PostgreSQL before 16 does not mark data files close-on-exec;
 *	- gets a ring descriptor of its own open file description, so that the
 *	  engine's lock on it is the engine's alone;
 *	- volunteers for the kernel's OOM killer, which might otherwise choose a
 *	  backend, and that is a crash restart;
 *	- makes only async-signal-safe calls, and leaves by _exit(): exit() would
 *	  run the supervisor's exit callbacks.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "pg/settings.h"
#include "pg/shmem.h"
#include "pg/spawn.h"

#define SPAWN_HIGH_FD 16		/* above the numbers that the engine expects */
#define SPAWN_NARGS 17

/* All that the child needs, made ready before fork(). */
typedef struct Spawn
{
	char		path[MAXPGPATH];
	char		number[6][24];
	char	   *argv[SPAWN_NARGS];
	int			ring;			/* descriptors, both >= SPAWN_HIGH_FD */
	int			control;
	int			max_fd;			/* where to stop without close_range() */
} Spawn;

void
dfx_spawn_options(DfxSpawnOptions *options)
{
	memset(options, 0, sizeof(*options));
	strlcpy(options->device, dfx_device, sizeof(options->device));
	options->threads = dfx_threads;
	options->max_batch = Min(dfx_max_batch, dfx_queue_slots / 2);
	options->batch_wait = dfx_batch_wait;
	options->model_memory = dfx_model_memory;
	options->gpu_memory = dfx_gpu_memory;
}

/* The command line of proto.h. */
static void
spawn_command(Spawn *spawn, const DfxSpawnOptions *options)
{
	const struct
	{
		const char *name;
		int64		value;
	}			numbers[] = {
		{"--threads", options->threads},
		{"--max-batch", options->max_batch},
		{"--batch-wait", options->batch_wait},
		{"--model-memory", (int64) options->model_memory * 1024 * 1024},
		{"--gpu-memory", (int64) options->gpu_memory * 1024 * 1024},
		{"--parent", MyProcPid},
	};
	int			n = 0;

	spawn->argv[n++] = "dfx-engine";
	spawn->argv[n++] = "serve";
	spawn->argv[n++] = "--device";
	spawn->argv[n++] = (char *) options->device;
	for (int i = 0; i < lengthof(numbers); i++)
	{
		snprintf(spawn->number[i], sizeof(spawn->number[i]), INT64_FORMAT, numbers[i].value);
		spawn->argv[n++] = unconstify(char *, numbers[i].name);
		spawn->argv[n++] = spawn->number[i];
	}
	spawn->argv[n++] = NULL;
	Assert(n == SPAWN_NARGS);
}

/* Move a descriptor out of the way of those that the engine expects; -1 if it cannot be. */
static int
spawn_raise_fd(int fd)
{
	int			high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, SPAWN_HIGH_FD);

	if (fd >= 0)
		close(fd);
	return high;
}

static void
spawn_write_file(const char *path, const char *text, size_t len)
{
	int			fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
	{
		ssize_t		rc = write(fd, text, len);

		(void) rc;				/* a wish, not a condition */
		close(fd);
	}
}

static void
spawn_close_from(int first, int max_fd)
{
	if (close_range(first, ~0U, 0) == 0)
		return;
	for (int fd = first; fd < max_fd; fd++) /* Linux before 5.9 */
		close(fd);
}

/* The child, between fork() and execve(): see the top of the file. */
static void
spawn_child(const Spawn *spawn)
{
	static char *const envp[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", NULL};
	struct sigaction dfl;
	sigset_t	none;

	memset(&dfl, 0, sizeof(dfl));
	dfl.sa_handler = SIG_DFL;
	for (int sig = 1; sig < NSIG; sig++)
		(void) sigaction(sig, &dfl, NULL);
	(void) setsid();
	if (dup2(spawn->ring, DFX_ENGINE_RING_FD) < 0 || dup2(spawn->control, DFX_ENGINE_CONTROL_FD) < 0)
		_exit(127);
	spawn_close_from(DFX_ENGINE_CONTROL_FD + 1, spawn->max_fd);
	spawn_write_file("/proc/self/oom_score_adj", "500", 3);
	if (chdir("/") != 0)
		_exit(127);
	sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);
	execve(spawn->path, spawn->argv, envp);
	_exit(127);
}

/* The ring as an open file description of its own, with its own locks; -1 with errno set. */
static int
spawn_open_ring(void)
{
	char		path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", dfx_ring_fd);
	return open(path, O_RDWR | O_CLOEXEC);
}

/* Descriptors for the child; *mine is the supervisor's end.  False with errno set. */
static bool
spawn_open(Spawn *spawn, int *mine)
{
	int			pair[2];

	spawn->ring = spawn_raise_fd(spawn_open_ring());
	if (spawn->ring < 0)
		return false;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
	{
		close(spawn->ring);
		return false;
	}
	*mine = pair[0];
	spawn->control = spawn_raise_fd(pair[1]);
	if (spawn->control < 0 || fcntl(*mine, F_SETFL, O_NONBLOCK) != 0)
	{
		close(spawn->ring);
		close(*mine);
		if (spawn->control >= 0)
			close(spawn->control);
		return false;
	}
	return true;
}

pid_t
dfx_engine_spawn(const DfxSpawnOptions *options, int *control, char *why, Size why_size)
{
	Spawn		spawn;
	struct rlimit files;
	sigset_t	all,
				old;
	pid_t		pid;
	int			mine;

	if (dfx_engine_path[0] != '\0')
		strlcpy(spawn.path, dfx_engine_path, sizeof(spawn.path));
	else
		snprintf(spawn.path, sizeof(spawn.path), "%s/dfx-engine", pkglib_path);
	if (access(spawn.path, X_OK) != 0)
	{
		snprintf(why, why_size, "cannot execute \"%s\": %s", spawn.path, strerror(errno));
		return -1;
	}
	if (!spawn_open(&spawn, &mine))
	{
		snprintf(why, why_size, "cannot open the engine's descriptors: %s", strerror(errno));
		return -1;
	}
	spawn_command(&spawn, options);
	spawn.max_fd = getrlimit(RLIMIT_NOFILE, &files) == 0 ? (int) Min(files.rlim_cur, 65536) : 1024;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0)
		spawn_child(&spawn);
	if (pid < 0)
		snprintf(why, why_size, "cannot fork the engine: %s", strerror(errno));
	sigprocmask(SIG_SETMASK, &old, NULL);

	close(spawn.ring);
	close(spawn.control);
	if (pid < 0)
		close(mine);
	else
		*control = mine;
	return pid;
}

static void
spawn_describe_exit(int status, char *how, Size how_size)
{
	if (WIFSIGNALED(status))
		snprintf(how, how_size, "terminated by signal %d: %s",
				 WTERMSIG(status), pg_strsignal(WTERMSIG(status)));
	else
		snprintf(how, how_size, "exited with code %d", WEXITSTATUS(status));
}

void
dfx_engine_reap(pid_t pid, int grace_ms, char *how, Size how_size)
{
	TimestampTz kill_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), grace_ms);
	bool		killed = false;
	int			status;
	pid_t		rc;

	while ((rc = waitpid(pid, &status, WNOHANG)) != pid)
	{
		if (rc < 0 && errno == ECHILD)
		{
			strlcpy(how, "ended unseen", how_size);
			return;
		}
		if (!killed && GetCurrentTimestamp() >= kill_at)
		{
			kill(pid, SIGKILL);
			killed = true;
		}
		pg_usleep(2000);
	}
	spawn_describe_exit(status, how, how_size);
}

void
dfx_engine_reap_orphans(pid_t pid)
{
	siginfo_t	info;

	for (;;)
	{
		info.si_pid = 0;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
			info.si_pid == 0 || info.si_pid == pid)
			return;
		(void) waitpid(info.si_pid, NULL, WNOHANG);
	}
}

bool
dfx_engine_ring_is_free(void)
{
	struct flock lock = {.l_type = F_WRLCK,.l_whence = SEEK_SET};
	int			fd = spawn_open_ring();
	bool		is_free;

	if (fd < 0)
		return true;			/* and no engine can be started either, which will say why */
	is_free = fcntl(fd, F_OFD_SETLK, &lock) == 0;
	close(fd);					/* and the lock with it */
	return is_free;
}
