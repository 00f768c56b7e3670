/*
 * train_args.c
 *	  From the arguments of a training procedure to the engine's CONFIG.
 *
 * An option of training is an argument of the procedure under the same name,
 * and nothing more: whatever is not about models, rows or this session goes
 * into CONFIG as it is.  The engine knows the options, their ranges and their
 * defaults; an argument that is null is left to it.  So a new option is a new
 * argument in the install script.
 *
 * A recipe is a set of options as they would be written in the call, which
 * arguments that are given come before.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include <math.h>

#include "pg/settings.h"
#include "pg/train.h"

const char *const dfx_train_column_arg[DFX_TRAIN_COLUMNS] = {
	[DFX_TRAIN_IMAGE] = "image_column",
	[DFX_TRAIN_LABEL] = "label_column",
	[DFX_TRAIN_GROUP] = "group_column",
	[DFX_TRAIN_SPLIT] = "split_column",
	[DFX_TRAIN_KEY] = "key_column",
	[DFX_TRAIN_GENERATOR] = "generator_column",
};

const char *const dfx_train_split_name[DFX_SPLIT_COUNT] = {
	[DFX_SPLIT_DRAW] = "draw",
	[DFX_SPLIT_BASE_TRAIN] = "base_train",
	[DFX_SPLIT_BASE_VAL] = "base_val",
	[DFX_SPLIT_HEAD_TRAIN] = "head_train",
	[DFX_SPLIT_HEAD_VAL] = "head_val",
	[DFX_SPLIT_TEST] = "test",
	[DFX_SPLIT_BASE] = "base",
	[DFX_SPLIT_HEAD] = "head",
	[DFX_SPLIT_UNUSED] = "unused",
};

const char *const dfx_train_class_name[DFX_NCLASS] = {
	[DFX_CLASS_DM] = "dm",
	[DFX_CLASS_GAN] = "gan",
	[DFX_CLASS_REAL] = "real",
};

/* Arguments that are no options: of models, and of this session; the columns are the others. */
static const char *const args_not_options[] = {
	"model", "samples", "labels", "init", "dm_model", "gan_model", "real_model", "recipe", "backbone", "max_errors"
};

/*
 * The systems that the paper compares with, as METHOD.md names them: Wang et
 * al., CVPR 2020; Guarnera et al., Level Up the Deepfake Detection, 2024;
 * Arshed et al., Computers 2024.
 */
static const struct
{
	const char *name,
			   *kind,
			   *backbone,
			   *options;		/* JSON members, each with a comma behind it */
}			args_recipe[] = {
	{"wang2020", "classifier", "resnet50",
	"\"task\": \"binary\", \"flip\": 0.5, \"blur\": 0.5, \"blur_min\": 0, \"blur_max\": 3,"
	"\"jpeg\": 0.5, \"jpeg_min\": 30, \"jpeg_max\": 100,"},
	{"guarnera2024", "hierarchy", "resnet34", ""},
	{"arshed2024", "classifier", "vit_b_16", "\"task\": \"three\","},
};

static int
args_index(const char *const *names, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

int
dfx_train_class(const char *name)
{
	return args_index(dfx_train_class_name, DFX_NCLASS, name);
}

int
dfx_train_split(const char *name)
{
	return args_index(dfx_train_split_name, DFX_SPLIT_UNUSED, name);
}

/* ---- arguments by name ---- */

void
dfx_train_args(FunctionCallInfo fcinfo, DfxTrainArgs *args)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	char	   *modes;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", fcinfo->flinfo->fn_oid);
	args->fcinfo = fcinfo;
	args->n = get_func_arg_info(tuple, &args->type, &args->name, &modes);
	ReleaseSysCache(tuple);
	if (args->n != PG_NARGS() || !args->name)
		elog(ERROR, "procedure declared without names of arguments");
}

bool
dfx_train_arg(const DfxTrainArgs *args, const char *name, Datum *value)
{
	int			i = args_index((const char *const *) args->name, args->n, name);

	if (i < 0 || args->fcinfo->args[i].isnull)
		return false;
	*value = args->fcinfo->args[i].value;
	return true;
}

char *
dfx_train_arg_text(const DfxTrainArgs *args, const char *name)
{
	int			i = args_index((const char *const *) args->name, args->n, name);
	Oid			out;
	bool		varlena;

	if (i < 0 || args->fcinfo->args[i].isnull)
		return NULL;
	getTypeOutputInfo(args->type[i], &out, &varlena);
	return OidOutputFunctionCall(out, args->fcinfo->args[i].value);
}

