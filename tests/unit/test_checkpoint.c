/*
 * test_checkpoint.c
 *	  Are other people's weight files recognised, and do their tensors, renamed, fit our networks?
 *
 * timm's names come from timm itself, beside torchvision's (tests/golden/names,
 * make_names.py), so they are not held against the rules that made ours.
 * Runs from the top of the tree.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checkpoint.h"
#include "nn/nn.h"
#include "tests/unit/tap.h"

/* ---- files made of nothing but a header ---- */

static void
file_add(DfxSafetensors *st, const DfxTensor *like, const char *prefix, const char *name)
{
	DfxTensor *t;

	st->tensor = realloc(st->tensor, (st->ntensor + 1) * sizeof *st->tensor);
	st->offset = realloc(st->offset, (st->ntensor + 1) * sizeof *st->offset);
	st->offset[st->ntensor] = st->ntensor;
	t = &st->tensor[st->ntensor++];
	*t = *like;
	snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
}

static void
file_add_vector(DfxSafetensors *st, const char *name, uint64_t n)
{
	file_add(st, &(DfxTensor){.rank = 1, .dim = {n}}, "", name);
}

/* The network's tensors; prefixes of ours are replaced as the authors have them. */
static void
file_add_graph(DfxSafetensors *st, const DfxGraph *g)
{
	static const char *const part[][2] = {
	    {"dm.", "model1."}, {"gan.", "model2."}, {"real.", "model3."}, {"head.", ""}};

	for (int i = 0; i < g->nparam; i++)
	{
		const DfxParam *p = &g->param[i];
		const char *prefix = "", *name = p->name;
		DfxTensor t = {.rank = (uint32_t) p->rank};

		for (int d = 0; d < p->rank; d++)
			t.dim[d] = (uint64_t) p->dim[d];
		for (size_t k = 0; k < sizeof part / sizeof part[0]; k++)
			if (strncmp(p->name, part[k][0], strlen(part[k][0])) == 0)
			{
				prefix = part[k][1];
				name = p->name + strlen(part[k][0]);
			}
		file_add(st, &t, prefix, name);
	}
}

/* timm's names for a backbone, and how many of them; ours[] is what each must become. */
static int
file_add_timm(DfxSafetensors *st, const char *backbone, const char *prefix, char (*ours)[DFX_NAME_LEN])
{
	char path[128], theirs[DFX_NAME_LEN], dims[64];
	int n = 0;
	FILE *f;

	snprintf(path, sizeof path, "tests/golden/names/%s.txt", backbone);
	f = fopen(path, "r");
	if (!f || fscanf(f, "#%*[^\n]\n") != 0)
		return 0;
	while (fscanf(f, "%127s %127s %63s", theirs, ours[n], dims) == 3)
	{
		DfxTensor t = {.rank = 0};

		for (char *p = strtok(dims, ","); p; p = strtok(NULL, ","))
			t.dim[t.rank++] = strtoull(p, NULL, 10);
		file_add(st, &t, prefix, theirs);
		n++;
	}
	fclose(f);
	return n;
}

static void
file_free(DfxSafetensors *st)
{
	free(st->tensor);
	free(st->offset);
}

/* ---- checks ---- */

static DfxGraph *
network(const DfxModelMeta *meta, int nclass)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err;

	if (dfx_build_model(g, meta, nclass, &err) == DFX_OK)
		return g;
	diag("%s", err.msg);
	dfx_graph_free(g);
	return NULL;
}

/* Names and shapes are those of the network, neither more nor fewer. */
static void
check_fits(const DfxSafetensors *st, const DfxModelMeta *meta, const char *what)
{
	DfxGraph *g = network(meta, 0);
	char *misfits = g ? dfx_weights_misfits(g, st->tensor, st->ntensor) : strdup("no network");

	if (!ok(misfits == NULL, "%s: fits %s", what, meta->backbone))
		diag("%s", misfits);
	free(misfits);
	dfx_graph_free(g);
}

#define TIMM_MAX 1000

static void
check_timm(const char *backbone)
{
	static char ours[TIMM_MAX][DFX_NAME_LEN];
	DfxSafetensors st = {0};
	int n = file_add_timm(&st, backbone, "", ours), dropped = 0, wrong = 0;
	DfxModelMeta meta = {.kind = "backbone", .input_size = dfx_backbone_find(backbone)->input_size};
	DfxErr err = {0};

	snprintf(meta.backbone, sizeof meta.backbone, "%s", backbone);
	file_add_vector(&st, "bn9.num_batches_tracked", 1);
	ok(n > 100 && dfx_checkpoint_backbone(&st, &err) == DFX_OK, "timm's %s, %d tensors %s", backbone, n,
	   err.msg);
	check_fits(&st, &meta, "timm's names, without the classifier");

	/* Each one where torchvision has it: the offset says which it was. */
	for (size_t i = 0; i < st.ntensor; i++)
		if (strcmp(st.tensor[i].name, ours[st.offset[i]]) != 0)
			wrong++;
	dropped = n - (int) st.ntensor;
	ok(wrong == 0 && dropped == 2, "... each is its namesake in torchvision (%d are not, %d left out)", wrong,
	   dropped);
	file_free(&st);
}

