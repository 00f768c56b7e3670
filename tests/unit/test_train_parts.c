/*
 * test_train_parts.c
 *	  Do loss, learning rates and first weights do as PyTorch's, and is a run's
 *	  configuration taken as it is meant, and refused where it means nothing?
 *
 * Golden values: tests/golden/train.txt (make_train.py).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/tap.h"
#include "tests/unit/tiny_nets.h"
#include "train/config.h"
#include "train/init.h"
#include "train/loss.h"
#include "train/random.h"
#include "train/schedule.h"

/* ---- against PyTorch ---- */

static void
check_loss(FILE *f)
{
	int nclass, n;
	double want, weight[3], gradient[64], worst = 0;
	float logits[64], got[64];
	uint8_t label[16];
	bool weighted = true;
	DfxLossSum sum = {0};

	if (fscanf(f, "%d %d %lf", &nclass, &n, &want) != 3)
		return;
	for (int c = 0; c < nclass && weighted; c++)
		weighted = fscanf(f, "%lf", &weight[c]) == 1;
	if (!weighted && fscanf(f, "%*s") != 0)
		return;
	for (int i = 0; i < n; i++)
	{
		int l;

		if (fscanf(f, "%d", &l) != 1)
			return;
		label[i] = (uint8_t) l;
		for (int c = 0; c < nclass; c++)
			if (fscanf(f, "%f", &logits[i * nclass + c]) != 1)
				return;
		for (int c = 0; c < nclass; c++)
			if (fscanf(f, "%lf", &gradient[i * nclass + c]) != 1)
				return;
	}
	dfx_loss(logits, label, (size_t) n, nclass, weighted ? weight : NULL, got, &sum);
	for (int i = 0; i < n * nclass; i++)
		worst = fmax(worst, fabs(got[i] - gradient[i]));
	ok(fabs(dfx_loss_mean(&sum) - want) < 1e-9 * fmax(1, want) && worst < 1e-7,
	   "%s cross entropy of %d images in %d classes, and its gradient", weighted ? "weighted" : "plain", n,
	   nclass);

	/* Over a set, not a mean of batches' means. */
	sum = (DfxLossSum){0};
	dfx_loss(logits, label, 1, nclass, weighted ? weight : NULL, NULL, &sum);
	dfx_loss(logits + nclass, label + 1, (size_t) n - 1, nclass, weighted ? weight : NULL, NULL, &sum);
	ok(fabs(dfx_loss_mean(&sum) - want) < 1e-9 * fmax(1, want), "the same in two batches");
}

static void
check_rates(FILE *f)
{
	double lr, gamma, want;
	int step, n;
	bool same = true;

	if (fscanf(f, "%lf %d %lf %d", &lr, &step, &gamma, &n) != 4)
		return;
	for (int i = 0; i < n; i++)
		same = fscanf(f, "%lf", &want) == 1 &&
		       dfx_step_lr(lr, (uint64_t) step, gamma, (uint64_t) i) == want && same;
	ok(same, "StepLR(%d, %g) from %g over %d epochs, to the last bit", step, gamma, lr, n);
	ok(dfx_step_lr(lr, 0, gamma, 1000) == lr, "no steps, no change");
}

static DfxGraph *
new_network(const char *name, const char *family, uint64_t seed)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err;

	if (!g || dfx_build_backbone(g, dfx_backbone_find(name), 2, &err) != DFX_OK ||
	    dfx_init_weights(g, family, "dm", seed, &err) != DFX_OK)
		abort();
	return g;
}

static void
spread(const DfxParam *p, double *sigma, double *largest)
{
	size_t n = dfx_param_count(p);
	double sum = 0, squares = 0;

	*largest = 0;
	for (size_t i = 0; i < n; i++)
	{
		double v = (double) p->data[i];

		sum += v;
		squares += v * v;
		*largest = fmax(*largest, fabs(v));
	}
	*sigma = sqrt(fmax(0, squares / (double) n - sum / (double) n * (sum / (double) n)));
}

/* A deviation from n draws is off by 1 / sqrt(2 n); both sides have one, and ours goes over many parameters.
 */
static void
check_init(FILE *f)
{
	char family[16], network[32], name[DFX_NAME_LEN];
	DfxGraph *g;
	int n = 0, off = 0;

	if (fscanf(f, "%15s %31s", family, network) != 2)
		return;
	g = new_network(network, family, 7);
	while (fscanf(f, "%127s", name) == 1 && strcmp(name, "end") != 0)
	{
		const DfxParam *p = find_param(g, name);
		double want, want_largest, sigma = NAN, largest = NAN, margin;

		if (fscanf(f, "%lf %lf", &want, &want_largest) != 2)
			break;
		n++;
		if (p)
			spread(p, &sigma, &largest);
		margin = p ? 6 / sqrt((double) dfx_param_count(p)) : 0;
		if (!p || !(fabs(sigma - want) <= margin * want + 1e-12) ||
		    (want == 0 && fabs(largest - want_largest) > 1e-12) ||
		    !(largest <= 1.6 * want_largest + 1e-12 && largest >= want_largest / 1.6 - 1e-12))
		{
			diag("%s: deviation %g, not %g; largest %g, not %g", name, sigma, want, largest, want_largest);
			off++;
		}
	}
	ok(n > 20 && off == 0, "%s starts as torchvision's: %d parameters", network, n);
	dfx_graph_free(g);
}

