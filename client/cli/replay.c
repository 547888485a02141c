#include "client/cli/replay.h"
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "client/cli/cli.h"
#include "common/choice.h"
#include "common/config.h"

enum { OUTPUT_TOKENS_ASSUMED = 256, COMPLEXITY_MAX = 255, RESIDENCY = 1, UNKNOWN_BYTES = 65 };
static const double LATE_QUANTILE = 0.95;
static const double TOKENS_MAX = 1e12, LATENCY_MS_MAX = 1e12, COST_MAX = 1e18;

struct outcome {
    const struct config_model *model;
    double score;
    double latency_ms;   /* below 0: not known */
    double cost_nanousd; /* below 0: of its tokens */
};

struct record {
    const struct config_tier *tier;
    const struct config_model *candidates[REPLAY_MODELS_MAX];
    size_t candidates_length;
    bool is_scored;
    uint16_t has_residency; /* bits by candidate */
    struct choice_job job;
    size_t outcomes_length;
    struct outcome *outcomes; /* owned */
};

struct replay {
    const struct config *config;
    const char *tier, *route;
    struct record *records;
    size_t length, capacity;
    double *p95_ms;  /* by index of config.models; 0: not known */
    size_t *lacking; /* by the same: records left out since it could answer and has no outcome */
    size_t *chosen[REPLAY_POLICIES];
    double *values[REPLAY_POLICIES][REPLAY_MEASURES];
    size_t counted, without_complexity;
    size_t timed;                /* of those that count: the latency is known */
    size_t unanswered;           /* left out, since no model can answer */
    char unknown[UNKNOWN_BYTES]; /* a model of outcomes that is not configured; "" there is none */
};

/* ---- life ---- */

int replay_create(const struct config *config, const char *tier, const char *route,
                  struct replay **ret_replay)
{
    CLEANUP(replay_destroy) struct replay *replay = calloc(1, sizeof(*replay));
    if (replay == NULL) {
        return -ENOMEM;
    }
    replay->config = config;
    replay->tier = tier;
    replay->route = route;
    replay->p95_ms = calloc(config->models_length + 1, sizeof(double));
    replay->lacking = calloc(config->models_length + 1, sizeof(size_t));
    bool is_whole = replay->p95_ms != NULL && replay->lacking != NULL;
    for (size_t p = 0; p < REPLAY_POLICIES; p++) {
        replay->chosen[p] = calloc(config->models_length + 1, sizeof(size_t));
        is_whole = is_whole && replay->chosen[p] != NULL;
    }
    if (!is_whole) {
        return -ENOMEM;
    }
    *ret_replay = TAKE(replay);
    return 0;
}

void replay_destroy(struct replay **replay_pointer)
{
    struct replay *replay = TAKE(*replay_pointer);
    if (replay == NULL) {
        return;
    }
    for (size_t i = 0; i < replay->length; i++) {
        free(replay->records[i].outcomes);
    }
    for (size_t p = 0; p < REPLAY_POLICIES; p++) {
        free(replay->chosen[p]);
        for (size_t m = 0; m < REPLAY_MEASURES; m++) {
            free(replay->values[p][m]);
        }
    }
    free(replay->records);
    free(replay->p95_ms);
    free(replay->lacking);
    free(replay);
}

/* ---- reading ---- */

struct reader {
    struct replay *replay;
    char *error; /* REPLAY_ERROR_BYTES */
};

static int refuse(const struct reader *reader, const char *format, ...) PRINTF_LIKE(2, 3);

