/*
 * test_train_run.c
 *	  Does a run of every kind learn what can be learnt, repeat itself, and go
 *	  on from a checkpoint to the same model, bit for bit?
 *
 * On the CPU backend, with the network that only tests know (test_tiny), of
 * coloured noise: one colour a class, one brightness a generator.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/safetensors.h"
#include "base/sha256.h"
#include "cpu/cpu.h"
#include "image/encode.h"
#include "tests/unit/tap.h"
#include "train/run.h"
#include "train/split.h"

#define SIDE 24

#define COMMON                                                                                               \
	"\"backbone\": \"test_tiny\", \"learning_rate\": 0.002, \"batch\": 8, \"share\": 0.5, \"seed\": 3"

/* ---- samples ---- */

static void
ignore_taken(void *arg, const DfxTrainSample *given, DfxStatus status, const DfxErr *err)
{
	(void) arg;
	(void) given;
	if (status != DFX_OK)
	{
		diag("%s", err->msg);
		abort();
	}
}

/* n images of a class; two generators a class, of which the second is darker. */
static void
put_image(DfxIntake *in, uint64_t number, uint32_t label)
{
	DfxImage image = {SIDE, SIDE, malloc(SIDE * SIDE * 3)};
	DfxEncoded png = {.limit = 1 << 20};
	DfxTrainSample given = {.number = number, .label = label};
	DfxSha256 s;
	DfxErr err;

	given.generator = (int32_t) (2 * label + number / 3 % 2);
	for (int i = 0; i < SIDE * SIDE * 3; i++)
	{
		uint64_t noise = dfx_mix64(number * 10007 + (uint64_t) i * DFX_GOLDEN64) >> 58;

		image.pixels[i] = (uint8_t) (noise + ((uint32_t) i % 3 == label ? 180u : 0u) / (number / 3 % 2 + 1));
	}
	if (dfx_encode_png(&image, &png, &err) != DFX_OK)
		abort();
	free(image.pixels);
	dfx_sha256_init(&s);
	dfx_sha256_update(&s, png.data, png.len);
	dfx_sha256_final(&s, given.sha256);
	if (dfx_intake_put(in, &given, png.data, png.len, &err) != DFX_OK)
		abort();
}

static void
make_samples(DfxSamples *s, const DfxTrainConfig *c, uint64_t n)
{
	DfxIntakeOpts o = {.threads = 2, .limits = c->limits, .ngenerator = 6, .done = ignore_taken};
	DfxIntake *in;
	DfxErr err;

	*s = (DfxSamples){.store.fd = -1};
	if (dfx_store_open(&s->store, "", 0, &err) != DFX_OK || dfx_intake_start(s, &o, &in, &err) != DFX_OK)
		abort();
	for (uint64_t i = 0; i < n; i++)
		put_image(in, i, (uint32_t) (i % 3));
	if (dfx_intake_end(in, &err) != DFX_OK)
		abort();
}

/* ---- a run ---- */

typedef struct Watched
{
	DfxRun *run;
	int epochs, save_at, steps, stop_at;
	uint8_t *saved;
	size_t saved_len;
	char last[DFX_TRAIN_PHASE];
	double last_left;
	atomic_bool stop;
} Watched;

typedef struct Outcome
{
	DfxStatus status;
	DfxErr err;
	uint8_t version[DFX_VERSION_LEN];
	uint8_t *model;
	size_t model_len;
	char *metrics;
	DfxModelMeta meta;
} Outcome;

typedef struct Bench
{
	DfxTrainDevice device;
	const uint8_t *given; /* to start from, for every network */
	size_t given_len;
} Bench;

static void
on_progress(void *arg, const DfxTrainProgress *p)
{
	Watched *w = arg;

	w->last_left = p->seconds_left;
	memcpy(w->last, p->phase, sizeof w->last);
	if (++w->steps == w->stop_at)
		atomic_store(&w->stop, true);
}

static DfxStatus
on_epoch(void *arg, const DfxTrainEpoch *e, DfxErr *err)
{
	Watched *w = arg;

	(void) e;
	return ++w->epochs == w->save_at ? dfx_run_checkpoint(w->run, &w->saved, &w->saved_len, err) : DFX_OK;
}

