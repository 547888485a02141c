#include "tests/simulation/needs.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "broker/core/record.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/degradation.h"

enum {
    COMPLEXITIES = 256, /* 0: not known */
    TASKS = 5,
    TASKS_TOO_MANY = 400,
    PREFIXES = 8,
    LOST_MAX = 40, /* grades */
    GRADES_MAX = 100,
};
/* An upper bound of what the core keeps of an input's size. */
static const uint32_t INPUT_ROUNDED_PERCENT = 6;

/* Of a list as of what is scored, the first of the best: by number, as every list has them. */
static const uint32_t in_order[SCENARIO_UPSTREAMS] = {0, 1, 4, 2, 3};

/* ---- what jobs need ---- */

struct needs {
    uint32_t complexity, abilities, input_tokens;
    uint32_t
        features;    /* of a job of no complexity: their number, some of them more than there are */
    uint8_t feature; /* each of them */
    const char *residency; /* NULL: none */
    uint32_t task;         /* 0: none */
    uint32_t prefix;       /* 0: none */
};

static bool is_on(const struct simulation *simulation)
{
    return simulation->scenario.by_choice.is_on;
}

/* What its payload has in it: the same of identical jobs. */
static void throw_for_payload(const struct scenario_models *models, struct dice *dice,
                              struct needs *needs)
{
    for (uint32_t i = 0; i < MODELS_ABILITIES; i++) {
        needs->abilities |= (uint32_t)dice_hit(dice, models->picky / 3) << i;
    }
    needs->input_tokens =
        dice_hit(dice, models->picky) ? models_input((uint32_t)dice_below(dice, MODELS_INPUTS)) : 0;
}

static void throw_for_job(const struct scenario_models *models, struct dice *dice,
                          struct needs *needs)
{
    const bool has_label = models->has_labels && dice_hit(dice, models->picky);
    needs->complexity = dice_hit(dice, 300) ? 0 : (uint32_t)dice_below(dice, COMPLEXITIES);
    needs->residency = !has_label ? NULL
                       : dice_hit(dice, 50)
                           ? models_label(MODELS_LABEL_OF_NONE)
                           : models_label(1 + (uint32_t)dice_below(dice, MODELS_LABELS));
    needs->features = needs->complexity == 0 ? (uint32_t)dice_below(dice, NEEDS_FEATURES + 1) : 0;
    needs->feature = (uint8_t)dice_below(dice, 3);
    needs->task = (uint32_t)dice_below(dice, models->has_many_tasks ? TASKS_TOO_MANY : TASKS);
    needs->prefix = (uint32_t)dice_below(dice, PREFIXES);
}

static struct needs needs_of(const struct simulation *simulation, uint32_t index)
{
    const struct scenario_models *models = &simulation->scenario.by_choice;
    const struct sim_job *job = &simulation->jobs[index];
    const uint64_t seed = simulation->scenario.options.seed;
    struct needs needs = {.residency = NULL};
    if (!models->is_on) {
        return needs;
    }
    const uint64_t of_payload = job->canonical != 0 ? UINT64_MAX - job->canonical : index;
    struct dice dice = {seed ^ of_payload << 20};
    throw_for_payload(models, &dice, &needs);
    dice.state = seed ^ ((uint64_t)index << 24) ^ 1;
    throw_for_job(models, &dice, &needs);
    return needs;
}

void needs_fill(const struct simulation *simulation, uint32_t job, struct event_submit *submit,
                struct needs_words *ret_words)
{
    const struct needs needs = needs_of(simulation, job);
    const bool is_hidden = simulation_plant(simulation, PLANT_IGNORE_NEEDS);
    *ret_words = (struct needs_words){.task = ""};
    if (needs.task != 0) {
        (void)snprintf(ret_words->task, sizeof(ret_words->task), "task-%u", needs.task);
    }
    memset(ret_words->features, needs.feature, needs.features);
    submit->features = needs.features == 0 ? NULL : ret_words->features;
    submit->features_length = needs.features;
    submit->complexity = needs.complexity;
    submit->abilities = is_hidden ? 0 : needs.abilities;
    submit->input_tokens = needs.input_tokens;
    submit->residency = needs.residency;
    submit->task = ret_words->task;
    submit->prefix = needs.prefix;
}

void needs_tell(const struct simulation *simulation, struct call *call)
{
    if (is_on(simulation) && call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED &&
        !call->is_made) {
        call->error_code = "unsupported";
    }
}

/* ---- who can answer one ---- */

