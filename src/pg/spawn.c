/*
 * spawn.c
 *	  The engine as a process: starting it, and knowing that it has ended.
 *
 * The supervisor has those that serve, and each session that trains one of its
 * own; both are started here.  Every rule of the start stands for a failure that was seen.  The child
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

#include "engine/proto_train.h"
#include "pg/clock.h"
#include "pg/settings.h"
#include "pg/shmem.h"
#include "pg/spawn.h"

#define SPAWN_FIRST_FD 3		/* of the descriptors that the engine expects */
#define SPAWN_MAX_FDS 2
#define SPAWN_HIGH_FD 16		/* above their numbers */
#define SPAWN_NARGS 21
#define SPAWN_NO_FDS "cannot open the engine's descriptors: %s"

StaticAssertDecl(DFX_ENGINE_RING_FD == SPAWN_FIRST_FD && DFX_ENGINE_CONTROL_FD == SPAWN_FIRST_FD + 1 &&
				 DFX_TRAIN_FD == SPAWN_FIRST_FD, "descriptors are numbered from SPAWN_FIRST_FD");

/* All that the child needs, made ready before fork(). */
typedef struct Spawn
{
	char		path[MAXPGPATH];
	char	  *const *argv;
	int			fd[SPAWN_MAX_FDS];	/* all >= SPAWN_HIGH_FD */
	int			nfd;
	int			max_fd;			/* where to stop without close_range() */
} Spawn;

/* The command line of an engine that serves. */
typedef struct SpawnServe
{
	char		device[128];
	char		number[8][24];
	char	   *argv[SPAWN_NARGS];
} SpawnServe;

void
dfx_spawn_options(DfxSpawnOptions *options)
{
	memset(options, 0, sizeof(*options));
	strlcpy(options->device, dfx_device, sizeof(options->device));
	options->engines = dfx_device_count(dfx_device);
	options->threads = dfx_threads;
	options->max_batch = Max(1, Min(dfx_max_batch, dfx_queue_slots / 2 / options->engines));
	options->batch_wait = dfx_batch_wait;
	options->model_memory = dfx_model_memory;
	options->gpu_memory = dfx_gpu_memory;
}

/* The command line of proto.h. */
static void
spawn_command(SpawnServe *serve, const DfxSpawnOptions *options, int engine)
{
	const struct
	{
		const char *name;
		int64		value;
	}			numbers[] = {
		{"--engine", engine},
		{"--engines", options->engines},
		{"--threads", options->threads},
		{"--max-batch", options->max_batch},
		{"--batch-wait", options->batch_wait},
		{"--model-memory", (int64) options->model_memory * 1024 * 1024},
		{"--gpu-memory", (int64) options->gpu_memory * 1024 * 1024},
		{"--parent", MyProcPid},
	};
	int			n = 0;

	serve->argv[n++] = "dfx-engine";
	serve->argv[n++] = "serve";
	serve->argv[n++] = "--device";
	dfx_device_item(options->device, engine, serve->device, sizeof(serve->device));
	serve->argv[n++] = serve->device;
	for (int i = 0; i < lengthof(numbers); i++)
	{
		snprintf(serve->number[i], sizeof(serve->number[i]), INT64_FORMAT, numbers[i].value);
		serve->argv[n++] = unconstify(char *, numbers[i].name);
		serve->argv[n++] = serve->number[i];
	}
	serve->argv[n++] = NULL;
	Assert(n == SPAWN_NARGS);
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
	for (int i = 0; i < spawn->nfd; i++)
		if (dup2(spawn->fd[i], SPAWN_FIRST_FD + i) < 0)
			_exit(127);
	spawn_close_from(SPAWN_FIRST_FD + spawn->nfd, spawn->max_fd);
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

static void
spawn_close(Spawn *spawn)
{
	for (int i = 0; i < spawn->nfd; i++)
		close(spawn->fd[i]);
}

pid_t
dfx_spawn_program(char *const *argv, const int *fd, int nfd, char *why, Size why_size)
{
	Spawn		spawn = {.argv = argv};
	struct rlimit files;
	sigset_t	all,
				old;
	pid_t		pid;

	if (dfx_engine_path[0] != '\0')
		strlcpy(spawn.path, dfx_engine_path, sizeof(spawn.path));
	else
		snprintf(spawn.path, sizeof(spawn.path), "%s/dfx-engine", pkglib_path);
	if (access(spawn.path, X_OK) != 0)
	{
		snprintf(why, why_size, "cannot execute \"%s\": %s", spawn.path, strerror(errno));
		return -1;
	}
	/* Out of the way of those that the engine expects. */
	for (spawn.nfd = 0; spawn.nfd < nfd; spawn.nfd++)
	{
		spawn.fd[spawn.nfd] = fcntl(fd[spawn.nfd], F_DUPFD_CLOEXEC, SPAWN_HIGH_FD);
		if (spawn.fd[spawn.nfd] < 0)
		{
			snprintf(why, why_size, SPAWN_NO_FDS, strerror(errno));
			spawn_close(&spawn);
			return -1;
		}
	}
	spawn.max_fd = getrlimit(RLIMIT_NOFILE, &files) == 0 ? (int) Min(files.rlim_cur, 65536) : 1024;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0)
		spawn_child(&spawn);
	if (pid < 0)
		snprintf(why, why_size, "cannot fork the engine: %s", strerror(errno));
	sigprocmask(SIG_SETMASK, &old, NULL);
	spawn_close(&spawn);
	return pid;
}