static Outcome
run_once(const Bench *b, const char *json, uint64_t n, Watched *w, const uint8_t *resume, size_t resume_len)
{
	DfxTrainWatch watch = {.arg = w, .progress = on_progress, .epoch = on_epoch, .stop = &w->stop};
	static DfxTrainConfig c;
	DfxSamples s;
	Outcome o = {.status = dfx_train_config_parse(&c, json, strlen(json), &o.err)};

	if (o.status != DFX_OK)
		return o;
	make_samples(&s, &c, n);
	o.status = dfx_split(&s, &c, &o.err);
	w->run = NULL;
	if (o.status == DFX_OK)
		o.status = dfx_run_new(&c, &b->device, &w->run, &o.err);
	if (o.status == DFX_OK && b->given)
		o.status = dfx_run_give(w->run, "", b->given, b->given_len, &o.err);
	if (o.status == DFX_OK)
		o.status = dfx_run_prepare(w->run, &s, &o.err);
	if (o.status == DFX_OK && resume)
		o.status = dfx_run_resume(w->run, resume, resume_len, &o.err);
	if (o.status == DFX_OK)
		o.status = dfx_run_train(w->run, &watch, &o.err);
	if (o.status == DFX_OK)
	{
		o.metrics = strdup(dfx_run_metrics(w->run));
		o.meta = *dfx_run_meta(w->run);
		o.status = dfx_run_export(w->run, &o.model, &o.model_len, o.version, &o.err);
	}
	dfx_run_free(w->run);
	dfx_samples_free(&s);
	return o;
}

static void
free_outcome(Outcome *o)
{
	free(o->model);
	free(o->metrics);
}

static bool
same_outcome(const Outcome *a, const Outcome *b)
{
	return a->status == DFX_OK && b->status == DFX_OK && a->model_len == b->model_len &&
	       memcmp(a->model, b->model, a->model_len) == 0 &&
	       memcmp(a->version, b->version, DFX_VERSION_LEN) == 0 && strcmp(a->metrics, b->metrics) == 0;
}

/* The number behind "key": {"value": after the place where section begins; NaN: not there. */
static double
figure(const char *metrics, const char *section, const char *key)
{
	char text[64];
	const char *p = metrics ? strstr(metrics, section) : NULL;

	snprintf(text, sizeof text, "\"%s\": {\"value\": ", key);
	p = p ? strstr(p, text) : NULL;
	return p ? strtod(p + strlen(text), NULL) : NAN;
}

/* Whether the model file is what its metadata say, by building it. */
static bool
model_whole(const Outcome *o)
{
	DfxGraph *g = dfx_graph_new();
	DfxSafetensors st;
	DfxErr err;
	bool whole = dfx_st_view(o->model, o->model_len, &st, &err) == DFX_OK;

	whole = whole && strcmp(dfx_st_meta(&st, "kind"), o->meta.kind) == 0;
	whole = whole && dfx_build_model(g, &o->meta, 0, &err) == DFX_OK;
	whole = whole && dfx_weights_set(g, st.tensor, st.ntensor, &err) == DFX_OK;
	if (!whole)
		diag("%s", err.msg);
	dfx_st_free(&st);
	dfx_graph_free(g);
	return whole;
}

/* ---- the tests ---- */

/* What a run of a kind learns, its model, and a resumed one of the same. */
static Outcome
check_kind(const Bench *b, const char *what, const char *json, uint64_t n, int save_at, const char *section,
           double at_least)
{
	Watched w = {.save_at = save_at}, again = {0};
	Outcome o = run_once(b, json, n, &w, NULL, 0), resumed;
	double accuracy;

	if (!ok(o.status == DFX_OK, "%s trains", what))
	{
		diag("%s", o.err.msg);
		return o;
	}
	accuracy = figure(o.metrics, section, "accuracy");
	if (!ok(accuracy >= at_least, "%s: accuracy %.3f of at least %.2f", what, accuracy, at_least))
		diag("%s", o.metrics);
	ok(model_whole(&o), "%s: the model is of kind %s, classes %s", what, o.meta.kind, o.meta.classes);
	ok(strcmp(w.last, "test") == 0 && w.last_left >= 0 && w.last_left < 1, "%s: the end is foreseen", what);
	resumed = run_once(b, json, n, &again, w.saved, w.saved_len);
	ok(same_outcome(&o, &resumed) && again.epochs == w.epochs - save_at,
	   "%s: resumed after epoch %d of %d, the same model and figures", what, save_at, w.epochs);
	free_outcome(&resumed);
	free(w.saved);
	return o;
}