static const struct config_model *model_of(const struct scenario *scenario, uint32_t upstream)
{
    size_t i = 0;
    while (i < SCENARIO_MODELS - 1 &&
           strcmp(scenario->models[i].name, scenario_upstreams[upstream][1]) != 0) {
        i++;
    }
    return &scenario->models[i];
}

static const struct config_provider *provider_of(const struct scenario *scenario, uint32_t upstream)
{
    size_t i = 0;
    while (i < SCENARIO_PROVIDERS - 1 &&
           strcmp(scenario->providers[i].name, scenario_upstreams[upstream][0]) != 0) {
        i++;
    }
    return &scenario->providers[i];
}

static bool lists(char *const *items, size_t length, const char *text)
{
    for (size_t i = 0; i < length; i++) {
        if (strcmp(items[i], text) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_abilities(const struct config_model *model, uint32_t abilities)
{
    for (uint32_t i = 0; i < MODELS_ABILITIES && model->abilities_length > 0; i++) {
        if ((abilities >> i & 1) != 0 &&
            !lists(model->abilities, model->abilities_length, models_abilities[i])) {
            return false;
        }
    }
    return true;
}

static bool has_label(const struct config_provider *provider, const char *label)
{
    return label == NULL || label[0] == '\0' ||
           lists(provider->residency, provider->residency_length, label);
}

/* NULL: it can. */
static const char *why_not(const struct simulation *simulation, uint32_t index, uint32_t upstream)
{
    const struct scenario *scenario = &simulation->scenario;
    const struct needs needs = needs_of(simulation, index);
    const struct config_model *model = model_of(scenario, upstream);
    const struct config_provider *provider = provider_of(scenario, upstream);
    const uint32_t tenant = simulation->jobs[index].tenant;
    if (!has_abilities(model, needs.abilities)) {
        return "lacks an ability that it needs";
    }
    if (model->context_tokens > 0 && needs.input_tokens >= model->context_tokens) {
        return "is too small for it";
    }
    if (!has_label(provider, needs.residency)) {
        return "has not its residency label";
    }
    if (!has_label(provider, simulation->needs.residency[tenant])) {
        return "has not the residency label of its tenant";
    }
    return (simulation->needs.allowed[tenant] >> upstream & 1) == 0 ? "is not allowed to its tenant"
                                                                    : NULL;
}

/* A bit for each upstream that may serve its queue; 0: its route is configured no more. */
static uint32_t candidates_of(const struct simulation *simulation, const struct sim_job *job)
{
    const bool is_there =
        job->route < SCENARIO_ROUTES - 1 || simulation->scenario.config.routes_length > 0;
    return is_there ? simulation->scenario.candidates[job->route][job->tier] : 0;
}

static uint32_t able_ones(const struct simulation *simulation, uint32_t index)
{
    const uint32_t candidates = candidates_of(simulation, &simulation->jobs[index]);
    uint32_t able = 0;
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        const bool can = (candidates >> i & 1) != 0 && why_not(simulation, index, i) == NULL;
        able |= (uint32_t)can << i;
    }
    return able;
}

static bool has_text(const char *text)
{
    return text != NULL && text[0] != '\0';
}

/* A label or a list says where it may go, which no worker knows that chooses by itself. */
static bool is_bound(const struct simulation *simulation, uint32_t index)
{
    const uint32_t tenant = simulation->jobs[index].tenant;
    return has_text(needs_of(simulation, index).residency) ||
           has_text(simulation->needs.residency[tenant]) ||
           simulation->needs.allowed[tenant] != UINT32_MAX;
}

static bool is_hopeless(const struct simulation *simulation, uint32_t index)
{
    return able_ones(simulation, index) == 0 &&
           (candidates_of(simulation, &simulation->jobs[index]) != 0 ||
            is_bound(simulation, index));
}

bool needs_are_alike(const struct simulation *simulation, uint32_t a, uint32_t b)
{
    const struct needs of_a = needs_of(simulation, a), of_b = needs_of(simulation, b);
    const char *label = of_a.residency == NULL ? "" : of_a.residency;
    return of_a.abilities == of_b.abilities &&
           strcmp(label, of_b.residency == NULL ? "" : of_b.residency) == 0;
}

bool needs_are_picky(const struct simulation *simulation, uint32_t job)
{
    return is_on(simulation) &&
           (simulation->jobs[job].is_unsaid ||
            able_ones(simulation, job) != candidates_of(simulation, &simulation->jobs[job]));
}

/* ---- as it is configured ---- */

static uint32_t allowed_by(const struct config_tenant *tenant, uint32_t known)
{
    uint32_t allowed = 0;
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        const bool is_allowed =
            (known >> i & 1) != 0 &&
            lists(tenant->models, tenant->models_length, scenario_upstreams[i][1]);
        allowed |= (uint32_t)is_allowed << i;
    }
    return tenant->models_length == 0 ? UINT32_MAX : allowed;
}

/* A tenant that is configured no more is as it was, and may use nothing that came since. */
void needs_see_config(struct simulation *simulation)
{
    struct watched_needs *watched = &simulation->needs;
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        watched->known |= (uint32_t)scenario_has_upstream(&simulation->scenario, i) << i;
    }
    for (uint32_t i = simulation->scenario.lacks_tenant ? 1 : 0; i < SCENARIO_TENANTS; i++) {
        const struct config_tenant *tenant = &simulation->scenario.tenants[i];
        watched->residency[i] = tenant->residency;
        watched->allowed[i] = allowed_by(tenant, watched->known);
    }
}

