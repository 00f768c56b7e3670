/*
 * models.c
 *	  From metadata to a network: the table of kinds, the lists of classes, and
 *	  the hierarchy of networks.
 *
 * Answers are labelled by their place, so metadata that name classes in
 * another order, or others than the kind has, would give wrong labels: they
 * are refused here, before any weight is looked at.
 */
#include "nn/models.h"

#include <stdio.h>
#include <string.h>

/* --- lists of classes ---------------------------------------------------- */

const char *const dfx_net_scope[DFX_NET_COUNT] = {"ai", "type", "dm", "gan"};

static bool
class_valid(const char *name, size_t len)
{
	if (len == 0 || len >= DFX_CLASS_NAME_LEN || name[0] == ' ' || name[len - 1] == ' ')
		return false;
	for (size_t i = 0; i < len; i++)
		if (name[i] < 0x20 || name[i] > 0x7e || name[i] == ',' || name[i] == ';')
			return false;
	return true;
}

bool
dfx_class_name_valid(const char *name)
{
	return class_valid(name, strlen(name));
}

/* List number net, with its length; of length 0 when there are not so many. */
static const char *
class_list(const char *classes, int net, size_t *len)
{
	while (net-- > 0)
	{
		classes += strcspn(classes, ";");
		classes += *classes == ';';
	}
	*len = strcspn(classes, ";");
	return classes;
}

/* The name that begins at list[*at] and the place behind it; NULL at the end. */
static const char *
class_next(const char *list, size_t len, size_t *at, size_t *name_len)
{
	const char *name = list + *at;

	if (len == 0 || *at > len)
		return NULL;
	*name_len = strcspn(name, ",;");
	*at += *name_len + 1;
	return name;
}

int
dfx_class_count(const char *classes, int net)
{
	size_t len, at = 0, name_len;
	const char *list = class_list(classes, net, &len);
	int n = 0;

	while (class_next(list, len, &at, &name_len))
		n++;
	return n;
}

void
dfx_class_name(const char *classes, int net, int i, char name[DFX_CLASS_NAME_LEN])
{
	size_t len, at = 0, name_len = 0;
	const char *list = class_list(classes, net, &len), *found;

	do
		found = class_next(list, len, &at, &name_len);
	while (found && i-- > 0);
	snprintf(name, DFX_CLASS_NAME_LEN, "%.*s", found ? (int) name_len : 0, found ? found : "");
}

/* --- the hierarchy ------------------------------------------------------- */

/* How the classes of every hierarchy begin. */
#define HIERARCHY_FIXED "synthetic,real;dm,gan;"

/* Whether a name of the list stands in it a second time. */
static bool
hierarchy_repeats(const char *list, size_t len)
{
	size_t at = 0, name_len, other_len;
	const char *name, *other;

	while ((name = class_next(list, len, &at, &name_len)) != NULL)
		for (size_t rest = at; (other = class_next(list, len, &rest, &other_len)) != NULL;)
			if (other_len == name_len && memcmp(other, name, name_len) == 0)
				return true;
	return false;
}

/* The generators of one network: none, or two and more of different names. */
static DfxStatus
hierarchy_check_list(const char *classes, int net, DfxErr *err)
{
	size_t len, at = 0, name_len;
	const char *list = class_list(classes, net, &len), *name;

	while ((name = class_next(list, len, &at, &name_len)) != NULL)
		if (!class_valid(name, name_len))
			return dfx_fail(
			    err, DFX_EWEIGHTS,
			    "\"%.*s\" in the metadata is not the name of a generator: 1 to %d printable ASCII "
			    "characters, no comma or semicolon, no blank at either end",
			    name_len < 80 ? (int) name_len : 80, name, DFX_CLASS_NAME_LEN - 1);
	if (dfx_class_count(classes, net) == 1)
		return dfx_fail(err, DFX_EWEIGHTS,
		                "network %s in the metadata has one generator, which leaves nothing to tell",
		                dfx_net_scope[net]);
	if (hierarchy_repeats(list, len))
		return dfx_fail(err, DFX_EWEIGHTS, "a generator of network %s stands in the metadata twice",
		                dfx_net_scope[net]);
	return DFX_OK;
}

static DfxStatus
hierarchy_check(const char *classes, DfxErr *err)
{
	size_t fixed = strlen(HIERARCHY_FIXED);
	const char *between = strncmp(classes, HIERARCHY_FIXED, fixed) == 0 ? strchr(classes + fixed, ';') : NULL;
	DfxStatus st;

	if (!between || strchr(between + 1, ';'))
		return dfx_fail(err, DFX_EWEIGHTS,
		                "classes \"%.80s\" in the metadata of a hierarchy, which has \"" HIERARCHY_FIXED
		                "\", the generators of dm, \";\" and those of gan",
		                classes);
	st = hierarchy_check_list(classes, DFX_NET_DM, err);
	return st == DFX_OK ? hierarchy_check_list(classes, DFX_NET_GAN, err) : st;
}

