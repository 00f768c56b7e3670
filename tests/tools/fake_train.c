/*
 * fake_train.c
 *	  A training engine for tests of the session's side: it says what an engine
 *	  says (proto_train.h) and trains nothing.  What it does wrong, and when, is
 *	  the name of the backbone in CONFIG: "fake" does nothing wrong, "fake:NAME"
 *	  is looked for by name below.  A run that is resumed is always well-behaved.
 *
 *	  Everything it makes is a function of CONFIG's epochs and the samples, so
 *	  that a run ends with the same version whether it was interrupted or not.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#include "base/safetensors.h"
#include "base/sha256.h"
#include "engine/proto_train.h"

#define FAKE_CHECKPOINT (5u << 20) /* more than one chunk */

static char fake_wrong[32]; /* what to do wrong */
static char fake_config[DFX_TRAIN_TEXT + 1];
static uint64_t fake_number[100000];
static uint8_t fake_part[100000];
static size_t fake_samples;
static DfxSha256 fake_sha; /* of the samples' hashes, in order */

static bool
fake_is(const char *wrong)
{
	return strcmp(fake_wrong, wrong) == 0;
}

/* The session's end is ours. */
static void
fake_read(void *p, size_t n)
{
	char *to = p;

	while (n > 0)
	{
		ssize_t got = read(DFX_TRAIN_FD, to, n);

		if (got <= 0)
			_exit(0);
		to += got;
		n -= (size_t) got;
	}
}

static void
fake_write(const void *p, size_t n)
{
	const char *from = p;

	while (n > 0)
	{
		ssize_t put = write(DFX_TRAIN_FD, from, n);

		if (put <= 0)
			_exit(0);
		from += put;
		n -= (size_t) put;
	}
}

static void
fake_send(uint32_t type, const void *p, size_t n)
{
	DfxFrame f = {.type = type, .len = n};

	fake_write(&f, sizeof f);
	fake_write(p, n);
}

static DfxFrame
fake_next(void)
{
	DfxFrame f;

	fake_read(&f, sizeof f);
	return f;
}

static void
fake_send_blob(uint32_t kind, const uint8_t *bytes, size_t n)
{
	DfxTrainBlob blob = {.kind = kind, .bytes = n};

	fake_send(DFX_FRAME_BLOB, &blob, sizeof blob);
	for (size_t done = 0; done < n;)
	{
		size_t piece = n - done < DFX_BLOB_DATA_MAX ? n - done : DFX_BLOB_DATA_MAX;

		fake_send(DFX_FRAME_BLOB_DATA, bytes + done, piece);
		done += piece;
	}
}

/* --- until PLAN ---------------------------------------------------------- */

static unsigned
fake_option(const char *key, unsigned fallback)
{
	const char *at = strstr(fake_config, key);

	return at ? (unsigned) strtoul(at + strlen(key), NULL, 10) : fallback;
}

static void
fake_take_config(void)
{
	DfxFrame f = fake_next();
	DfxTrainReady ready = {.version = DFX_TRAIN_VERSION, .threads = 1, .device = "a fake \x01\xff device"};
	const char *at;

	fake_read(fake_config, f.len < sizeof fake_config - 1 ? f.len : sizeof fake_config - 1);
	at = strstr(fake_config, "\"fake:");
	if (at)
		sscanf(at + 6, "%31[a-z]", fake_wrong);
	if (fake_is("version"))
		ready.version++;
	if (fake_is("garbage"))
		fake_write("Hello, is there anybody?  I am not an engine at all.", 52);
	fake_send(DFX_FRAME_READY, &ready, sizeof ready);
}

static void
fake_take_sample(uint64_t len)
{
	DfxTrainSample given;
	DfxTrainTaken taken = {0};
	char *bytes = malloc(len + 1);

	fake_read(&given, sizeof given);
	fake_read(bytes, len - sizeof given);
	taken.number = given.number + (fake_is("taken") ? 1 : 0);
	if (strncmp(bytes, "bad", 3) == 0)
	{
		taken.status = fake_is("status") ? 77 : DFX_EIMAGE;
		strcpy(taken.msg, "not an image");
	}
	else
	{
		fake_number[fake_samples] = given.number;
		fake_part[fake_samples++] = given.sha256[0];
		dfx_sha256_update(&fake_sha, given.sha256, sizeof given.sha256);
	}
	free(bytes);
	if (fake_is("die"))
		abort();
	if (fake_is("flood"))
		for (;;)
			fake_send(DFX_FRAME_TAKEN, &taken, sizeof taken);
	fake_send(DFX_FRAME_TAKEN, &taken, sizeof taken);
}

static void
fake_skip_blob(char *head, size_t cap)
{
	DfxTrainBlob blob;
	char *bytes;

	fake_read(&blob, sizeof blob);
	bytes = malloc(blob.bytes);
	for (uint64_t done = 0; done < blob.bytes;)
	{
		DfxFrame f = fake_next();

		fake_read(bytes + done, f.len);
		done += f.len;
	}
	if (head)
		snprintf(head, cap, "%.*s", (int) cap - 1, bytes);
	free(bytes);
}

static void
fake_take_samples(void)
{
	for (;;)
	{
		DfxFrame f = fake_next();

		if (f.type == DFX_FRAME_END)
			return;
		if (f.type == DFX_FRAME_BLOB)
			fake_skip_blob(NULL, 0);
		else
			fake_take_sample(f.len);
	}
}

