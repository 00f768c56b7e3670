/*
 * test_weights.c
 *	  Do parameters get the values they should, by the formula and by name, and
 *	  is everything that does not fit refused with a reason?
 *
 * Elements of the formula are held, bit for bit, against
 * tests/golden/nets/weights.txt (make_nets.py).  Runs from the top of the tree.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "nn/nn.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny_nets.h"

static void
check_golden(void)
{
	FILE *f = fopen("tests/golden/nets/weights.txt", "r");
	DfxGraph *g = dfx_graph_new();
	uint64_t seed, filled = 0;
	unsigned bits;
	size_t element;
	char name[DFX_NAME_LEN];
	int n = 0, wrong = 0;
	DfxErr err = {0};

	if (!ok(f && dfx_build_trinet(g, dfx_backbone_find("resnet18"), 1, &err) == DFX_OK &&
	            dfx_weights_random(g, filled, &err) == DFX_OK && fscanf(f, "#%*[^\n]\n") == 0,
	        "the tri-branch net of resnet18 is filled"))
		return;
	while (fscanf(f, "%" SCNu64 " %127s %zu %x", &seed, name, &element, &bits) == 4)
	{
		const DfxParam *p = find_param(g, name);
		unsigned got = 0;

		if (seed != filled)
			dfx_weights_random(g, filled = seed, &err);
		if (p)
			memcpy(&got, &p->data[element], sizeof got);
		if (!p || got != bits)
		{
			diag("seed %" PRIu64 " %s[%zu]: %08x, not %08x", seed, name, element, got, bits);
			wrong++;
		}
		n++;
	}
	ok(feof(f) && n > 300 && wrong == 0, "%d elements of 4 seeds are bit for bit those of NumPy", n);
	fclose(f);
	dfx_graph_free(g);
}

/* ---- by name ---- */

/* Tensors of a reduced network, sorted by name, with data; room for one more. */
typedef struct Given
{
	DfxGraph *source, *target;
	DfxTensor *t;
	size_t n;
} Given;

static int
cmp_tensor(const void *a, const void *b)
{
	return strcmp(((const DfxTensor *) a)->name, ((const DfxTensor *) b)->name);
}

static Given
given_new(void)
{
	Given s = {.source = dfx_graph_new(), .target = dfx_graph_new()};
	DfxErr err;

	if (dfx_build_backbone(s.source, &tiny_nets[0], 4, &err) != DFX_OK ||
	    dfx_build_backbone(s.target, &tiny_nets[0], 4, &err) != DFX_OK ||
	    dfx_weights_random(s.source, 9, &err) != DFX_OK)
		abort();
	s.n = (size_t) s.source->nparam;
	s.t = calloc(s.n + 1, sizeof *s.t);
	for (size_t i = 0; i < s.n; i++)
	{
		const DfxParam *p = &s.source->param[i];

		strcpy(s.t[i].name, p->name);
		s.t[i].rank = (uint32_t) p->rank;
		for (int d = 0; d < p->rank; d++)
			s.t[i].dim[d] = (uint64_t) p->dim[d];
		s.t[i].data = p->data;
		dfx_tensor_count(&s.t[i], &(uint64_t){0}, &s.t[i].nbytes);
	}
	qsort(s.t, s.n, sizeof *s.t, cmp_tensor);
	return s;
}

static void
given_free(Given *s)
{
	dfx_graph_free(s->source);
	dfx_graph_free(s->target);
	free(s->t);
}

/* Put a tensor where its name belongs. */
static void
given_add(Given *s, const char *name)
{
	static const float zero[1];
	DfxTensor *t = &s->t[s->n++];

	*t = (DfxTensor){.rank = 1, .dim = {1}, .data = zero, .nbytes = 4};
	strcpy(t->name, name);
	qsort(s->t, s->n, sizeof *s->t, cmp_tensor);
}

static void
check_set(void)
{
	Given s = given_new();
	DfxErr err = {0};
	bool same = true;

	given_add(&s, "features.norm0.num_batches_tracked");
	if (!ok(dfx_weights_set(s.target, s.t, s.n, &err) == DFX_OK,
	        "tensors of the right names are taken, num_batches_tracked is ignored"))
		diag("%s", err.msg);
	for (int i = 0; i < s.source->nparam; i++)
	{
		const DfxParam *p = &s.source->param[i];
		size_t n = 1;

		for (int d = 0; d < p->rank; d++)
			n *= (size_t) p->dim[d];
		same = same && s.target->param[i].data &&
		       memcmp(p->data, s.target->param[i].data, n * sizeof(float)) == 0;
	}
	ok(same, "every parameter has its tensor's bytes");
	given_free(&s);
}