static int refuse(const struct reader *reader, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(reader->error, REPLAY_ERROR_BYTES, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

/* Left out: *ret_number stays as it is. */
static int read_real(const struct reader *reader, const json_t *object, const char *name,
                     double most, double *ret_number)
{
    const json_t *value = json_object_get(object, name);
    if (value == NULL || json_is_null(value)) {
        return 0;
    }
    const double number = json_number_value(value);
    if (!json_is_number(value)) {
        return refuse(reader, "%s: must be a number from 0 to %g", name, most);
    }
    if (!(number >= 0 && number <= most)) {
        return refuse(reader, "%s: must be a number from 0 to %g, and is %g", name, most, number);
    }
    *ret_number = number;
    return 0;
}

static int read_text(const struct reader *reader, const json_t *object, const char *name,
                     const char **ret_text)
{
    const json_t *value = json_object_get(object, name);
    if (value == NULL || json_is_null(value)) {
        return 0;
    }
    if (!json_is_string(value)) {
        return refuse(reader, "%s: must be a text", name);
    }
    *ret_text = json_string_value(value);
    return 0;
}

static int read_score(const struct reader *reader, const char *model, const json_t *object,
                      double *ret_score)
{
    const json_t *right = json_object_get(object, "right");
    if (json_is_boolean(right)) {
        *ret_score = json_is_true(right) ? 1 : 0;
        return 0;
    }
    double score = -1;
    int r = read_real(reader, object, "score", 1, &score);
    if (r == 0 && score < 0) {
        r = refuse(reader, "outcomes: \"%.64s\" needs score, or right (true or false)", model);
    }
    *ret_score = score;
    return r;
}

static int read_outcome(const struct reader *reader, const struct config_model *model,
                        const json_t *object, struct outcome *ret_outcome)
{
    *ret_outcome = (struct outcome){.model = model, .latency_ms = -1, .cost_nanousd = -1};
    int r = read_score(reader, model->name, object, &ret_outcome->score);
    r = r < 0 ? r : read_real(reader, object, "run_ms", LATENCY_MS_MAX, &ret_outcome->latency_ms);
    r = r < 0 ? r
              : read_real(reader, object, "latency_ms", LATENCY_MS_MAX, &ret_outcome->latency_ms);
    return r < 0 ? r
                 : read_real(reader, object, "cost_nanousd", COST_MAX, &ret_outcome->cost_nanousd);
}

/* Models that are not configured are passed over. */
static int read_outcomes(const struct reader *reader, const json_t *root, struct record *record)
{
    json_t *outcomes = json_object_get(root, "outcomes");
    if (!json_is_object(outcomes)) {
        return refuse(reader, "outcomes: must be an object with a member for each model");
    }
    record->outcomes = calloc(json_object_size(outcomes) + 1, sizeof(*record->outcomes));
    if (record->outcomes == NULL) {
        return -ENOMEM;
    }
    const char *name = NULL;
    json_t *object = NULL;
    json_object_foreach (outcomes, name, object) {
        const struct config_model *model = config_find_model(reader->replay->config, name);
        if (model == NULL) {
            (void)snprintf(reader->replay->unknown, UNKNOWN_BYTES, "%s", name);
            continue;
        }
        int r = read_outcome(reader, model, object, &record->outcomes[record->outcomes_length]);
        if (r < 0) {
            return r;
        }
        record->outcomes_length++;
    }
    return 0;
}

static int read_abilities(const struct reader *reader, const json_t *root, uint32_t *ret_abilities)
{
    size_t i = 0;
    const json_t *item = NULL;
    json_array_foreach (json_object_get(root, "abilities"), i, item) {
        const char *name = json_string_value(item);
        const uint32_t ability = name == NULL ? 0 : choice_ability_find(name);
        if (ability == 0) {
            return refuse(reader, "abilities: \"%.32s\" is none", name == NULL ? "" : name);
        }
        *ret_abilities |= ability;
    }
    return 0;
}

/* The tier's, where there is none, as for a submission. */
static int read_deadline(const struct reader *reader, const json_t *root, struct record *record)
{
    const json_t *value = json_object_get(root, "deadline");
    int64_t deadline_ms = 0;
    double seconds = 0;
    if (json_is_string(value)) {
        if (cli_read_duration(json_string_value(value), &deadline_ms) < 0) {
            return refuse(reader, "deadline: must be like 30s, or seconds");
        }
    } else {
        int r = read_real(reader, root, "deadline", LATENCY_MS_MAX / 1000, &seconds);
        if (r < 0) {
            return r;
        }
        deadline_ms = (int64_t)(seconds * 1000);
    }
    record->job.left_ms = deadline_ms > 0 ? deadline_ms : record->tier->deadline_ms;
    return 0;
}

static bool has_label(const struct config *config, const char *provider_name, const char *label)
{
    const struct config_provider *provider =
        provider_name == NULL ? NULL : config_find_provider(config, provider_name);
    for (size_t i = 0; provider != NULL && i < provider->residency_length; i++) {
        if (strcmp(provider->residency[i], label) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_resident(const struct config *config, const struct config_model *model,
                        const char *label)
{
    bool is_there = has_label(config, model->provider, label);
    for (size_t i = 0; i < model->failover_length; i++) {
        is_there = is_there || has_label(config, model->failover[i], label);
    }
    return is_there;
}

static int read_candidates(const struct reader *reader, const json_t *root, struct record *record)
{
    const struct config *config = reader->replay->config;
    const char *route = reader->replay->route, *label = "";
    int r = read_text(reader, root, "route", &route);
    r = r < 0 ? r : read_text(reader, root, "residency", &label);
    if (r < 0) {
        return r;
    }
    record->candidates_length =
        config_candidates(config, route, record->tier->name, record->tier->quality_min,
                          record->candidates, REPLAY_MODELS_MAX, &record->is_scored);
    if (record->candidates_length == 0) {
        return refuse(reader,
                      "route: \"%.64s\" is no configured model or alias; write the name of one in "
                      "models or routes",
                      route);
    }
    record->job.residencies = (uint32_t)(label[0] != '\0') << RESIDENCY;
    for (size_t i = 0; i < record->candidates_length; i++) {
        const bool is_there = is_resident(config, record->candidates[i], label);
        record->has_residency |= (uint16_t)(is_there << i);
    }
    return 0;
}

static int read_job(const struct reader *reader, const json_t *root, struct record *record)
{
    double complexity = 0, input_tokens = 0, output_tokens = 0;
    int r = read_real(reader, root, "prompt_complexity", COMPLEXITY_MAX, &complexity);
    r = r < 0 ? r : read_real(reader, root, "input_tokens", TOKENS_MAX, &input_tokens);
    r = r < 0 ? r : read_real(reader, root, "output_tokens", TOKENS_MAX, &output_tokens);
    r = r < 0 ? r : read_abilities(reader, root, &record->job.abilities);
    record->job.complexity = complexity < 1 ? -1 : (complexity - 1) / (COMPLEXITY_MAX - 1);
    record->job.input_tokens = (uint64_t)input_tokens;
    record->job.output_tokens = output_tokens > 0 ? (uint64_t)output_tokens : OUTPUT_TOKENS_ASSUMED;
    return r < 0 ? r : read_deadline(reader, root, record);
}

static int read_record(const struct reader *reader, const json_t *root, struct record *record)
{
    const char *tier = reader->replay->tier;
    int r = read_text(reader, root, "tier", &tier);
    if (r < 0) {
        return r;
    }
    record->tier = config_find_tier(reader->replay->config, tier);
    if (record->tier == NULL) {
        return refuse(reader, "tier: \"%.64s\" is not a tier; write the name of one in tiers",
                      tier);
    }
    r = read_candidates(reader, root, record);
    r = r < 0 ? r : read_job(reader, root, record);
    return r < 0 ? r : read_outcomes(reader, root, record);
}

static int make_room(struct replay *replay)
{
    if (replay->length < replay->capacity) {
        return 0;
    }
    if (replay->length >= REPLAY_RECORDS_MAX) {
        return -ENOBUFS;
    }
    const size_t capacity = replay->capacity == 0 ? 1024 : 2 * replay->capacity;
    struct record *records = reallocarray(replay->records, capacity, sizeof(*records));
    if (records == NULL) {
        return -ENOMEM;
    }
    replay->records = records;
    replay->capacity = capacity;
    return 0;
}

int replay_add(struct replay *replay, const char *line, size_t bytes,
               char ret_error[REPLAY_ERROR_BYTES])
{
    const struct reader reader = {.replay = replay, .error = ret_error};
    int r = make_room(replay);
    if (r < 0) {
        return r;
    }
    json_error_t error;
    json_t *root = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, &error);
    struct record record = {.candidates_length = 0};
    r = json_is_object(root) ? read_record(&reader, root, &record)
                             : refuse(&reader, "is no JSON object%s%s", root == NULL ? ": " : "",
                                      root == NULL ? error.text : "");
    json_decref(root);
    if (r < 0) {
        free(record.outcomes);
        return r;
    }
    replay->records[replay->length++] = record;
    return 0;
}

/* ---- what models take ---- */

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static size_t index_of(const struct replay *replay, const struct config_model *model)
{
    return (size_t)(model - replay->config->models);
}

/* Takes `latencies` for its use: room for one of each record. */
static double p95_of(const struct replay *replay, const struct config_model *model,
                     double *latencies)
{
    size_t length = 0;
    for (size_t i = 0; i < replay->length; i++) {
        const struct record *record = &replay->records[i];
        for (size_t k = 0; k < record->outcomes_length; k++) {
            if (record->outcomes[k].model == model && record->outcomes[k].latency_ms >= 0) {
                latencies[length++] = record->outcomes[k].latency_ms;
            }
        }
    }
    if (length == 0) {
        return 0;
    }
    qsort(latencies, length, sizeof(*latencies), compare);
    const size_t rank = (size_t)ceil((double)length * LATE_QUANTILE);
    return latencies[rank - 1];
}

/* ---- choosing ---- */

static struct choice_model traits_of(const struct replay *replay, const struct record *record,
                                     size_t candidate)
{
    const struct config_model *model = record->candidates[candidate];
    return (struct choice_model){
        .abilities = config_abilities(model),
        .residencies = (uint32_t)(record->has_residency >> candidate & 1) << RESIDENCY,
        .context_tokens = model->context_tokens,
        .quality = model->quality,
        .input_nanousd_per_mtok = model->input_nanousd_per_mtok,
        .output_nanousd_per_mtok = model->output_nanousd_per_mtok,
        .p95_ms = replay->p95_ms[index_of(replay, model)],
    };
}

static const struct outcome *outcome_of(const struct record *record,
                                        const struct config_model *model)
{
    for (size_t i = 0; i < record->outcomes_length; i++) {
        if (record->outcomes[i].model == model) {
            return &record->outcomes[i];
        }
    }
    return NULL;
}

/* Those that can answer a record. */
struct able {
    size_t length;
    struct choice_model traits[REPLAY_MODELS_MAX];
    const struct outcome *outcomes[REPLAY_MODELS_MAX];
};

/* False: the record does not count, which is noted. */
static bool find_able(struct replay *replay, const struct record *record, struct able *ret_able)
{
    ret_able->length = 0;
    for (size_t i = 0; i < record->candidates_length; i++) {
        const struct choice_model traits = traits_of(replay, record, i);
        if (choice_check(&record->job, &traits) == CHOICE_FITS) {
            const struct outcome *outcome = outcome_of(record, record->candidates[i]);
            if (outcome == NULL) {
                replay->lacking[index_of(replay, record->candidates[i])]++;
                return false;
            }
            ret_able->traits[ret_able->length] = traits;
            ret_able->outcomes[ret_able->length++] = outcome;
        }
    }
    replay->unanswered += ret_able->length == 0;
    return ret_able->length > 0;
}

static size_t choose_configured(const struct record *record, const struct able *able)
{
    const struct config_tier *tier = record->tier;
    const struct choice_weights weights = {.quality = tier->weight_quality / 100.0,
                                           .price = tier->weight_price / 100.0,
                                           .latency = tier->weight_latency / 100.0};
    struct choice_scale scale = {.best = 0};
    for (size_t i = 0; i < able->length; i++) {
        choice_scale_add(&scale, &record->job, &able->traits[i]);
    }
    size_t best = 0;
    double most = 0;
    for (size_t i = 0; record->is_scored && i < able->length; i++) {
        const double total = choice_score(&record->job, &able->traits[i], &weights, &scale).total;
        if (i == 0 || total > most) {
            best = i;
            most = total;
        }
    }
    return best;
}

static size_t choose(const struct record *record, const struct able *able,
                     enum replay_policy policy)
{
    size_t best = 0;
    if (policy == REPLAY_CONFIGURED) {
        return choose_configured(record, able);
    }
    for (size_t i = 1; i < able->length; i++) {
        const struct choice_model *model = &able->traits[i], *than = &able->traits[best];
        const bool is_better = policy == REPLAY_BEST ? model->quality > than->quality
                                                     : choice_cost_nanousd(&record->job, model) <
                                                           choice_cost_nanousd(&record->job, than);
        best = is_better ? i : best;
    }
    return best;
}

static const struct outcome *count(struct replay *replay, const struct record *record,
                                   const struct able *able, enum replay_policy policy)
{
    const size_t chosen = choose(record, able, policy);
    const struct outcome *outcome = able->outcomes[chosen];
    const double cost = outcome->cost_nanousd >= 0
                            ? outcome->cost_nanousd
                            : (double)choice_cost_nanousd(&record->job, &able->traits[chosen]);
    replay->chosen[policy][index_of(replay, outcome->model)]++;
    replay->values[policy][REPLAY_QUALITY][replay->counted] = outcome->score;
    replay->values[policy][REPLAY_COST_NANOUSD][replay->counted] = cost;
    return outcome;
}

static void count_record(struct replay *replay, const struct record *record,
                         const struct able *able)
{
    const struct outcome *outcomes[REPLAY_POLICIES];
    bool is_timed = true;
    for (int p = 0; p < REPLAY_POLICIES; p++) {
        outcomes[p] = count(replay, record, able, (enum replay_policy)p);
        is_timed = is_timed && outcomes[p]->latency_ms >= 0;
    }
    for (int p = 0; is_timed && p < REPLAY_POLICIES; p++) {
        replay->values[p][REPLAY_LATENCY_MS][replay->timed] = outcomes[p]->latency_ms;
    }
    replay->counted++;
    replay->timed += is_timed;
    replay->without_complexity += record->job.complexity < 0;
}

static int make_values(struct replay *replay)
{
    for (size_t p = 0; p < REPLAY_POLICIES; p++) {
        for (size_t m = 0; m < REPLAY_MEASURES; m++) {
            replay->values[p][m] = calloc(replay->length + 1, sizeof(double));
            if (replay->values[p][m] == NULL) {
                return -ENOMEM;
            }
        }
    }
    return 0;
}

int replay_run(struct replay *replay)
{
    int r = make_values(replay);
    double *latencies = calloc(replay->length + 1, sizeof(double));
    if (r < 0 || latencies == NULL) {
        free(latencies);
        return -ENOMEM;
    }
    for (size_t i = 0; i < replay->config->models_length; i++) {
        replay->p95_ms[i] = p95_of(replay, &replay->config->models[i], latencies);
    }
    free(latencies);
    for (size_t i = 0; i < replay->length; i++) {
        struct able able;
        if (find_able(replay, &replay->records[i], &able)) {
            count_record(replay, &replay->records[i], &able);
        }
    }
    return 0;
}

/* ---- what it came to ---- */

size_t replay_length(const struct replay *replay)
{
    return replay->counted;
}

size_t replay_left_out(const struct replay *replay)
{
    return replay->length - replay->counted;
}

size_t replay_without_complexity(const struct replay *replay)
{
    return replay->without_complexity;
}

/* NULL: no record is left out for one. */
static const char *most_lacking(const struct replay *replay)
{
    size_t most = 0, times = 0;
    for (size_t i = 0; i < replay->config->models_length; i++) {
        most = replay->lacking[i] > times ? i : most;
        times = replay->lacking[i] > times ? replay->lacking[i] : times;
    }
    return times == 0 ? NULL : replay->config->models[most].name;
}

static void write_why(FILE *out, const struct replay *replay)
{
    const size_t lacking = replay_left_out(replay) - replay->unanswered;
    const char *model = most_lacking(replay);
    if (model != NULL) {
        fprintf(
            out,
            "%zu lack an outcome of a model that could have answered, most often of "
            "\"%.64s\": run them with it, too, and add what came of it to outcomes, or replay a "
            "route without it",
            lacking, model);
    }
    if (replay->unanswered > 0) {
        fprintf(out,
                "%s%zu can be answered by no model of their route: look at their abilities, "
                "residency and input_tokens, and at the models' abilities and context_tokens",
                model == NULL ? "" : "; ", replay->unanswered);
    }
    if (replay->unknown[0] != '\0') {
        fprintf(out, "; outcomes name \"%s\", which the configuration does not have",
                replay->unknown);
    }
}

void replay_explain_left_out(const struct replay *replay, char ret_why[REPLAY_WHY_BYTES])
{
    ret_why[0] = '\0';
    FILE *out = replay_left_out(replay) == 0 ? NULL : fmemopen(ret_why, REPLAY_WHY_BYTES, "w");
    if (out != NULL) {
        write_why(out, replay);
        (void)fclose(out);
    }
}

const double *replay_values(const struct replay *replay, enum replay_policy policy,
                            enum replay_measure measure, size_t *ret_length)
{
    *ret_length = measure == REPLAY_LATENCY_MS ? replay->timed : replay->counted;
    return replay->values[policy][measure];
}

void replay_visit_choices(const struct replay *replay, enum replay_policy policy,
                          void (*visit)(void *context, const char *model, size_t times),
                          void *context)
{
    for (size_t i = 0; i < replay->config->models_length; i++) {
        if (replay->chosen[policy][i] > 0) {
            visit(context, replay->config->models[i].name, replay->chosen[policy][i]);
        }
    }
}