/* Of a tenant that is not configured nothing is known: it may use nothing. */
void needs_restart(struct simulation *simulation)
{
    struct watched_needs *watched = &simulation->needs;
    *watched = (struct watched_needs){.latest = NO_JOB};
    for (uint32_t i = 0; i < SCENARIO_TENANTS; i++) {
        watched->allowed[i] = 0;
    }
    needs_see_config(simulation);
}

/* ---- dispatch ---- */

static bool is_scored(const struct simulation *simulation, const struct sim_job *job,
                      uint32_t candidates)
{
    return job->route == SCENARIO_ROUTES - 1 &&
           simulation->scenario.alias.choice == CHOICE_SCORED &&
           (candidates & (candidates - 1)) != 0;
}

static uint32_t grade_of(const struct simulation *simulation, uint32_t upstream)
{
    return model_of(&simulation->scenario, upstream)->quality;
}

/* The grades that the best or (is_first) the first one of them has. */
static uint32_t wanted_grade(const struct simulation *simulation, uint32_t able, bool is_first)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        const uint32_t upstream = in_order[i];
        if ((able >> upstream & 1) == 0) {
            continue;
        }
        const uint32_t grade = grade_of(simulation, upstream);
        most = grade > most ? grade : most;
        if (is_first) {
            return grade;
        }
    }
    return most;
}

static void check_lost(struct simulation *simulation, uint32_t index, uint32_t upstream,
                       uint32_t lost)
{
    const struct sim_job *job = &simulation->jobs[index];
    const struct config_tier *tier = &simulation->scenario.tiers[job->tier];
    const bool scores = is_scored(simulation, job, candidates_of(simulation, job));
    const bool has_no_weights =
        tier->weight_quality == 0 && tier->weight_price == 0 && tier->weight_latency == 0;
    const bool goes_by_grade = tier->weight_price == 0 && tier->weight_latency == 0;
    /* What is learned of models at a task stands beside their grades. */
    const bool learns = needs_of(simulation, index).task != 0 && !has_no_weights;
    /* Who has no words for it is not what it would have been given. */
    const bool is_exact = !job->is_unsaid && (!scores || (goes_by_grade && !learns));
    const uint32_t wanted =
        wanted_grade(simulation, able_ones(simulation, index), !scores || has_no_weights);
    const uint32_t got = grade_of(simulation, upstream);
    const uint32_t most = wanted > got ? wanted - got : 0;
    if (lost > most || (is_exact && lost != most)) {
        simulation_violate(simulation, "job %u is said to lose %u grades at %s/%s, and loses %s%u",
                           index, lost, scenario_upstreams[upstream][0],
                           scenario_upstreams[upstream][1], is_exact ? "" : "at most ", most);
    }
}

/* "…; provider/model: …, chosen; …", or explored. */
static bool says_word(const char *reason, uint32_t upstream, const char *word)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "; %s/%s: ", scenario_upstreams[upstream][0],
                   scenario_upstreams[upstream][1]);
    const char *item = strstr(reason, name);
    if (item == NULL) {
        return false;
    }
    const char *said = strstr(item, word), *next = strstr(item + 1, "; ");
    return said != NULL && (next == NULL || said < next);
}

static bool says_chosen(const struct simulation *simulation, uint32_t index, uint32_t upstream,
                        const char *reason)
{
    const bool may_explore = needs_of(simulation, index).task != 0 &&
                             is_scored(simulation, &simulation->jobs[index],
                                       candidates_of(simulation, &simulation->jobs[index]));
    return says_word(reason, upstream, "chosen") ||
           (may_explore && says_word(reason, upstream, "explored"));
}

