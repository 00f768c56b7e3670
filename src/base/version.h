/*
 * version.h
 *	  Model metadata, and the content address of a model.
 *
 * version = SHA-256 of the canonical stream:
 *
 *	"dfx1\n"
 *	the metadata, one "key=value\n" a line, keys in byte order; always these
 *	five: backbone, classes, head_stride, input_size, kind
 *	per tensor, in byte order of its name:
 *		name \0 dtype \0, u32 rank, u64 dim[rank], u64 length, raw bytes
 *	(integers little-endian)
 *
 * The same stream, byte for byte, is what a backend sends through the ring to
 * load a model, so the engine verifies what it received by hashing it.
 */
#ifndef DFX_BASE_VERSION_H
#define DFX_BASE_VERSION_H

#include "base/sha256.h"
#include "base/tensor.h"

#define DFX_VERSION_LEN     32
#define DFX_VERSION_HEX_LEN 65 /* with NUL */
#define DFX_CLASSES_LEN     1024

typedef struct DfxModelMeta
{
	char kind[32];                 /* "trinet", "backbone", ...: nn/models.h */
	char backbone[32];             /* "densenet121", ... */
	char classes[DFX_CLASSES_LEN]; /* "dm,gan,real"; "" for a lone backbone */
	uint32_t head_stride;          /* 1 (paper) or 2 (reference); 0 but for a trinet */
	uint32_t input_size;           /* 256, 224 for ViT */
} DfxModelMeta;

/* The metadata's canonical lines, NUL-terminated, into buf; returns their length. */
#define DFX_META_TEXT_MAX 2048
extern size_t dfx_meta_text(const DfxModelMeta *meta, char buf[DFX_META_TEXT_MAX]);

/* Parse those lines again (strict: the five keys, in order, nothing else).  DFX_EWEIGHTS. */
extern DfxStatus dfx_meta_parse(const char *text, size_t len, DfxModelMeta *meta, DfxErr *err);

/*
 * What precedes a tensor's bytes in the stream, into buf; returns its length.
 * dfx_tensor_head_parse is its inverse; it takes at most len bytes, sets
 * *used, and returns DFX_TOO_SMALL when the head is not complete yet.
 */
#define DFX_TENSOR_HEAD_MAX (DFX_NAME_LEN + 8 + 4 + 8 * DFX_MAX_RANK + 8)
extern size_t dfx_tensor_head(const DfxTensor *t, uint8_t buf[DFX_TENSOR_HEAD_MAX]);
extern DfxStatus dfx_tensor_head_parse(const uint8_t *p, size_t len, DfxTensor *t, size_t *used, DfxErr *err);

/* Incremental hashing: begin, then per tensor (in byte order of name) the head and its bytes, then end. */
typedef struct DfxVersioner
{
	DfxSha256 sha;
} DfxVersioner;
extern void dfx_version_begin(DfxVersioner *v, const DfxModelMeta *meta);
extern void dfx_version_tensor(DfxVersioner *v, const DfxTensor *t); /* the head only; t->data is not read */
extern void dfx_version_bytes(DfxVersioner *v, const void *p, size_t n);
extern void dfx_version_end(DfxVersioner *v, uint8_t version[DFX_VERSION_LEN]);
extern void dfx_version_hex(const uint8_t version[DFX_VERSION_LEN], char hex[DFX_VERSION_HEX_LEN]);

#endif /* DFX_BASE_VERSION_H */
