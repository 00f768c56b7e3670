/*
 * settings.h
 *	  The dfx.* settings (DESIGN section 5); defined in settings.c.
 *
 * Check hooks never read catalogs, so that ALTER ROLE ... SET works anywhere.
 * Memory settings are in the unit named; times in milliseconds.
 */
#ifndef DFX_PG_SETTINGS_H
#define DFX_PG_SETTINGS_H

#include "postgres.h"

/* postmaster */
extern int	dfx_queue_slots;
extern int	dfx_queue_memory;	/* MB */
extern char *dfx_engine_path;	/* "" = $pkglibdir/dfx-engine */

/* sighup: a change restarts the engines */
extern char *dfx_device;		/* one, or a list */
extern int	dfx_threads;
extern int	dfx_max_batch;
extern int	dfx_batch_wait;
extern int	dfx_model_memory;	/* MB */
extern int	dfx_gpu_memory;		/* MB */
extern int	dfx_engine_timeout; /* without progress; 0 = never */

/* sighup: a change starts new workers */
extern char *dfx_preload_models;

/* superuser */
extern int	dfx_max_image_pixels;
extern int	dfx_max_image_bytes;	/* kB */
extern int	dfx_train_cache;	/* MB */
extern char *dfx_train_cache_dir;	/* "" = PostgreSQL's own for temporary files */

/* user */
extern char *dfx_default_model;
extern int	dfx_wanted_precision;		/* DfxPrecision as a number */
extern int	dfx_queue_timeout;
extern int	dfx_request_timeout;
extern int	dfx_read_ahead;		/* images; 0 = off */
extern int	dfx_priority;		/* DfxPriority */
extern bool dfx_fast_decode;

extern void dfx_settings_init(void);

/* dfx.device as a list: how many devices, and number i of them. */
extern int	dfx_device_count(const char *list);
extern void dfx_device_item(const char *list, int i, char *item, Size size);

/* What a number of dfx.precision is called; NULL when it is none. */
extern const char *dfx_precision_name(int precision);

#endif							/* DFX_PG_SETTINGS_H */
