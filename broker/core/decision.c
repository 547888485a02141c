#include "broker/core/decision.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/job.h"
#include "broker/core/lane.h"
#include "broker/core/lessons.h"

enum {
    ALLOWED_BITS = 64,
    OUTPUT_TOKENS_ASSUMED = 256,
    CALLS_FREE = 4, /* so few at once overload nobody, and are too few for a mean */
};
static const double COMPLEXITY_MAX = 255;
static const double LATE_QUANTILE = 0.95;
static const double PERMILLE = 1000;

struct explanation {
    struct id job_id;
    uint32_t attempt;
    char text[EXPLANATION_BYTES + CHOICE_SECOND_BYTES]; /* of whatever length the decision is */
};

/* ---- names ---- */

uint8_t decision_residency(const struct core *core, const char *label)
{
    if (label == NULL || label[0] == '\0') {
        return 0;
    }
    const struct name *name = names_find(&core->residencies, label);
    return name == NULL ? DECISION_NOWHERE : (uint8_t)(name->index + 1);
}

int decision_keep_residency(struct core *core, const char *label)
{
    struct name *name;
    return label == NULL || label[0] == '\0' || core->residencies.length >= CONFIG_RESIDENCIES_MAX
               ? 0
               : names_add(&core->residencies, label, &name);
}

bool decision_residency_is_somewhere(const struct core *core, uint8_t residency)
{
    return residency == 0 ||
           (residency < DECISION_NOWHERE && core->residencies.items[residency - 1]->is_configured);
}

const char *decision_residency_name(const struct core *core, uint8_t residency)
{
    return residency == 0                 ? ""
           : residency < DECISION_NOWHERE ? core->residencies.items[residency - 1]->text
                                          : "?";
}

bool decision_task_is_good(const char *task)
{
    return task == NULL || strnlen(task, TASK_BYTES_MAX + 1) <= TASK_BYTES_MAX;
}

/* Most tenants name none: the table is made with the first. */
static struct name *add_task(const struct core *core, struct tenant *tenant, const char *task)
{
    struct name *name = NULL;
    const bool is_new = tenant->tasks.table.segments == NULL;
    if (is_new && names_init(&tenant->tasks, core->tenants.table.seed) < 0) {
        return NULL;
    }
    if (tenant->tasks.length == TASKS_MAX) {
        return names_find(&tenant->tasks, task);
    }
    return names_add(&tenant->tasks, task, &name) < 0 ? NULL : name;
}

uint8_t decision_task(const struct core *core, struct tenant *tenant, const char *task)
{
    if (task == NULL || task[0] == '\0' || !decision_task_is_good(task)) {
        return 0;
    }
    const struct name *name = add_task(core, tenant, task);
    return name == NULL ? 0 : (uint8_t)(name->index + 1);
}

const char *decision_task_name(const struct tenant *tenant, uint8_t task)
{
    return task == 0 ? "" : tenant->tasks.items[task - 1]->text;
}

/* ---- who may use what ---- */

static bool names_model(const struct config_tenant *tenant, const char *model)
{
    for (size_t i = 0; i < tenant->models_length; i++) {
        if (strcmp(tenant->models[i], model) == 0) {
            return true;
        }
    }
    return false;
}

/* On error it may use what it might before: never more. */
static int allow(const struct core *core, struct tenant *tenant, const struct config_tenant *given)
{
    uint64_t *allowed = NULL;
    const size_t words = core->upstreams_length / ALLOWED_BITS + 1;
    if (given->models_length > 0) {
        allowed = calloc(words, sizeof(*allowed));
        if (allowed == NULL) {
            return -ENOMEM;
        }
    }
    for (size_t i = 0; allowed != NULL && i < core->upstreams_length; i++) {
        const bool is_allowed = names_model(given, core->upstreams[i]->model);
        allowed[i / ALLOWED_BITS] |= (uint64_t)is_allowed << (i % ALLOWED_BITS);
    }
    free(tenant->allowed);
    tenant->allowed = allowed;
    tenant->allowed_words = allowed == NULL ? 0 : words;
    tenant->has_rules = true;
    return 0;
}

int decision_configure(struct core *core, const struct config *config)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < config->tenants_length; i++) {
        const struct config_tenant *given = &config->tenants[i];
        const struct name *name = names_find(&core->tenants, given->name);
        if (name == NULL) {
            continue;
        }
        struct tenant *tenant = core->tenant[name->index];
        /* Also one that no provider of this run has: a new one comes with a restart alone. */
        r = decision_keep_residency(core, given->residency);
        if (r == 0) {
            tenant->residency = decision_residency(core, given->residency);
            r = allow(core, tenant, given);
        }
    }
    return r;
}

