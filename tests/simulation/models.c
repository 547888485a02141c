#include "tests/simulation/models.h"
#include <stddef.h>
#include "tests/simulation/scenario.h"

_Static_assert(SCENARIO_MODELS == 3 && SCENARIO_PROVIDERS == 3 && SCENARIO_TENANTS == 3,
               "as many as struct scenario_models has room for");

static const uint64_t DICE_OF_ITS_OWN = UINT64_C(0x6d6f64656c73);

const char *const models_abilities[MODELS_ABILITIES] = {
    "tools", "images", "json", "json_schema", "audio", "logprobs", "variants", "stored"};

const char *models_label(uint32_t label)
{
    static const char *const labels[] = {NULL, "eu", "us", "ch", "mars"};
    return labels[label];
}

uint32_t models_input(uint32_t size)
{
    static const uint32_t tokens[MODELS_INPUTS] = {0, 100, 1000, 30000};
    return tokens[size];
}

/* The configuration's strings are char *, and nobody writes to these. */
static char *literal(const char *text)
{
    return (char *)(uintptr_t)text;
}

/* None: all. */
static void throw_abilities(struct scenario *scenario, size_t at)
{
    struct scenario_models *models = &scenario->by_choice;
    struct config_model *model = &scenario->models[at];
    model->abilities = models->abilities[at];
    model->abilities_length = 0;
    for (size_t i = 0; i < MODELS_ABILITIES; i++) {
        if (dice_hit(&models->dice, 700)) {
            model->abilities[model->abilities_length++] = literal(models_abilities[i]);
        }
    }
}

static void throw_model(struct scenario *scenario, size_t at)
{
    struct scenario_models *models = &scenario->by_choice;
    struct config_model *model = &scenario->models[at];
    struct dice *dice = &models->dice;
    model->abilities_length = 0;
    if (models->has_abilities && dice_hit(dice, 600)) {
        throw_abilities(scenario, at);
    }
    const uint32_t fitting = models_input((uint32_t)dice_below(dice, MODELS_INPUTS));
    model->context_tokens = models->has_contexts ? fitting + fitting / 10 : 0;
    if (models->has_grades) {
        model->quality = (uint32_t)dice_below(dice, 101);
    }
    model->input_nanousd_per_mtok = dice_below(dice, 1000) * 1000000;
    model->output_nanousd_per_mtok = dice_below(dice, 4000) * 1000000;
}

static void throw_labels(struct scenario *scenario, size_t at)
{
    struct scenario_models *models = &scenario->by_choice;
    struct config_provider *provider = &scenario->providers[at];
    provider->residency = models->labels[at];
    provider->residency_length = 0;
    for (uint32_t i = 1; i <= MODELS_LABELS && models->has_labels; i++) {
        if (dice_hit(&models->dice, 600)) {
            provider->residency[provider->residency_length++] = literal(models_label(i));
        }
    }
}

static void throw_tenant(struct scenario *scenario, size_t at)
{
    struct scenario_models *models = &scenario->by_choice;
    struct config_tenant *tenant = &scenario->tenants[at];
    struct dice *dice = &models->dice;
    const bool has_list = models->has_lists && dice_hit(dice, 400);
    const bool has_label = models->has_labels && dice_hit(dice, 250);
    tenant->models = models->allowed[at];
    tenant->models_length = 0;
    for (size_t i = 0; i < SCENARIO_MODELS && has_list; i++) {
        if (dice_hit(dice, 600)) {
            tenant->models[tenant->models_length++] = scenario->models[i].name;
        }
    }
    tenant->residency = literal(!has_label ? ""
                                : dice_hit(dice, 100)
                                    ? models_label(MODELS_LABEL_OF_NONE)
                                    : models_label(1 + (uint32_t)dice_below(dice, MODELS_LABELS)));
}

/* In some seeds only grades count; in others nothing does, and the first is chosen. */
static void throw_weights(struct scenario *scenario)
{
    struct dice *dice = &scenario->by_choice.dice;
    const uint64_t kind = dice_below(dice, 4);
    for (size_t i = 0; i < SCENARIO_TIERS && kind > 0; i++) {
        struct config_tier *tier = &scenario->tiers[i];
        tier->weight_quality = (uint32_t)dice_between(dice, 1, 100);
        tier->weight_price = kind == 1 ? 0 : (uint32_t)dice_below(dice, 101);
        tier->weight_latency = kind == 1 ? 0 : (uint32_t)dice_below(dice, 101);
    }
}

static void throw_all(struct scenario *scenario, uint32_t permille)
{
    struct dice *dice = &scenario->by_choice.dice;
    for (size_t i = 0; i < SCENARIO_MODELS; i++) {
        if (dice_hit(dice, permille)) {
            throw_model(scenario, i);
        }
        if (dice_hit(dice, permille)) {
            throw_labels(scenario, i);
        }
        if (dice_hit(dice, permille)) {
            throw_tenant(scenario, i);
        }
    }
    if (dice_hit(dice, permille)) {
        scenario->alias.choice = dice_hit(dice, 500) ? CHOICE_LISTED : CHOICE_SCORED;
    }
}

void models_init(struct scenario *scenario)
{
    static const uint32_t picky[] = {50, 200, 500};
    struct scenario_models *models = &scenario->by_choice;
    struct dice *dice = &models->dice;
    dice->state = scenario->options.seed ^ DICE_OF_ITS_OWN;
    models->is_on = dice_hit(dice, 500);
    if (!models->is_on) {
        return;
    }
    models->has_abilities = dice_hit(dice, 600);
    models->has_contexts = dice_hit(dice, 600);
    models->has_labels = dice_hit(dice, 600);
    models->has_lists = dice_hit(dice, 500);
    models->has_grades = dice_hit(dice, 600);
    models->has_many_tasks = dice_hit(dice, 300);
    models->picky = picky[dice_below(dice, sizeof(picky) / sizeof(picky[0]))];
    throw_weights(scenario);
    throw_all(scenario, 1000);
}

void models_change(struct scenario *scenario)
{
    if (scenario->by_choice.is_on) {
        throw_all(scenario, 300);
    }
}