static void
check_half(void)
{
	Given s = given_new();
	uint16_t *bits = NULL;
	DfxErr err = {0};
	DfxTensor *t = NULL;

	for (size_t i = 0; i < s.n; i++)
		if (strcmp(s.t[i].name, "classifier.bias") == 0)
			t = &s.t[i];
	bits = calloc(t->dim[0], sizeof *bits);
	bits[0] = 0x3FC0; /* 1.5 in bfloat16 */
	bits[1] = 0xC000; /* -2 */
	t->dtype = DFX_BF16;
	t->data = bits;
	t->nbytes /= 2;
	ok(dfx_weights_set(s.target, s.t, s.n, &err) == DFX_OK &&
	       find_param(s.target, "classifier.bias")->data[0] == 1.5f &&
	       find_param(s.target, "classifier.bias")->data[1] == -2.0f,
	   "bfloat16 becomes float");
	free(bits);
	given_free(&s);
}

static void
check_refused(Given *s, DfxStatus status, const char *words, const char *what)
{
	DfxErr err = {0};
	DfxStatus got = dfx_weights_set(s->target, s->t, s->n, &err);

	if (!ok(got == status && strstr(err.msg, words), "%s is refused, saying \"%s\"", what, words))
		diag("%d: %s", got, err.msg);
	given_free(s);
}

static void
check_refusals(void)
{
	Given s = given_new();
	static float dummy[1];

	s.n--;
	memset(&s.t[s.n], 0, sizeof s.t[s.n]);
	check_refused(&s, DFX_EWEIGHTS, "missing: features.transition3.norm.weight", "a missing tensor");

	s = given_new();
	given_add(&s, "aux.weight");
	check_refused(&s, DFX_EWEIGHTS, "1 unexpected, 0 misshapen); unexpected: aux.weight", "an extra tensor");

	s = given_new();
	s.t[0].dim[0] = 5;
	check_refused(&s, DFX_EWEIGHTS, "(0 missing, 0 unexpected, 1 misshapen)", "a tensor of another length");

	s = given_new();
	s.t[1].rank = 3;
	s.t[1].dim[2] = 1;
	check_refused(&s, DFX_EWEIGHTS, "of another shape or type: classifier.weight",
	              "a tensor of another rank");

	s = given_new();
	s.t[0].dtype = DFX_I64;
	check_refused(&s, DFX_EWEIGHTS, "of another shape or type: classifier.bias", "an integer tensor");

	s = given_new();
	s.t[0].data = NULL;
	check_refused(&s, DFX_EINVAL, "classifier.bias", "a tensor without data");

	s = given_new();
	s.t[s.n] = s.t[0];
	s.t[0] = s.t[1];
	s.t[1] = s.t[s.n];
	check_refused(&s, DFX_EINVAL, "not in order", "an unsorted list");

	s = given_new();
	s.t[1] = s.t[0];
	check_refused(&s, DFX_EINVAL, "not in order", "a list with one name twice");

	s = given_new();
	for (size_t i = 0; i < s.n; i++)
		s.t[i].name[0] = 'F';
	qsort(s.t, s.n, sizeof *s.t, cmp_tensor);
	for (size_t i = 0; i < s.n; i++)
		s.t[i].data = dummy; /* nothing of it may be read */
	check_refused(&s, DFX_EWEIGHTS, "...", "a list of other names throughout");
}

/* The error's message is short; the list is not, and has every name. */
static void
check_misfits(void)
{
	Given s = given_new();
	char *list = dfx_weights_misfits(s.target, s.t, s.n);
	size_t named = 0;

	ok(list == NULL, "nothing to list when everything fits");
	s.t[0].dim[0] = 5;
	s.t[0].dtype = DFX_F16;
	given_add(&s, "aux.weight");
	list = dfx_weights_misfits(s.target, s.t, s.n);
	if (!ok(list &&
	            strcmp(
	                list,
	                "unexpected: aux.weight; of another shape or type: classifier.bias (F16 [5], not [4])") ==
	                0,
	        "each complaint with its names, shapes with what they should be"))
		diag("%s", list ? list : "no list");
	free(list);

	for (size_t i = 0; i < s.n; i++)
		s.t[i].name[0] = 'F';
	qsort(s.t, s.n, sizeof *s.t, cmp_tensor);
	list = dfx_weights_misfits(s.target, s.t, s.n);
	for (int i = 0; list && i < s.target->nparam; i++)
		named += strstr(list, s.target->param[i].name) != NULL;
	for (size_t i = 0; list && i < s.n; i++)
		named += strstr(list, s.t[i].name) != NULL;
	ok(named == (size_t) s.target->nparam + s.n, "all of %zu names are listed", named);
	free(list);
	given_free(&s);
}

int
main(void)
{
	check_golden();
	check_set();
	check_half();
	check_refusals();
	check_misfits();
	return done_testing();
}
