/*
 * test_backbones.c
 *	  Are the published networks torchvision's: names, shapes, arithmetic, and
 *	  what training drops?
 *
 * Names and shapes are compared by the hashes in tests/golden/nets/keys.txt
 * (make_nets.py).  Runs from the top of the tree.
 */
#include <stdlib.h>
#include <string.h>

#include "nn/nn.h"
#include "tests/unit/golden_net.h"
#include "tests/unit/tap.h"

/* ---- names and shapes ---- */

static int
cmp_line(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* FNV-1a of the sorted lines "name d0,d1,...\n". */
static uint64_t
key_hash(const DfxGraph *g)
{
	char **line = calloc((size_t) g->nparam, sizeof *line);
	char *all = calloc((size_t) g->nparam, 256), *end = all;
	uint64_t h;

	for (int i = 0; i < g->nparam; i++)
	{
		const DfxParam *p = &g->param[i];
		char dims[64] = "";

		for (int d = 0; d < p->rank; d++)
			snprintf(dims + strlen(dims), sizeof dims - strlen(dims), "%s%d", d ? "," : "", p->dim[d]);
		line[i] = malloc(256);
		snprintf(line[i], 256, "%s %s\n", p->name, dims);
	}
	qsort(line, (size_t) g->nparam, sizeof *line, cmp_line);
	for (int i = 0; i < g->nparam; i++)
	{
		end = stpcpy(end, line[i]);
		free(line[i]);
	}
	h = golden_fnv1a(all, (size_t) (end - all));
	free(line);
	free(all);
	return h;
}

static void
check_keys(void)
{
	FILE *f = fopen("tests/golden/nets/keys.txt", "r");
	char name[64];
	uint64_t hash;
	int n, seen = 0;

	if (!ok(f && fscanf(f, "#%*[^\n]\n") == 0, "tests/golden/nets/keys.txt can be read"))
		return;
	while (fscanf(f, "%63s %d %" SCNx64, name, &n, &hash) == 3)
	{
		bool tri = strncmp(name, "trinet:", 7) == 0;
		const DfxBackbone *b = dfx_backbone_find(tri ? name + 7 : name);
		DfxGraph *g = dfx_graph_new();
		DfxErr err = {0};

		if (!ok(b &&
		            (tri ? dfx_build_trinet(g, b, 1, &err) : dfx_build_backbone(g, b, 1000, &err)) ==
		                DFX_OK &&
		            g->nparam == n && key_hash(g) == hash,
		        "%s has torchvision's %d names and shapes", name, n))
			diag("%d parameters, hash %016" PRIx64 " %s", g->nparam, key_hash(g), err.msg);
		if (!tri)
			seen++;
		dfx_graph_free(g);
	}
	ok(seen == dfx_nbackbones, "all %d backbones have been compared", dfx_nbackbones);
	fclose(f);
}

/*
 * The figures of reference measurements (fvcore and the papers), as billions of multiply-adds times two.
 * EfficientNet's 1.008 are in convolutions, the rest in what a depthwise network does between them.
 * The ViTs do less than their 35.1 and 8.82: the last layer's perceptron sees one token (vit.c).
 */
static void
check_figures(const char *name, int features, double gflop)
{
	const DfxBackbone *b = dfx_backbone_find(name);
	DfxGraph *g = dfx_graph_new();
	DfxErr err;
	bool built = b && dfx_build_backbone(g, b, 0, &err) == DFX_OK;
	double got = built ? dfx_graph_flops(g) / 1e9 : 0;

	if (!ok(built && g->nout == 1 && b->features == features && g->val[g->out[0]].c == features &&
	            got > gflop * 0.99 && got < gflop * 1.01,
	        "%s alone gives %d features for %.3g GFLOP", name, features, gflop))
		diag("%g", got);
	dfx_graph_free(g);
}

/* Stochastic depth on each residual branch of EfficientNet, more the deeper it is; dropout before the
 * classifier. */
static void
check_drops(void)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err;
	DfxDrop path = {0}, last = {0};
	int paths = 0;
	bool rising = true;

	dfx_build_backbone(g, dfx_backbone_find("efficientnet_b0"), 1000, &err);
	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];

		if (op->kind != DFX_OP_DROP)
			continue;
		last = op->u.drop;
		if (!last.whole)
			continue;
		rising = rising && last.p > path.p;
		path = last;
		paths++;
	}
	ok(paths == 9 && rising && fabsf(path.p - 0.2f * 14 / 16) < 1e-6f && !last.whole &&
	       fabsf(last.p - 0.2f) < 1e-6f,
	   "efficientnet_b0 drops branches and features in training as torchvision does");
	dfx_graph_free(g);
}

int
main(void)
{
	check_keys();
	check_figures("densenet121", 1024, 7.45);
	check_figures("densenet161", 2208, 20.26);
	check_figures("efficientnet_b0", 1280, 1.008 + 0.02);
	check_figures("resnet18", 512, 4.75);
	check_figures("resnext101_32x4d", 2048, 20.89);
	check_figures("vit_b_16", 768, 35.13 - 196 * 4 * 768 * 3072 / 1e9);
	check_figures("vit_b_32", 768, 8.82 - 49 * 4 * 768 * 3072 / 1e9);
	check_drops();
	return done_testing();
}
