/*
 * ring_client.h
 *	  A supervisor and client of dfx-engine without PostgreSQL: makes a ring,
 *	  starts the engine on it, submits requests and waits for answers.
 *
 * Every slot has a fixed piece of the arena, so there is nothing to allocate.
 * The engine's program is $DFX_ENGINE, or build/test/dfx-engine (the one with
 * the fault triggers), relative to the working directory.
 */
#ifndef DFX_TESTS_RING_CLIENT_H
#define DFX_TESTS_RING_CLIENT_H

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/proto.h"
#include "nn/nn.h"
#include "tests/unit/tap.h"

#define CLIENT_SLOTS  64u
#define CLIENT_INPUT  (256u << 10) /* bytes of arena of each slot for its payload ... */
#define CLIENT_REPLY  (64u << 10)  /* ... and for the reply */
#define CLIENT_LOADER CLIENT_SLOTS
#define CLIENT_WAIT   60000 /* ms; nothing here takes that long unless it hangs */

typedef struct Client
{
	int ring_fd, control;
	DfxRing *ring;
	pid_t pid;
	uint64_t gen;
	uint32_t precision; /* of requests, unless said otherwise */
	int done;           /* 'D' messages received */
	char said[1024];    /* text of the last 'F' */
} Client;

static uint64_t
client_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}

