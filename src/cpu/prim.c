/*
 * prim.c
 *	  The library's primitives in steps: what a primitive needs beside itself,
 *	  and each worker's arguments, which point into its arena.
 */
#include "cpu/internal.h"

dnnl_data_type_t
cpu_dnnl_type(CpuType type)
{
	return type == CPU_U8 ? dnnl_u8 : type == CPU_BF16 ? dnnl_bf16 : dnnl_f32;
}

const char *
cpu_type_name(CpuType type)
{
	return dfx_precision_name[type == CPU_BF16 ? DFX_PRECISION_BF16 : DFX_PRECISION_FP32];
}

const_dnnl_primitive_desc_t
cpu_prim_pd(const CpuPrim *prim)
{
	const_dnnl_primitive_desc_t pd = NULL;

	dnnl_primitive_get_primitive_desc(prim->prim, &pd);
	return pd;
}

size_t
cpu_prim_scratch(const CpuPrim *prim)
{
	return dnnl_memory_desc_get_size(
	    dnnl_primitive_desc_query_md(cpu_prim_pd(prim), dnnl_query_scratchpad_md, 0));
}

DfxStatus
cpu_prim_bind(DfxPlan *p, CpuPrim *prim, const CpuPrimArg *own, int nown, const dnnl_exec_arg_t *shared,
              int nshared, DfxErr *err)
{
	const_dnnl_primitive_desc_t pd = cpu_prim_pd(prim);
	size_t threads = (size_t) p->dev->threads;

	prim->narg = nown + nshared;
	prim->arg = cpu_plan_alloc(p, threads * (size_t) prim->narg * sizeof *prim->arg, err);
	if (prim->arg == NULL)
		return DFX_ENOMEM;
	for (size_t w = 0; w < threads; w++)
	{
		dnnl_exec_arg_t *arg = prim->arg + w * (size_t) prim->narg;

		for (int i = 0; i < nown; i++)
		{
			int which = own[i].what == dnnl_query_exec_arg_md ? own[i].arg : 0;
			DfxStatus st = cpu_plan_memory(p, dnnl_primitive_desc_query_md(pd, own[i].what, which),
			                               p->arena[w] + own[i].off, &arg[i].memory, err);

			if (st != DFX_OK)
				return st;
			arg[i].arg = own[i].arg;
		}
		for (int i = 0; i < nshared; i++)
			arg[nown + i] = shared[i];
	}
	return DFX_OK;
}

dnnl_status_t
cpu_prim_execute(const CpuPrim *prim, const CpuRun *run)
{
	return dnnl_primitive_execute(prim->prim, run->plan->dev->stream[run->worker], prim->narg,
	                              prim->arg + (size_t) run->worker * (size_t) prim->narg);
}

dnnl_status_t
cpu_matmul_prim(CpuBuild *b, CpuStep *s, int k, DnnlConstMd x, DnnlConstMd y, DnnlConstMd z,
                dnnl_primitive_attr_t attr)
{
	dnnl_primitive_desc_t pd = NULL;
	dnnl_status_t st = dfx_matmul_pd(&pd, b->dev->engine, x, y, z, attr);

	dnnl_primitive_attr_destroy(attr);
	if (st == dnnl_success && strncmp(dfx_pd_impl(pd), "ref", 3) == 0)
		st = dnnl_unimplemented;
	if (st == dnnl_success)
	{
		strncpy(s->impl, dfx_pd_impl(pd), sizeof s->impl - 1);
		st = dnnl_primitive_create(&s->prim[k].prim, pd);
	}
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	return st;
}
