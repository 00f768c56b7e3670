/*
 * test_fuzz_safetensors.c
 *	  Does the safetensors reader survive mutated headers, and is everything
 *	  it accepts what it promises to be, also after other people's names were
 *	  exchanged for ours?
 *
 * Bytes are mutated, and tokens that mean something are exchanged, so that
 * many headers stay well-formed and reach the later checks.
 */
#include <stdio.h>

#include "base/checkpoint.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/tap.h"

#define ROUNDS 60000
#define DATA   48 /* bytes of data behind the good headers */

static const char *const originals[] = {
    "{\"__metadata__\":{\"kind\":\"trinet\",\"classes\":\"dm,gan,real\"},"
    "\"conv.weight\":{\"dtype\":\"F32\",\"shape\":[2,1,2],\"data_offsets\":[0,16]},"
    "\"conv.bias\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[16,24]},"
    "\"bn.n\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[24,32]},"
    "\"bn.none\":{\"dtype\":\"BF16\",\"shape\":[0],\"data_offsets\":[32,32]},"
    "\"fc\":{\"dtype\":\"BF16\",\"shape\":[8],\"data_offsets\":[32,48]}}  ",
    "{\"\\u00e9\\ud83d\\ude00\\n\":{\"data_offsets\":[0,48],\"shape\":[12],\"dtype\":\"F32\"}}",
    "{\"model1.conv_stem.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"
    "\"model2.blocks.0.1.conv_pw.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]},"
    "\"model3.blocks.12.345.conv_pw.bias\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[16,24]},"
    "\"classifier.0.bias\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[24,30]},"
    "\"model1.conv_head.weight\":{\"dtype\":\"BF16\",\"shape\":[9],\"data_offsets\":[30,48]}}",
    "{ \"a\" : { \"dtype\" : \"F32\" , \"shape\" : [ 12 ] , \"data_offsets\" : [ 0 , 48 ] } }",
};

static const char *const tokens[] = {
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "0",
    "48",
    "16",
    "F32",
    "BF16",
    "\"I64\"",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "1e9",
    "null",
    "\\u0000",
    "\\ud800",
    "\xff",
    "\xed\xa0\x80",
    "__metadata__",
    "shape",
    "dtype",
    "data_offsets",
    "[0,48]",
    "model2.",
    "patch_embed.proj.weight",
    "stem.conv.weight",
    "blocks.0.",
    "999",
    ".num_batches_tracked",
};

static size_t accepted, refused;

/* Write a token over or into the text. */
static void
splice_token(uint8_t *p, size_t *len, size_t cap)
{
	const char *t = tokens[fuzz_below(sizeof tokens / sizeof tokens[0])];
	size_t n = strlen(t), at = fuzz_below(*len + 1);

	if (fuzz_below(2) == 0 && at + n <= *len)
		memcpy(p + at, t, n);
	else if (*len + n <= cap)
	{
		memmove(p + at + n, p + at, *len - at);
		memcpy(p + at, t, n);
		*len += n;
	}
}

static bool
same_tensors(const DfxSafetensors *a, const DfxSafetensors *b)
{
	if (a->ntensor != b->ntensor || a->nmeta != b->nmeta)
		return false;
	for (size_t i = 0; i < a->ntensor; i++)
		if (memcmp(&a->tensor[i], &b->tensor[i], sizeof(DfxTensor)) != 0)
			return false;
	for (size_t i = 0; i < a->nmeta; i++)
		if (strcmp(a->meta[i].key, b->meta[i].key) != 0 || strcmp(a->meta[i].value, b->meta[i].value) != 0)
			return false;
	return true;
}

