#include "common/choice.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/attributes.h"
#include "common/price.h"

static const double COMPLEXITY_UNKNOWN = 0.5;
static const double GRADE_SCALE = 12;                /* grades for the odds to grow e-fold */
static const double NEED_LEAST = 10, NEED_MORE = 70; /* grades */

static const char *const names[ABILITIES] = {"tools", "images",   "json",    "json_schema",
                                             "audio", "logprobs", "variants", "stored"};

const char *choice_ability_name(size_t position)
{
    return names[position];
}

uint32_t choice_ability_find(const char *name)
{
    for (size_t i = 0; i < ABILITIES; i++) {
        if (strcmp(names[i], name) == 0) {
            return UINT32_C(1) << i;
        }
    }
    return 0;
}

enum choice_verdict choice_check(const struct choice_job *job, const struct choice_model *model)
{
    if ((job->residencies & ~model->residencies) != 0) {
        return CHOICE_ELSEWHERE;
    }
    if ((job->abilities & ~model->abilities) != 0) {
        return CHOICE_LACKS_ABILITY;
    }
    if (model->context_tokens > 0 && job->input_tokens >= model->context_tokens) {
        return CHOICE_TOO_SMALL;
    }
    return model->quality < job->quality_min ? CHOICE_TOO_LOW : CHOICE_FITS;
}

uint64_t choice_cost_nanousd(const struct choice_job *job, const struct choice_model *model)
{
    const struct price price = {
        .nanousd_per_mtok = {[PRICE_INPUT] = model->input_nanousd_per_mtok,
                             [PRICE_OUTPUT] = model->output_nanousd_per_mtok},
        .request_nanousd = model->request_nanousd,
        .permille = {[SERVICE_STANDARD] = 1000},
    };
    const struct price_tokens tokens = {
        .of = {[PRICE_INPUT] = job->input_tokens, [PRICE_OUTPUT] = job->output_tokens}};
    return price_cost_nanousd(&price, &tokens, SERVICE_STANDARD);
}

static double share(double part, double whole)
{
    return whole <= 0 ? 0 : part >= whole ? 1 : part / whole;
}

double choice_complexity(double complexity)
{
    return complexity < 0 ? COMPLEXITY_UNKNOWN : complexity;
}

double choice_chance(double complexity, double grade)
{
    const double above = grade - NEED_LEAST - NEED_MORE * choice_complexity(complexity);
    return 1 / (1 + exp(-above / GRADE_SCALE));
}

double choice_grades_between(double from, double to)
{
    return GRADE_SCALE * (log(to / (1 - to)) - log(from / (1 - from)));
}

static double chance_of_good(const struct choice_job *job, const struct choice_model *model)
{
    return choice_chance(job->complexity, (double)model->quality + model->learned);
}

void choice_scale_add(struct choice_scale *scale, const struct choice_job *job,
                      const struct choice_model *model)
{
    const double good = chance_of_good(job, model);
    const uint64_t cost = choice_cost_nanousd(job, model);
    scale->best = good > scale->best ? good : scale->best;
    scale->dearest_nanousd = cost > scale->dearest_nanousd ? cost : scale->dearest_nanousd;
}

struct choice_score choice_score(const struct choice_job *job, const struct choice_model *model,
                                 const struct choice_weights *weights,
                                 const struct choice_scale *scale)
{
    struct choice_score score = {
        .good = share(chance_of_good(job, model), scale->best),
        .failing = model->failing,
        .cost_nanousd = choice_cost_nanousd(job, model),
    };
    score.price = share((double)score.cost_nanousd, (double)scale->dearest_nanousd);
    score.late = job->left_ms == INT64_MAX ? 0 : share(model->p95_ms, (double)job->left_ms);
    score.total = weights->quality * score.good - weights->price * score.price -
                  weights->latency * score.late - score.failing;
    return score;
}

const char *choice_reason(const struct choice_weights *weights, const struct choice_score *winner,
                          const struct choice_score *loser)
{
    const struct {
        double lost;
        const char *name;
    } parts[] = {
        {weights->quality * (winner->good - loser->good), "quality"},
        {weights->price * (loser->price - winner->price), "price"},
        {weights->latency * (loser->late - winner->late), "latency"},
        {loser->failing - winner->failing, "failures"},
    };
    size_t most = 0;
    for (size_t i = 1; i < ARRAY_LENGTH(parts); i++) {
        most = parts[i].lost > parts[most].lost ? i : most;
    }
    return parts[most].lost > 0 ? parts[most].name : "order";
}

void choice_second_words(const char *provider, const char *model, char *ret_words, size_t bytes)
{
    (void)snprintf(ret_words, bytes, "; second call, beside a slow first one: %s/%s", provider,
                   model);
}
