/*
 * model_io.h
 *	  Where weight files come from and go to: files of the server, or large
 *	  objects, behind one small interface each.
 */
#ifndef DFX_PG_MODEL_IO_H
#define DFX_PG_MODEL_IO_H

#include "postgres.h"

#include "pg/model.h"

typedef struct DfxSource DfxSource;
struct DfxSource
{
	/* Exactly len bytes from that offset, or an error. */
	void		(*read) (DfxSource *src, uint64 offset, void *buf, Size len);
	void		(*close) (DfxSource *src);
	uint64		size;
	char	   *what;			/* for messages: file "...", large object ... */
	int			fd;				/* of the server, or of the large object interface */
};

typedef struct DfxSink DfxSink;
struct DfxSink
{
	void		(*write) (DfxSink *sink, const void *buf, Size len);
	void		(*finish) (DfxSink *sink);	/* all is written: keep it */
	void		(*discard) (DfxSink *sink); /* after an error: leave nothing behind; never raises */
	int			fd;
	uint64		written;
	char	   *path;			/* of a file, else NULL */
	char	   *temp_path;		/* what is written before finish */
	Oid			loid;			/* of a large object, else InvalidOid */
};

/*
 * A file of the server, with COPY's rules: pg_read_server_files or 42501,
 * relative paths are relative to the data directory.  It must be a regular file.
 */
extern DfxSource *dfx_source_file(const char *path);

/* The model that comes with the extension, in the server's share directory: for everybody. */
extern DfxSource *dfx_source_starter(void);

/* A large object that the user may read (42501, 42704). */
extern DfxSource *dfx_source_lo(Oid loid);

/*
 * A file of the server, with COPY's rules: pg_write_server_files or 42501,
 * absolute paths only, an existing file is replaced.  The file appears
 * complete or not at all.
 */
extern DfxSink *dfx_sink_file(const char *path);

/* A new large object, owned by the user. */
extern DfxSink *dfx_sink_lo(void);

/* Of a sink, for PG_ENSURE_ERROR_CLEANUP: a session that is terminated leaves nothing behind either. */
extern void dfx_sink_discard(int code, Datum sink);

/* Write a version as a safetensors file, and finish the sink or, after an error, discard it (model_export.c). */
extern void dfx_export_to(const DfxModelRef *model, DfxSink *sink);

/*
 * Make what src holds the model of that name, with the rules of
 * dfx_import_model(), but do not ask the engine that serves whether it can load
 * it: that must not cost anybody the result of a training (model_import.c).
 */
extern void dfx_import_trained(const char *name, DfxSource *src, uint8 *version);

#endif							/* DFX_PG_MODEL_IO_H */