static void
check_golden(void)
{
	FILE *f = fopen("tests/golden/train.txt", "r");
	char what[16];

	if (!ok(f != NULL, "tests/golden/train.txt can be read"))
		return;
	while (fscanf(f, "%15s", what) == 1)
		if (strcmp(what, "loss") == 0)
			check_loss(f);
		else if (strcmp(what, "lr") == 0)
			check_rates(f);
		else if (strcmp(what, "init") == 0)
			check_init(f);
		else
		{
			ok(false, "the golden file has no \"%s\"", what);
			break;
		}
	fclose(f);
}

/* ---- what PyTorch has no word on ---- */

static void
check_loss_edges(void)
{
	static const float logits[6] = {1e30f, -1e30f, 0, 0, 0, 0};
	static const uint8_t label[2] = {1, 0};
	double weight[4];
	float gradient[6];
	DfxLossSum sum = {0};

	ok(isnan(dfx_loss_mean(&sum)) && isnan(dfx_loss_accuracy(&sum)), "nothing has no mean");
	dfx_loss(logits, label, 2, 3, NULL, gradient, &sum);
	ok(isfinite(sum.loss) && sum.loss > 1e30 && isfinite(gradient[0]), "logits of 1e30 do not overflow");
	ok(sum.n == 2 && sum.correct == 1, "accuracy counts the largest logit");
	dfx_loss_weights((const uint8_t[]){0, 2, 2, 0, 0}, 5, 4, weight);
	ok(weight[0] == 1.0 / 3 && weight[1] == 0 && weight[2] == 0.5 && weight[3] == 0,
	   "weights are 1 / images");
}

static void
check_init_streams(void)
{
	DfxGraph *a = new_network("resnet18", "resnet", 7), *b = new_network("resnet18", "resnet", 7);
	DfxGraph *c = new_network("resnet18", "resnet", 8);
	const DfxParam *fc = find_param(a, "fc.weight"), *bias = find_param(a, "fc.bias");
	double sigma, largest;
	DfxErr err;

	ok(memcmp(find_param(a, "conv1.weight")->data, find_param(b, "conv1.weight")->data, 64) == 0,
	   "the same seed starts the same");
	ok(memcmp(find_param(a, "conv1.weight")->data, find_param(c, "conv1.weight")->data, 64) != 0,
	   "another seed starts elsewhere");
	spread(fc, &sigma, &largest);
	ok(fabs(sigma - 1 / sqrt(3 * 512.0)) < 0.002 && largest < 1 / sqrt(512.0) + 1e-9 && bias->data[0] != 0,
	   "the classifier starts as torch.nn.Linear does");
	dfx_graph_free(c);
	c = dfx_graph_new();
	ok(dfx_build_head(c, 64, 1, &err) == DFX_OK && dfx_init_weights(c, "head", "head", 7, &err) == DFX_OK,
	   "the head starts");
	spread(find_param(c, "head.convs.12.weight"), &sigma, &largest);
	ok(fabs(sigma - 1 / sqrt(3 * 512 * 3.0)) < 1e-4 && largest <= 1 / sqrt(512 * 3.0) + 1e-9,
	   "as torch.nn.Conv1d does");
	dfx_graph_free(a);
	dfx_graph_free(b);
	dfx_graph_free(c);
}

static void
check_init_from(void)
{
	DfxGraph *a = new_network("resnet18", "resnet", 7), *b = new_network("resnet18", "resnet", 8);
	DfxTensor *t;
	DfxErr err;
	float before = find_param(b, "fc.weight")->data[0];

	if (dfx_graph_tensors(a, &t, &err) != DFX_OK)
		abort();
	ok(dfx_init_from(b, t, (size_t) a->nparam, "", &err) == DFX_OK,
	   "a network starts from another one's weights");
	ok(memcmp(find_param(a, "layer4.1.conv2.weight")->data, find_param(b, "layer4.1.conv2.weight")->data,
	          64) == 0 &&
	       find_param(b, "fc.weight")->data[0] == before,
	   "all but its classifier");
	ok(dfx_init_from(b, t + 1, (size_t) a->nparam - 1, "", &err) == DFX_EWEIGHTS &&
	       strstr(err.msg, "missing"),
	   "a tensor too few is refused");
	ok(dfx_init_from(b, t, (size_t) a->nparam, "gan.", &err) == DFX_EWEIGHTS,
	   "as is a file without the network's part");
	free(t);
	dfx_graph_free(a);
	dfx_graph_free(b);
}

/* ---- the configuration ---- */

static void
config_is(const char *json, DfxStatus status, const char *words)
{
	DfxTrainConfig c;
	DfxErr err = {0};
	DfxStatus st = dfx_train_config_parse(&c, json, strlen(json), &err);

	if (!ok(st == status && strstr(err.msg, words), "%.80s: %s", json, status ? words : "taken"))
		diag("%d %s", st, err.msg);
}