static void
fake_send_plan(void)
{
	DfxTrainPlan *plan = calloc(fake_samples + 1, sizeof *plan);
	DfxErr err;

	for (size_t i = 0; i < fake_samples; i++)
		plan[i] = (DfxTrainPlan){.number = fake_number[i],
		                         .split = fake_part[i] % 2 ? DFX_SPLIT_BASE_TRAIN : DFX_SPLIT_TEST,
		                         .base = fake_part[i] % 8};
	if (fake_is("split"))
		plan[0].split = DFX_SPLIT_COUNT;
	if (fake_is("half"))
		fake_send(DFX_FRAME_PLAN, plan, 7);
	if (fake_is("fail"))
	{
		dfx_fail(&err, DFX_EINVAL, "too few images");
		dfx_hint(&err, "Take more.");
		fake_send(DFX_FRAME_FAIL, &err, sizeof err);
		_exit(1);
	}
	/* in two frames, which is as good as one */
	fake_send(DFX_FRAME_PLAN, plan, sizeof *plan);
	if (fake_samples > 1)
		fake_send(DFX_FRAME_PLAN, plan + 1, (fake_samples - 1 + (fake_is("plan") ? 1 : 0)) * sizeof *plan);
	free(plan);
}

/* --- from GO on ---------------------------------------------------------- */

static unsigned
fake_take_go(void)
{
	unsigned epoch = 0;
	char head[32] = "";
	DfxFrame f = fake_next();

	if (f.type == DFX_FRAME_BLOB)
	{
		fake_skip_blob(head, sizeof head);
		sscanf(head, "epoch %u", &epoch);
		fake_wrong[0] = '\0';
		f = fake_next();
	}
	if (f.type != DFX_FRAME_GO)
		_exit(1);
	return epoch;
}

static void
fake_send_epoch(unsigned epoch, unsigned epochs)
{
	static uint8_t checkpoint[FAKE_CHECKPOINT];
	DfxTrainProgress p = {"dm", epoch, epochs, 1, 2, 12.5, 0.5, 60};
	DfxTrainEpoch e = {"dm", epoch, epochs, 1, 0, 1e-4, 1.0 / epoch, 0.5, 1.1 / epoch, 0.6, 0.1, 10};

	if (fake_is("text"))
		memset(p.phase, 0xF1, sizeof p.phase);
	fake_send(DFX_FRAME_PROGRESS, &p, sizeof p);
	fake_send(DFX_FRAME_EPOCH, &e, sizeof e);
	if (fake_is("epochs"))
		for (;;)
			fake_send(DFX_FRAME_EPOCH, &e, sizeof e);
	snprintf((char *) checkpoint, sizeof checkpoint, "epoch %u", epoch);
	if (fake_is("blob"))
	{
		DfxTrainBlob blob = {.kind = DFX_BLOB_CHECKPOINT, .bytes = 10};

		fake_send(DFX_FRAME_BLOB, &blob, sizeof blob);
		fake_send(DFX_FRAME_BLOB_DATA, checkpoint, 1000);
	}
	fake_send_blob(DFX_BLOB_CHECKPOINT, checkpoint, sizeof checkpoint);
	if (fake_next().type != DFX_FRAME_SAVED)
		_exit(1);
}

static void
fake_go_wrong(unsigned epoch)
{
	if (epoch != 2)
		return;
	if (fake_is("hang"))
		pause();
	if (fake_is("exit"))
		_exit(0);
	if (fake_is("segv"))
		raise(SIGSEGV);
	if (fake_is("type"))
		fake_send(4711, "x", 1);
	if (fake_is("long"))
		fake_write(&(DfxFrame){.type = DFX_FRAME_LOG, .len = UINT64_MAX}, sizeof(DfxFrame));
	if (fake_is("early"))
		fake_send(DFX_FRAME_TAKEN, &(DfxTrainTaken){0}, sizeof(DfxTrainTaken));
}

/* One tensor: the hash of the samples. */
static void
fake_send_model(void)
{
	static const char *const keys[] = {"backbone", "classes", "format", "head_stride", "input_size", "kind"};
	static const char *const values[] = {"fake", "dm,gan,real", "dfx1", "1", "256", "trinet"};
	uint8_t hash[32], *head, *file;
	size_t len;
	DfxTensor t = {.dtype = DFX_F32, .rank = 1, .dim = {8}, .nbytes = 32};
	DfxErr err;

	strcpy(t.name, "samples");
	dfx_sha256_final(&fake_sha, hash);
	if (dfx_st_header(&t, 1, keys, values, 6, &head, &len, &err) != DFX_OK)
		_exit(1);
	file = malloc(len + sizeof hash);
	memcpy(file, head, len);
	memcpy(file + len, hash, sizeof hash);
	if (fake_is("model"))
		memset(file, 'x', len);
	if (!fake_is("nothing"))
		fake_send_blob(DFX_BLOB_MODEL, file, len + sizeof hash);
	free(head);
	free(file);
}

int
main(int argc, char **argv)
{
	static const char metrics[] = "{\"accuracy\": 0.5, \"note\": \"gemessen f\xC3\xBCr nichts\"}";
	unsigned epochs, epoch;

	if (argc < 3 || strcmp(argv[1], "train") != 0 || strcmp(argv[2], "--stream") != 0)
		return 1; /* it does not serve */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	dfx_sha256_init(&fake_sha);
	fake_take_config();
	epochs = fake_option("\"epochs\": ", 3);
	fake_take_samples();
	fake_send_plan();
	epoch = fake_take_go();
	fake_send(DFX_FRAME_LOG, "IThe fake begins\nto \"train\".", 29);
	while (epoch < epochs)
	{
		epoch++;
		fake_send_epoch(epoch, epochs);
		fake_go_wrong(epoch);
	}
	fake_send(DFX_FRAME_METRICS, fake_is("metrics") ? "{oops" : metrics,
	          fake_is("metrics") ? 5 : strlen(metrics));
	fake_send_model();
	fake_send(DFX_FRAME_DONE, NULL, 0);
	return 0;
}
