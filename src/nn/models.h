/*
 * models.h
 *	  The kinds of models, and what their classes say.
 *
 *	kind		network						classes							head_stride
 *	backbone	one, without a classifier	""								0
 *	trinet		three and the Conv1d head	dm,gan,real						1, 2
 *	base		one, 2 logits				others,dm  others,gan  others,real	0
 *	classifier	one, 3 or 2 logits			dm,gan,real  synthetic,real		0
 *	hierarchy	two to four, see below		four lists						0
 *
 * Parameters have the backbone's own names (torchvision's), in a hierarchy
 * and in a trinet with the network's scope before them.
 *
 * A hierarchy (Guarnera, Giudice, Battiato, "Mastering Deepfake Detection",
 * ACM TOMM 2024) asks one question after the other, each of a network of its
 * own: ai (synthetic or real?), type (dm or gan?), dm and gan (which
 * generator?).  Its classes are four lists: "synthetic,real;dm,gan;", the
 * generators of dm, ";", those of gan.  An empty list stands for a network
 * that is not there.
 */
#ifndef DFX_NN_MODELS_H
#define DFX_NN_MODELS_H

#include "nn/nn.h"

/* Lists of a hierarchy's classes, in their order. */
enum
{
	DFX_NET_AI = 0,
	DFX_NET_TYPE,
	DFX_NET_DM,
	DFX_NET_GAN,
	DFX_NET_COUNT
};

/* Their networks' scopes, which are also the names of their outputs. */
extern const char *const dfx_net_scope[DFX_NET_COUNT];

/* Bytes of a class's name with its NUL; also of the generator in a verdict (engine/proto.h). */
#define DFX_CLASS_NAME_LEN 64

/*
 * Whether name may stand in a list of classes: 1 to 63 bytes of printable
 * ASCII without comma or semicolon, no blank at either end.
 */
extern bool dfx_class_name_valid(const char *name);

/* How many names list number net has (0 for the only one); 0 when it is empty or not there. */
extern int dfx_class_count(const char *classes, int net);

/* Name number i of that list; "" when there is none. */
extern void dfx_class_name(const char *classes, int net, int i, char name[DFX_CLASS_NAME_LEN]);

/*
 * The networks of a hierarchy by its classes: outputs "features" (one vector
 * of D for each network that is there, in their order) and, under its scope's
 * name, each network's logits.  DFX_EWEIGHTS for classes that are not a
 * hierarchy's.
 */
extern DfxStatus dfx_build_hierarchy(DfxGraph *g, const DfxBackbone *b, const char *classes, DfxErr *err);

#endif /* DFX_NN_MODELS_H */
