/*
 * test_train_stream.c
 *	  Does a training engine keep to the conversation of proto_train.h, whatever
 *	  its session says or leaves unsaid, and end when its session does?
 *
 * Speaks with $DFX_ENGINE, or build/test/dfx-engine, over a socket pair.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "base/sha256.h"
#include "engine/proto_train.h"
#include "image/encode.h"
#include "tests/unit/tap.h"

#define SIDE     16
#define IMAGES   75
#define PATIENCE 120 /* seconds; only a hang takes them */
#define CONFIG                                                                                               \
	"{\"backbone\": \"test_tiny\", \"kind\": \"classifier\", \"epochs\": 3, \"batch\": 16, \"seed\": 4, "    \
	"\"learning_rate\": 0.003, \"generators\": [\"x\"]}"

typedef struct Session
{
	pid_t pid;
	int fd;
	bool gone; /* its end of file was read */

	/* what was heard */
	int taken, refused, epochs, progress, logs;
	DfxTrainPlan plan[IMAGES + 8];
	size_t nplan;
	DfxTrainReady ready;
	DfxTrainBlob blob;
	uint8_t *bytes; /* of the last blob */
	uint64_t got;
	char metrics[DFX_TRAIN_TEXT + 1];
	DfxErr fail;
} Session;

/* ---- the wire ---- */

static void
start(Session *s, const char *limit)
{
	const char *program = getenv("DFX_ENGINE");
	char parent[32];
	int pair[2];

	*s = (Session){0};
	program = program ? program : "build/test/dfx-engine";
	snprintf(parent, sizeof parent, "%d", (int) getpid());
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		abort();
	fflush(stdout);
	s->pid = fork();
	if (s->pid == 0)
	{
		if (dup2(pair[1], DFX_TRAIN_FD) != DFX_TRAIN_FD)
			_exit(9);
		execl(program, program, "train", "--stream", "--parent", parent, "--device", "cpu", "--threads", "2",
		      "--gpu-memory", "0", "--cache-dir", "", "--cache-limit", limit, (char *) NULL);
		_exit(9);
	}
	close(pair[1]);
	s->fd = pair[0];
	setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){PATIENCE, 0}, sizeof(struct timeval));
	setsockopt(s->fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){PATIENCE, 0}, sizeof(struct timeval));
}

