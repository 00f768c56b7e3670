/*
 * dnnl_compat.h
 *	  One spelling for oneDNN 2.6 and 3.x, and the only place with version
 *	  tests.  What changed upstream, shim by shim:
 *
 *	memory descriptors	2.x: a struct passed by address; 3.x: an opaque handle.
 *						Here DnnlMd is what the calls of either version take,
 *						made by dfx_md_new and freed by dfx_md_free.
 *	primitive creation	2.x: an op descriptor, then dnnl_primitive_desc_create;
 *						3.x: one dnnl_*_primitive_desc_create call.
 *	backward			3.x: dnnl_*_backward_*_primitive_desc_create; both want the
 *						forward descriptor as a hint.
 *	next implementation	2.x: an iterator that makes descriptors; 3.x: a call that
 *						moves a descriptor on.  dfx_conv_pd walks either.
 *	post-ops			3.x dropped the scale of eltwise and gave sum a zero
 *						point and a data type.
 *	scales of integers	2.x: of the output, in the attribute, and the bias is added
 *						before; 3.x: of the weights, an argument of the execution, and the
 *						bias is added after.
 */
#ifndef DFX_CPU_DNNL_COMPAT_H
#define DFX_CPU_DNNL_COMPAT_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <dnnl.h>

#if DNNL_VERSION_MAJOR < 2 || (DNNL_VERSION_MAJOR == 2 && DNNL_VERSION_MINOR < 6)
#error "oneDNN 2.6 or later is needed"
#endif

/*
 * What to convolve; bias NULL: none.  prefer: the first implementation whose
 * name contains this, or the library's own first choice when there is none
 * (NULL: that in any case).
 */
typedef struct DnnlConv
{
	dnnl_alg_kind_t alg;
	const dnnl_dim_t *stride, *pad;
	const char *prefer;
} DnnlConv;

/* What a convolution of a training step computes: its output, or the gradient by its source or its weights.
 */
typedef enum DnnlPass
{
	DNNL_PASS_FORWARD = 0,
	DNNL_PASS_DATA,
	DNNL_PASS_WEIGHTS,
	DNNL_PASS_COUNT
} DnnlPass;

/* The implementation's name, "ref: unnamed" if it has none. */
static inline const char *
dfx_pd_impl(const_dnnl_primitive_desc_t pd)
{
	const char *name = NULL;

	if (dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *) &name) != dnnl_success || !name)
		return "ref: unnamed";
	return name;
}

#if DNNL_VERSION_MAJOR >= 3

typedef dnnl_memory_desc_t DnnlMd;
typedef const_dnnl_memory_desc_t DnnlConstMd;

static inline dnnl_status_t
dfx_md_typed(DnnlMd *md, int rank, const dnnl_dims_t dim, dnnl_data_type_t type, dnnl_format_tag_t tag)
{
	return dnnl_memory_desc_create_with_tag(md, rank, dim, type, tag);
}

static inline dnnl_status_t
dfx_md_matrix(DnnlMd *md, const dnnl_dims_t dim, dnnl_data_type_t type, const dnnl_dims_t stride)
{
	return dnnl_memory_desc_create_with_strides(md, 2, dim, type, stride);
}

static inline void
dfx_md_free(DnnlMd md)
{
	if (md)
		dnnl_memory_desc_destroy(md);
}

static inline dnnl_status_t
dfx_conv_first(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, const DnnlConv *c, DnnlConstMd src,
               DnnlConstMd weights, DnnlConstMd bias, DnnlConstMd dst, const_dnnl_primitive_attr_t attr)
{
	return dnnl_convolution_forward_primitive_desc_create(pd, engine, dnnl_forward_inference, c->alg, src,
	                                                      weights, bias, dst, c->stride, NULL, c->pad, c->pad,
	                                                      attr);
}

static inline dnnl_status_t
dfx_conv_pd(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, const DnnlConv *c, DnnlConstMd src,
            DnnlConstMd weights, DnnlConstMd bias, DnnlConstMd dst, const_dnnl_primitive_attr_t attr)
{
	dnnl_status_t st = dfx_conv_first(pd, engine, c, src, weights, bias, dst, attr);

	if (st != dnnl_success || c->prefer == NULL)
		return st;
	do
	{
		if (strstr(dfx_pd_impl(*pd), c->prefer))
			return dnnl_success;
	} while (dnnl_primitive_desc_next_impl(*pd) == dnnl_success);
	dnnl_primitive_desc_destroy(*pd);
	return dfx_conv_first(pd, engine, c, src, weights, bias, dst, attr);
}

