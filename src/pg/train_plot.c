/*
 * train_plot.c
 *	  dfx_plot_training(): the curves of a run as SVG.
 *
 * A row of two charts for each phase: loss from 0 up, accuracy from 0 to 1,
 * training and validation in each, a ring around the epoch whose weights are
 * kept.  Plain shapes and text, no script, no style from elsewhere: the text
 * can be saved and opened by any browser.  It reads the views, so it shows
 * what they show.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include <math.h>

#include "pg/train.h"

PG_FUNCTION_INFO_V1(dfx_plot_training);

#define PLOT_WIDTH 960
#define PLOT_HEAD 56
#define PLOT_ROW 280			/* of a phase */
#define PLOT_CHART_W 380
#define PLOT_CHART_H 190
#define PLOT_TICKS 5			/* about so many on an axis */
#define PLOT_MAX_PHASES 64

/* One phase's epochs, as places in PlotRun.epoch. */
typedef struct PlotPhase
{
	char	   *name;
	int			first,
				n;
} PlotPhase;

typedef struct PlotEpoch
{
	int			epoch;
	bool		best;
	double		value[2][2];	/* loss, accuracy; of training, of validation */
} PlotEpoch;

typedef struct PlotRun
{
	char	   *title;
	PlotEpoch  *epoch;
	PlotPhase	phase[PLOT_MAX_PHASES];
	int			nphase;
} PlotRun;

static const char *const plot_colour[2] = {"#2a6fbb", "#d9622b"};
static const char *const plot_curve[2] = {"training", "validation"};
static const char *const plot_what[2] = {"loss", "accuracy"};

/* ---- rows ---- */

static double
plot_real(uint64 row, int column)
{
	bool		isnull;

	return DatumGetFloat8(SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull));
}

static void
plot_add(PlotRun *run, uint64 i)
{
	char	   *phase = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
	PlotEpoch  *e = &run->epoch[i];
	bool		isnull;

	if (run->nphase == 0 || strcmp(run->phase[run->nphase - 1].name, phase) != 0)
	{
		if (run->nphase == PLOT_MAX_PHASES)
			return;
		run->phase[run->nphase++] = (PlotPhase) {.name = phase,.first = i};
	}
	run->phase[run->nphase - 1].n++;
	e->epoch = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull));
	e->best = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3, &isnull));
	for (int what = 0; what < 2; what++)
		for (int curve = 0; curve < 2; curve++)
			e->value[what][curve] = plot_real(i, 4 + 2 * what + curve);
}

static void
plot_load(PlotRun *run, int64 id)
{
	Oid			types[] = {INT8OID};
	Datum		value = Int64GetDatum(id);

	if (dfx_store_sql("SELECT pg_catalog.format('Run %s: %s (%s, %s), %s', run, model, kind, backbone, state)"
					  " FROM @extschema@.dfx_training_runs WHERE run OPERATOR(pg_catalog.=) $1", 1, types, &value) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("training run " INT64_FORMAT " does not exist", id)));
	run->title = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	dfx_store_sql("SELECT phase, epoch, best, train_loss, val_loss, train_accuracy, val_accuracy"
				  " FROM @extschema@.dfx_training_epochs WHERE run OPERATOR(pg_catalog.=) $1 ORDER BY number", 1, types, &value);
	run->epoch = palloc0(Max(SPI_processed, 1) * sizeof(PlotEpoch));
	for (uint64 i = 0; i < SPI_processed; i++)
		plot_add(run, i);
}

/* ---- drawing ---- */

