/*
 * loops.h
 *	  Loops over the element functions: what launch.cc and launch_train.cc share.
 */
#ifndef DFX_CUDA_HOST_LOOPS_H
#define DFX_CUDA_HOST_LOOPS_H

#include <vector>

#include "cuda/element.cuh"
#include "cuda/group.cuh"

/* One after another, in an order that no user of a group may count on. */
struct HostLoops
{
	bool backwards;

	template <class Op, class Run> int all(const GpuGroup<Op> &group, Run run)
	{
		for (int i = 0; i < group.count; i++)
			run(group.op[backwards ? group.count - 1 - i : i]);
		return 0;
	}
	template <class Op> int each(const GpuGroup<Op> &group, size_t rows, int width)
	{
		return all(group,
		           [=](const Op &op)
		           {
			           for (size_t row = 0; row < rows; row++)
				           for (int i = 0; i < width; i++)
					           op(row, i);
		           });
	}
	template <class T, class Op> int lanes(const GpuGroup<Op> &group, size_t rows, int floats)
	{
		std::vector<float> scratch((size_t) floats);

		return all(group,
		           [&](const Op &op)
		           {
			           for (size_t row = 0; row < rows; row++)
				           op(row, scratch.data(), GpuOneLane());
		           });
	}
};

#endif /* DFX_CUDA_HOST_LOOPS_H */
