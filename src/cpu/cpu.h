/*
 * cpu.h
 *	  The oneDNN backend: inference and training on whatever x86-64 (or other)
 *	  CPU the process finds, with no device to set up: in fp32, and inference in
 *	  bf16 too where the CPU multiplies bf16.  It is what a machine without a GPU
 *	  uses, and always present.
 */
#ifndef DFX_CPU_CPU_H
#define DFX_CPU_CPU_H

#include "nn/backend.h"

extern const DfxBackend dfx_cpu_backend; /* name "cpu" */

/*
 * The library's name for the implementation it chose for op number step of a
 * plan ("jit:avx512_core", "jit_wino_4x3:avx512_core"), NULL for an op that
 * runs without the library or past the end.  A plan for training has three
 * for each op: forward, the gradients by source and by weights.  For tests and
 * diagnostics.
 */
extern const char *dfx_cpu_plan_impl(const DfxPlan *plan, int step);
extern int dfx_cpu_plan_steps(const DfxPlan *plan);

/* Into how many parts a lone image is divided when workers are free (strands.c); 1: it is not. */
extern int dfx_cpu_plan_strands(const DfxPlan *plan);

#endif /* DFX_CPU_CPU_H */
