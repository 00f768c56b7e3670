/*
 * test_models.c
 *	  Does each kind of model get the networks, names and outputs that its
 *	  metadata call for, and are metadata that mean nothing refused?
 */
#include <stdlib.h>
#include <string.h>

#include "nn/models.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny_nets.h"

#define FIXED "synthetic,real;dm,gan;"

/* ---- by metadata ---- */

static void
check_model(DfxModelMeta meta, DfxStatus status, const char *words)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxStatus st = dfx_build_model(g, &meta, 2, &err);

	if (!ok(st == status && strstr(err.msg, words),
	        "model %s of %s, classes \"%.60s\", stride %u, size %u: %s", meta.kind, meta.backbone,
	        meta.classes, meta.head_stride, meta.input_size, status ? words : "built"))
		diag("%d %s", st, err.msg);
	dfx_graph_free(g);
}

static void
check_models(void)
{
	check_model((DfxModelMeta){"trinet", "resnet18", "dm,gan,real", 2, 256}, DFX_OK, "");
	check_model((DfxModelMeta){"backbone", "densenet121", "", 0, 256}, DFX_OK, "");
	check_model((DfxModelMeta){"base", "resnet18", "others,dm", 0, 256}, DFX_OK, "");
	check_model((DfxModelMeta){"base", "vit_b_32", "others,gan", 0, 224}, DFX_OK, "");
	check_model((DfxModelMeta){"base", "resnet18", "others,real", 0, 256}, DFX_OK, "");
	check_model((DfxModelMeta){"classifier", "resnet18", "dm,gan,real", 0, 256}, DFX_OK, "");
	check_model((DfxModelMeta){"classifier", "resnet50", "synthetic,real", 0, 256}, DFX_OK, "");
	check_model((DfxModelMeta){"hierarchy", "resnet18", FIXED ";", 0, 256}, DFX_OK, "");

	check_model((DfxModelMeta){"forest", "resnet18", "", 0, 256}, DFX_EUNSUPPORTED, "forest");
	check_model((DfxModelMeta){"trinet", "resnet19", "", 1, 256}, DFX_EUNSUPPORTED, "resnet19");
	check_model((DfxModelMeta){"trinet", "resnet18", "", 3, 256}, DFX_EWEIGHTS, "head stride 3");
	check_model((DfxModelMeta){"trinet", "resnet18", "", 0, 256}, DFX_EWEIGHTS, "head stride 0");
	check_model((DfxModelMeta){"backbone", "resnet18", "", 1, 256}, DFX_EWEIGHTS, "head stride 1");
	check_model((DfxModelMeta){"hierarchy", "resnet18", FIXED ";", 1, 256}, DFX_EWEIGHTS, "head stride 1");
	check_model((DfxModelMeta){"trinet", "resnet18", "real,gan,dm", 1, 256}, DFX_EWEIGHTS, "classes");
	check_model((DfxModelMeta){"trinet", "resnet18", "", 1, 256}, DFX_EWEIGHTS, "classes");
	check_model((DfxModelMeta){"backbone", "resnet18", "dm,gan,real", 0, 256}, DFX_EWEIGHTS, "classes");
	check_model((DfxModelMeta){"base", "resnet18", "dm,others", 0, 256}, DFX_EWEIGHTS, "\"others,dm\"");
	check_model((DfxModelMeta){"classifier", "resnet18", "real,synthetic", 0, 256}, DFX_EWEIGHTS,
	            "\"dm,gan,real\" or \"synthetic,real\"");
	check_model((DfxModelMeta){"trinet", "resnet18", "", 1, 224}, DFX_EWEIGHTS, "input size 224");
}

/* ---- lists of classes ---- */

