/*
 * tensor.c
 *	  Tensor descriptions: dtype names, checked sizes, and conversion to float.
 *
 * Data may lie at any address of a mapped file, so elements are read with
 * memcpy and never through a typed pointer.
 */
#include "base/tensor.h"

#include <string.h>

static const struct
{
	const char *name;
	size_t size;
} tensor_dtypes[] = {
    [DFX_F32] = {"F32", 4},
    [DFX_F16] = {"F16", 2},
    [DFX_BF16] = {"BF16", 2},
    [DFX_I64] = {"I64", 8},
};
_Static_assert(sizeof tensor_dtypes / sizeof tensor_dtypes[0] == DFX_DTYPE_COUNT, "a dtype lacks its row");

const char *
dfx_dtype_name(DfxDtype dtype)
{
	return (unsigned) dtype < DFX_DTYPE_COUNT ? tensor_dtypes[dtype].name : "?";
}

bool
dfx_dtype_parse(const char *name, size_t len, DfxDtype *dtype)
{
	for (int i = 0; i < DFX_DTYPE_COUNT; i++)
		if (strlen(tensor_dtypes[i].name) == len && memcmp(tensor_dtypes[i].name, name, len) == 0)
		{
			*dtype = (DfxDtype) i;
			return true;
		}
	return false;
}

size_t
dfx_dtype_size(DfxDtype dtype)
{
	return (unsigned) dtype < DFX_DTYPE_COUNT ? tensor_dtypes[dtype].size : 0;
}

bool
dfx_tensor_count(const DfxTensor *t, uint64_t *elements, uint64_t *nbytes)
{
	uint64_t n = 1, bytes;
	bool empty = false, over = false;

	if (t->rank > DFX_MAX_RANK)
		return false;
	for (uint32_t i = 0; i < t->rank; i++)
	{
		/* [huge, huge, 0] is empty, not an overflow: the answer may not depend on the order. */
		if (t->dim[i] == 0)
			empty = true;
		else if (__builtin_mul_overflow(n, t->dim[i], &n))
			over = true;
	}
	if (empty)
		n = 0;
	else if (over)
		return false;
	if (__builtin_mul_overflow(n, (uint64_t) dfx_dtype_size(t->dtype), &bytes))
		return false;
	*elements = n;
	*nbytes = bytes;
	return true;
}

static float
tensor_float_of_bits(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof f);
	return f;
}

/* IEEE 754 binary16 to binary32: exact, NaN payloads kept in the upper bits. */
static float
tensor_float_of_half(uint16_t h)
{
	uint32_t sign = (uint32_t) (h & 0x8000u) << 16;
	uint32_t exponent = (h >> 10) & 0x1f;
	uint32_t fraction = h & 0x3ffu;

	if (exponent == 0)
	{
		/* Zero or subnormal: fraction x 2^-24, which float holds exactly. */
		float f = (float) fraction * 0x1p-24f;

		return sign ? -f : f;
	}
	if (exponent == 31)
		return tensor_float_of_bits(sign | 0x7f800000u | fraction << 13);
	return tensor_float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

bool
dfx_tensor_to_f32(const DfxTensor *t, uint64_t first, uint64_t n, float *out)
{
	const uint8_t *p = t->data;
	uint16_t raw;

	switch (t->dtype)
	{
		case DFX_F32:
			if (n > 0)
				memcpy(out, p + first * 4, n * 4);
			return true;
		case DFX_F16:
			for (uint64_t i = 0; i < n; i++)
			{
				memcpy(&raw, p + (first + i) * 2, 2);
				out[i] = tensor_float_of_half(raw);
			}
			return true;
		case DFX_BF16:
			for (uint64_t i = 0; i < n; i++)
			{
				memcpy(&raw, p + (first + i) * 2, 2);
				out[i] = tensor_float_of_bits((uint32_t) raw << 16);
			}
			return true;
		case DFX_I64:
		case DFX_DTYPE_COUNT:
			break;
	}
	return false;
}

static uint32_t
tensor_bits_of_float(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	return bits;
}

/* Drop the low bits of a magnitude, rounding to the nearest, halves to even. */
static uint32_t
tensor_round_bits(uint32_t v, unsigned drop)
{
	uint32_t half = 1u << (drop - 1), odd = v >> drop & 1;

	return (v + half - 1 + odd) >> drop;
}

static uint16_t
tensor_half_of_float(float f)
{
	uint32_t bits = tensor_bits_of_float(f), sign = bits >> 16 & 0x8000u, a = bits & 0x7fffffffu, shift;

	if (a > 0x7f800000u)
		return (uint16_t) (sign | 0x7e00u | (a >> 13 & 0x3ffu));
	if (a >= 0x477ff000u) /* 65520 rounds up beyond the largest, 65504 */
		return (uint16_t) (sign | 0x7c00u);
	if (a >= 0x38800000u) /* 2^-14, the smallest normal */
		return (uint16_t) (sign | (tensor_round_bits(a, 13) - (112u << 10)));
	if (a < 0x33000000u) /* 2^-25 rounds to even, which is 0 */
		return (uint16_t) sign;
	shift = 126 - (a >> 23);
	return (uint16_t) (sign | tensor_round_bits((a & 0x7fffffu) | 0x800000u, shift));
}

static uint16_t
tensor_bfloat_of_float(float f)
{
	uint32_t bits = tensor_bits_of_float(f);

	if ((bits & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t) (bits >> 16 | 0x40u);
	return (uint16_t) tensor_round_bits(bits, 16);
}

bool
dfx_tensor_of_f32(DfxDtype dtype, const float *in, uint64_t n, void *out)
{
	uint16_t infinity = dtype == DFX_F16 ? 0x7c00u : 0x7f80u, *to = out;
	bool finite = true;

	if (dtype == DFX_F32)
	{
		if (n > 0)
			memcpy(out, in, n * 4);
		return true;
	}
	if (dtype != DFX_F16 && dtype != DFX_BF16)
		return false;
	for (uint64_t i = 0; i < n; i++)
	{
		to[i] = dtype == DFX_F16 ? tensor_half_of_float(in[i]) : tensor_bfloat_of_float(in[i]);
		if ((to[i] & 0x7fffu) == infinity && (tensor_bits_of_float(in[i]) & 0x7fffffffu) != 0x7f800000u)
			finite = false;
	}
	return finite;
}

int
dfx_tensor_compare(const void *a, const void *b)
{
	return strcmp(((const DfxTensor *) a)->name, ((const DfxTensor *) b)->name);
}