DfxStatus
dfx_build_hierarchy(DfxGraph *g, const DfxBackbone *b, const char *classes, DfxErr *err)
{
	DfxVal features[DFX_NET_COUNT], logits[DFX_NET_COUNT], x;
	int n = 0;

	if (hierarchy_check(classes, err) != DFX_OK)
		return DFX_EWEIGHTS;
	x = dfx_input_rgb8(g, b->input_size, b->input_size);
	for (int net = 0; net < DFX_NET_COUNT; net++)
	{
		int nclass = dfx_class_count(classes, net), mark;

		if (nclass == 0)
			continue;
		mark = dfx_push(g, "%s", dfx_net_scope[net]);
		logits[net] = b->build(g, b, x, nclass, &features[n++]);
		dfx_pop(g, mark);
	}
	dfx_output(g, dfx_stack(g, features, n), "features");
	for (int net = 0; net < DFX_NET_COUNT; net++)
		if (dfx_class_count(classes, net) > 0)
			dfx_output(g, logits[net], dfx_net_scope[net]);
	return dfx_graph_finish(g, err);
}

/* --- the kinds ----------------------------------------------------------- */

typedef DfxStatus (*ModelBuild)(DfxGraph *g, const DfxBackbone *b, const DfxModelMeta *meta, int nclass,
                                DfxErr *err);

static DfxStatus
model_backbone(DfxGraph *g, const DfxBackbone *b, const DfxModelMeta *meta, int nclass, DfxErr *err)
{
	(void) meta;
	return dfx_build_backbone(g, b, nclass, err);
}

static DfxStatus
model_trinet(DfxGraph *g, const DfxBackbone *b, const DfxModelMeta *meta, int nclass, DfxErr *err)
{
	(void) nclass;
	return dfx_build_trinet(g, b, (int) meta->head_stride, err);
}

/* A Base Model or a classifier: the backbone with as many logits as there are classes. */
static DfxStatus
model_single(DfxGraph *g, const DfxBackbone *b, const DfxModelMeta *meta, int nclass, DfxErr *err)
{
	(void) nclass;
	return dfx_build_backbone(g, b, dfx_class_count(meta->classes, 0), err);
}

static DfxStatus
model_hierarchy(DfxGraph *g, const DfxBackbone *b, const DfxModelMeta *meta, int nclass, DfxErr *err)
{
	(void) nclass;
	return dfx_build_hierarchy(g, b, meta->classes, err);
}

#define MODEL_CLASSES 3

static const struct ModelKind
{
	const char *name;
	ModelBuild build;
	const char *classes[MODEL_CLASSES]; /* one of these; none listed: build checks them */
	bool head;                          /* it has the Conv1d head, and so a stride */
} model_kind[] = {
    {"backbone", model_backbone, {""}, false},
    {"trinet", model_trinet, {"dm,gan,real"}, true},
    {"base", model_single, {"others,dm", "others,gan", "others,real"}, false},
    {"classifier", model_single, {"dm,gan,real", "synthetic,real"}, false},
    {"hierarchy", model_hierarchy, {NULL}, false},
};

static DfxStatus
model_check_classes(const struct ModelKind *k, const char *classes, DfxErr *err)
{
	char text[96] = "";
	size_t used = 0;

	for (int i = 0; i < MODEL_CLASSES && k->classes[i]; i++)
	{
		if (strcmp(classes, k->classes[i]) == 0)
			return DFX_OK;
		used += (size_t) snprintf(text + used, sizeof text - used, "%s\"%s\"", i > 0 ? " or " : "",
		                          k->classes[i]);
	}
	if (!k->classes[0])
		return DFX_OK;
	return dfx_fail(err, DFX_EWEIGHTS, "classes \"%.80s\" in the metadata of a model of kind %s, not %s",
	                classes, k->name, text);
}

DfxStatus
dfx_build_model(DfxGraph *g, const DfxModelMeta *meta, int nclass, DfxErr *err)
{
	const DfxBackbone *b = dfx_backbone_find(meta->backbone);
	const struct ModelKind *k = NULL;

	for (size_t i = 0; i < sizeof model_kind / sizeof model_kind[0]; i++)
		if (strcmp(meta->kind, model_kind[i].name) == 0)
			k = &model_kind[i];
	if (k == NULL)
		return dfx_fail(err, DFX_EUNSUPPORTED, "unknown kind of model \"%s\"", meta->kind);
	if (b == NULL)
		return dfx_fail(err, DFX_EUNSUPPORTED, "unknown backbone \"%s\"", meta->backbone);
	if (meta->input_size != (uint32_t) b->input_size)
		return dfx_fail(err, DFX_EWEIGHTS, "input size %u in the metadata, but %s takes %d", meta->input_size,
		                b->name, b->input_size);
	if (k->head ? meta->head_stride != 1 && meta->head_stride != 2 : meta->head_stride != 0)
		return dfx_fail(err, DFX_EWEIGHTS, "head stride %u in the metadata of a model of kind %s",
		                meta->head_stride, meta->kind);
	if (model_check_classes(k, meta->classes, err) != DFX_OK)
		return DFX_EWEIGHTS;
	return k->build(g, b, meta, nclass, err);
}