void decision_destroy(struct core *core)
{
    free(core->explanations.items);
}

/* One that came after the tenant was configured, for the last time perhaps, is not. */
static bool is_allowed(const struct tenant *tenant, const struct upstream *upstream)
{
    const size_t word = upstream->index / ALLOWED_BITS;
    return tenant->has_rules &&
           (tenant->allowed == NULL ||
            (word < tenant->allowed_words &&
             (tenant->allowed[word] >> (upstream->index % ALLOWED_BITS) & 1) != 0));
}

/*
 * Where the route names no model, a worker chooses by its own configuration, which may be older and
 * knows nothing of labels and lists: what is bound by them is not given to it.
 */
static bool may_be_chosen_elsewhere(const struct job *job)
{
    const struct tenant *tenant = job_tenant(job);
    return tenant->has_rules && tenant->allowed == NULL && tenant->residency == 0 &&
           job->needs.residency == 0;
}

/* ---- what it is about ---- */

/* As struct choice_job has it. */
static uint32_t label_bit(uint8_t residency)
{
    return residency == 0 ? 0 : UINT32_C(1) << residency;
}

static struct choice_job job_of(const struct core *core, const struct job *job)
{
    const struct job_needs *needs = &job->needs;
    const struct tenant *tenant = job_tenant(job);
    const uint64_t input = job_input_tokens(job);
    const uint64_t expected = job->estimated_tokens > input ? job->estimated_tokens - input : 0;
    return (struct choice_job){
        .complexity = needs->complexity == 0 ? -1 : (needs->complexity - 1) / (COMPLEXITY_MAX - 1),
        .abilities = needs->abilities,
        .residencies = label_bit(needs->residency) | label_bit(tenant->residency),
        .input_tokens = input,
        .output_tokens = expected > 0 ? expected : OUTPUT_TOKENS_ASSUMED,
        .left_ms = job->deadline_ms == INT64_MAX ? INT64_MAX : job->deadline_ms - core->now_ms,
    };
}

/* What is known of it now, besides what is configured. */
static struct choice_model model_of(const struct core *core, const struct decision_item *item,
                                    const struct job *job)
{
    const struct upstream *upstream = item->upstream;
    const uint32_t size = latency_size_of(job_input_tokens(job));
    struct choice_model model = upstream->traits;
    model.learned = item->learned.grades;
    model.p95_ms = latency_quantile_ms(&upstream->latency, size, LATE_QUANTILE);
    model.failing = upstream_failing(core, upstream);
    return model;
}

/* ---- deciding ---- */

/* A second call goes to another provider, and tries none that may be down. */
static bool is_beside(struct core *core, const struct upstream *first, struct upstream *upstream)
{
    return first == NULL ||
           (upstream->limits != first->limits && !upstream_is_down(core, upstream));
}

static enum decision_lost lost_before_score(struct core *core, const struct job *job,
                                            const struct upstream *first, size_t at,
                                            struct decision_item *item, struct decision *decision)
{
    item->verdict = choice_check(&decision->job, &item->upstream->traits);
    if (item->verdict != CHOICE_FITS) {
        return LOST_CANNOT;
    }
    if (!is_allowed(job_tenant(job), item->upstream)) {
        return LOST_FORBIDDEN;
    }
    if ((job->unsaid >> at & 1) != 0) {
        return LOST_UNSAID;
    }
    if ((job->tried >> at & 1) != 0) {
        return LOST_TRIED;
    }
    if (!is_beside(core, first, item->upstream)) {
        return LOST_BLOCKED;
    }
    const int64_t at_ms = upstream_open_at_ms(core, item->upstream, job);
    if (at_ms > core->now_ms) {
        decision->at_ms = at_ms < decision->at_ms ? at_ms : decision->at_ms;
        return LOST_BLOCKED;
    }
    return LOST_SCORE;
}

static bool can(const struct decision_item *item)
{
    return item->lost < LOST_CANNOT;
}

static void look_at_all(struct core *core, const struct job *job, const struct upstream *first,
                        const struct candidates *candidates, struct decision *decision)
{
    for (size_t i = 0; i < candidates->length; i++) {
        struct decision_item *item = &decision->items[decision->length++];
        *item = (struct decision_item){.upstream = candidates->items[i]};
        item->lost = lost_before_score(core, job, first, i, item, decision);
        decision->is_picky = decision->is_picky || !can(item);
        decision->is_hopeless = decision->is_hopeless && !can(item);
    }
}