static void check_reason(struct simulation *simulation, uint32_t index, uint32_t upstream,
                         const struct effect *effect)
{
    const uint32_t candidates = candidates_of(simulation, &simulation->jobs[index]);
    const bool has_choice = (candidates & (candidates - 1)) != 0;
    const char *reason = effect->as.dispatch.reason;
    if (has_choice != says_chosen(simulation, index, upstream, reason)) {
        simulation_violate(simulation, "job %u is dispatched to %s/%s because of \"%.120s\"", index,
                           scenario_upstreams[upstream][0], scenario_upstreams[upstream][1],
                           reason);
    }
    if (has_choice && !simulation->broker.has_lacked_memory) {
        simulation->needs.latest = index;
        simulation->needs.latest_attempt = effect->as.dispatch.lease.attempt;
        simulation->needs.latest_upstream = upstream;
    }
}

static bool is_rounded(uint32_t kept, uint32_t tokens)
{
    return kept >= tokens && kept <= tokens + tokens * INPUT_ROUNDED_PERCENT / 100 + 1;
}

/* What is made of it, and kept of it, goes by that. */
static void check_said(struct simulation *simulation, uint32_t index, const struct effect *effect)
{
    const struct needs needs = needs_of(simulation, index);
    const char *of_tenant = simulation->needs.residency[simulation->jobs[index].tenant];
    const struct effect_dispatch *said = &effect->as.dispatch;
    const bool is_said =
        said->abilities == needs.abilities && is_rounded(said->input_tokens, needs.input_tokens) &&
        strcmp(said->residency, needs.residency == NULL ? "" : needs.residency) == 0;
    /* A label of none is not known by name. */
    const bool is_tenants = (said->tenant_residency[0] != '\0') == has_text(of_tenant);
    if (!is_said || !is_tenants) {
        simulation_violate(simulation,
                           "job %u is dispatched with abilities %x, %u tokens, residency \"%s\", "
                           "its tenant's \"%s\"",
                           index, said->abilities, said->input_tokens, said->residency,
                           said->tenant_residency);
    }
}

static void see_dispatch(struct simulation *simulation, uint32_t index, const struct effect *effect)
{
    const uint32_t upstream = degradation_upstream_of(simulation, effect);
    if (upstream == SCENARIO_UPSTREAMS) { /* its route is configured no more */
        if (is_bound(simulation, index)) {
            simulation_violate(
                simulation,
                "a worker is to choose for job %u, whose label or list it does not know", index);
        }
        return;
    }
    const char *why = why_not(simulation, index, upstream);
    if (why != NULL) {
        simulation_violate(simulation, "job %u is dispatched to %s/%s, which %s", index,
                           scenario_upstreams[upstream][0], scenario_upstreams[upstream][1], why);
        return;
    }
    check_said(simulation, index, effect);
    check_lost(simulation, index, upstream, effect->as.dispatch.quality_lost);
    check_reason(simulation, index, upstream, effect);
    simulation->tally.picky += needs_are_picky(simulation, index);
}

/* A second call must fit the job as the first one must. */
static void see_second(struct simulation *simulation, uint32_t index, const struct effect *effect)
{
    const uint32_t upstream = scenario_upstream(effect->as.hedge.provider, effect->as.hedge.model);
    const char *why = upstream == SCENARIO_UPSTREAMS ? NULL : why_not(simulation, index, upstream);
    if (why != NULL) {
        simulation_violate(simulation, "job %u may call %s/%s besides, which %s", index,
                           scenario_upstreams[upstream][0], scenario_upstreams[upstream][1], why);
    }
}

/* ---- the door, and the end ---- */

static void see_accepted(struct simulation *simulation, uint32_t index)
{
    if (is_hopeless(simulation, index)) {
        simulation_violate(simulation, "job %u is accepted, and no model can answer it", index);
    }
}

static void see_rejected(struct simulation *simulation, uint32_t index, const struct effect *effect)
{
    if (effect->as.rejected.reason != WIRE__REJECT_REASON__REJECT_INVALID) {
        return;
    }
    simulation->tally.hopeless++;
    if (!is_hopeless(simulation, index)) {
        simulation_violate(simulation,
                           "job %u is refused though upstreams %x can answer it: %.120s", index,
                           able_ones(simulation, index), effect->as.rejected.text);
    }
}