static inline dnnl_status_t
dfx_conv_train_pd(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, DnnlPass pass, const DnnlConv *c,
                  DnnlConstMd src, DnnlConstMd weights, DnnlConstMd bias, DnnlConstMd dst,
                  const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)
{
	dnnl_status_t st;

	if (pass == DNNL_PASS_FORWARD)
		st = dnnl_convolution_forward_primitive_desc_create(pd, engine, dnnl_forward_training, c->alg, src,
		                                                    weights, bias, dst, c->stride, NULL, c->pad,
		                                                    c->pad, attr);
	else if (pass == DNNL_PASS_DATA)
		st = dnnl_convolution_backward_data_primitive_desc_create(
		    pd, engine, c->alg, src, weights, dst, c->stride, NULL, c->pad, c->pad, hint, attr);
	else
		st = dnnl_convolution_backward_weights_primitive_desc_create(
		    pd, engine, c->alg, src, weights, bias, dst, c->stride, NULL, c->pad, c->pad, hint, attr);
	return st;
}

static inline dnnl_status_t
dfx_eltwise_pd(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, dnnl_alg_kind_t alg, DnnlConstMd md,
               float alpha, const_dnnl_primitive_attr_t attr)
{
	return dnnl_eltwise_forward_primitive_desc_create(pd, engine, dnnl_forward_inference, alg, md, md, alpha,
	                                                  0, attr);
}

static inline dnnl_status_t
dfx_matmul_pd(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, DnnlConstMd a, DnnlConstMd b, DnnlConstMd c,
              const_dnnl_primitive_attr_t attr)
{
	return dnnl_matmul_primitive_desc_create(pd, engine, a, b, NULL, c, attr);
}

static inline dnnl_status_t
dfx_post_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t alg, float alpha)
{
	return dnnl_post_ops_append_eltwise(ops, alg, alpha, 0);
}

static inline dnnl_status_t
dfx_post_sum(dnnl_post_ops_t ops, float scale)
{
	return dnnl_post_ops_append_sum(ops, scale, 0, dnnl_data_type_undef);
}

/* What passes the scales when a primitive runs; 0: nothing, they are in its attribute. */
#define DNNL_SCALES_ARG (DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS)
/* Whether the bias is multiplied by them too. */
#define DNNL_SCALES_BIAS false

/* Sums of integers will be multiplied by numbers, one for each output channel. */
static inline dnnl_status_t
dfx_attr_scales(dnnl_primitive_attr_t attr, dnnl_dim_t n, const float *scale)
{
	(void) n;
	(void) scale;
	return dnnl_primitive_attr_set_scales_mask(attr, DNNL_ARG_WEIGHTS, 1 << 0);
}

#else /* 2.x */

typedef dnnl_memory_desc_t *DnnlMd;
typedef const dnnl_memory_desc_t *DnnlConstMd;

/* *md is kept if st is success, else freed. */
static inline dnnl_status_t
dfx_md_made(DnnlMd *md, dnnl_status_t st)
{
	if (st != dnnl_success)
	{
		free(*md);
		*md = NULL;
	}
	return st;
}

static inline dnnl_status_t
dfx_md_typed(DnnlMd *md, int rank, const dnnl_dims_t dim, dnnl_data_type_t type, dnnl_format_tag_t tag)
{
	*md = malloc(sizeof **md);
	if (*md == NULL)
		return dnnl_out_of_memory;
	return dfx_md_made(md, dnnl_memory_desc_init_by_tag(*md, rank, dim, type, tag));
}

static inline dnnl_status_t
dfx_md_matrix(DnnlMd *md, const dnnl_dims_t dim, dnnl_data_type_t type, const dnnl_dims_t stride)
{
	*md = malloc(sizeof **md);
	if (*md == NULL)
		return dnnl_out_of_memory;
	return dfx_md_made(md, dnnl_memory_desc_init_by_strides(*md, 2, dim, type, stride));
}

static inline void
dfx_md_free(DnnlMd md)
{
	free(md);
}

static inline dnnl_status_t
dfx_conv_pd(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, const DnnlConv *c, DnnlConstMd src,
            DnnlConstMd weights, DnnlConstMd bias, DnnlConstMd dst, const_dnnl_primitive_attr_t attr)
{
	dnnl_convolution_desc_t desc;
	dnnl_primitive_desc_iterator_t it;
	dnnl_status_t st;
	bool found = false;

	st = dnnl_convolution_forward_desc_init(&desc, dnnl_forward_inference, c->alg, src, weights, bias, dst,
	                                        c->stride, c->pad, c->pad);
	if (st == dnnl_success && c->prefer)
	{
		st = dnnl_primitive_desc_iterator_create(&it, &desc, attr, engine, NULL);
		if (st != dnnl_success)
			return st;
		do
		{
			*pd = dnnl_primitive_desc_iterator_fetch(it);
			found = *pd && strstr(dfx_pd_impl(*pd), c->prefer);
			if (*pd && !found)
				dnnl_primitive_desc_destroy(*pd);
		} while (!found && dnnl_primitive_desc_iterator_next(it) == dnnl_success);
		dnnl_primitive_desc_iterator_destroy(it);
	}
	if (st != dnnl_success || found)
		return st;
	return dnnl_primitive_desc_create(pd, &desc, attr, engine, NULL);
}