static void
plot_text(StringInfo svg, double x, double y, const char *anchor, const char *extra, const char *text)
{
	appendStringInfo(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>", x, y, anchor, extra);
	for (; *text; text++)
	{
		if (*text == '<')
			appendStringInfoString(svg, "&lt;");
		else if (*text == '&')
			appendStringInfoString(svg, "&amp;");
		else if ((unsigned char) *text < ' ')
			appendStringInfoChar(svg, ' ');
		else
			appendStringInfoChar(svg, *text);
	}
	appendStringInfoString(svg, "</text>\n");
}

/* 1, 2 or 5 times a power of ten, so that about PLOT_TICKS of it make range. */
static double
plot_step(double range)
{
	double		raw = range / PLOT_TICKS;
	double		power = pow(10, floor(log10(raw)));

	return raw <= power ? power : raw <= 2 * power ? 2 * power : raw <= 5 * power ? 5 * power : 10 * power;
}

/* Where things are in one chart. */
typedef struct PlotChart
{
	const PlotRun *run;
	const PlotPhase *phase;
	int			what;			/* 0: loss, 1: accuracy */
	double		left,
				top,
				max;			/* of y, whose other end is 0 */
	int			epochs;			/* the last one's number */
} PlotChart;

static double
plot_x(const PlotChart *c, int epoch)
{
	return c->left + (c->epochs > 1 ? PLOT_CHART_W * (epoch - 1.0) / (c->epochs - 1) : PLOT_CHART_W / 2.0);
}

static double
plot_y(const PlotChart *c, double v)
{
	return c->top + PLOT_CHART_H * (1 - v / c->max);
}

static void
plot_axes(StringInfo svg, const PlotChart *c)
{
	double		step = plot_step(c->max);
	int64		every = Max(1, (int64) ceil(plot_step(c->epochs)));

	for (int i = 0; i * step <= c->max * 1.0001; i++)
	{
		double		y = plot_y(c, i * step);

		appendStringInfo(svg, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", c->left, y,
						 c->left + PLOT_CHART_W, y, i == 0 ? "#888" : "#e4e4e4");
		plot_text(svg, c->left - 6, y + 4, "end", "", psprintf("%.4g", i * step));
	}
	for (int64 e = 0; e <= c->epochs; e += every)
		plot_text(svg, plot_x(c, Max(e, 1)), c->top + PLOT_CHART_H + 16, "middle", "",
				  psprintf(INT64_FORMAT, Max(e, 1)));
	plot_text(svg, c->left, c->top - 10, "start", " font-weight=\"bold\"",
			  psprintf("%s: %s", c->phase->name, plot_what[c->what]));
}

static void
plot_line(StringInfo svg, const PlotChart *c, int curve)
{
	const PlotEpoch *best = NULL;

	appendStringInfo(svg, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\" points=\"", plot_colour[curve]);
	for (int i = 0; i < c->phase->n; i++)
	{
		const PlotEpoch *e = &c->run->epoch[c->phase->first + i];

		if (!isfinite(e->value[c->what][curve]))
			continue;
		appendStringInfo(svg, "%.1f,%.1f ", plot_x(c, e->epoch), plot_y(c, e->value[c->what][curve]));
		if (e->best)
			best = e;
	}
	appendStringInfoString(svg, "\"/>\n");
	for (int i = 0; i < c->phase->n && c->phase->n <= 30; i++)
	{
		const PlotEpoch *e = &c->run->epoch[c->phase->first + i];

		if (isfinite(e->value[c->what][curve]))
			appendStringInfo(svg, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.4\" fill=\"%s\"/>\n", plot_x(c, e->epoch),
							 plot_y(c, e->value[c->what][curve]), plot_colour[curve]);
	}
	if (best && curve == 1)
		appendStringInfo(svg, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" fill=\"none\" stroke=\"#333\"/>\n",
						 plot_x(c, best->epoch), plot_y(c, best->value[c->what][curve]));
}

static void
plot_chart(StringInfo svg, const PlotRun *run, int phase, int what)
{
	PlotChart	c = {
		.epochs = 1,
		.run = run,
		.phase = &run->phase[phase],
		.what = what,
		.left = 70 + what * (PLOT_CHART_W + 80),
		.top = PLOT_HEAD + 34 + phase * PLOT_ROW,
		.max = what == 1 ? 1 : 0
	};

	for (int i = 0; i < c.phase->n; i++)
	{
		const PlotEpoch *e = &run->epoch[c.phase->first + i];

		c.epochs = Max(c.epochs, e->epoch);
		for (int curve = 0; curve < 2 && what == 0; curve++)
			if (isfinite(e->value[what][curve]))
				c.max = Max(c.max, e->value[what][curve]);
	}
	if (!(c.max > 0))
		c.max = 1;
	if (what == 0)				/* up to a whole tick */
		c.max = ceil(c.max / plot_step(c.max)) * plot_step(c.max);
	plot_axes(svg, &c);
	for (int curve = 0; curve < 2; curve++)
		plot_line(svg, &c, curve);
}

static void
plot_legend(StringInfo svg)
{
	for (int curve = 0; curve < 2; curve++)
	{
		double		x = PLOT_WIDTH - 320 + curve * 95;

		appendStringInfo(svg, "<line x1=\"%.1f\" y1=\"30\" x2=\"%.1f\" y2=\"30\" stroke=\"%s\" stroke-width=\"3\"/>\n",
						 x, x + 22, plot_colour[curve]);
		plot_text(svg, x + 28, 34, "start", "", plot_curve[curve]);
	}
	appendStringInfo(svg, "<circle cx=\"%d\" cy=\"30\" r=\"5\" fill=\"none\" stroke=\"#333\"/>\n", PLOT_WIDTH - 118);
	plot_text(svg, PLOT_WIDTH - 106, 34, "start", "", "weights kept");
}

/* dfx_plot_training(run bigint) -> text */
Datum
dfx_plot_training(PG_FUNCTION_ARGS)
{
	MemoryContext old = CurrentMemoryContext;
	PlotRun		run = {0};
	StringInfoData svg;
	text	   *result;
	int			height;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plot_load(&run, PG_GETARG_INT64(0));
	height = PLOT_HEAD + Max(run.nphase, 1) * PLOT_ROW;
	initStringInfo(&svg);
	appendStringInfo(&svg, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\""
					 " font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">\n"
					 "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", PLOT_WIDTH, height, PLOT_WIDTH, height);
	plot_text(&svg, 24, 35, "start", " font-size=\"16\"", run.title);
	plot_legend(&svg);
	for (int phase = 0; phase < run.nphase; phase++)
		for (int what = 0; what < 2; what++)
			plot_chart(&svg, &run, phase, what);
	if (run.nphase == 0)
		plot_text(&svg, PLOT_WIDTH / 2.0, PLOT_HEAD + PLOT_ROW / 2.0, "middle", "", "No epoch has been finished yet.");
	appendStringInfoString(&svg, "</svg>\n");
	MemoryContextSwitchTo(old);
	result = cstring_to_text(svg.data);
	SPI_finish();
	PG_RETURN_TEXT_P(result);
}
