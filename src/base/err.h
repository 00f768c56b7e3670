/*
 * err.h
 *	  Errors as data.
 *
 * No library room prints, exits or jumps.  A function that can fail returns a
 * DfxStatus and fills the caller's DfxErr; the program on top (dfx-engine or
 * the PostgreSQL backend) decides how to say it.  The status is also what
 * crosses the ring, and each one has exactly one SQLSTATE (dfx_sqlstate), so
 * that the same failure reads the same on the command line and in SQL.
 */
#ifndef DFX_BASE_ERR_H
#define DFX_BASE_ERR_H

#include <stdbool.h>
#include <stddef.h>

/* Values cross the ring: append only, never renumber. */
typedef enum DfxStatus
{
	DFX_OK = 0,
	DFX_ENOMEM,       /* 53200: out of memory (host or device) */
	DFX_EIMAGE,       /* 22P03: bytes that are not a readable image */
	DFX_ELIMIT,       /* 54000: over a configured or structural limit */
	DFX_EINVAL,       /* 22023: an argument out of its domain */
	DFX_EWEIGHTS,     /* 22P03: a weight file that is malformed, or does not fit its network */
	DFX_ECORRUPT,     /* XX001: stored data that does not match its hash */
	DFX_EUNSUPPORTED, /* 0A000: valid, but this build or backend cannot do it */
	DFX_EDEVICE,      /* 58000: the device or a vendor library failed */
	DFX_EIO,          /* 58030: a system call on a file failed */
	DFX_EUNAVAILABLE, /* 57P03: the engine is not running */
	DFX_ECRASH,       /* 58000: the engine died twice on this request */
	DFX_ECANCELED,    /* 57014: the owner went away */
	DFX_EINTERNAL,    /* XX000: a bug here */

	/* Not errors: answers of the engine that make its client act and ask again. */
	DFX_NEED_MODEL, /* the model version is not resident */
	DFX_TOO_SMALL,  /* the reply needs more room than was reserved */
	DFX_BUSY,       /* a model cannot be admitted yet: resident ones are pinned */

	/* Never an answer: the engine ends, and what was running is asked again of the next one. */
	DFX_ELOST, /* 58000: the device is gone for this process; only a new one can use it */

	DFX_STATUS_COUNT
} DfxStatus;

#define DFX_MSG_LEN  256
#define DFX_HINT_LEN 128

/* A failure: what and where in msg, what to do about it in hint ("" if nothing sensible can be said). */
typedef struct DfxErr
{
	DfxStatus code;
	char msg[DFX_MSG_LEN];
	char hint[DFX_HINT_LEN];
} DfxErr;

/*
 * Fill *err (NULL allowed) and return code, for "return dfx_fail(err, ...)".
 * Overlong messages are cut, never overflowed.  The hint is cleared.
 */
extern DfxStatus
dfx_fail(DfxErr *err, DfxStatus code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Add a hint to an error already filled. */
extern void dfx_hint(DfxErr *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The five-character SQLSTATE of a status; "XX000" for anything unknown. */
extern const char *dfx_sqlstate(DfxStatus code);

/*
 * Logging: one process-wide sink, set before threads start.  Without a sink
 * messages go nowhere.  level: 'D'ebug, 'I'nfo, 'W'arning, 'E'rror.
 */
typedef void (*DfxLogSink)(char level, const char *message, void *arg);
extern void dfx_log_set_sink(DfxLogSink sink, void *arg);
extern void dfx_log(char level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif /* DFX_BASE_ERR_H */