static inline dnnl_status_t
dfx_conv_train_pd(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, DnnlPass pass, const DnnlConv *c,
                  DnnlConstMd src, DnnlConstMd weights, DnnlConstMd bias, DnnlConstMd dst,
                  const_dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr)
{
	dnnl_convolution_desc_t desc;
	dnnl_status_t st;

	if (pass == DNNL_PASS_FORWARD)
		st = dnnl_convolution_forward_desc_init(&desc, dnnl_forward_training, c->alg, src, weights, bias, dst,
		                                        c->stride, c->pad, c->pad);
	else if (pass == DNNL_PASS_DATA)
		st = dnnl_convolution_backward_data_desc_init(&desc, c->alg, src, weights, dst, c->stride, c->pad,
		                                              c->pad);
	else
		st = dnnl_convolution_backward_weights_desc_init(&desc, c->alg, src, weights, bias, dst, c->stride,
		                                                 c->pad, c->pad);
	return st == dnnl_success ? dnnl_primitive_desc_create(pd, &desc, attr, engine, hint) : st;
}

static inline dnnl_status_t
dfx_eltwise_pd(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, dnnl_alg_kind_t alg, DnnlConstMd md,
               float alpha, const_dnnl_primitive_attr_t attr)
{
	dnnl_eltwise_desc_t desc;
	dnnl_status_t st;

	st = dnnl_eltwise_forward_desc_init(&desc, dnnl_forward_inference, alg, md, alpha, 0);
	if (st != dnnl_success)
		return st;
	return dnnl_primitive_desc_create(pd, &desc, attr, engine, NULL);
}

static inline dnnl_status_t
dfx_matmul_pd(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, DnnlConstMd a, DnnlConstMd b, DnnlConstMd c,
              const_dnnl_primitive_attr_t attr)
{
	dnnl_matmul_desc_t desc;
	dnnl_status_t st = dnnl_matmul_desc_init(&desc, a, b, NULL, c);

	return st == dnnl_success ? dnnl_primitive_desc_create(pd, &desc, attr, engine, NULL) : st;
}

static inline dnnl_status_t
dfx_post_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t alg, float alpha)
{
	return dnnl_post_ops_append_eltwise(ops, 1, alg, alpha, 0);
}

static inline dnnl_status_t
dfx_post_sum(dnnl_post_ops_t ops, float scale)
{
	return dnnl_post_ops_append_sum(ops, scale);
}

#define DNNL_SCALES_ARG  0
#define DNNL_SCALES_BIAS true

static inline dnnl_status_t
dfx_attr_scales(dnnl_primitive_attr_t attr, dnnl_dim_t n, const float *scale)
{
	return dnnl_primitive_attr_set_output_scales(attr, n, 1 << 1, scale);
}

#endif

/* Of floats. */
static inline dnnl_status_t
dfx_md_new(DnnlMd *md, int rank, const dnnl_dims_t dim, dnnl_format_tag_t tag)
{
	return dfx_md_typed(md, rank, dim, dnnl_f32, tag);
}

/*
 * An attribute for primitives whose scratchpad comes from the caller, with
 * post-ops to fill; dfx_attr_end() must follow, with what came of that.
 */
static inline dnnl_status_t
dfx_attr_begin(dnnl_primitive_attr_t *attr, dnnl_post_ops_t *ops)
{
	dnnl_status_t st;

	*attr = NULL;
	*ops = NULL;
	st = dnnl_primitive_attr_create(attr);
	if (st == dnnl_success)
		st = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
	if (st == dnnl_success)
		st = dnnl_post_ops_create(ops);
	return st;
}

/* The attribute gets its post-ops, unless st or that is a failure: then it is NULL, and nothing is left. */
static inline dnnl_status_t
dfx_attr_end(dnnl_primitive_attr_t *attr, dnnl_post_ops_t ops, dnnl_status_t st)
{
	if (st == dnnl_success)
		st = dnnl_primitive_attr_set_post_ops(*attr, ops);
	if (ops)
		dnnl_post_ops_destroy(ops);
	if (st != dnnl_success && *attr)
	{
		dnnl_primitive_attr_destroy(*attr);
		*attr = NULL;
	}
	return st;
}

#endif /* DFX_CPU_DNNL_COMPAT_H */
