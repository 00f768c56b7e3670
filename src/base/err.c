/*
 * err.c
 *	  Errors as data, and the log sink.
 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const sqlstates[DFX_STATUS_COUNT] = {
    [DFX_OK] = "00000",        [DFX_ENOMEM] = "53200",       [DFX_EIMAGE] = "22P03",
    [DFX_ELIMIT] = "54000",    [DFX_EINVAL] = "22023",       [DFX_EWEIGHTS] = "22P03",
    [DFX_ECORRUPT] = "XX001",  [DFX_EUNSUPPORTED] = "0A000", [DFX_EDEVICE] = "58000",
    [DFX_EIO] = "58030",       [DFX_EUNAVAILABLE] = "57P03", [DFX_ECRASH] = "58000",
    [DFX_ECANCELED] = "57014", [DFX_EINTERNAL] = "XX000",    [DFX_NEED_MODEL] = "XX000",
    [DFX_TOO_SMALL] = "XX000", [DFX_BUSY] = "53000",         [DFX_ELOST] = "58000",
};

static DfxLogSink log_sink;
static void *log_arg;

DfxStatus
dfx_fail(DfxErr *err, DfxStatus code, const char *fmt, ...)
{
	if (err)
	{
		va_list ap;

		err->code = code;
		err->hint[0] = '\0';
		va_start(ap, fmt);
		vsnprintf(err->msg, sizeof err->msg, fmt, ap);
		va_end(ap);
	}
	return code;
}

void
dfx_hint(DfxErr *err, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return;
	va_start(ap, fmt);
	vsnprintf(err->hint, sizeof err->hint, fmt, ap);
	va_end(ap);
}

const char *
dfx_sqlstate(DfxStatus code)
{
	if ((unsigned) code >= DFX_STATUS_COUNT || !sqlstates[code])
		return "XX000";
	return sqlstates[code];
}

void
dfx_log_set_sink(DfxLogSink sink, void *arg)
{
	log_arg = arg;
	log_sink = sink;
}

void
dfx_log(char level, const char *fmt, ...)
{
	char message[512];
	va_list ap;

	if (!log_sink)
		return;
	va_start(ap, fmt);
	vsnprintf(message, sizeof message, fmt, ap);
	va_end(ap);
	log_sink(level, message, log_arg);
}
