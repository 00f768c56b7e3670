/*
 * dnn_graph.c
 *	  A product as cuDNN's graph of operations.
 *
 * The graph is [* scale, + shift, [ReLU],] convolution, + bias, [+ residual],
 * [ReLU]; what lies between is virtual, so that one kernel does it all, and
 * fp32 but for what tensor cores read.  The prologue's scale and shift are
 * fp32, one a channel; the bias comes in half precision: with an fp32 one only
 * kernels compiled at run time are left, which a prologue has anyhow.
 *
 * There is no prologue with padding: cuDNN does not say whether its zeros come
 * before or behind it, and lower.c makes none.
 * Documentation: cuDNN, "Graph API", backend descriptor types.
 */
#include "cuda/dnn.h"

/* ---- descriptors ---- */

void
gpu_dnn_check(DnnGraph *g, cudnnStatus_t s, const char *what)
{
	if (g->status == CUDNN_STATUS_SUCCESS && s != CUDNN_STATUS_SUCCESS)
	{
		g->status = s;
		g->what = what;
	}
}

Desc
gpu_dnn_new(DnnGraph *g, cudnnBackendDescriptorType_t type)
{
	Desc d = NULL;

	if (g->status != CUDNN_STATUS_SUCCESS)
		return NULL;
	if (g->nkeep == (int) (sizeof g->keep / sizeof g->keep[0]))
		gpu_dnn_check(g, CUDNN_STATUS_INTERNAL_ERROR, "too many descriptors");
	else
		gpu_dnn_check(g, g->dnn->f.cudnnBackendCreateDescriptor(type, &d), "creating a descriptor");
	if (d)
		g->keep[g->nkeep++] = d;
	return d;
}

void
gpu_dnn_set(DnnGraph *g, Desc d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
            int64_t n, const void *value, const char *what)
{
	if (g->status == CUDNN_STATUS_SUCCESS)
		gpu_dnn_check(g, g->dnn->f.cudnnBackendSetAttribute(d, name, type, n, value), what);
}

void
gpu_dnn_set_desc(DnnGraph *g, Desc d, cudnnBackendAttributeName_t name, Desc value, const char *what)
{
	gpu_dnn_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value, what);
}

void
gpu_dnn_finalize(DnnGraph *g, Desc d, const char *what)
{
	if (g->status == CUDNN_STATUS_SUCCESS)
		gpu_dnn_check(g, g->dnn->f.cudnnBackendFinalize(d), what);
}

void
gpu_dnn_free(DnnGraph *g)
{
	while (g->nkeep > 0)
		g->dnn->f.cudnnBackendDestroyDescriptor(g->keep[--g->nkeep]);
}

/* dim and stride in the order n, c, h, w. */
static Desc
dnn_tensor(DnnGraph *g, int64_t uid, cudnnDataType_t type, const int64_t dim[4], const int64_t stride[4])
{
	Desc d = gpu_dnn_new(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
	int64_t align = 16;
	bool is_virtual = uid >= DNN_VIRTUAL;

	gpu_dnn_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, "a tensor's type");
	gpu_dnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim, "a tensor's dimensions");
	gpu_dnn_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride, "a tensor's strides");
	gpu_dnn_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid, "a tensor's id");
	gpu_dnn_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align, "a tensor's alignment");
	gpu_dnn_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual, "a virtual tensor");
	gpu_dnn_finalize(g, d, "a tensor");
	return d;
}

/* Rows of c channels, ld apart. */
static Desc
dnn_rows(DnnGraph *g, int64_t uid, cudnnDataType_t type, int n, int c, int h, int w, int ld)
{
	int64_t dim[4] = {n, c, h, w}, stride[4] = {(int64_t) h * w * ld, 1, (int64_t) w * ld, ld};

	return dnn_tensor(g, uid, type, dim, stride);
}

/* One number a channel. */
static Desc
dnn_channels(DnnGraph *g, int64_t uid, cudnnDataType_t type, int c)
{
	return dnn_rows(g, uid, type, 1, c, 1, 1, c);
}

/* What lies between two operations, rows of c channels; it has no memory. */
static Desc
dnn_between(DnnGraph *g, cudnnDataType_t type, int n, int c, int h, int w)
{
	return dnn_rows(g, g->uid++, type, n, c, h, w, c);
}

/* ---- operations ---- */

static void
dnn_add_op(DnnGraph *g, Desc op, const char *what)
{
	gpu_dnn_finalize(g, op, what);
	g->op[g->nop++] = op;
}

static void
dnn_convolution(DnnGraph *g, const GpuConvArgs *a, Desc x, Desc w, Desc y)
{
	Desc c = gpu_dnn_new(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR), op;
	cudnnDataType_t compute = CUDNN_DATA_FLOAT;
	cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
	int64_t dims = 2, pad[2] = {a->ph, a->pw}, step[2] = {a->sh, a->sw}, dilation[2] = {1, 1};
	float one = 1, zero = 0;

	gpu_dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute, "a convolution");
	gpu_dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode,
	            "a convolution");
	gpu_dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims, "a convolution");
	gpu_dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pad,
	            "a convolution's padding");
	gpu_dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pad,
	            "a convolution's padding");
	gpu_dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, step,
	            "a convolution's stride");
	gpu_dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation, "a convolution");
	gpu_dnn_finalize(g, c, "a convolution");

	op = gpu_dnn_new(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
	gpu_dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x, "a convolution's input");
	gpu_dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w, "a convolution's weights");
	gpu_dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y, "a convolution's output");
	gpu_dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, c, "a convolution");
	gpu_dnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one, "alpha");
	gpu_dnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero, "beta");
	dnn_add_op(g, op, "a convolution's operation");
}