/* NULL, or the promise that an accepted header breaks. */
static const char *
check_accepted(const DfxSafetensors *st, uint64_t file_size)
{
	const char **keys = malloc((st->nmeta + 1) * sizeof *keys),
	           **values = malloc((st->nmeta + 1) * sizeof *values);
	const char *broken = NULL;
	uint64_t total = 0, elements, nbytes, size = 0;
	uint8_t *header = NULL;
	size_t len;
	DfxSafetensors again = {0};
	DfxErr err;

	for (size_t i = 0; i < st->ntensor; i++)
	{
		const DfxTensor *t = &st->tensor[i];

		if (i > 0 && strcmp(st->tensor[i - 1].name, t->name) >= 0)
			broken = "names are not sorted and unique";
		if (!dfx_tensor_count(t, &elements, &nbytes) || nbytes != t->nbytes)
			broken = "a size belies its shape";
		if (st->offset[i] < st->data_start || st->offset[i] > file_size ||
		    t->nbytes > file_size - st->offset[i])
			broken = "a tensor lies outside the file";
		if (dfx_st_find(st, t->name) != t)
			broken = "a tensor is not found by its name";
		total += t->nbytes;
	}
	if (total != file_size - st->data_start)
		broken = "sizes do not add up to the data";
	for (size_t i = 0; i < st->nmeta; i++)
	{
		keys[i] = st->meta[i].key;
		values[i] = st->meta[i].value;
	}
	if (dfx_st_header(st->tensor, st->ntensor, keys, values, st->nmeta, &header, &len, &err) != DFX_OK ||
	    dfx_st_header_length(header, len + total, &size, &err) != DFX_OK ||
	    dfx_st_parse((char *) header + 8, size, len + total, &again, &err) != DFX_OK ||
	    !same_tensors(st, &again))
		broken = "written again it does not read the same";
	dfx_st_free(&again);
	free(header);
	free(keys);
	free(values);
	return broken;
}

/* The same for its tensors renamed, which the call does; offsets must go with their tensors. */
static const char *
check_renamed(DfxSafetensors *st, bool complete)
{
	DfxModelMeta meta;
	DfxErr err = {0};
	size_t before = st->ntensor;
	DfxStatus status =
	    complete ? dfx_checkpoint_complete(st, &meta, &err) : dfx_checkpoint_backbone(st, &err);

	if (status != DFX_OK)
		return status == DFX_EWEIGHTS && err.msg[0] ? NULL : "a renaming refused without a reason";
	if (st->ntensor == 0 || st->ntensor > before)
		return "renaming makes tensors, or leaves none";
	for (size_t i = 0; i < st->ntensor; i++)
		if (dfx_st_find(st, st->tensor[i].name) != &st->tensor[i] ||
		    st->tensor[i].nbytes > st->file_size - st->offset[i])
			return "renamed, a tensor is not found, or lies elsewhere";
	return NULL;
}

static const char *
fuzz_once(void)
{
	const char *original = originals[fuzz_below(sizeof originals / sizeof originals[0])];
	size_t len = strlen(original), cap = len + 64, changes = fuzz_below(4);
	uint8_t *text = malloc(cap);
	char *exact;
	const char *broken = NULL;
	DfxSafetensors st;
	DfxErr err = {0};
	uint64_t file_size;
	DfxStatus status;

	memcpy(text, original, len);
	while (changes-- > 0)
	{
		if (fuzz_below(2) == 0)
			fuzz_mutate(text, &len, cap);
		else
			splice_token(text, &len, cap);
	}
	exact = malloc(len ? len : 1); /* so that ASan sees any reading on */
	memcpy(exact, text, len);
	file_size = 8 + len + DATA;
	status = dfx_st_parse(exact, len, file_size, &st, &err);
	if (status == DFX_OK)
	{
		accepted++;
		broken = check_accepted(&st, file_size);
		if (!broken)
			broken = check_renamed(&st, fuzz_below(2) == 0);
		dfx_st_free(&st);
	}
	else
	{
		refused++;
		if (status != DFX_EWEIGHTS || err.code != status || err.msg[0] == '\0' || st.tensor || st.meta)
			broken = "a refusal without a reason, or with leftovers";
	}
	free(exact);
	free(text);
	return broken;
}

int
main(void)
{
	size_t rounds = fuzz_begin() * ROUNDS;
	const char *broken = NULL;

	for (size_t i = 0; i < rounds && !broken; i++)
		broken = fuzz_once();
	ok(!broken, "%zu headers%s%s", rounds, broken ? ": " : "", broken ? broken : "");
	ok(accepted > rounds / 10 && refused > rounds / 10, "%zu were accepted, %zu refused", accepted, refused);
	return done_testing();
}
