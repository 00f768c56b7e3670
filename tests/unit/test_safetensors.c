/*
 * test_safetensors.c
 *	  Does the safetensors reader take what is right and refuse what is not,
 *	  and does the writer write what the reader takes?
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/safetensors.h"
#include "tests/unit/tap.h"

static DfxStatus
parse(const char *json, size_t data_size, DfxSafetensors *st, DfxErr *err)
{
	size_t len = strlen(json);
	/* An exact allocation, so that ASan sees a reader that reads on. */
	char *copy = malloc(len ? len : 1);
	DfxStatus status;

	memcpy(copy, json, len);
	err->msg[0] = '\0';
	status = dfx_st_parse(copy, len, 8 + len + data_size, st, err);
	free(copy);
	return status;
}

static void
refused(const char *json, size_t data_size, const char *reason)
{
	DfxSafetensors st;
	DfxErr err;
	DfxStatus status = parse(json, data_size, &st, &err);

	ok(status == DFX_EWEIGHTS && strstr(err.msg, reason) != NULL, "refused: %s", reason);
	if (status == DFX_OK)
		dfx_st_free(&st);
	else if (!strstr(err.msg, reason))
		diag("%s", err.msg);
}

static void
test_good(void)
{
	DfxSafetensors st;
	DfxErr err;
	const DfxTensor *t;
	static const char json[] =
	    "{\"b\" :\t{\"data_offsets\":[0,12],\"dtype\":\"F16\",\"shape\":[2,3]},\n"
	    "\"__metadata__\":{\"format\":\"pt\",\"a\\\"\\u00e9\\ud83d\\ude00\":\"\\\\\\/\\n\"},"
	    "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[12,12]},"
	    "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[12,20]}}   ";

	if (!ok(parse(json, 20, &st, &err) == DFX_OK, "a good header: %s", err.msg))
		return;
	ok(st.ntensor == 3 && strcmp(st.tensor[0].name, "a") == 0 && strcmp(st.tensor[1].name, "b") == 0 &&
	       strcmp(st.tensor[2].name, "empty") == 0,
	   "tensors come in byte order");
	t = dfx_st_find(&st, "b");
	ok(t && t->dtype == DFX_F16 && t->rank == 2 && t->dim[0] == 2 && t->dim[1] == 3 && t->nbytes == 12 &&
	       !t->data,
	   "a tensor is found and described");
	ok(st.data_start == 8 + sizeof json - 1 && st.offset[0] == st.data_start + 12 &&
	       st.offset[1] == st.data_start,
	   "offsets count from the start of the file");
	ok(!dfx_st_find(&st, "c") && !dfx_st_find(&st, "") && !dfx_st_find(&st, "__metadata__"),
	   "absent tensors are not found");
	ok(st.nmeta == 2 && strcmp(dfx_st_meta(&st, "format"), "pt") == 0 &&
	       strcmp(dfx_st_meta(&st, "a\"\xc3\xa9\xf0\x9f\x98\x80"), "\\/\n") == 0 && !dfx_st_meta(&st, "x"),
	   "metadata is unescaped");
	dfx_st_free(&st);

	ok(parse("{}", 0, &st, &err) == DFX_OK && st.ntensor == 0 && !dfx_st_find(&st, "a") &&
	       !dfx_st_meta(&st, "a"),
	   "no tensors at all");
	dfx_st_free(&st);
}

#define T(name, shape, from, to)                                                                             \
	"\"" name "\":{\"dtype\":\"F32\",\"shape\":[" shape "],\"data_offsets\":[" #from "," #to "]}"

static void
test_grammar(void)
{
	refused("", 0, "does not begin");
	refused(" {}", 0, "does not begin");
	refused("[]", 0, "does not begin");
	refused("{", 0, "string expected");
	refused("{}x", 0, "follows");
	refused("{\"a\"}", 0, "\":\" expected");
	refused("{" T("a", "1", 0, 4), 4, "\"}\" expected");
	refused("{" T("a", "1", 0, 4) ",}", 4, "string expected");
	refused("{\"a\":1}", 0, "\"{\" expected");
	refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[[1]],\"data_offsets\":[0,4]}}", 4, "unsigned integer");
	refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "unknown key");
	refused("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
	        "duplicate key");
	refused("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "lacks dtype");
	refused("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "lacks dtype");
	refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "lacks dtype");
	refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "more than two");
	refused("{\"a\":{}}", 4, "string expected");
	refused("{" T("a", "1,1,1,1,1,1,1,1,1", 0, 4) "}", 4, "more than 8");
	refused("{" T("a", "1,", 0, 4) "}", 4, "unsigned integer");
	refused("{" T("a", "-1", 0, 4) "}", 4, "unsigned integer");
	refused("{" T("a", "1.0", 0, 4) "}", 4, "fraction or exponent");
	refused("{" T("a", "1e0", 0, 4) "}", 4, "fraction or exponent");
	refused("{" T("a", "01", 0, 4) "}", 4, "leading zero");
	refused("{" T("a", "18446744073709551616", 0, 4) "}", 4, "2^64-1");
	refused("{\"__metadata__\":{\"a\":1}}", 0, "string expected");
	refused("{\"__metadata__\":{\"a\":{}}}", 0, "string expected");
	refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "second __metadata__");
	refused("{\"__metadata__\":{\"a\":\"1\",\"a\":\"1\"}}", 0, "duplicate metadata key");
	refused("{\"__metadata__\":{\"0123456789012345678901234567890123456789012345678901234567890123\":\"\"}}",
	        0, "too long");
}