static void score_all(const struct core *core, const struct job *job, struct decision *decision)
{
    struct choice_model models[CANDIDATES_MAX];
    struct choice_scale scale = {.best = 0};
    for (size_t i = 0; i < decision->length; i++) {
        decision->items[i].learned = lessons_read(core, job, decision->items[i].upstream);
        models[i] = model_of(core, &decision->items[i], job);
        if (can(&decision->items[i])) {
            choice_scale_add(&scale, &decision->job, &models[i]);
        }
    }
    for (size_t i = 0; i < decision->length; i++) {
        if (can(&decision->items[i])) {
            decision->items[i].score =
                choice_score(&decision->job, &models[i], &decision->weights, &scale);
        }
    }
}

static bool is_better(const struct decision *decision, double total, double than)
{
    return decision->is_scored && total > than; /* in a list the first is */
}

/* The best of those that may be called now; NULL: none. */
static struct decision_item *best_now(struct decision *decision)
{
    struct decision_item *best = NULL;
    for (size_t i = 0; i < decision->length; i++) {
        struct decision_item *item = &decision->items[i];
        if (item->lost == LOST_SCORE &&
            (best == NULL || is_better(decision, item->score.total, best->score.total))) {
            best = item;
        }
    }
    return best;
}

/* The one of which least is known, of those that may be called now; NULL: none. */
static struct decision_item *least_known_now(struct decision *decision)
{
    struct decision_item *least = NULL;
    for (size_t i = 0; i < decision->length; i++) {
        struct decision_item *item = &decision->items[i];
        if (item->lost == LOST_SCORE &&
            (least == NULL || item->learned.unsure > least->learned.unsure)) {
            least = item;
        }
    }
    return least;
}

/* What would be chosen if all went well: none failed, and none were down. One can answer it. */
static const struct decision_item *wanted_of(const struct decision *decision)
{
    const struct decision_item *best = NULL;
    double most = 0;
    for (size_t i = 0; i < decision->length; i++) {
        const struct decision_item *item = &decision->items[i];
        const double total = item->score.total + item->score.failing;
        if (can(item) && (best == NULL || is_better(decision, total, most))) {
            best = item;
            most = total;
        }
    }
    return best;
}

static uint32_t quality_between(const struct decision_item *wanted,
                                const struct decision_item *chosen)
{
    const uint32_t grade = wanted->upstream->traits.quality;
    const uint32_t got = chosen->upstream->traits.quality;
    return grade > got ? grade - got : 0;
}

/* ---- where prompts go that begin alike ---- */

/* As good as the best, but for what its score may be below it. */
static bool is_alike(const struct core *core, const struct decision_item *best,
                     const struct decision_item *item)
{
    const double below = best->score.total - item->score.total;
    return item->lost == LOST_SCORE &&
           item->upstream->traits.quality == best->upstream->traits.quality &&
           item->score.cost_nanousd == best->score.cost_nanousd &&
           below * PERMILLE <= core->routing.prefix_permille;
}

/* Of those that are equally good: `calls` of their providers, in all. */
struct peers {
    size_t length;
    struct decision_item *items[CANDIDATES_MAX];
    uint64_t calls;
};

static void find_peers(const struct core *core, const struct decision_item *best,
                       struct decision *decision, struct peers *ret_peers)
{
    ret_peers->length = 0;
    ret_peers->calls = 0;
    for (size_t i = 0; i < decision->length; i++) {
        struct decision_item *item = &decision->items[i];
        if (is_alike(core, best, item)) {
            ret_peers->items[ret_peers->length++] = item;
            ret_peers->calls += item->upstream->limits->calls;
        }
    }
}

/* Consistent hashing with bounded loads: a beginning that all have overloads no provider. */
static bool has_room(const struct peers *peers, const struct decision_item *item)
{
    const uint64_t calls = item->upstream->limits->calls;
    return calls < CALLS_FREE || calls * 4 * peers->length < 5 * (peers->calls + 1);
}

/* No seed of this run: brokers agree, also with what they were before. */
static uint64_t rank_of(const struct job *job, const struct decision_item *item)
{
    const char *subject = item->upstream->subject;
    return XXH3_64bits_withSeed(subject, strlen(subject), job->prefix);
}