static void
check_trinet(const Bench *b)
{
	Bench given = *b;
	Outcome o = check_kind(b, "trinet", "{" COMMON ", \"epochs\": 4, \"head_epochs\": 8}", 180, 17,
	                       "\"three\"", 0.9),
	        head;
	Watched w = {0};

	ok(figure(o.metrics, "\"networks\": {\"dm\"", "accuracy") > 0.9 &&
	       figure(o.metrics, "\"binary\"", "auc") > 0.9,
	   "trinet: figures of each Base Model, binary figures");
	/* Its Base Models under a new head. */
	given.given = o.model;
	given.given_len = o.model_len;
	head = run_once(&given, "{" COMMON ", \"kind\": \"head\", \"head_epochs\": 8}", 180, &w, NULL, 0);
	ok(same_outcome(&o, &head) || (head.status == DFX_OK && memcmp(o.version, head.version, 32) == 0),
	   "head: over the same Base Models it becomes the same model");
	if (head.status != DFX_OK)
		diag("%s", head.err.msg);
	free_outcome(&head);
	head = run_once(b, "{" COMMON ", \"kind\": \"head\", \"head_epochs\": 1}", 240, &w, NULL, 0);
	ok(head.status == DFX_EINVAL && strstr(head.err.msg, "Base Model") && head.err.hint[0],
	   "head: without Base Models it is refused");
	free_outcome(&head);
	free_outcome(&o);
}

static void
check_classifiers(const Bench *b)
{
	Outcome o =
	    check_kind(b, "classifier", "{" COMMON ", \"kind\": \"classifier\", \"epochs\": 4, \"step_size\": 2}",
	               120, 2, "\"three\"", 0.9);
	Outcome other;
	Watched w = {0};

	free_outcome(&o);
	o = check_kind(b, "binary with changed images",
	               "{" COMMON ", \"kind\": \"classifier\", \"task\": \"binary\", \"epochs\": 4, \"storage\": "
	               "\"bf16\", \"flip\": 0.5, "
	               "\"jpeg\": 0.5, \"blur\": 0.5}",
	               120, 3, "\"binary\"", 0.8);
	ok(o.metrics && !strstr(o.metrics, "\"three\""), "binary: no figures of three classes");
	other = run_once(
	    b,
	    "{" COMMON ", \"kind\": \"classifier\", \"task\": \"binary\", \"epochs\": 4, \"storage\": \"bf16\", "
	    "\"flip\": 0.5, \"jpeg\": 0.5, \"blur\": 0.25}",
	    120, &w, NULL, 0);
	ok(other.status == DFX_OK && memcmp(o.version, other.version, 32) != 0, "less blur makes another model");
	free_outcome(&other);
	free_outcome(&o);
}

static void
check_base_and_hierarchy(const Bench *b)
{
	Outcome o =
	    check_kind(b, "base", "{" COMMON ", \"kind\": \"base\", \"main_class\": \"gan\", \"epochs\": 4}", 180,
	               1, "\"networks\"", 0.9);

	ok(o.metrics && !strstr(o.metrics, "\"binary\""), "base: figures of the one network only");
	free_outcome(&o);
	o = check_kind(
	    b, "hierarchy",
	    "{" COMMON
	    ", \"kind\": \"hierarchy\", \"epochs\": 3, \"generators\": [\"d1\", \"d2\", \"g1\", \"g2\", \"r1\", "
	    "\"r2\"]}",
	    150, 5, "\"three\"", 0.8);
	ok(strcmp(o.meta.classes, "synthetic,real;dm,gan;d1,d2;g1,g2") == 0,
	   "hierarchy: it knows the generators");
	ok(figure(o.metrics, "\"generators\": {\"d1\"", "three") >= 0.5, "hierarchy: figures of each generator");
	free_outcome(&o);
}