static void
test_strings(void)
{
	refused("{\"a", 0, "unterminated");
	refused("{\"a\\", 0, "unterminated");
	refused("{\"\\u12", 0, "unterminated");
	refused("{\"\\x\"", 0, "unknown escape");
	refused("{\"\\u12g4\"", 0, "malformed");
	refused("{\"\\u0000\"", 0, "U+0000");
	refused("{\"\\ud800\"", 0, "lone surrogate");
	refused("{\"\\ud800\\u0041\"", 0, "lone surrogate");
	refused("{\"\\udc00\"", 0, "lone surrogate");
	refused("{\"a\nb\"", 0, "control character");
	refused("{\"\x80\"", 0, "invalid UTF-8");
	refused("{\"\xc0\xaf\"", 0, "invalid UTF-8");
	refused("{\"\xed\xa0\x80\"", 0, "invalid UTF-8");
	refused("{\"\xf4\x90\x80\x80\"", 0, "invalid UTF-8");
	refused("{\"\xe2\x82\"", 0, "invalid UTF-8");
	refused("{\"\xe2\x82", 0, "invalid UTF-8");
	refused("{" T("", "1", 0, 4) "}", 4, "empty tensor name");
	refused("{\"012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012"
	        "3456789"
	        "0123456789012345678901234567\"",
	        0, "too long");
}

static void
test_extents(void)
{
	refused("{" T("a", "1", 0, 4) "," T("a", "1", 4, 8) "}", 8, "duplicate tensor \"a\"");
	refused("{" T("a", "1", 0, 4) ",\"\\u0061\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
	        "duplicate tensor \"a\"");
	refused("{" T("a", "2", 0, 4) "}", 4, "needs 8 bytes");
	refused("{" T("a", "1", 4, 0) "}", 4, "outside");
	refused("{" T("a", "1", 0, 4) "}", 3, "outside");
	refused("{" T("a", "18446744073709551615", 0, 4) "}", 4, "overflows");
	refused("{" T("a", "4294967296,4294967296", 0, 0) "}", 0, "overflows");
	refused("{" T("a", "1", 4, 8) "}", 8, "hole");
	refused("{" T("a", "1", 0, 4) "," T("b", "1", 8, 12) "}", 12, "hole");
	refused("{" T("a", "2", 0, 8) "," T("b", "1", 4, 8) "}", 8, "overlap");
	refused("{" T("a", "1", 0, 4) "}", 5, "belong to no tensor");
	refused("{}", 1, "belong to no tensor");
	refused("{\"conv.weight\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8,
	        "tensor \"conv.weight\" has dtype \"F64\"");
}

/* Structural limits, with headers too large to write down. */
static void
test_limits(void)
{
	size_t cap = 8u << 20, len = 1;
	char *json = malloc(cap);
	uint64_t got;
	uint8_t first8[8] = {0};
	DfxErr err;

	json[0] = '{';
	for (int i = 0; i <= DFX_ST_MAX_TENSORS; i++)
		len += (size_t) snprintf(json + len, cap - len,
		                         "%s\"%d\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}",
		                         i ? "," : "", i);
	snprintf(json + len, cap - len, "}");
	refused(json, 0, "too many tensors");
	len = (size_t) sprintf(json, "{\"__metadata__\":{");
	for (int i = 0; i < 5000; i++)
		len += (size_t) snprintf(json + len, cap - len, "%s\"%d\":\"\"", i ? "," : "", i);
	snprintf(json + len, cap - len, "}}");
	refused(json, 0, "too many metadata");
	free(json);

	first8[0] = 10;
	ok(dfx_st_header_length(first8, 18, &got, &err) == DFX_OK && got == 10,
	   "a header that just fits its file");
	ok(dfx_st_header_length(first8, 17, &got, &err) == DFX_EWEIGHTS, "a header longer than its file");
	ok(dfx_st_header_length(first8, 7, &got, &err) == DFX_EWEIGHTS, "a file shorter than a header length");
	memset(first8, 0xff, 8);
	ok(dfx_st_header_length(first8, UINT64_MAX, &got, &err) == DFX_EWEIGHTS, "a header of 2^64-1 bytes");
	memset(first8, 0, 8);
	ok(dfx_st_header_length(first8, 100, &got, &err) == DFX_EWEIGHTS, "an empty header");
	first8[3] = 2; /* 32 MB */
	ok(dfx_st_header_length(first8, 1u << 30, &got, &err) == DFX_EWEIGHTS, "a header over the limit");
}