/* The best, or the one of its peers where prompts go that begin as the job's does. */
static struct decision_item *home_of(const struct core *core, const struct job *job,
                                     struct decision_item *best, struct decision *decision)
{
    struct peers peers;
    uint64_t first = 0, most = 0;
    struct decision_item *home = best;
    if (job->prefix == 0 || !decision->is_scored || core->routing.prefix_permille == 0) {
        return best;
    }
    find_peers(core, best, decision, &peers);
    for (size_t i = 0; i < peers.length && peers.length > 1; i++) {
        const uint64_t rank = rank_of(job, peers.items[i]);
        first = rank > first ? rank : first;
        if (rank > most && has_room(&peers, peers.items[i])) {
            most = rank;
            home = peers.items[i];
        }
        peers.items[i]->lost = LOST_PREFIX;
    }
    decision->prefix = peers.length < 2 ? PREFIX_ALONE : most == first ? PREFIX_HOME : PREFIX_AWAY;
    return home;
}

static void choose(const struct core *core, const struct job *job, bool may_explore,
                   struct decision *decision)
{
    struct decision_item *best = best_now(decision);
    if (best == NULL) {
        return;
    }
    const bool explores = may_explore && decision->is_scored && lessons_explore(core, job);
    struct decision_item *chosen =
        explores ? least_known_now(decision) : home_of(core, job, best, decision);
    decision->is_explored = explores && chosen != best;
    decision->quality_lost = quality_between(wanted_of(decision), chosen);
    decision->chosen = chosen->upstream;
    chosen->lost = LOST_NOT;
    for (size_t i = 0; i < decision->length; i++) {
        struct decision_item *item = &decision->items[i];
        decision->has_other =
            decision->has_other || item->lost == LOST_SCORE || item->lost == LOST_PREFIX;
        item->lost = item->lost == LOST_SCORE && !decision->is_scored ? LOST_ORDER : item->lost;
    }
}

void decision_make_beside(struct core *core, const struct job *job, const struct upstream *first,
                          struct decision *ret_decision)
{
    const struct candidates *candidates = upstream_candidates(core, job->flow->queue);
    /* Not as a whole: its items are 1 KiB. */
    ret_decision->chosen = NULL;
    ret_decision->at_ms = INT64_MAX;
    ret_decision->is_hopeless = candidates->length > 0 || !may_be_chosen_elsewhere(job);
    ret_decision->is_picky = false;
    ret_decision->is_scored = candidates->is_scored && candidates->length > 1;
    ret_decision->has_other = false;
    ret_decision->is_explored = false;
    ret_decision->is_downgraded = false;
    ret_decision->prefix = PREFIX_ALONE;
    ret_decision->quality_lost = 0;
    ret_decision->job = job_of(core, job);
    ret_decision->tenant = job_tenant(job);
    ret_decision->weights = job_tier(job)->weights;
    ret_decision->length = 0;
    look_at_all(core, job, first, candidates, ret_decision);
    if (ret_decision->is_scored) {
        score_all(core, job, ret_decision);
    }
    choose(core, job, first == NULL, ret_decision);
}

uint16_t decision_able(const struct decision *decision)
{
    uint16_t able = 0;
    for (size_t i = 0; i < decision->length; i++) {
        able = (uint16_t)(able | (unsigned)can(&decision->items[i]) << i);
    }
    return able;
}

void decision_make(struct core *core, const struct job *job, struct decision *ret_decision)
{
    decision_make_beside(core, job, NULL, ret_decision);
}

bool decision_is_hopeless(const struct core *core, const struct job *job)
{
    const struct candidates *candidates = upstream_candidates(core, job->flow->queue);
    const struct choice_job needs = job_of(core, job);
    for (size_t i = 0; i < candidates->length; i++) {
        const struct upstream *upstream = candidates->items[i];
        if (choice_check(&needs, &upstream->traits) == CHOICE_FITS &&
            is_allowed(job_tenant(job), upstream) && (job->unsaid >> i & 1) == 0) {
            return false;
        }
    }
    return candidates->length > 0 || !may_be_chosen_elsewhere(job);
}

struct upstream *decision_choose(struct core *core, const struct job *job, int64_t *ret_at_ms)
{
    struct decision decision;
    decision_make(core, job, &decision);
    *ret_at_ms = decision.at_ms;
    return decision.chosen;
}

uint32_t decision_lost_with(const struct decision *decision, const struct decision_item *item)
{
    return quality_between(wanted_of(decision), item);
}