/* ---- CONFIG ---- */

/* A number that JSON can hold; digits do not depend on the session's extra_float_digits. */
static void
args_put_real(StringInfo json, const char *name, float8 v)
{
	if (!isfinite(v))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("training option %s must be a finite number", name)));
	appendStringInfo(json, "%.17g", v);
}

static void
args_put_option(const DfxTrainArgs *args, int i, StringInfo json)
{
	Datum		value = args->fcinfo->args[i].value;

	appendStringInfo(json, "\"%s\": ", args->name[i]);
	switch (args->type[i])
	{
		case FLOAT8OID:
			args_put_real(json, args->name[i], DatumGetFloat8(value));
			break;
		case INT4OID:
			appendStringInfo(json, "%d", DatumGetInt32(value));
			break;
		case INT8OID:
			appendStringInfo(json, INT64_FORMAT, DatumGetInt64(value));
			break;
		case BOOLOID:
			appendStringInfoString(json, DatumGetBool(value) ? "true" : "false");
			break;
		default:
			escape_json(json, TextDatumGetCString(value));
	}
	appendStringInfoString(json, ", ");
}

static bool
args_is_option(const char *name)
{
	return args_index(args_not_options, lengthof(args_not_options), name) < 0 &&
		args_index(dfx_train_column_arg, DFX_TRAIN_COLUMNS, name) < 0;
}

/* What the recipe says before anything else; sets what it says of kind and backbone. */
static void
args_put_recipe(const char *recipe, const char **kind, const char **backbone, StringInfo json)
{
	for (int i = 0; i < lengthof(args_recipe); i++)
	{
		if (strcmp(args_recipe[i].name, recipe) != 0)
			continue;
		*kind = args_recipe[i].kind;
		if (!*backbone)
			*backbone = args_recipe[i].backbone;
		appendStringInfoString(json, args_recipe[i].options);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("recipe \"%s\" is not known", recipe),
			 errhint("It is wang2020, guarnera2024 or arshed2024.")));
}

static void
args_put_generators(Datum generators, StringInfo json)
{
	Datum	   *name;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(generators), TEXTOID, -1, false, TYPALIGN_INT, &name, NULL, &n);
	appendStringInfoString(json, "\"generators\": [");
	for (int i = 0; i < n; i++)
	{
		appendStringInfoString(json, i > 0 ? ", " : "");
		escape_json(json, TextDatumGetCString(name[i]));
	}
	appendStringInfoChar(json, ']');
}

Jsonb *
dfx_train_options(const DfxTrainArgs *args, const char *kind, const char *backbone, const DfxTrainSource *source)
{
	const char *recipe = dfx_train_arg_text(args, "recipe");
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	/* Of members that are there twice jsonb keeps the last. */
	if (recipe)
		args_put_recipe(recipe, &kind, &backbone, &json);
	if (!backbone)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("backbone must not be null"),
				 recipe ? 0 : errhint("Name one, as backbone => 'densenet121'.")));
	appendStringInfo(&json, "\"kind\": \"%s\", \"backbone\": ", kind);
	escape_json(&json, backbone);
	appendStringInfoString(&json, ", ");
	for (int i = 0; i < args->n; i++)
		if (args_is_option(args->name[i]) && !args->fcinfo->args[i].isnull)
			args_put_option(args, i, &json);
	appendStringInfo(&json, "\"max_image_bytes\": " INT64_FORMAT ", \"max_image_pixels\": %d, ",
					 (int64) dfx_max_image_bytes * 1024, dfx_max_image_pixels);
	args_put_generators(source->generators, &json);
	appendStringInfoChar(&json, '}');
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data)));
}

char *
dfx_train_config(const Jsonb *options)
{
	Jsonb	   *jb = unconstify(Jsonb *, options);
	char	   *text = JsonbToCString(NULL, &jb->root, VARSIZE(jb));
	char	   *utf8 = pg_server_to_any(text, strlen(text), PG_UTF8);

	if (strlen(utf8) > DFX_TRAIN_TEXT)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the options of the run, with the names of its generators, are longer than %u bytes",
						DFX_TRAIN_TEXT)));
	return utf8;
}