__attribute__((unused)) static void
client_sleep_ms(int ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

/* A ring as PostgreSQL makes it. */
static void
client_make_ring(Client *c)
{
	uint64_t slots = DFX_RING_HEADER, arena = slots + (CLIENT_SLOTS + 1) * DFX_SLOT_STRIDE;
	uint64_t arena_bytes = (uint64_t) CLIENT_SLOTS * (CLIENT_INPUT + CLIENT_REPLY);
	uint64_t total;

	arena = (arena + DFX_PAGE - 1) / DFX_PAGE * DFX_PAGE;
	total = arena + arena_bytes + DFX_LOADER_BYTES;
	*c = (Client){.gen = 1000, .control = -1};
	c->ring_fd = memfd_create("dfx-test-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (c->ring_fd < 0 || ftruncate(c->ring_fd, (off_t) total) != 0)
		abort();
	fcntl(c->ring_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	c->ring = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, c->ring_fd, 0);
	if (c->ring == MAP_FAILED)
		abort();
	c->ring->magic = DFX_RING_MAGIC;
	c->ring->version = DFX_RING_VERSION;
	c->ring->nslots = CLIENT_SLOTS;
	c->ring->slots_off = slots;
	c->ring->arena_off = arena;
	c->ring->arena_bytes = arena_bytes;
	c->ring->loader_off = arena + arena_bytes;
	c->ring->loader_bytes = DFX_LOADER_BYTES;
	c->ring->total_bytes = total;
}

/* fork and exec the engine on the client's ring; extra is a NULL-terminated list of options. */
static void
client_spawn(Client *c, const char *const *extra)
{
	const char *program = getenv("DFX_ENGINE"), *argv[32];
	char parent[32];
	int pair[2], n = 0;

	program = program ? program : "build/test/dfx-engine";
	snprintf(parent, sizeof parent, "%d", (int) getpid());
	argv[n++] = program;
	argv[n++] = "serve";
	argv[n++] = "--parent";
	argv[n++] = parent;
	argv[n++] = "--device";
	argv[n++] = "cpu";
	for (; extra && *extra && n < 31; extra++)
		argv[n++] = *extra;
	argv[n] = NULL;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		abort();
	fflush(stdout);
	c->pid = fork();
	if (c->pid < 0)
		abort();
	if (c->pid == 0)
	{
		/* Out of the way of 3 and 4 first, in case one of them lies there. */
		int ring = fcntl(c->ring_fd, F_DUPFD, 10), control = fcntl(pair[1], F_DUPFD, 10);

		dup2(ring, DFX_ENGINE_RING_FD);
		dup2(control, DFX_ENGINE_CONTROL_FD);
		syscall(SYS_close_range, 5, ~0u, 0);
		execv(program, (char *const *) argv);
		_exit(127);
	}
	close(pair[1]);
	c->control = pair[0];
}

/* Take one message, waiting at most ms; its first byte, 0 at end of file, -1 when none came. */
static int
client_message(Client *c, int ms)
{
	struct pollfd p = {.fd = c->control, .events = POLLIN};
	char text[1024];
	ssize_t n;

	if (poll(&p, 1, ms) <= 0)
		return -1;
	n = recv(c->control, text, sizeof text - 1, 0);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	if (text[0] == 'D')
		c->done++;
	if (text[0] == 'F')
		snprintf(c->said, sizeof c->said, "%s", text + 1);
	if (text[0] == 'L' && text[1] != 'I')
		diag("engine: %s", text + 1);
	return (unsigned char) text[0];
}

/* Wait for one kind of message; false at end of file or when it does not come. */
static bool
client_expect(Client *c, int what, int ms)
{
	uint64_t until = client_now_ns() + (uint64_t) ms * 1000000u;

	while (client_now_ns() < until)
	{
		int m = client_message(c, 100);

		if (m == what)
			return true;
		if (m == 0)
			return false;
	}
	return false;
}

/* Ring, engine, ready. */
__attribute__((unused)) static bool
client_start(Client *c, const char *const *extra)
{
	client_make_ring(c);
	client_spawn(c, extra);
	return client_expect(c, 'R', CLIENT_WAIT);
}

/* How the engine ended: waitpid's status, or -1 when it has not within ms (it is killed then). */
static int
client_reap(Client *c, int ms)
{
	uint64_t until = client_now_ns() + (uint64_t) ms * 1000000u;
	int status;

	while (waitpid(c->pid, &status, WNOHANG) == 0)
	{
		if (client_now_ns() > until)
		{
			kill(c->pid, SIGKILL);
			waitpid(c->pid, &status, 0);
			return -1;
		}
		client_sleep_ms(2);
	}
	return status;
}

/* Close the control socket; how the engine ended. */
__attribute__((unused)) static int
client_stop(Client *c)
{
	int status;

	close(c->control);
	status = client_reap(c, 5000);
	munmap(c->ring, c->ring->total_bytes);
	close(c->ring_fd);
	return status;
}

/* ---- requests ---- */

static DfxSlot *
client_slot(const Client *c, uint32_t i)
{
	return dfx_ring_slot(c->ring, i);
}

static uint8_t *
client_reply(const Client *c, uint32_t i)
{
	return (uint8_t *) c->ring + client_slot(c, i)->reply_off;
}

/* Fill slot i's request words; the caller may change them before client_submit(). */
static DfxSlot *
client_fill(Client *c, uint32_t i, DfxRingOp op, const void *data, size_t len, const uint8_t *version)
{
	DfxSlot *s = client_slot(c, i);
	uint64_t at = c->ring->arena_off + (uint64_t) i * (CLIENT_INPUT + CLIENT_REPLY);

	s->op = op;
	s->priority = DFX_PRIORITY_NORMAL;
	s->precision = c->precision;
	s->solo = 0;
	s->order = 0;
	s->in_off = i == CLIENT_LOADER ? c->ring->loader_off : at;
	s->in_len = len;
	s->reply_off = i == CLIENT_LOADER ? c->ring->loader_off : at + CLIENT_INPUT;
	s->reply_cap = CLIENT_REPLY;
	s->max_bytes = 64u << 20;
	s->max_pixels = 100000000u;
	s->how = (DfxPerturbation){0};
	s->fast_decode = 0;
	s->engine = 0;
	if (version)
		memcpy(s->version, version, DFX_VERSION_LEN);
	else
		memset(s->version, 0, DFX_VERSION_LEN);
	if (len > 0)
		memcpy((char *) c->ring + s->in_off, data, len);
	return s;
}

static void
client_kick(Client *c)
{
	for (int i = 0; i < DFX_MAX_ENGINES; i++)
		if (atomic_load(&c->ring->engine[i].sleeping))
		{
			atomic_fetch_add(&c->ring->engine[i].wake, 1);
			syscall(SYS_futex, &c->ring->engine[i].wake, FUTEX_WAKE, 1, NULL, NULL, 0);
		}
}

static void
client_submit(Client *c, uint32_t i)
{
	DfxSlot *s = client_slot(c, i);
	uint64_t gen = ++c->gen;

	if (s->order == 0)
		s->order = gen;
	atomic_store(&s->submit_gen, gen);
	client_kick(c);
}

static bool
client_done(const Client *c, uint32_t i)
{
	DfxSlot *s = client_slot(c, i);

	return atomic_load(&s->done_gen) == atomic_load(&s->submit_gen);
}

/* Wait for slot i's answer; its status, or -1 when the engine ended or took too long. */
static int
client_wait(Client *c, uint32_t i)
{
	uint64_t until = client_now_ns() + (uint64_t) CLIENT_WAIT * 1000000u;

	while (!client_done(c, i))
		if (client_message(c, 100) == 0 || client_now_ns() > until)
			return -1;
	return (int) client_slot(c, i)->status;
}

__attribute__((unused)) static int
client_call(Client *c, uint32_t i, DfxRingOp op, const void *data, size_t len, const uint8_t *version)
{
	client_fill(c, i, op, data, len, version);
	client_submit(c, i);
	return client_wait(c, i);
}

/* ---- models ---- */

/* A model as the bytes that go through the ring. */
typedef struct Stream
{
	uint8_t *bytes;
	size_t len;
	uint32_t meta_len, ntensor;
	uint8_t version[DFX_VERSION_LEN];
} Stream;

static int
stream_compare(const void *a, const void *b)
{
	return strcmp((*(const DfxParam *const *) a)->name, (*(const DfxParam *const *) b)->name);
}

static void
stream_put(Stream *s, const void *p, size_t n)
{
	memcpy(s->bytes + s->len, p, n);
	s->len += n;
}

/* The canonical stream of an untrained network, without the parameter called omit (NULL: complete). */
__attribute__((unused)) static Stream
stream_make(const DfxModelMeta *meta, uint64_t seed, const char *omit)
{
	DfxGraph *g = dfx_graph_new();
	DfxParam **p;
	char text[DFX_META_TEXT_MAX];
	Stream s = {0};
	size_t room = 4096;
	DfxSha256 sha;
	DfxErr err;

	if (dfx_build_model(g, meta, 0, &err) != DFX_OK || dfx_weights_random(g, seed, &err) != DFX_OK)
		abort();
	p = malloc((size_t) g->nparam * sizeof *p);
	for (int i = 0; i < g->nparam; i++)
	{
		p[i] = &g->param[i];
		room += DFX_TENSOR_HEAD_MAX;
		room += sizeof(float) * (size_t) p[i]->dim[0] * (p[i]->rank > 1 ? (size_t) p[i]->dim[1] : 1) *
		        (p[i]->rank > 2 ? (size_t) p[i]->dim[2] : 1) * (p[i]->rank > 3 ? (size_t) p[i]->dim[3] : 1);
	}
	qsort(p, (size_t) g->nparam, sizeof *p, stream_compare);
	s.bytes = malloc(room);
	s.meta_len = (uint32_t) dfx_meta_text(meta, text);
	stream_put(&s, "dfx1\n", 5);
	stream_put(&s, text, s.meta_len);
	for (int i = 0; i < g->nparam; i++)
	{
		DfxTensor t = {.dtype = DFX_F32, .rank = (uint32_t) p[i]->rank};
		uint8_t head[DFX_TENSOR_HEAD_MAX];
		uint64_t elements;

		if (omit && strcmp(omit, p[i]->name) == 0)
			continue;
		snprintf(t.name, sizeof t.name, "%s", p[i]->name);
		for (int k = 0; k < p[i]->rank; k++)
			t.dim[k] = (uint64_t) p[i]->dim[k];
		dfx_tensor_count(&t, &elements, &t.nbytes);
		stream_put(&s, head, dfx_tensor_head(&t, head));
		stream_put(&s, p[i]->data, t.nbytes);
		s.ntensor++;
	}
	dfx_sha256_init(&sha);
	dfx_sha256_update(&sha, s.bytes, s.len);
	dfx_sha256_final(&sha, s.version);
	free(p);
	dfx_graph_free(g);
	return s;
}

__attribute__((unused)) static int
client_load_begin(Client *c, const Stream *s, uint64_t order)
{
	DfxLoadBegin begin = {
	    .stream_bytes = s->len, .order = order, .meta_len = s->meta_len, .ntensor = s->ntensor};

	return client_call(c, CLIENT_LOADER, DFX_RING_LOAD_BEGIN, &begin, sizeof begin, s->version);
}

/* BEGIN, DATA in pieces of chunk bytes, END; the first status that is not DFX_OK, or END's. */
__attribute__((unused)) static int
client_load(Client *c, const Stream *s, uint64_t order, size_t chunk)
{
	int st = client_load_begin(c, s, order);
	DfxLoadReply reply;

	memcpy(&reply, client_reply(c, CLIENT_LOADER), sizeof reply);
	if (st != DFX_OK || reply.resident)
		return st;
	for (size_t at = 0; at < s->len && st == DFX_OK; at += chunk)
	{
		size_t n = s->len - at < chunk ? s->len - at : chunk;

		st = client_call(c, CLIENT_LOADER, DFX_RING_LOAD_DATA, s->bytes + at, n, s->version);
	}
	if (st == DFX_OK)
		st = client_call(c, CLIENT_LOADER, DFX_RING_LOAD_END, NULL, 0, s->version);
	return st;
}

#endif /* DFX_TESTS_RING_CLIENT_H */