uint32_t decision_quality_lost(struct core *core, const struct job *job, const Wire__Usage *usage)
{
    struct decision decision;
    decision_make(core, job, &decision);
    const struct decision_item *wanted = wanted_of(&decision);
    for (size_t i = 0; i < decision.length && wanted != NULL; i++) {
        const struct decision_item *item = &decision.items[i];
        if (strcmp(item->upstream->model, usage->model) == 0 &&
            strcmp(item->upstream->provider, usage->provider) == 0) {
            return quality_between(wanted, item);
        }
    }
    return usage->quality_lost;
}

/* ---- in words ---- */

struct words {
    size_t length;
    char text[EXPLANATION_BYTES];
};

static void say(struct words *words, const char *format, ...) PRINTF_LIKE(2, 3);

/* What does not fit is left out. */
static void say(struct words *words, const char *format, ...)
{
    const size_t room = sizeof(words->text) - words->length;
    va_list arguments;
    va_start(arguments, format);
    const int bytes = vsnprintf(words->text + words->length, room, format, arguments);
    va_end(arguments);
    words->length += bytes < 0 ? 0 : (size_t)bytes < room ? (size_t)bytes : room - 1;
}

static void write_abilities(uint32_t abilities, struct words *out)
{
    const char *separator = "";
    for (size_t i = 0; i < ABILITIES; i++) {
        if ((abilities >> i & 1) != 0) {
            say(out, "%s%s", separator, choice_ability_name(i));
            separator = ", ";
        }
    }
}

static const char *missing_label(const struct core *core, uint32_t missing)
{
    return decision_residency_name(core, (uint8_t)__builtin_ctz(missing));
}

static void write_why_not(const struct core *core, const struct decision *decision,
                          const struct decision_item *item, struct words *out)
{
    const struct choice_model *traits = &item->upstream->traits;
    if (item->lost == LOST_FORBIDDEN) {
        say(out, "not allowed to this tenant");
    } else if (item->lost == LOST_UNSAID) {
        say(out, "has no words for it");
    } else if (item->verdict == CHOICE_LACKS_ABILITY) {
        say(out, "cannot do ");
        write_abilities(decision->job.abilities & ~traits->abilities, out);
    } else if (item->verdict == CHOICE_TOO_SMALL) {
        say(out, "takes %llu tokens, these are %llu", (unsigned long long)traits->context_tokens,
            (unsigned long long)decision->job.input_tokens);
    } else if (item->verdict == CHOICE_ELSEWHERE) {
        say(out, "has not the residency label %.64s",
            missing_label(core, decision->job.residencies & ~traits->residencies));
    }
}

/* Of a route that names no model. */
static void write_what_binds(const struct core *core, const struct decision *decision,
                             struct words *out)
{
    say(out, "its route names no model any more, and ");
    if (decision->job.residencies != 0) {
        say(out, "it needs the residency label %.64s",
            missing_label(core, decision->job.residencies));
    } else {
        say(out, "its tenant may use some models alone");
    }
}

const char *decision_complaint(struct core *core, const struct decision *decision)
{
    struct words words = {.length = 0};
    if (!decision->tenant->has_rules) {
        return "its tenant is configured no more, so it is not known which models it may use";
    }
    if (decision->length == 0) {
        write_what_binds(core, decision, &words);
        return effects_text(core->effects, words.text);
    }
    say(&words, "no model of this route can answer it:");
    for (size_t i = 0; i < decision->length; i++) {
        say(&words, "%s %.64s ", i == 0 ? "" : ";", decision->items[i].upstream->subject);
        write_why_not(core, decision, &decision->items[i], &words);
    }
    return effects_text(core->effects, words.text);
}

static void write_learned(const struct learned *learned, struct words *out)
{
    if (fabs(learned->grades) >= 0.5) {
        say(out, "learned %+.0f grades, ", learned->grades);
    }
}

static void write_how_it_lost(const struct decision *decision, const struct choice_score *winner,
                              const struct choice_score *loser, struct words *out)
{
    if (decision->is_explored) {
        say(out, "left aside");
    } else {
        say(out, "lost by %s", choice_reason(&decision->weights, winner, loser));
    }
}

static const char *why_chosen(const struct decision *decision)
{
    if (decision->is_explored) {
        return "explored: of its answers to this task least is known";
    }
    switch (decision->prefix) {
    case PREFIX_ALONE:
        return "chosen";
    case PREFIX_HOME:
        return "chosen: prompts go there that begin like this one";
    case PREFIX_AWAY:
        return "chosen: where prompts go that begin like this one more calls run than its share";
    }
    return "";
}

