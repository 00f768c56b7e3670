/*
 * test_version.c
 *	  Are the canonical stream and the hash of a model what version.h promises?
 *
 * Held against tests/golden/version.txt, which a second implementation in
 * Python made (tests/golden/make_version.py).  Runs from the top of the tree.
 */
#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "tests/unit/slurp.h"
#include "tests/unit/tap.h"

static const DfxModelMeta model = {.kind = "trinet",
                                   .backbone = "densenet121",
                                   .classes = "dm,gan,real",
                                   .head_stride = 1,
                                   .input_size = 256};

/* The golden model's tensors, in byte order of their names. */
static const DfxTensor tensors[] = {
    {.name = "Z.upper", .dtype = DFX_F16, .rank = 3, .dim = {2, 1, 3}, .nbytes = 12},
    {.name = "a", .dtype = DFX_F32, .rank = 2, .dim = {0, 4}, .nbytes = 0},
    {.name = "a-b", .dtype = DFX_F32, .rank = 8, .dim = {1, 1, 1, 1, 1, 1, 1, 2}, .nbytes = 8},
    {.name = "a.Long", .dtype = DFX_BF16, .rank = 1, .dim = {7}, .nbytes = 14},
    {.name = "a.long", .dtype = DFX_I64, .rank = 0, .nbytes = 8},
    {.name = "head.classifier.0.weight", .dtype = DFX_F32, .rank = 2, .dim = {3, 5}, .nbytes = 60},
    {.name = "\xc3\xa9t\xc3\xa9.poids", .dtype = DFX_F32, .rank = 1, .dim = {1}, .nbytes = 4},
};
#define NTENSORS (sizeof tensors / sizeof tensors[0])

/* The golden file's rule. */
static void
tensor_bytes(size_t number, uint8_t *out)
{
	for (uint64_t i = 0; i < tensors[number].nbytes; i++)
		out[i] = (uint8_t) (7 * i + 31 * number);
}

static void
test_golden(size_t golden_len, const char *golden_hash, const char *golden_hex)
{
	uint8_t *stream = malloc(4096), bytes[64], version[DFX_VERSION_LEN];
	char *hex = malloc(2 * 4096 + 1), hash[DFX_VERSION_HEX_LEN], text[DFX_META_TEXT_MAX];
	size_t len = 5;
	DfxVersioner v;

	memcpy(stream, "dfx1\n", 5);
	len += dfx_meta_text(&model, text);
	memcpy(stream + 5, text, len - 5);
	dfx_version_begin(&v, &model);
	for (size_t t = 0; t < NTENSORS; t++)
	{
		len += dfx_tensor_head(&tensors[t], stream + len);
		tensor_bytes(t, stream + len);
		tensor_bytes(t, bytes);
		len += tensors[t].nbytes;
		dfx_version_tensor(&v, &tensors[t]);
		dfx_version_bytes(&v, bytes, tensors[t].nbytes);
	}
	dfx_version_end(&v, version);
	dfx_version_hex(version, hash);
	for (size_t i = 0; i < len; i++)
		snprintf(hex + 2 * i, 3, "%02x", stream[i]);
	ok(len == golden_len, "the stream has %zu bytes", golden_len);
	ok(strcmp(hex, golden_hex) == 0, "the stream is the golden one");
	ok(strcmp(hash, golden_hash) == 0, "the version is the golden one");
	free(stream);
	free(hex);
}

static bool
meta_accepts(const char *text)
{
	DfxModelMeta meta;
	DfxErr err = {0};

	/* A refusal without the right code and a reason does not count as one. */
	return dfx_meta_parse(text, strlen(text), &meta, &err) != DFX_EWEIGHTS || err.msg[0] == '\0';
}

