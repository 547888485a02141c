/*
 * models: what a seed says of models, providers and tenants as far as a job may be answered by one
 * model and not by another: abilities, contexts, grades, prices, residency labels, who may use
 * what, and whether an alias is a list or scored.
 *
 * In half of the seeds all is as it is without that. Has dice of its own: a seed's other chances
 * stay what they are.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "tests/simulation/dice.h"

struct scenario;

enum {
    MODELS_ABILITIES = 8, /* common/choice.h */
    MODELS_LABELS = 3,    /* residency, from 1; and one that no provider has: */
    MODELS_LABEL_OF_NONE = MODELS_LABELS + 1,
    MODELS_INPUTS = 4, /* sizes of prompts */
};

struct scenario_models {
    bool is_on;
    struct dice dice;
    bool has_abilities, has_contexts, has_labels, has_lists, has_grades; /* other than usual ones */
    uint32_t picky;      /* permille: a job needs something, for each of what it may need */
    bool has_many_tasks; /* more than the broker keeps apart */
    char *abilities[3][MODELS_ABILITIES], *labels[3][MODELS_LABELS], *allowed[3][3];
};

extern const char *const models_abilities[MODELS_ABILITIES]; /* by the bits of the wire */
/* NULL, of 0: any will do. */
const char *models_label(uint32_t label);
/* Tokens; 0: not known. Of a context that just takes it: a tenth more. */
uint32_t models_input(uint32_t size);

/* After models, providers, tenants and tiers are named. */
void models_init(struct scenario *scenario);
/* What an operator changes of that before a reload. */
void models_change(struct scenario *scenario);