static void write_item(const struct core *core, const struct decision *decision,
                       const struct decision_item *chosen, const struct decision_item *item,
                       struct words *out)
{
    const struct choice_score *score = &item->score;
    say(out, "; %.64s: ", item->upstream->subject);
    if (decision->is_scored && can(item)) {
        say(out, "%.2f (good %.2f, price %.2f, late %.2f, failing %.2f), ", score->total,
            score->good, score->price, score->late, score->failing);
        write_learned(&item->learned, out);
    }
    switch (item->lost) {
    case LOST_NOT:
        say(out, "%s", why_chosen(decision));
        break;
    case LOST_PREFIX:
        say(out, "as good, but not where prompts go that begin like this one");
        break;
    case LOST_SCORE:
        write_how_it_lost(decision, &chosen->score, &item->score, out);
        break;
    case LOST_ORDER:
        say(out, "comes later in the list");
        break;
    case LOST_BUDGET:
        say(out, "too dear for what the budget has left");
        break;
    case LOST_BLOCKED:
        say(out, "may not be called now");
        break;
    case LOST_TRIED:
        say(out, "has failed it");
        break;
    case LOST_CANNOT:
    case LOST_FORBIDDEN:
    case LOST_UNSAID:
        write_why_not(core, decision, item, out);
        break;
    }
}

/* The chosen one first: of many candidates the last do not fit. */
static void write_decision(const struct core *core, const struct decision *decision,
                           struct words *out)
{
    const struct choice_job *job = &decision->job;
    const struct decision_item *chosen = &decision->items[0];
    if (job->complexity >= 0) {
        say(out, "complexity %.2f", job->complexity);
    } else {
        say(out, "complexity not known");
    }
    say(out, ", %llu + %llu tokens", (unsigned long long)job->input_tokens,
        (unsigned long long)job->output_tokens);
    if (job->left_ms != INT64_MAX) {
        say(out, ", %lld ms left", (long long)job->left_ms);
    }
    for (size_t i = 0; i < decision->length; i++) {
        chosen = decision->items[i].lost == LOST_NOT ? &decision->items[i] : chosen;
    }
    write_item(core, decision, chosen, chosen, out);
    for (size_t i = 0; i < decision->length; i++) {
        if (&decision->items[i] != chosen) {
            write_item(core, decision, chosen, &decision->items[i], out);
        }
    }
}

/* Without memory nothing is kept. */
static void keep(struct core *core, const struct job *job, const char *text)
{
    struct explanations *kept = &core->explanations;
    if (kept->items == NULL) {
        kept->items = calloc(EXPLANATIONS, sizeof(*kept->items));
    }
    if (kept->items == NULL) {
        return;
    }
    struct explanation *item = &kept->items[kept->next];
    item->job_id = job->id;
    item->attempt = job->attempt;
    (void)snprintf(item->text, sizeof(item->text), "%s", text);
    kept->next = (kept->next + 1) % EXPLANATIONS;
}

const char *decision_explain(struct core *core, const struct job *job,
                             const struct decision *decision)
{
    struct words words = {.length = 0};
    if (decision->length < 2) {
        return "";
    }
    write_decision(core, decision, &words);
    keep(core, job, words.text);
    return effects_text(core->effects, words.text);
}

static struct explanation *find_kept(const struct core *core, const struct id *job_id)
{
    const struct explanations *kept = &core->explanations;
    for (size_t i = 1; kept->items != NULL && i <= EXPLANATIONS; i++) {
        struct explanation *item = &kept->items[(kept->next + EXPLANATIONS - i) % EXPLANATIONS];
        if (item->text[0] != '\0' && id_equal(&item->job_id, job_id)) {
            return item;
        }
    }
    return NULL;
}

void decision_explain_second(struct core *core, const struct job *job,
                             const struct upstream *second)
{
    struct explanation *item = find_kept(core, &job->id);
    if (item == NULL || item->attempt != job->attempt) {
        return;
    }
    const size_t length = strlen(item->text);
    choice_second_words(second->provider, second->model, item->text + length,
                        sizeof(item->text) - length);
}

const char *core_explain(const struct core *core, const struct id *job_id, uint32_t *ret_attempt)
{
    const struct explanation *item = find_kept(core, job_id);
    if (item == NULL) {
        return NULL;
    }
    *ret_attempt = item->attempt;
    return item->text;
}
