/*
 * safetensors.h
 *	  Reader and writer of the safetensors format
 *	  (https://huggingface.co/docs/safetensors: u64 header length, JSON header, data).
 *
 * The reader trusts nothing: header length and depth, JSON syntax, UTF-8 and
 * escapes, duplicate names, dtype, shape x size == extent, extents inside the
 * file, no overlap, no hole.  It parses a header that the caller has already
 * read, so files, large objects and memory are all the same to it, and data
 * need not be resident.
 */
#ifndef DFX_BASE_SAFETENSORS_H
#define DFX_BASE_SAFETENSORS_H

#include "base/tensor.h"

#define DFX_ST_MAX_HEADER  (16u << 20) /* bytes of JSON; larger is refused */
#define DFX_ST_MAX_TENSORS 65536

typedef struct DfxStMeta
{
	char key[64];
	char *value;
} DfxStMeta;

typedef struct DfxSafetensors
{
	DfxTensor *tensor; /* in byte order of name; data is NULL until dfx_st_map() */
	uint64_t *offset;  /* of each tensor's data, from the start of the file */
	size_t ntensor;
	DfxStMeta *meta; /* the __metadata__ object; string values only */
	size_t nmeta;
	uint64_t data_start; /* 8 + header length */
	uint64_t file_size;
	void *map; /* dfx_st_open(): the mapping, else NULL */
} DfxSafetensors;

/* From the first 8 bytes: how long the JSON header is.  DFX_EWEIGHTS if it cannot be. */
extern DfxStatus
dfx_st_header_length(const uint8_t first8[8], uint64_t file_size, uint64_t *json_len, DfxErr *err);

/* Parse json_len bytes of header of a file of file_size bytes.  DFX_EWEIGHTS, DFX_ENOMEM. */
extern DfxStatus
dfx_st_parse(const char *json, size_t json_len, uint64_t file_size, DfxSafetensors *st, DfxErr *err);

/*
 * Parse a whole file that lies in memory, and point every tensor at its data
 * there; the memory stays the caller's.  DFX_EWEIGHTS, DFX_ENOMEM.
 */
extern DfxStatus dfx_st_view(const uint8_t *bytes, uint64_t len, DfxSafetensors *st, DfxErr *err);

/* Open a file, map it read-only, parse it, point every tensor at its data.  DFX_EIO, DFX_EWEIGHTS,
 * DFX_ENOMEM. */
extern DfxStatus dfx_st_open(const char *path, DfxSafetensors *st, DfxErr *err);
extern void dfx_st_free(DfxSafetensors *st);

/* NULL when absent. */
extern const DfxTensor *dfx_st_find(const DfxSafetensors *st, const char *name);
extern const char *dfx_st_meta(const DfxSafetensors *st, const char *key);

/*
 * Build the 8-byte length plus JSON header (padded with spaces so that data
 * starts at a multiple of 8) for tensors in the given order, data laid out in
 * that order without gaps.  *out is malloc'd.  The caller then writes each tensor's bytes.
 */
extern DfxStatus
dfx_st_header(const DfxTensor *tensor, size_t ntensor, const char *const *meta_keys,
              const char *const *meta_values, size_t nmeta, uint8_t **out, size_t *out_len, DfxErr *err);

#endif /* DFX_BASE_SAFETENSORS_H */
