/*
 * control.h
 *	  The control socket (proto.h): what the engine tells its supervisor, and
 *	  how it learns that the supervisor is gone.
 */
#ifndef DFX_ENGINE_CONTROL_H
#define DFX_ENGINE_CONTROL_H

#include "base/err.h"

/*
 * Watch fd in a thread of its own: the process exits with 0 when the other
 * end is closed.  From here on dfx_log() goes to the socket.  DFX_EINVAL when
 * fd is no such socket, DFX_EINTERNAL when the thread cannot be made.
 */
extern DfxStatus dfx_control_start(int fd, DfxErr *err);

extern void dfx_control_ready(void);             /* 'R' */
extern void dfx_control_done(void);              /* 'D': at least one request is answered */
extern void dfx_control_fatal(const char *text); /* 'F' text */

/*
 * The device is lost (DFX_ELOST): say so in the log and end.  Nothing that was
 * running is answered, so the supervisor asks the next engine for it.
 */
extern void dfx_control_lost(const DfxErr *err) __attribute__((noreturn));

#endif /* DFX_ENGINE_CONTROL_H */