static void
test_meta(void)
{
	char text[DFX_META_TEXT_MAX];
	size_t len = dfx_meta_text(&model, text);
	DfxModelMeta back, lone = {.kind = "backbone", .backbone = "resnet50", .input_size = UINT32_MAX};
	DfxErr err;

	ok(dfx_meta_parse(text, len, &back, &err) == DFX_OK && memcmp(&back, &model, sizeof back) == 0,
	   "metadata survives the round trip");
	len = dfx_meta_text(&lone, text);
	ok(dfx_meta_parse(text, len, &back, &err) == DFX_OK && memcmp(&back, &lone, sizeof back) == 0,
	   "so does a lone backbone's, without classes");
	memset(lone.classes, 'x', sizeof lone.classes - 1);
	memset(lone.kind, 'y', sizeof lone.kind - 1);
	memset(lone.backbone, 'z', sizeof lone.backbone - 1);
	lone.head_stride = UINT32_MAX;
	len = dfx_meta_text(&lone, text);
	ok(len < sizeof text && dfx_meta_parse(text, len, &back, &err) == DFX_OK &&
	       memcmp(&back, &lone, sizeof back) == 0,
	   "so do metadata as long as they can be, %zu bytes", len);

	bool cut_refused = true;

	for (size_t cut = 0; cut < len; cut++)
		if (dfx_meta_parse(text, cut, &back, &err) == DFX_OK)
			cut_refused = false;
	ok(cut_refused, "metadata cut anywhere is refused");
	ok(!meta_accepts("backbone=a\nclasses=\nhead_stride=01\ninput_size=256\nkind=k\n"), "leading zero");
	ok(!meta_accepts("backbone=a\nclasses=\nhead_stride=\ninput_size=256\nkind=k\n"), "empty number");
	ok(!meta_accepts("backbone=a\nclasses=\nhead_stride=-1\ninput_size=256\nkind=k\n"), "negative number");
	ok(!meta_accepts("backbone=a\nclasses=\nhead_stride=4294967296\ninput_size=256\nkind=k\n"),
	   "number over 32 bits");
	ok(!meta_accepts("classes=\nbackbone=a\nhead_stride=1\ninput_size=256\nkind=k\n"), "keys out of order");
	ok(!meta_accepts("backbone=a\nclasses=\nhead_stride=1\ninput_size=256\nkind=k\nmore=1\n"), "a sixth key");
	ok(!meta_accepts("backbone=\nclasses=\nhead_stride=1\ninput_size=256\nkind=k\n"), "empty backbone");
	ok(!meta_accepts("backbone=a\tb\nclasses=\nhead_stride=1\ninput_size=256\nkind=k\n"),
	   "control character");
	ok(!meta_accepts(
	       "backbone=0123456789012345678901234567890123456789\nclasses=\nhead_stride=1\ninput_size=256\n"
	       "kind=k\n"),
	   "overlong value");
}

static void
test_heads(void)
{
	uint8_t head[DFX_TENSOR_HEAD_MAX];
	DfxTensor back;
	DfxErr err;
	size_t used = 0;

	for (size_t t = 0; t < NTENSORS; t++)
	{
		size_t len = dfx_tensor_head(&tensors[t], head);
		bool incomplete = true;

		for (size_t cut = 0; cut < len; cut++)
			if (dfx_tensor_head_parse(head, cut, &back, &used, &err) != DFX_TOO_SMALL)
				incomplete = false;
		ok(incomplete, "%s: an incomplete head asks for more", tensors[t].name);
		memset(head + len, 0xee, sizeof head - len); /* what follows must not matter */
		ok(dfx_tensor_head_parse(head, sizeof head, &back, &used, &err) == DFX_OK && used == len &&
		       memcmp(&back, &tensors[t], sizeof back) == 0,
		   "%s: head survives the round trip", tensors[t].name);
	}
}

static void
test_bad_heads(void)
{
	uint8_t head[DFX_TENSOR_HEAD_MAX], long_name[DFX_NAME_LEN];
	DfxTensor t = tensors[0], back;
	DfxErr err;
	size_t used, len;

	memset(long_name, 'x', sizeof long_name);
	ok(dfx_tensor_head_parse(long_name, sizeof long_name, &back, &used, &err) == DFX_EWEIGHTS,
	   "overlong name");
	ok(dfx_tensor_head_parse((const uint8_t *) "\0F32", 5, &back, &used, &err) == DFX_EWEIGHTS, "empty name");
	ok(dfx_tensor_head_parse((const uint8_t *) "a\0F64", 6, &back, &used, &err) == DFX_EWEIGHTS,
	   "unknown dtype");
	ok(dfx_tensor_head_parse((const uint8_t *) "a\0F32xxxxxxx", 12, &back, &used, &err) == DFX_EWEIGHTS,
	   "endless dtype");
	ok(dfx_tensor_head_parse((const uint8_t *) "a\0F32\0\x09\0\0\0", 10, &back, &used, &err) == DFX_EWEIGHTS,
	   "rank above the maximum");
	t.nbytes++;
	len = dfx_tensor_head(&t, head);
	ok(dfx_tensor_head_parse(head, len, &back, &used, &err) == DFX_EWEIGHTS, "length against shape");
	t = tensors[0];
	t.dim[0] = t.dim[1] = t.dim[2] = UINT64_MAX;
	len = dfx_tensor_head(&t, head);
	ok(dfx_tensor_head_parse(head, len, &back, &used, &err) == DFX_EWEIGHTS, "shape that overflows");
}

int
main(void)
{
	size_t len;
	char *golden = (char *) slurp("tests/golden/version.txt", &len);

	if (ok(golden != NULL, "tests/golden/version.txt can be read"))
	{
		char *length = strtok(golden, "\n"), *hash = strtok(NULL, "\n"), *hex = strtok(NULL, "\n");

		test_golden(strtoul(length, NULL, 10), hash, hex);
	}
	test_meta();
	test_heads();
	test_bad_heads();
	free(golden);
	return done_testing();
}
