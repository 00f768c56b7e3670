/*
 * schedule.h
 *	  Learning rates: torch.optim.lr_scheduler.StepLR.
 */
#ifndef DFX_TRAIN_SCHEDULE_H
#define DFX_TRAIN_SCHEDULE_H

#include <stdint.h>

/*
 * The rate of epoch (from 0): lr, multiplied by gamma after every step_size
 * epochs, one multiplication after the other as PyTorch's scheduler does it.
 * step_size 0: never.
 */
static inline double
dfx_step_lr(double lr, uint64_t step_size, double gamma, uint64_t epoch)
{
	for (uint64_t i = step_size ? epoch / step_size : 0; i > 0; i--)
		lr *= gamma;
	return lr;
}

#endif /* DFX_TRAIN_SCHEDULE_H */