/* In bf16 the Base Models and the head; from the checkpoint to the same bits. */
static void
check_bf16(const Bench *b)
{
	static const char probe[] =
	    "{" COMMON ", \"kind\": \"classifier\", \"epochs\": 1, \"precision\": \"bf16\"}";
	Watched w = {0};
	Outcome o = run_once(b, probe, 90, &w, NULL, 0);

	if (o.status == DFX_EUNSUPPORTED && strstr(o.err.msg, "this CPU"))
	{
		diag("skipped: %s", o.err.msg);
		return;
	}
	free_outcome(&o);
	o = check_kind(b, "trinet in bf16",
	               "{" COMMON
	               ", \"epochs\": 4, \"head_epochs\": 8, \"head_stride\": 2, \"precision\": \"bf16\"}",
	               180, 17, "\"three\"", 0.9);
	free_outcome(&o);
}

static void
check_refusals(const Bench *b)
{
	static const char json[] = "{" COMMON ", \"kind\": \"classifier\", \"epochs\": 2}";
	Bench wrong = *b;
	Watched w = {.save_at = 1}, none = {0}, stopped = {.stop_at = 3};
	Outcome o = run_once(b, json, 90, &w, NULL, 0), p;
	uint8_t *cut = malloc(w.saved_len);

	p = run_once(b, "{" COMMON ", \"kind\": \"classifier\", \"epochs\": 3}", 90, &none, w.saved, w.saved_len);
	ok(p.status == DFX_EINVAL && strstr(p.err.msg, "options"), "a checkpoint of other options is refused");
	p = run_once(b, json, 93, &none, w.saved, w.saved_len);
	ok(p.status == DFX_EINVAL && strstr(p.err.msg, "samples"), "a checkpoint of other samples is refused");
	memcpy(cut, w.saved, w.saved_len);
	p = run_once(b, json, 90, &none, cut, w.saved_len - 4);
	ok(p.status == DFX_EWEIGHTS, "a checkpoint that is cut off is refused");
	p = run_once(b, json, 90, &none, o.model, o.model_len);
	ok(p.status == DFX_EWEIGHTS && strstr(p.err.msg, "checkpoint"), "a model is no checkpoint");
	wrong.given = w.saved;
	wrong.given_len = w.saved_len;
	p = run_once(&wrong, json, 90, &none, NULL, 0);
	ok(p.status == DFX_EWEIGHTS, "nor is a checkpoint a model to start from");
	p = run_once(b, json, 90, &stopped, NULL, 0);
	ok(p.status == DFX_ECANCELED && stopped.steps == 3, "a run that is stopped takes no further step");
	p = run_once(b, "{" COMMON ", \"kind\": \"classifier\", \"epochs\": 1, \"precision\": \"int8\"}", 90,
	             &none, NULL, 0);
	ok(p.status == DFX_EUNSUPPORTED, "a precision that nobody trains in is refused");
	p = run_once(
	    b, "{\"backbone\": \"test_tiny\", \"kind\": \"classifier\", \"learning_rate\": 10, \"seed\": 3}", 90,
	    &none, NULL, 0);
	ok(p.status == DFX_OK || (p.status == DFX_EINVAL && strstr(p.err.msg, "diverged")),
	   "a wild learning rate ends well or is named");
	free_outcome(&p);
	p = run_once(b, "{\"backbone\": \"resnet19\", \"kind\": \"classifier\", \"seed\": 3}", 90, &none, NULL,
	             0);
	ok(p.status == DFX_EINVAL && strstr(p.err.msg, "resnet19"), "an unknown backbone is refused");
	free(cut);
	free(w.saved);
	free_outcome(&o);
}

int
main(void)
{
	Bench b = {.device = {.backend = &dfx_cpu_backend, .threads = 2}};
	DfxDevOpts opts = {.threads = 2};
	DfxErr err;

	if (!ok(b.device.backend->open(&opts, &b.device.dev, &err) == DFX_OK, "the CPU opens"))
		return done_testing();
	check_trinet(&b);
	check_classifiers(&b);
	check_base_and_hierarchy(&b);
	check_bf16(&b);
	check_refusals(&b);
	b.device.backend->close(b.device.dev);
	return done_testing();
}