/* Write a file as dfx_st_header() says, and read it back by dfx_st_open(). */
static void
test_round_trip(void)
{
	DfxTensor in[] = {
	    {.name = "z\"\\\n", .dtype = DFX_F32, .rank = 2, .dim = {2, 2}, .nbytes = 16},
	    {.name = "a", .dtype = DFX_BF16, .rank = 0, .nbytes = 2},
	    {.name = "e", .dtype = DFX_I64, .rank = 1, .dim = {0}, .nbytes = 0},
	};
	const char *const keys[] = {"kind", "\xc3\xa9"}, *const values[] = {"trinet", "\x01\xff"};
	static const uint8_t data[18] = {0, 0, 0x80, 0x3f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x80, 0x3f};
	char path[] = "/tmp/dfx_test_safetensors_XXXXXX";
	int fd = mkstemp(path);
	uint8_t *header = NULL;
	size_t len = 0;
	DfxSafetensors st;
	DfxErr err;
	float f = 0;

	ok(dfx_st_header(in, 3, keys, values, 2, &header, &len, &err) == DFX_OK && len % 8 == 0,
	   "a header is written, and data begins aligned");
	ok(fd >= 0 && write(fd, header, len) == (ssize_t) len && write(fd, data, sizeof data) == sizeof data,
	   "and put into a file");
	free(header);
	if (ok(dfx_st_open(path, &st, &err) == DFX_OK, "the file opens"))
	{
		const DfxTensor *z = dfx_st_find(&st, "z\"\\\n"), *a = dfx_st_find(&st, "a");

		ok(st.ntensor == 3 && z && z->dim[1] == 2 && memcmp(z->data, data, 16) == 0,
		   "bytes are where they belong");
		ok(a && a->rank == 0 && dfx_tensor_to_f32(a, 0, 1, &f) && f == 1.0f, "a scalar is read");
		ok(strcmp(dfx_st_meta(&st, "kind"), "trinet") == 0 &&
		       strcmp(dfx_st_meta(&st, "\xc3\xa9"), "\x01\xef\xbf\xbd") == 0,
		   "metadata comes back, what was not UTF-8 replaced");
		dfx_st_free(&st);
	}
	if (ftruncate(fd, (off_t) len + 17) == 0)
		ok(dfx_st_open(path, &st, &err) == DFX_EWEIGHTS, "one byte less is refused: %s", err.msg);
	if (ftruncate(fd, 5) == 0)
		ok(dfx_st_open(path, &st, &err) == DFX_EWEIGHTS, "five bytes are refused: %s", err.msg);
	close(fd);
	unlink(path);
	ok(dfx_st_open(path, &st, &err) == DFX_EIO && strstr(err.msg, path), "a missing file: %s", err.msg);
	ok(dfx_st_open("/tmp", &st, &err) == DFX_EIO, "a directory: %s", err.msg);
	in[0].nbytes = 17;
	ok(dfx_st_header(in, 3, NULL, NULL, 0, &header, &len, &err) == DFX_EINVAL && !header,
	   "a tensor whose size belies its shape is not written");
}

/* What tools/convert_weights.py made of tensors of every type (test_convert.sh makes it again where PyTorch
 * is). */
static void
test_converted(void)
{
	static const struct
	{
		const char *name;
		DfxDtype dtype;
		int n;
		float value[6];
	} want[] = {{"a.weight", DFX_F32, 6, {0, 3, 1, 4, 2, 5}},
	            {"b", DFX_F16, 3, {0, 0.25f, 0.5f}},
	            {"c", DFX_BF16, 2, {1.5f, -2}},
	            {"d", DFX_F32, 1, {0.1f}}};
	DfxSafetensors st;
	DfxErr err = {0};

	if (!ok(dfx_st_open("tests/golden/names/converted.safetensors", &st, &err) == DFX_OK && st.ntensor == 5,
	        "a file of the conversion script %s", err.msg))
		return;
	for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
	{
		const DfxTensor *t = dfx_st_find(&st, want[i].name);
		float got[6];

		ok(t && t->dtype == want[i].dtype && dfx_tensor_to_f32(t, 0, (uint64_t) want[i].n, got) &&
		       memcmp(got, want[i].value, (size_t) want[i].n * sizeof(float)) == 0,
		   "... its %s %s", dfx_dtype_name(want[i].dtype), want[i].name);
	}
	ok(dfx_st_find(&st, "count") && dfx_st_find(&st, "count")->dtype == DFX_I64, "... its integer");
	dfx_st_free(&st);
}

static void
test_json_output(void)
{
	char text[128] = {0};
	FILE *f = fmemopen(text, sizeof text - 1, "w");

	dfx_json_string(f, "a\"b\\c\nd\x7f\xc3\xa9\xff/");
	fclose(f);
	ok(strcmp(text, "\"a\\\"b\\\\c\\u000ad\\u007f\xc3\xa9\xef\xbf\xbd/\"") == 0,
	   "a JSON string for the command line");
	ok(dfx_json_quote("abc", text, 2) == 5 && memcmp(text, "\"a\\", 3) == 0,
	   "measured and cut like snprintf's");
}

int
main(void)
{
	test_good();
	test_grammar();
	test_strings();
	test_extents();
	test_limits();
	test_round_trip();
	test_converted();
	test_json_output();
	return done_testing();
}