/* y = x + b, y = x * b, or y = max(x, 0), which takes no b. */
static void
dnn_pointwise(DnnGraph *g, cudnnPointwiseMode_t mode, Desc x, Desc b, Desc y)
{
	Desc p = gpu_dnn_new(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR), op;
	cudnnDataType_t compute = CUDNN_DATA_FLOAT;

	gpu_dnn_set(g, p, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode, "a pointwise mode");
	gpu_dnn_set(g, p, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute, "a pointwise type");
	gpu_dnn_finalize(g, p, "a pointwise operation");

	op = gpu_dnn_new(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
	gpu_dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, p, "a pointwise operation");
	gpu_dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x, "a pointwise input");
	if (b)
		gpu_dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b, "a pointwise input");
	gpu_dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y, "a pointwise output");
	dnn_add_op(g, op, "a pointwise operation");
}

/* Of x, what the convolution reads: x * scale + shift, cut at zero; rounded to type at the end only. */
static Desc
dnn_prologue(DnnGraph *g, const GpuConvArgs *a, cudnnDataType_t type, int n, Desc x)
{
	bool relu = a->pre_act == GPU_ACT_RELU;
	Desc scale = dnn_channels(g, DNN_PRE_SCALE, CUDNN_DATA_FLOAT, a->ci);
	Desc shift = dnn_channels(g, DNN_PRE_SHIFT, CUDNN_DATA_FLOAT, a->ci);
	Desc scaled = dnn_between(g, CUDNN_DATA_FLOAT, n, a->ci, a->ih, a->iw);
	Desc shifted = dnn_between(g, relu ? CUDNN_DATA_FLOAT : type, n, a->ci, a->ih, a->iw), cut;

	dnn_pointwise(g, CUDNN_POINTWISE_MUL, x, scale, scaled);
	dnn_pointwise(g, CUDNN_POINTWISE_ADD, scaled, shift, shifted);
	if (!relu)
		return shifted;
	cut = dnn_between(g, type, n, a->ci, a->ih, a->iw);
	dnn_pointwise(g, CUDNN_POINTWISE_RELU_FWD, shifted, NULL, cut);
	return cut;
}

/* From the convolution's sums to y: + bias, + residual, cut at zero. */
static void
dnn_epilogue(DnnGraph *g, const GpuConvArgs *a, cudnnDataType_t type, int n, Desc sums, Desc y)
{
	bool relu = a->epi.act == GPU_ACT_RELU, add = a->epi.add != NULL;
	Desc bias = dnn_channels(g, DNN_BIAS, type, a->co);
	Desc at = relu || add ? dnn_between(g, CUDNN_DATA_FLOAT, n, a->co, a->oh, a->ow) : y;

	dnn_pointwise(g, CUDNN_POINTWISE_ADD, sums, bias, at);
	if (add)
	{
		Desc z = dnn_rows(g, DNN_ADD, type, n, a->co, a->oh, a->ow, a->epi.ldadd);
		Desc to = relu ? dnn_between(g, CUDNN_DATA_FLOAT, n, a->co, a->oh, a->ow) : y;

		dnn_pointwise(g, CUDNN_POINTWISE_ADD, at, z, to);
		at = to;
	}
	if (relu)
		dnn_pointwise(g, CUDNN_POINTWISE_RELU_FWD, at, NULL, y);
}

Desc
gpu_dnn_describe(DnnGraph *g, const GpuConvArgs *a, cudnnDataType_t type, int n)
{
	int cig = a->ci / a->groups;
	int64_t wdim[4] = {a->co, cig, a->kh, a->kw};
	int64_t wstride[4] = {(int64_t) a->kh * a->kw * cig, 1, (int64_t) a->kw * cig, cig};
	Desc x = dnn_rows(g, DNN_X, type, n, a->ci, a->ih, a->iw, a->ldx);
	Desc w = dnn_tensor(g, DNN_W, type, wdim, wstride);
	Desc sums = dnn_between(g, CUDNN_DATA_FLOAT, n, a->co, a->oh, a->ow);
	Desc y = dnn_rows(g, DNN_Y, type, n, a->co, a->oh, a->ow, a->ldy), graph;

	if (a->pre_scale)
		x = dnn_prologue(g, a, type, n, x);
	dnn_convolution(g, a, x, w, sums);
	dnn_epilogue(g, a, type, n, sums, y);

	graph = gpu_dnn_new(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
	gpu_dnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->nop, g->op,
	            "a graph");
	if (g->dnn->handle)
		gpu_dnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->dnn->handle,
		            "a graph");
	gpu_dnn_finalize(g, graph, "an operation graph");
	return graph;
}
