/*
 * heat.c
 *	  Copies of an image into batches, their logits into a heatmap.
 */
#include "engine/heat.h"

#include <stdlib.h>
#include <string.h>

#include "engine/verdict.h"

DfxStatus
dfx_heat_begin(DfxHeat *h, const DfxModel *model, const uint8_t *pixels, uint32_t class, DfxErr *err)
{
	DfxStatus st = class == DFX_CLASS_ANY ? dfx_verdict_check(&model->meta, err)
	                                      : dfx_verdict_knows(&model->meta, class, err);

	*h = (DfxHeat){.model = model, .pixels = pixels, .class = class};
	return st;
}

int
dfx_heat_fill(const DfxHeat *h, int room, uint8_t *in)
{
	size_t bytes = dfx_model_input_bytes(h->model);
	int left = DFX_HEAT_IMAGES - h->done, n = left < room ? left : room;

	for (int i = 0; i < n; i++, in += bytes)
		if (h->done + i == 0)
			memcpy(in, h->pixels, bytes);
		else
			dfx_occlude(h->pixels, (int) h->model->input_size, h->done + i - 1, in);
	return n;
}

DfxStatus
dfx_heat_take(DfxHeat *h, int n, const float *logits, DfxErr *err)
{
	const DfxModelMeta *meta = &h->model->meta;
	DfxStatus st = DFX_OK;

	for (; n > 0 && st == DFX_OK; n--, h->done++, logits += h->model->logits)
	{
		double score;

		if (h->class == DFX_CLASS_ANY)
		{
			DfxVerdictReply verdict;

			st = dfx_verdict(meta, logits, &verdict, err);
			h->class = verdict.label;
		}
		if (st == DFX_OK)
			st = dfx_verdict_evidence(meta, logits, h->class, &score, err);
		if (st != DFX_OK)
			break;
		if (h->done == 0)
			h->whole = score;
		else
			h->fall[h->done - 1] = (float) (h->whole - score);
	}
	return st;
}

DfxStatus
dfx_heat_encode(const DfxHeat *h, DfxEncoded *png, DfxErr *err)
{
	DfxImage image = {h->model->input_size, h->model->input_size, malloc(dfx_model_input_bytes(h->model))};
	DfxStatus st;

	if (!image.pixels)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a heatmap");
	dfx_occlude_paint(h->pixels, (int) image.width, h->fall, DFX_HEAT_LEAST, image.pixels);
	st = dfx_encode_png(&image, png, err);
	free(image.pixels);
	return st;
}