/* It was its first attempt. */
static void see_rejected_by_one(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    const uint32_t others =
        able_ones(simulation, index) & ~(UINT32_C(1) << simulation->needs.unsupported_by);
    if (simulation->needs.unsupported_job == index && job->attempt_last == 1 &&
        job->canonical == 0 && job->first_incarnation == simulation->broker.incarnation &&
        others != 0) {
        simulation_violate(simulation,
                           "job %u dies of what %s has no words for, and upstreams %x may have",
                           index, scenario_upstreams[simulation->needs.unsupported_by][0], others);
    }
}

static void see_death(struct simulation *simulation, uint32_t index, const struct effect *effect)
{
    if (strcmp(effect->as.note.subject, "rejected") == 0) {
        see_rejected_by_one(simulation, index);
    }
    if (strcmp(effect->as.note.subject, "no_model") != 0) {
        return;
    }
    simulation->tally.given_up++;
    if (!is_hopeless(simulation, index)) {
        simulation_violate(simulation, "job %u is given up though upstreams %x can answer it",
                           index, able_ones(simulation, index));
    }
}

void needs_see_effect(struct simulation *simulation, const struct effect *effect)
{
    uint32_t index = NO_JOB;
    if (effect->kind == EFFECT_DISPATCH) {
        index = simulation_job_of(simulation, &effect->as.dispatch.lease.job_id);
        if (index != NO_JOB) {
            see_dispatch(simulation, index, effect);
        }
    } else if (effect->kind == EFFECT_HEDGE) {
        index = simulation_job_of(simulation, &effect->as.hedge.lease.job_id);
        if (index != NO_JOB) {
            see_second(simulation, index, effect);
        }
    } else if (effect->kind == EFFECT_ACCEPTED && !effect->as.accepted.duplicate &&
               !effect->as.accepted.has_known_as) {
        index = simulation_job_of(simulation, &effect->as.accepted.job_id);
        if (index != NO_JOB) {
            see_accepted(simulation, index);
        }
    } else if (effect->kind == EFFECT_REJECTED) {
        index = simulation_job_of(simulation, &effect->as.rejected.job_id);
        if (index != NO_JOB) {
            see_rejected(simulation, index, effect);
        }
    } else if (effect->kind == EFFECT_NOTE && effect->as.note.note == NOTE_DEAD_LETTER) {
        index = simulation_job_of(simulation, &effect->as.note.job_id);
        if (index != NO_JOB) {
            see_death(simulation, index, effect);
        }
    }
}

/* ---- what answers have lost ---- */

/* A worker may say what it likes, as long as it is added up. */
void needs_fill_usage(const struct call *call, Wire__Usage *usage)
{
    usage->quality_lost = call->tokens % 3 == 0 ? call->tokens % LOST_MAX : 0;
}

static bool is_pending(const struct simulation *simulation, const struct sim_job *job)
{
    Wire__JobState state;
    const char *worker;
    return core_find_job(simulation->broker.core, &job->id, &state, &worker) == 0 &&
           state != WIRE__JOB_STATE__JOB_STATE_DEAD;
}

void needs_before_step(struct simulation *simulation, const struct message *message)
{
    const bool is_unsupported = message->event == EVENT_ATTEMPT_RESULT &&
                                message->number == WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED &&
                                strcmp(message->call.error_code, "unsupported") == 0;
    simulation->needs.unsupported_job = is_unsupported ? message->job : NO_JOB;
    simulation->needs.unsupported_by = message->call.upstream;
    if (is_unsupported) {
        simulation->jobs[message->job].is_unsaid = true;
    }
    simulation->needs.was_pending = message->event == EVENT_ATTEMPT_RESULT &&
                                    is_pending(simulation, &simulation->jobs[message->job]);
}

static enum core_step step_of(uint32_t cache)
{
    return cache == WIRE__CACHE_STATUS__CACHE_STALE_HIT  ? STEP_STALE
           : cache == WIRE__CACHE_STATUS__CACHE_NEAR_HIT ? STEP_NEAR
                                                         : STEP_MODEL;
}

/* Who concludes the job by its answer. */
void needs_after_step(struct simulation *simulation, const struct message *message)
{
    const struct call *call = &message->call;
    if (!simulation->needs.was_pending ||
        call->outcome != WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED ||
        (!call->is_made && call->tokens == 0) ||
        is_pending(simulation, &simulation->jobs[message->job])) {
        return;
    }
    Wire__Usage usage = WIRE__USAGE__INIT;
    needs_fill_usage(call, &usage);
    struct core_quality_lost *lost =
        &simulation->needs.lost[simulation->jobs[message->job].tier][step_of(call->tokens % 4)];
    lost->jobs += usage.quality_lost > 0;
    lost->grades += usage.quality_lost;
}