/* Its exit status, 128 + signal, once it has ended. */
static int
finish(Session *s)
{
	int status;

	if (s->fd >= 0)
		close(s->fd);
	if (waitpid(s->pid, &status, 0) != s->pid)
		return -1;
	free(s->bytes);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void
say_bytes(Session *s, const void *p, size_t n)
{
	for (size_t done = 0; done < n;)
	{
		ssize_t k = send(s->fd, (const char *) p + done, n - done, MSG_NOSIGNAL);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return; /* it has ended: what it said shows why */
		done += (size_t) k;
	}
}

static void
say(Session *s, uint32_t type, const void *a, size_t alen, const void *b, size_t blen)
{
	DfxFrame f = {.type = type, .len = alen + blen};

	say_bytes(s, &f, sizeof f);
	say_bytes(s, a, alen);
	say_bytes(s, b, blen);
}

static bool
hear_bytes(Session *s, void *p, size_t n)
{
	for (size_t done = 0; done < n;)
	{
		ssize_t k = recv(s->fd, (char *) p + done, n - done, 0);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
		{
			s->gone = true;
			return false;
		}
		done += (size_t) k;
	}
	return true;
}

/* Put down what a frame says; false when it cannot be what it should. */
static bool
hear_frame(Session *s, const DfxFrame *f)
{
	static uint8_t room[DFX_BLOB_DATA_MAX];
	DfxTrainTaken *taken = (void *) room;
	bool inside = s->bytes && s->got < s->blob.bytes;

	if (f->len > sizeof room || inside != (f->type == DFX_FRAME_BLOB_DATA) || !hear_bytes(s, room, f->len))
		return false;
	switch (f->type)
	{
		case DFX_FRAME_READY:
			memcpy(&s->ready, room, sizeof s->ready);
			return f->len == sizeof s->ready;
		case DFX_FRAME_TAKEN:
			s->taken++;
			s->refused += taken->status != DFX_OK;
			return f->len == sizeof *taken;
		case DFX_FRAME_PLAN:
			s->nplan = f->len / sizeof s->plan[0];
			memcpy(s->plan, room, f->len < sizeof s->plan ? f->len : sizeof s->plan);
			return f->len % sizeof s->plan[0] == 0 && f->len <= sizeof s->plan;
		case DFX_FRAME_PROGRESS:
			s->progress++;
			return f->len == sizeof(DfxTrainProgress);
		case DFX_FRAME_EPOCH:
			s->epochs++;
			return f->len == sizeof(DfxTrainEpoch);
		case DFX_FRAME_BLOB:
			memcpy(&s->blob, room, sizeof s->blob);
			free(s->bytes);
			s->bytes = malloc(s->blob.bytes + 1);
			s->got = 0;
			return f->len == sizeof s->blob && s->bytes;
		case DFX_FRAME_BLOB_DATA:
			if (f->len > s->blob.bytes - s->got)
				return false;
			memcpy(s->bytes + s->got, room, f->len);
			s->got += f->len;
			return true;
		case DFX_FRAME_METRICS:
			memcpy(s->metrics, room, f->len <= DFX_TRAIN_TEXT ? f->len : 0);
			return f->len <= DFX_TRAIN_TEXT;
		case DFX_FRAME_LOG:
			s->logs++;
			return f->len > 0;
		case DFX_FRAME_FAIL:
			memcpy(&s->fail, room, sizeof s->fail);
			return f->len == sizeof s->fail;
		case DFX_FRAME_DONE:
			return f->len == 0;
	}
	return false;
}

/* Listen until a frame of the type was heard, the whole blob of a BLOB; false at FAIL or the end of file. */
static bool
hear(Session *s, uint32_t type)
{
	DfxFrame f;

	while (hear_bytes(s, &f, sizeof f))
	{
		if (!hear_frame(s, &f))
		{
			diag("a frame of type %u with %llu bytes", f.type, (unsigned long long) f.len);
			return false;
		}
		if (f.type == type && (type != DFX_FRAME_BLOB || s->blob.bytes == 0))
			return true;
		if (type == DFX_FRAME_BLOB && f.type == DFX_FRAME_BLOB_DATA && s->got == s->blob.bytes)
			return true;
		if (f.type == DFX_FRAME_FAIL)
			return false;
	}
	return false;
}

/* ---- what a session says ---- */

static void
say_config(Session *s, const char *json)
{
	say(s, DFX_FRAME_CONFIG, json, strlen(json), NULL, 0);
}

/* A square of one class's colour, and noise of its own. */
static void
say_sample(Session *s, uint64_t number, const DfxTrainSample *like)
{
	DfxImage image = {SIDE, SIDE, malloc(SIDE * SIDE * 3)};
	DfxEncoded png = {.limit = 1 << 20};
	DfxTrainSample given = like ? *like : (DfxTrainSample){.label = number % 3, .generator = -1};
	DfxSha256 h;
	DfxErr err;

	for (int i = 0; i < SIDE * SIDE * 3; i++)
		image.pixels[i] = (uint8_t) ((dfx_mix64(number * 7919 + (uint64_t) i * DFX_GOLDEN64) >> 58) +
		                             ((uint64_t) i % 3 == number % 3 ? 180 : 0));
	if (dfx_encode_png(&image, &png, &err) != DFX_OK)
		abort();
	free(image.pixels);
	given.number = number;
	dfx_sha256_init(&h);
	dfx_sha256_update(&h, png.data, png.len);
	dfx_sha256_final(&h, given.sha256);
	say(s, DFX_FRAME_SAMPLE, &given, sizeof given, png.data, png.len);
	free(png.data);
}

/* Up to the plan. */
static bool
reach_plan(Session *s, const char *json)
{
	start(s, "0");
	say_config(s, json);
	if (!hear(s, DFX_FRAME_READY))
		return false;
	for (uint64_t i = 0; i < IMAGES; i++)
	{
		say_sample(s, i, NULL);
		if (!hear(s, DFX_FRAME_TAKEN))
			return false;
	}
	say(s, DFX_FRAME_END, NULL, 0, NULL, 0);
	return hear(s, DFX_FRAME_PLAN);
}

static void
say_blob(Session *s, uint32_t kind, const char *name, const uint8_t *bytes, uint64_t len)
{
	DfxTrainBlob blob = {.kind = kind, .bytes = len};

	strncpy(blob.name, name, sizeof blob.name - 1);
	say(s, DFX_FRAME_BLOB, &blob, sizeof blob, NULL, 0);
	for (uint64_t at = 0; at < len; at += 100000)
		say(s, DFX_FRAME_BLOB_DATA, bytes + at, len - at < 100000 ? len - at : 100000, NULL, 0);
}

/* From GO to DONE; keeps a copy of the checkpoint of epoch keep. */
static bool
train(Session *s, int keep, uint8_t **kept, uint64_t *kept_len)
{
	int left = 3 - s->epochs;

	say(s, DFX_FRAME_GO, NULL, 0, NULL, 0);
	for (; left > 0; left--)
	{
		if (!hear(s, DFX_FRAME_BLOB) || s->blob.kind != DFX_BLOB_CHECKPOINT)
			return false;
		if (s->epochs == keep)
		{
			*kept = malloc(s->blob.bytes);
			memcpy(*kept, s->bytes, s->blob.bytes);
			*kept_len = s->blob.bytes;
		}
		say(s, DFX_FRAME_SAVED, NULL, 0, NULL, 0);
	}
	return hear(s, DFX_FRAME_METRICS) && hear(s, DFX_FRAME_BLOB) && s->blob.kind == DFX_BLOB_MODEL;
}

/* ---- the tests ---- */

static void
check_whole(void)
{
	Session s, r;
	uint8_t *checkpoint = NULL, *model = NULL;
	uint64_t len = 0, model_len;
	bool plan = true;
	char *metrics;

	ok(reach_plan(&s, CONFIG), "a conversation reaches the plan");
	ok(s.ready.version == DFX_TRAIN_VERSION && s.ready.threads == 2 && strstr(s.ready.device, "cpu"),
	   "READY says on what");
	for (size_t i = 0; i < s.nplan; i++)
		plan = plan && s.plan[i].number == i && s.plan[i].split < DFX_SPLIT_COUNT &&
		       s.plan[i].split != DFX_SPLIT_DRAW;
	ok(s.nplan == IMAGES && plan, "the plan has every sample, in order");
	if (!ok(train(&s, 1, &checkpoint, &len) && hear(&s, DFX_FRAME_DONE), "and the model"))
	{
		diag("%s", s.fail.msg);
		finish(&s);
		return;
	}
	ok(s.epochs == 3 && s.progress > 0, "with epochs and progress on the way");
	ok(s.metrics[0] == '{' && strstr(s.metrics, "\"three\"") && s.metrics[strlen(s.metrics) - 1] == '}',
	   "and figures");
	model = s.bytes;
	model_len = s.blob.bytes;
	s.bytes = NULL;
	metrics = strdup(s.metrics);
	ok(finish(&s) == 0, "it ends with 0");

	ok(reach_plan(&r, CONFIG), "a second conversation");
	say_blob(&r, DFX_BLOB_CHECKPOINT, "", checkpoint, len);
	r.epochs = 1;
	ok(train(&r, 0, NULL, NULL) && hear(&r, DFX_FRAME_DONE), "goes on from the first one's checkpoint");
	ok(r.blob.bytes == model_len && memcmp(r.bytes, model, model_len) == 0 && strcmp(r.metrics, metrics) == 0,
	   "to the same model and figures");
	finish(&r);
	free(checkpoint);
	free(metrics);

	/* The model as the start of another. */
	start(&r, "0");
	say_config(&r, CONFIG);
	hear(&r, DFX_FRAME_READY);
	say_blob(&r, DFX_BLOB_INIT, "", model, model_len);
	say_blob(&r, DFX_BLOB_INIT, "", model, model_len);
	ok(!hear(&r, DFX_FRAME_PLAN) && r.fail.code == DFX_EINVAL && strstr(r.fail.msg, "twice"),
	   "weights to start from are taken, but not twice");
	finish(&r);
	free(model);
}

/* A conversation that must end in FAIL. */
static void
check_fail(Session *s, DfxStatus code, const char *words, const char *what)
{
	bool failed = !hear(s, DFX_FRAME_DONE) && s->fail.code == code && strstr(s->fail.msg, words);

	if (!ok(failed && hear(s, DFX_FRAME_DONE) == false && s->gone && finish(s) == 1, "%s: FAIL, and the end",
	        what))
		diag("%d %s", s->fail.code, s->fail.msg);
}

static void
check_hostile_frames(void)
{
	static const struct
	{
		const char *what;
		DfxFrame f;
	} bad[] = {
	    {"an unknown type", {.type = 99}},
	    {"GO among the samples", {.type = DFX_FRAME_GO}},
	    {"a second CONFIG", {.type = DFX_FRAME_CONFIG, .len = 2}},
	    {"a sample too short", {.type = DFX_FRAME_SAMPLE, .len = sizeof(DfxTrainSample) - 1}},
	    {"a frame of 2^63 bytes", {.type = DFX_FRAME_SAMPLE, .len = 1ull << 63}},
	    {"a frame with a tail", {.type = DFX_FRAME_END, .zero = 1}},
	    {"END with something in it", {.type = DFX_FRAME_END, .len = 8}},
	    {"a blob's data without a blob", {.type = DFX_FRAME_BLOB_DATA, .len = 8}},
	    {"a blob's head of another size", {.type = DFX_FRAME_BLOB, .len = 7}},
	};
	Session s;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
	{
		start(&s, "0");
		say_config(&s, CONFIG);
		hear(&s, DFX_FRAME_READY);
		say_bytes(&s, &bad[i].f, sizeof bad[i].f);
		check_fail(&s, DFX_EINVAL, "", bad[i].what);
	}
	start(&s, "0");
	say(&s, DFX_FRAME_GO, NULL, 0, NULL, 0);
	check_fail(&s, DFX_EINVAL, "type 4", "no CONFIG");
	start(&s, "0");
	say_config(&s, "{\"backbone\": \"resnet19\"}");
	check_fail(&s, DFX_EINVAL, "resnet19", "an unknown backbone");
	start(&s, "0");
	say_config(&s, "{\"backbone\": ");
	check_fail(&s, DFX_EINVAL, "at byte", "half a CONFIG");
}

static void
check_hostile_samples(void)
{
	static const DfxTrainSample wrong[] = {
	    {.label = 7, .generator = -1}, {.generator = 5}, {.generator = -1, .split = 77}};
	Session s;
	DfxTrainBlob blob = {.kind = DFX_BLOB_INIT, .bytes = 100};

	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
	{
		start(&s, "0");
		say_config(&s, CONFIG);
		hear(&s, DFX_FRAME_READY);
		say_sample(&s, 0, &wrong[i]);
		check_fail(&s, DFX_EINVAL, "sample 0", "a sample that cannot be");
	}
	start(&s, "0");
	say_config(&s, CONFIG);
	hear(&s, DFX_FRAME_READY);
	say(&s, DFX_FRAME_BLOB, &blob, sizeof blob, NULL, 0);
	say(&s, DFX_FRAME_BLOB_DATA, CONFIG CONFIG, 101, NULL, 0);
	check_fail(&s, DFX_EINVAL, "inside a blob", "a blob longer than it said");
	start(&s, "0");
	say_config(&s, CONFIG);
	hear(&s, DFX_FRAME_READY);
	memset(blob.name, 'x', sizeof blob.name);
	say(&s, DFX_FRAME_BLOB, &blob, sizeof blob, NULL, 0);
	check_fail(&s, DFX_EINVAL, "name", "a blob's name without an end");
	start(&s, "0");
	say_config(&s, CONFIG);
	hear(&s, DFX_FRAME_READY);
	say_blob(&s, DFX_BLOB_INIT, "", (const uint8_t *) CONFIG, 50);
	check_fail(&s, DFX_EWEIGHTS, "", "weights that are none");

	/* 196608 bytes a sample: two of them. */
	start(&s, "400000");
	say_config(&s, CONFIG);
	hear(&s, DFX_FRAME_READY);
	for (uint64_t i = 0; i < 20; i++)
		say_sample(&s, i, NULL);
	check_fail(&s, DFX_ELIMIT, "3 samples", "a full cache");
	start(&s, "0");
	say_config(&s, CONFIG);
	hear(&s, DFX_FRAME_READY);
	say(&s, DFX_FRAME_END, NULL, 0, NULL, 0);
	check_fail(&s, DFX_EINVAL, "too few", "no samples");
}

static void
check_bad_images(void)
{
	static uint8_t large[70000];
	DfxTrainSample given = {.generator = -1};
	Session s;

	start(&s, "0");
	say_config(&s, "{\"backbone\": \"test_tiny\", \"max_image_bytes\": 60000}");
	hear(&s, DFX_FRAME_READY);
	say(&s, DFX_FRAME_SAMPLE, &given, sizeof given, "rubbish", 7);
	say(&s, DFX_FRAME_SAMPLE, &given, sizeof given, NULL, 0);
	say(&s, DFX_FRAME_SAMPLE, &given, sizeof given, large, sizeof large);
	say_sample(&s, 3, NULL);
	for (int i = 0; i < 4; i++)
		hear(&s, DFX_FRAME_TAKEN);
	ok(s.taken == 4 && s.refused == 3,
	   "images that cannot be read are refused one by one, and the next one taken");
	say(&s, DFX_FRAME_END, NULL, 0, NULL, 0);
	check_fail(&s, DFX_EINVAL, "too few", "what is left");
}

static void
check_after_plan(void)
{
	Session s;

	reach_plan(&s, CONFIG);
	say_blob(&s, DFX_BLOB_CHECKPOINT, "", (const uint8_t *) CONFIG, 100);
	check_fail(&s, DFX_EWEIGHTS, "", "a checkpoint that is none");
	reach_plan(&s, CONFIG);
	say(&s, DFX_FRAME_SAVED, NULL, 0, NULL, 0);
	check_fail(&s, DFX_EINVAL, "type 5", "SAVED before GO");
	reach_plan(&s, CONFIG);
	say(&s, DFX_FRAME_GO, NULL, 0, NULL, 0);
	say(&s, DFX_FRAME_SAVED, NULL, 0, NULL, 0);
	check_fail(&s, DFX_EINVAL, "type 5", "SAVED before there is anything to save");
}

/* Without SAVED the next checkpoint is never begun, and the end of the session is the engine's. */
static void
check_endings(void)
{
	Session s;

	reach_plan(&s, CONFIG);
	say(&s, DFX_FRAME_GO, NULL, 0, NULL, 0);
	ok(hear(&s, DFX_FRAME_BLOB) && s.epochs == 1, "the first checkpoint");
	setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){2, 0}, sizeof(struct timeval));
	ok(!hear(&s, DFX_FRAME_EPOCH) && s.fail.code == DFX_OK, "without SAVED no second one follows");
	ok(finish(&s) == 0, "the session closes: it ends");

	reach_plan(&s, CONFIG);
	say(&s, DFX_FRAME_GO, NULL, 0, NULL, 0);
	hear(&s, DFX_FRAME_PROGRESS);
	kill(s.pid, SIGTERM);
	ok(finish(&s) == 0, "SIGTERM while it trains: it ends");

	start(&s, "0");
	say_config(&s, CONFIG);
	hear(&s, DFX_FRAME_READY);
	say_bytes(&s, &(DfxFrame){.type = DFX_FRAME_SAMPLE, .len = 1000000}, sizeof(DfxFrame));
	ok(finish(&s) == 0, "the session closes in the middle of a frame: it ends");

	start(&s, "0");
	ok(finish(&s) == 0, "the session says nothing at all: it ends");
}

int
main(void)
{
	check_whole();
	check_hostile_frames();
	check_hostile_samples();
	check_bad_images();
	check_after_plan();
	check_endings();
	return done_testing();
}
