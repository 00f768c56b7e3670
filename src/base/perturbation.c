/*
 * perturbation.c
 *	  Perturbations as text and numbers (perturbation.h): one table of what is
 *	  allowed serves the parser and the check.
 */
#include "base/perturbation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PERTURB_MAX_TEXT 60 /* bytes: longer ones are not quoted in messages, which might cut a character */

typedef struct PerturbRule
{
	const char *name;
	bool takes_number;
	double low, high; /* of the value */
	int step;         /* 0: any number; 1: whole ones; 2: odd ones */
} PerturbRule;

static const PerturbRule perturb_rules[DFX_PERTURB_COUNT] = {
    [DFX_PERTURB_RAW] = {"raw", false, 0, 0, 1},
    [DFX_PERTURB_JPEG] = {"jpeg", true, 1, 100, 1},
    [DFX_PERTURB_BLUR] = {"blur", true, 1, 31, 2},
    [DFX_PERTURB_SCALE] = {"scale", true, 1, 1000, 1},
    [DFX_PERTURB_ROTATE] = {"rotate", true, -360, 360, 0},
    [DFX_PERTURB_FLIP] = {"flip", false, DFX_FLIP_BOTH, DFX_FLIP_V, 1},
};

#define PERTURB_HINT                                                                                         \
	"Allowed: raw, jpeg:1..100, blur:1..31 (odd), scale:1..1000, rotate:-360..360, flip, flip:h, flip:v."

static bool
perturb_in_range(const PerturbRule *rule, double value)
{
	/* NaN fails the first comparison. */
	return value >= rule->low && value <= rule->high && (rule->step == 0 || value == floor(value)) &&
	       (rule->step != 2 || fmod(value, 2) == 1);
}

DfxStatus
dfx_perturbation_check(const DfxPerturbation *p, DfxErr *err)
{
	if (p->kind < DFX_PERTURB_COUNT && perturb_in_range(&perturb_rules[p->kind], p->value))
		return DFX_OK;
	dfx_fail(err, DFX_EINVAL, "there is no perturbation number %u with the value %g", (unsigned) p->kind,
	         p->value);
	dfx_hint(err, PERTURB_HINT);
	return DFX_EINVAL;
}

/* The whole of text as a decimal number; NaN when it is none. */
static double
perturb_number(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	/* strtod() also takes blanks, hexadecimal, "inf" and exponents. */
	return *text != '\0' && text[strspn(text, "+-.0123456789")] == '\0' && *end == '\0' ? value : NAN;
}

/* What follows the name: nothing, or a colon and a parameter. */
static bool
perturb_parameter(DfxPerturbKind kind, const char *rest, double *value)
{
	const PerturbRule *rule = &perturb_rules[kind];

	*value = 0;
	if (rule->takes_number)
	{
		*value = *rest == ':' ? perturb_number(rest + 1) : NAN;
		return perturb_in_range(rule, *value);
	}
	if (kind == DFX_PERTURB_FLIP && strcmp(rest, ":h") == 0)
		*value = DFX_FLIP_H;
	else if (kind == DFX_PERTURB_FLIP && strcmp(rest, ":v") == 0)
		*value = DFX_FLIP_V;
	else
		return *rest == '\0';
	return true;
}

DfxStatus
dfx_perturbation_parse(const char *how, DfxPerturbation *p, DfxErr *err)
{
	size_t name = strcspn(how, ":");

	if (strlen(how) > PERTURB_MAX_TEXT)
	{
		dfx_fail(err, DFX_EINVAL, "a perturbation of %zu bytes is too long", strlen(how));
		dfx_hint(err, PERTURB_HINT);
		return DFX_EINVAL;
	}
	for (uint32_t kind = 0; kind < DFX_PERTURB_COUNT; kind++)
	{
		const char *known = perturb_rules[kind].name;

		if (strlen(known) != name || strncmp(known, how, name) != 0)
			continue;
		if (perturb_parameter(kind, how + name, &p->value))
		{
			p->kind = kind;
			return DFX_OK;
		}
		dfx_fail(err, DFX_EINVAL, "perturbation \"%s\" has a wrong parameter, or none", how);
		dfx_hint(err, PERTURB_HINT);
		return DFX_EINVAL;
	}
	dfx_fail(err, DFX_EINVAL, "there is no perturbation \"%s\"", how);
	dfx_hint(err, PERTURB_HINT);
	return DFX_EINVAL;
}