bool
dfx_spawn_socket(int type, int pair[2], char *why, Size why_size)
{
	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair) != 0)
	{
		snprintf(why, why_size, SPAWN_NO_FDS, strerror(errno));
		return false;
	}
	if (fcntl(pair[0], F_SETFL, O_NONBLOCK) != 0)
	{
		snprintf(why, why_size, SPAWN_NO_FDS, strerror(errno));
		close(pair[0]);
		close(pair[1]);
		return false;
	}
	return true;
}

pid_t
dfx_engine_spawn(const DfxSpawnOptions *options, int engine, int *control, char *why, Size why_size)
{
	SpawnServe	serve;
	int			fd[SPAWN_MAX_FDS];
	int			pair[2];
	pid_t		pid;

	fd[0] = spawn_open_ring();
	if (fd[0] < 0)
	{
		snprintf(why, why_size, SPAWN_NO_FDS, strerror(errno));
		return -1;
	}
	if (!dfx_spawn_socket(SOCK_SEQPACKET, pair, why, why_size))
	{
		close(fd[0]);
		return -1;
	}
	fd[1] = pair[1];
	spawn_command(&serve, options, engine);
	pid = dfx_spawn_program(serve.argv, fd, lengthof(fd), why, why_size);
	close(fd[0]);
	close(fd[1]);
	if (pid < 0)
		close(pair[0]);
	else
		*control = pair[0];
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

/* Is this how somebody else ends a program?  The engine exits with 0 at SIGTERM. */
static bool
spawn_ended_from_outside(int status)
{
	if (WIFEXITED(status))
		return WEXITSTATUS(status) == 0;
	switch (WTERMSIG(status))
	{
		case SIGKILL:
		case SIGTERM:
		case SIGINT:
		case SIGHUP:
		case SIGQUIT:
			return true;
		default:
			return false;
	}
}

bool
dfx_engine_reap(pid_t pid, int grace_ms, char *how, Size how_size)
{
	int64		kill_at = dfx_clock_ms() + grace_ms;
	bool		killed = false;
	int			status;
	pid_t		rc;

	while ((rc = waitpid(pid, &status, WNOHANG)) != pid)
	{
		if (rc < 0 && errno == ECHILD)
		{
			strlcpy(how, "ended unseen", how_size);
			return false;
		}
		if (!killed && dfx_clock_ms() >= kill_at)
		{
			kill(pid, SIGKILL);
			killed = true;
		}
		pg_usleep(2000);
	}
	spawn_describe_exit(status, how, how_size);
	return !killed && spawn_ended_from_outside(status);
}

void
dfx_engine_reap_orphans(bool (*is_engine) (pid_t pid))
{
	siginfo_t	info;

	for (;;)
	{
		info.si_pid = 0;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
			info.si_pid == 0 || is_engine(info.si_pid))
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