static void
check_complete(const DfxBackbone *b)
{
	DfxModelMeta want = {.kind = "trinet", .classes = "dm,gan,real", .head_stride = 2}, meta;
	DfxSafetensors st = {0};
	DfxErr err = {0};
	DfxGraph *g;

	want.input_size = (uint32_t) b->input_size;
	snprintf(want.backbone, sizeof want.backbone, "%s", b->name);
	g = network(&want, 0);
	file_add_graph(&st, g);
	dfx_graph_free(g);
	file_add_vector(&st, "model2.fc.weight", 2);
	file_add_vector(&st, "model3.classifier.1.bias", 2);
	file_add_vector(&st, "convs.2.num_batches_tracked", 1);
	ok(dfx_checkpoint_is_complete(&st) && dfx_checkpoint_complete(&st, &meta, &err) == DFX_OK &&
	       strcmp(meta.backbone, b->name) == 0 && meta.head_stride == 0,
	   "a complete checkpoint is recognised as %s %s", b->name, err.msg);
	meta.head_stride = 2;
	check_fits(&st, &meta, "... leftovers of classifiers dropped");
	file_free(&st);
}

static void
check_complete_timm(void)
{
	static char ours[TIMM_MAX][DFX_NAME_LEN];
	static const char *const branch[] = {"model1.", "model2.", "model3."};
	DfxModelMeta meta = {.kind = "trinet",
	                     .classes = "dm,gan,real",
	                     .head_stride = 2,
	                     .input_size = 256,
	                     .backbone = "efficientnet_b0"};
	DfxSafetensors st = {0};
	DfxGraph *g = network(&meta, 0);
	DfxErr err = {0};

	file_add_graph(&st, g);
	dfx_graph_free(g);
	for (size_t i = st.ntensor; i-- > 0;)
		if (strncmp(st.tensor[i].name, "model", 5) == 0)
			st.tensor[i] = st.tensor[--st.ntensor];
	for (int i = 0; i < 3; i++)
		file_add_timm(&st, "efficientnet_b0", branch[i], ours);
	ok(dfx_checkpoint_complete(&st, &meta, &err) == DFX_OK && strcmp(meta.backbone, "efficientnet_b0") == 0,
	   "a complete checkpoint with timm's names inside %s", err.msg);
	meta.head_stride = 2;
	check_fits(&st, &meta, "... renamed");
	file_free(&st);
}

static void
check_refused(DfxSafetensors *st, bool complete, const char *words, const char *what)
{
	DfxModelMeta meta;
	DfxErr err = {0};
	DfxStatus status =
	    complete ? dfx_checkpoint_complete(st, &meta, &err) : dfx_checkpoint_backbone(st, &err);

	ok(status == DFX_EWEIGHTS && strstr(err.msg, words), "%s: \"%s\" %s", what, err.msg, err.hint);
	file_free(st);
}

static void
check_refusals(void)
{
	DfxSafetensors st = {0};

	file_add_vector(&st, "model1.stem.conv.weight", 1);
	file_add_vector(&st, "model1.layers.0.block0.depsep.conv.weight", 1);
	check_refused(&st, true, "eps 1e-3", "NVIDIA's EfficientNet in three branches");

	st = (DfxSafetensors){0};
	file_add_vector(&st, "stem.conv.weight", 1);
	check_refused(&st, false, "eps 1e-3", "NVIDIA's EfficientNet alone");

	st = (DfxSafetensors){0};
	file_add_vector(&st, "model1.something", 1);
	file_add_vector(&st, "convs.0.weight", 1);
	check_refused(&st, true, "none of the backbones", "an unknown backbone");

	st = (DfxSafetensors){0};
	file_add_vector(&st, "features.denseblock1.denselayer1.norm.1.weight", 1);
	file_add_vector(&st, "features.denseblock1.denselayer1.norm1.weight", 1);
	check_refused(&st, false, "denselayer1.norm1.weight\" is there twice", "one tensor under two names");

	st = (DfxSafetensors){0};
	file_add_vector(&st, "fc.weight", 1);
	check_refused(&st, false, "no tensors", "nothing but a classifier");

	st = (DfxSafetensors){0};
	file_add_vector(&st, "conv1.weight", 1);
	file_add_vector(&st, "convs.weight", 1);
	ok(!dfx_checkpoint_is_complete(&st), "a lone backbone is no complete checkpoint");
	file_free(&st);
}

int
main(void)
{
	static const char *const timm[] = {"efficientnet_b0", "efficientnet_b4", "vit_b_16", "vit_b_32"};

	for (size_t i = 0; i < sizeof timm / sizeof timm[0]; i++)
		check_timm(timm[i]);
	for (int i = 0; i < dfx_nbackbones; i++)
		check_complete(&dfx_backbones[i]);
	check_complete_timm();
	check_refusals();
	return done_testing();
}
