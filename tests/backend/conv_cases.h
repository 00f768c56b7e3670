/*
 * conv_cases.h
 *	  The convolutions that matter, for tests: strides, paddings, groups, channel
 *	  counts off the vector width, odd sizes; the poolings; and the network
 *	  that a test makes of one.
 */
#ifndef DFX_TESTS_CONV_CASES_H
#define DFX_TESTS_CONV_CASES_H

#include <stdio.h>

#include "nn/nn.h"

typedef struct ConvCase
{
	int ci, h, w, co;
	DfxConv a;
	bool bias;
} ConvCase;

static const ConvCase conv_cases[] = {
    {3, 40, 33, 64, {7, 7, 2, 2, 3, 3}, false}, /* the stem */
    {3, 17, 19, 16, {3, 3, 1, 1, 1, 1}, true},  /* a stem of other families */
    {1, 12, 12, 8, {3, 3, 1, 1, 1, 1}, true},   /* one channel */
    {64, 17, 23, 64, {3, 3, 1, 1, 1, 1}, true}, /* odd sizes */
    {64, 17, 23, 64, {3, 3, 2, 2, 1, 1}, true},
    {64, 16, 16, 32, {3, 3, 1, 1, 1, 1}, false}, /* DenseNet's growth */
    {128, 8, 8, 128, {3, 3, 1, 1, 1, 1}, false},
    {32, 4, 4, 32, {3, 3, 1, 1, 1, 1}, false}, /* one Winograd tile */
    {32, 2, 2, 32, {3, 3, 1, 1, 1, 1}, false}, /* smaller than one */
    {32, 1, 1, 32, {3, 3, 1, 1, 1, 1}, false},
    {64, 14, 14, 128, {1, 1, 1, 1, 0, 0}, true},
    {64, 13, 15, 128, {1, 1, 2, 2, 0, 0}, false}, /* a down-sampling branch */
    {96, 7, 7, 48, {1, 1, 1, 1, 0, 0}, false},
    {20, 9, 9, 36, {3, 3, 1, 1, 1, 1}, true}, /* channels off the block */
    {20, 9, 9, 36, {1, 1, 1, 1, 0, 0}, true},
    {7, 11, 5, 5, {1, 1, 1, 1, 0, 0}, true},
    {20, 9, 9, 36, {3, 3, 2, 2, 1, 1}, false},
    {32, 12, 12, 32, {3, 3, 1, 1, 0, 0}, false}, /* no padding */
    {32, 12, 12, 32, {5, 5, 1, 1, 2, 2}, false},
    {64, 12, 12, 64, {3, 3, 1, 1, 1, 1, 8}, false}, /* groups: blocked, or nhwc */
    {128, 12, 12, 128, {3, 3, 2, 2, 1, 1, 32}, true},
    {64, 9, 7, 128, {1, 1, 1, 1, 0, 0, 2}, true},   /* groups: nhwc */
    {32, 12, 12, 32, {3, 3, 1, 1, 1, 1, 32}, true}, /* depthwise: blocked */
    {48, 11, 13, 48, {5, 5, 2, 2, 2, 2, 48}, false},
    {24, 17, 9, 24, {3, 3, 1, 1, 1, 1, 24}, false}, /* half a block left over */
    {36, 9, 11, 36, {5, 5, 1, 1, 2, 2, 36}, true},
    {8, 10, 10, 8, {3, 3, 2, 2, 1, 1, 8}, true},
    {3, 48, 64, 40, {16, 16, 16, 16, 0, 0}, true}, /* patches */
    {3, 64, 96, 96, {32, 32, 32, 32, 0, 0}, true},
};
enum
{
	CONV_CASES = sizeof conv_cases / sizeof conv_cases[0]
};

static int conv_case; /* the one that build_conv_case builds */

__attribute__((unused)) static DfxVal
build_conv_case(DfxGraph *g, DfxVal x)
{
	const ConvCase *k = &conv_cases[conv_case];

	return dfx_conv(g, x, "conv", k->co, k->a, k->bias);
}

__attribute__((unused)) static const char *
conv_case_name(const ConvCase *k, char *buf, size_t size)
{
	snprintf(buf, size, "conv %d to %d, %d x %d, %dx%d stride %d pad %d groups %d", k->ci, k->co, k->h, k->w,
	         k->a.kh, k->a.kw, k->a.sh, k->a.ph, k->a.groups);
	return buf;
}

/* ---- poolings ---- */

static const DfxPool pool_cases[] = {{3, 2, 1, false}, {2, 2, 0, true}, {2, 2, 0, false},
                                     {3, 1, 0, true},  {0, 0, 0, true}, {0, 0, 0, false}};
enum
{
	POOL_CASES = sizeof pool_cases / sizeof pool_cases[0]
};

static int pool_case; /* the one that build_pool_case builds */

__attribute__((unused)) static DfxVal
build_pool_case(DfxGraph *g, DfxVal x)
{
	return dfx_pool(g, x, pool_cases[pool_case]);
}

__attribute__((unused)) static const char *
pool_case_name(const DfxPool *k, int channels, char *buf, size_t size)
{
	snprintf(buf, size, "%s pool %d stride %d pad %d of %d", k->avg ? "average" : "max", k->k, k->s, k->p,
	         channels);
	return buf;
}

/* ---- networks ---- */

typedef DfxVal (*Build)(DfxGraph *g, DfxVal x);

/* What f builds of one input, with weights; finished. */
__attribute__((unused)) static DfxStatus
build_case(DfxGraph *g, Build f, int c, int h, int w, DfxErr *err)
{
	DfxStatus st;

	dfx_output(g, f(g, dfx_input_f32(g, c, h, w)), "out");
	st = dfx_graph_finish(g, err);
	return st == DFX_OK ? dfx_weights_random(g, 11, err) : st;
}

#endif /* DFX_TESTS_CONV_CASES_H */