/* ---- records ---- */

/* One of more tasks than the broker keeps apart, or for which it had no memory, is none. */
static bool is_task(const struct simulation *simulation, const char *kept, uint32_t task)
{
    char text[NEEDS_TASK_BYTES] = "";
    if (task != 0) {
        (void)snprintf(text, sizeof(text), "task-%u", task);
    }
    const bool may_be_none =
        simulation->scenario.by_choice.has_many_tasks || simulation->scenario.faults.allocation > 0;
    return strcmp(kept, text) == 0 || (may_be_none && kept[0] == '\0');
}

static void check_record(struct simulation *simulation, uint32_t index,
                         const Record__JobRecord *record)
{
    const struct needs needs = needs_of(simulation, index);
    const bool has_features =
        needs.feature > 0 && needs.features > 0; /* a complexity is made of them */
    const bool is_complexity = has_features
                                   ? record->complexity > 0 && record->complexity < COMPLEXITIES
                                   : record->complexity == needs.complexity;
    if (!is_complexity || record->abilities != needs.abilities ||
        !is_rounded(record->input_tokens, needs.input_tokens) ||
        strcmp(record->residency, needs.residency == NULL ? "" : needs.residency) != 0 ||
        record->prefix != (needs.prefix == 0 ? 0 : 1 + needs.prefix) ||
        !is_task(simulation, record->task, needs.task)) {
        simulation_violate(simulation,
                           "job %u is recorded with complexity %u, abilities %x, %u tokens, "
                           "residency \"%s\", task \"%s\", prefix %u",
                           index, record->complexity, record->abilities, record->input_tokens,
                           record->residency, record->task, record->prefix);
    }
}

/* Not by the core's own reader, which may be mistaken: a version byte, then the message. */
void needs_see_change(struct simulation *simulation, const struct storage_change *change)
{
    struct id id;
    if (change->kind != STORAGE_PUT || change->family != STORE_JOBS ||
        change->key_bytes != ID_BYTES || !is_on(simulation)) {
        return;
    }
    memcpy(id.bytes, change->key, ID_BYTES);
    const uint32_t index = simulation_job_of(simulation, &id);
    const uint8_t *data = blob_data(change->value);
    Record__JobRecord *record =
        record__job_record__unpack(NULL, blob_bytes(change->value) - 1, data + 1);
    if (index != NO_JOB && record != NULL) {
        check_record(simulation, index, record);
    }
    record__job_record__free_unpacked(record, NULL);
}

/* ---- turns ---- */

static void check_explained(struct simulation *simulation)
{
    struct watched_needs *watched = &simulation->needs;
    const uint32_t index = watched->latest;
    if (index == NO_JOB) {
        return;
    }
    watched->latest = NO_JOB;
    uint32_t attempt = 0;
    const char *text = core_explain(simulation->broker.core, &simulation->jobs[index].id, &attempt);
    if (text == NULL || attempt != watched->latest_attempt ||
        !says_chosen(simulation, index, watched->latest_upstream, text)) {
        simulation_violate(simulation, "why job %u goes to upstream %u is told as \"%.120s\"",
                           index, watched->latest_upstream, text == NULL ? "" : text);
    }
}

void needs_check_turn(struct simulation *simulation)
{
    struct core_stats stats;
    check_explained(simulation);
    core_read_stats(simulation->broker.core, sim_broker_now(simulation), &stats);
    for (size_t i = 0; i < stats.tiers_length; i++) {
        for (int step = 0; step < CORE_STEPS; step++) {
            const struct core_quality_lost *said = &stats.tiers[i].quality_lost[step];
            const struct core_quality_lost *is = &simulation->needs.lost[i][step];
            /* What others are answered with, too, each of them may lose. */
            const uint64_t more = stats.tiers[i].followers_concluded;
            if (said->jobs < is->jobs || said->jobs > is->jobs + more ||
                said->grades < is->grades || said->grades > is->grades + more * GRADES_MAX) {
                simulation_violate(simulation,
                                   "answers of tier %s lost %" PRIu64 " grades, and %" PRIu64
                                   " are counted",
                                   stats.tiers[i].name, is->grades, said->grades);
            }
        }
    }
}