static void
check_config(void)
{
	DfxTrainConfig c, d;
	uint8_t one[32], two[32];
	DfxErr err;
	static const char json[] =
	    "{\"backbone\": \"resnet18\", \"kind\": \"classifier\", \"task\": \"binary\", "
	    "\"seed\": 18446744073709551615, \"learning_rate\": 1e-3, \"weighted\": false, "
	    "\"blur\": 0.5, \"storage\": \"bf16\", \"generators\": [\"a\", \"b\"]}";

	ok(dfx_train_config_parse(&c, json, strlen(json), &err) == DFX_OK && c.recipe == DFX_RECIPE_CLASSIFIER &&
	       c.binary && c.seed == UINT64_MAX && c.learning_rate == 1e-3 && !c.weighted &&
	       c.augment.blur == 0.5 && c.storage == DFX_BF16 && c.ngenerator == 2 &&
	       strcmp(c.generator[1], "b") == 0,
	   "every kind of value arrives");
	ok(c.epochs == 50 && c.batch == 32 && c.weight_decay == 1e-3 && c.head_stride == 1 && c.share == 0.1 &&
	       c.augment.flip == 0 && c.augment.jpeg == 0,
	   "the rest is METHOD's");
	d = c;
	dfx_train_config_digest(&c, one);
	dfx_train_config_digest(&d, two);
	ok(memcmp(one, two, 32) == 0, "equal configurations have one digest");
	d.limits.max_bytes++;
	dfx_train_config_digest(&d, two);
	ok(memcmp(one, two, 32) == 0, "limits do not count");
	d.weight_decay = 0;
	dfx_train_config_digest(&d, two);
	ok(memcmp(one, two, 32) != 0, "anything else does");

	dfx_train_config_init(&d);
	ok(dfx_train_config_set(&d, "learning_rate", "0.01", &err) == DFX_OK && d.learning_rate == 0.01 &&
	       dfx_train_config_set(&d, "kind", "base", &err) == DFX_OK && d.recipe == DFX_RECIPE_BASE &&
	       dfx_train_config_set(&d, "epochs", "7", &err) == DFX_OK && d.epochs == 7,
	   "values as the command line spells them");
	ok(dfx_train_config_set(&d, "epochs", "7x", &err) == DFX_EINVAL &&
	       dfx_train_config_set(&d, "epochs", "-7", &err) == DFX_EINVAL &&
	       dfx_train_config_set(&d, "gamma", "nan", &err) == DFX_EINVAL &&
	       dfx_train_config_set(&d, "weighted", "yes", &err) == DFX_EINVAL &&
	       dfx_train_config_set(&d, "sorcery", "1", &err) == DFX_EINVAL,
	   "others are refused");

	config_is("{}", DFX_EINVAL, "backbone is missing");
	config_is("{\"backbone\": \"x\"", DFX_EINVAL, "at byte");
	config_is("{\"backbone\": \"x\"} y", DFX_EINVAL, "at byte");
	config_is("{\"backbone\": \"x\", \"backbone\": \"x\"}", DFX_EINVAL, "twice");
	config_is("{\"backbone\": \"x\", \"epochs\": 0}", DFX_EINVAL, "epochs");
	config_is("{\"backbone\": \"x\", \"epochs\": 1.5}", DFX_EINVAL, "at byte");
	config_is("{\"backbone\": \"x\", \"batch\": 1}", DFX_EINVAL, "batch");
	config_is("{\"backbone\": \"x\", \"learning_rate\": 0}", DFX_EINVAL, "learning_rate");
	config_is("{\"backbone\": \"x\", \"learning_rate\": 1e999}", DFX_EINVAL, "range");
	config_is("{\"backbone\": \"x\", \"colour\": 1}", DFX_EINVAL, "colour");
	config_is("{\"backbone\": \"x\", \"kind\": \"base\"}", DFX_EINVAL, "main_class is missing");
	config_is("{\"backbone\": \"x\", \"main_class\": \"dm\"}", DFX_EINVAL, "main_class");
	config_is("{\"backbone\": \"x\", \"task\": \"binary\"}", DFX_EINVAL, "task");
	config_is("{\"backbone\": \"x\", \"jpeg_min\": 90, \"jpeg_max\": 80}", DFX_EINVAL, "empty");
	config_is("{\"backbone\": \"x\", \"storage\": \"i64\"}", DFX_EINVAL, "storage");
	config_is("{\"backbone\": \"x\", \"generators\": [\"a\", \"a\"]}", DFX_EINVAL, "twice");
	config_is("{\"backbone\": \"0123456789012345678901234567890123456789\"}", DFX_EINVAL, "backbone");
	config_is("{\"backbone\": 3}", DFX_EINVAL, "at byte");
	config_is("[]", DFX_EINVAL, "at byte");
	config_is("", DFX_EINVAL, "at byte");
	config_is("{\"backbone\": \"x\", \"weighted\": true}", DFX_OK, "");
}

int
main(void)
{
	check_golden();
	check_loss_edges();
	check_init_streams();
	check_init_from();
	check_config();
	return done_testing();
}