static void
check_lists(void)
{
	const char *classes = FIXED "Stable Diffusion 1.5,ddpm;";
	char name[DFX_CLASS_NAME_LEN], longest[DFX_CLASS_NAME_LEN + 1];

	ok(dfx_class_count(classes, DFX_NET_AI) == 2 && dfx_class_count(classes, DFX_NET_TYPE) == 2 &&
	       dfx_class_count(classes, DFX_NET_DM) == 2 && dfx_class_count(classes, DFX_NET_GAN) == 0 &&
	       dfx_class_count(classes, DFX_NET_COUNT) == 0 && dfx_class_count("", 0) == 0 &&
	       dfx_class_count("dm,gan,real", 0) == 3 && dfx_class_count("dm,gan,real", 1) == 0,
	   "names are counted");
	dfx_class_name(classes, DFX_NET_DM, 0, name);
	ok(strcmp(name, "Stable Diffusion 1.5") == 0, "the first of a list: %s", name);
	dfx_class_name(classes, DFX_NET_DM, 1, name);
	ok(strcmp(name, "ddpm") == 0, "the last: %s", name);
	dfx_class_name(classes, DFX_NET_DM, 2, name);
	ok(name[0] == '\0', "one too far");
	dfx_class_name(classes, DFX_NET_GAN, 0, name);
	ok(name[0] == '\0', "of an empty list");
	memset(longest, 'x', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	ok(!dfx_class_name_valid(longest) && dfx_class_name_valid(longest + 1), "a name has at most %d bytes",
	   DFX_CLASS_NAME_LEN - 1);
	ok(dfx_class_name_valid("a \"b\" \\c=d") && !dfx_class_name_valid("") && !dfx_class_name_valid(" a") &&
	       !dfx_class_name_valid("a ") && !dfx_class_name_valid("a,b") && !dfx_class_name_valid("a;b") &&
	       !dfx_class_name_valid("a\nb") && !dfx_class_name_valid("a\x7f") &&
	       !dfx_class_name_valid("caf\xc3\xa9"),
	   "printable ASCII, no comma, semicolon or blank at an end");
}

/* ---- hierarchies ---- */

static int
output_classes(const DfxGraph *g, const char *name)
{
	for (int i = 0; i < g->nout; i++)
		if (strcmp(g->out_name[i], name) == 0)
			return g->val[g->out[i]].c;
	return 0;
}

/* Every parameter of lone, in its order, below each scope. */
static bool
has_scopes(const DfxGraph *g, const DfxGraph *lone, const char *const *scope, int n)
{
	bool same = g->nparam == n * lone->nparam;

	for (int i = 0; i < g->nparam && same; i++)
	{
		char want[2 * DFX_NAME_LEN];

		snprintf(want, sizeof want, "%s.%s", scope[i / lone->nparam], lone->param[i % lone->nparam].name);
		same = strcmp(want, g->param[i].name) == 0;
	}
	return same;
}

static void
check_hierarchy(void)
{
	static const char *const without_gan[] = {"ai", "type", "dm"};

	for (int i = 0; i < TINY_NETS; i++)
	{
		DfxGraph *g = dfx_graph_new(), *two = dfx_graph_new(), *lone = dfx_graph_new();
		const DfxBackbone *b = &tiny_nets[i];
		DfxErr err = {0};
		bool built = dfx_build_hierarchy(g, b, FIXED "a,b,c;", &err) == DFX_OK &&
		             dfx_build_hierarchy(two, b, FIXED ";x,y", &err) == DFX_OK &&
		             dfx_build_backbone(lone, b, 2, &err) == DFX_OK;

		if (!ok(built && g->nout == 4 && strcmp(g->out_name[0], "features") == 0 &&
		            g->val[g->out[0]].c == 3 && g->val[g->out[0]].w == b->features &&
		            output_classes(g, "ai") == 2 && output_classes(g, "type") == 2 &&
		            output_classes(g, "dm") == 3,
		        "%s: a vector of %d features and the logits of each network that is there", b->name,
		        b->features))
			diag("%s", err.msg);
		ok(has_scopes(g, lone, without_gan, 3),
		   "%s: the backbone's names, classifier included, below each scope", b->name);
		ok(two->nout == 4 && output_classes(two, "dm") == 0 && output_classes(two, "gan") == 2,
		   "%s: either network of generators may be absent", b->name);
		dfx_graph_free(g);
		dfx_graph_free(two);
		dfx_graph_free(lone);
	}
}

static void
check_refused(const char *classes, const char *words)
{
	DfxModelMeta meta = {.kind = "hierarchy", .backbone = "resnet18", .input_size = 256};

	snprintf(meta.classes, sizeof meta.classes, "%s", classes);
	check_model(meta, DFX_EWEIGHTS, words);
}

static void
check_refusals(void)
{
	check_refused("", "hierarchy");
	check_refused("dm,gan,real", "hierarchy");
	check_refused("synthetic,real;dm,gan", "hierarchy");
	check_refused(FIXED, "hierarchy");
	check_refused("real,synthetic;dm,gan;;", "hierarchy");
	check_refused(FIXED "a,b;c,d;", "hierarchy");
	check_refused(FIXED "a;", "one generator");
	check_refused(FIXED ";a", "network gan");
	check_refused(FIXED "a,b,a;", "twice");
	check_refused(FIXED "a,,b;", "\"\"");
	check_refused(FIXED "a,b,;", "\"\"");
	check_refused(FIXED ";a, b", "\" b\"");
}

int
main(void)
{
	check_models();
	check_lists();
	check_hierarchy();
	check_refusals();
	return done_testing();
}
