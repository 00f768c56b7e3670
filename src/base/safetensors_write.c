/*
 * safetensors_write.c
 *	  The header of a safetensors file.
 *
 * The text is composed twice by the same function: once to measure, once into
 * the buffer of exactly that size.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/safetensors.h"

/* Text under composition; out is NULL while measuring. */
typedef struct StText
{
	char *out;
	size_t cap, used;
} StText;

__attribute__((format(printf, 2, 3))) static void
st_print(StText *t, const char *fmt, ...)
{
	char piece[64]; /* punctuation and one number */
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(piece, sizeof piece, fmt, ap);
	va_end(ap);
	if (t->out)
		memcpy(t->out + t->used, piece, (size_t) n);
	t->used += (size_t) n;
}

static void
st_string(StText *t, const char *s)
{
	if (t->out)
		t->used += dfx_json_quote(s, t->out + t->used, t->cap - t->used);
	else
		t->used += dfx_json_quote(s, NULL, 0);
}

static void
st_compose(StText *t, const DfxTensor *tensor, size_t ntensor, const char *const *meta_keys,
           const char *const *meta_values, size_t nmeta)
{
	const char *between = "";
	uint64_t offset = 0;

	st_print(t, "{");
	if (nmeta > 0)
	{
		st_print(t, "\"__metadata__\":{");
		for (size_t i = 0; i < nmeta; i++)
		{
			st_print(t, "%s", i ? "," : "");
			st_string(t, meta_keys[i]);
			st_print(t, ":");
			st_string(t, meta_values[i]);
		}
		st_print(t, "}");
		between = ",";
	}
	for (size_t i = 0; i < ntensor; i++, between = ",")
	{
		st_print(t, "%s", between);
		st_string(t, tensor[i].name);
		st_print(t, ":{\"dtype\":\"%s\",\"shape\":[", dfx_dtype_name(tensor[i].dtype));
		for (uint32_t d = 0; d < tensor[i].rank; d++)
			st_print(t, "%s%" PRIu64, d ? "," : "", tensor[i].dim[d]);
		st_print(t, "],\"data_offsets\":[%" PRIu64, offset);
		offset += tensor[i].nbytes;
		st_print(t, ",%" PRIu64 "]}", offset);
	}
	st_print(t, "}");
	while (t->used % 8 != 0) /* the 8 bytes of length before it keep the alignment */
		st_print(t, " ");
}

/* What dfx_st_parse() would refuse is not written. */
static DfxStatus
st_check_writable(const DfxTensor *tensor, size_t ntensor, DfxErr *err)
{
	uint64_t total = 0, elements, nbytes;

	if (ntensor > DFX_ST_MAX_TENSORS)
		return dfx_fail(err, DFX_EINVAL, "%zu tensors, at most %d fit a weight file", ntensor,
		                DFX_ST_MAX_TENSORS);
	for (size_t i = 0; i < ntensor; i++)
		if ((unsigned) tensor[i].dtype >= DFX_DTYPE_COUNT || tensor[i].name[0] == '\0' ||
		    !dfx_tensor_count(&tensor[i], &elements, &nbytes) || nbytes != tensor[i].nbytes ||
		    __builtin_add_overflow(total, nbytes, &total))
			return dfx_fail(err, DFX_EINVAL, "tensor \"%s\" is not consistently described", tensor[i].name);
	return DFX_OK;
}

DfxStatus
dfx_st_header(const DfxTensor *tensor, size_t ntensor, const char *const *meta_keys,
              const char *const *meta_values, size_t nmeta, uint8_t **out, size_t *out_len, DfxErr *err)
{
	StText t = {0};
	size_t json_len;
	DfxStatus status = st_check_writable(tensor, ntensor, err);

	*out = NULL;
	if (status != DFX_OK)
		return status;
	st_compose(&t, tensor, ntensor, meta_keys, meta_values, nmeta);
	json_len = t.used;
	if (json_len > DFX_ST_MAX_HEADER)
		return dfx_fail(err, DFX_EINVAL, "the safetensors header would take %zu bytes, at most %u may",
		                json_len, DFX_ST_MAX_HEADER);
	*out = malloc(8 + json_len);
	if (!*out)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a safetensors header of %zu bytes", json_len);
	for (int i = 0; i < 8; i++)
		(*out)[i] = (uint8_t) ((uint64_t) json_len >> (8 * i));
	t = (StText){.out = (char *) *out + 8, .cap = json_len};
	st_compose(&t, tensor, ntensor, meta_keys, meta_values, nmeta);
	*out_len = 8 + json_len;
	return DFX_OK;
}
