#include "tests/simulation/degradation.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "broker/core/core.h"
#include "tests/simulation/attempts.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/flights.h"
#include "tests/simulation/hedges.h"
#include "tests/simulation/network.h"

enum { SLOW_START_MS = 5000 }; /* pace.c: HELD_BACK_FORGOTTEN_MS; calls may be free again then */
static const double MINUTE_MS = 60000.0;
static const double ROUNDING = 0.01;

/* ---- names ---- */

uint32_t degradation_upstream_of(const struct simulation *simulation, const struct effect *effect)
{
    (void)simulation;
    return effect->as.dispatch.provider == NULL || effect->as.dispatch.model == NULL
               ? SCENARIO_UPSTREAMS
               : scenario_upstream(effect->as.dispatch.provider, effect->as.dispatch.model);
}

static uint32_t upstream_of_subject(const char *subject)
{
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        char text[64];
        (void)snprintf(text, sizeof(text), "%s/%s", scenario_upstreams[i][0],
                       scenario_upstreams[i][1]);
        if (strcmp(text, subject) == 0) {
            return i;
        }
    }
    return SCENARIO_UPSTREAMS;
}

/* NULL: no queue has this name. */
static bool *queue_of_subject(struct simulation *simulation, const char *subject)
{
    const struct scenario *scenario = &simulation->scenario;
    for (uint32_t pool = 0; pool < SCENARIO_POOLS; pool++) {
        for (uint32_t tier = 0; tier < SCENARIO_TIERS; tier++) {
            for (uint32_t route = 0; route < SCENARIO_ROUTES; route++) {
                char text[64];
                (void)snprintf(text, sizeof(text), "%s/%s/%s", scenario->tiers[tier].name,
                               scenario->pools[pool], scenario->routes[route]);
                if (strcmp(text, subject) == 0) {
                    return &simulation->degradation.is_paused[pool][tier][route];
                }
            }
        }
    }
    return NULL;
}

/* ---- limits ---- */

static uint32_t provider_of(const struct simulation *simulation, uint32_t upstream)
{
    uint32_t i = 0;
    while (i < SCENARIO_PROVIDERS - 1 &&
           strcmp(simulation->scenario.providers[i].name, scenario_upstreams[upstream][0]) != 0) {
        i++;
    }
    return i;
}

/* What its provider has said counts from then on. */
static void spend_learned(struct simulation *simulation, uint32_t upstream, int requests)
{
    struct watched_upstream *watched = &simulation->degradation.upstreams[upstream];
    const int64_t second = sim_broker_ms(simulation) / 1000;
    struct spent *now = &watched->since_learned[second % UPSTREAM_SECONDS];
    if (watched->learned_per_min == 0) {
        return;
    }
    if (now->second != second) {
        *now = (struct spent){.second = second};
    }
    now->requests += requests;
    int64_t all = 0;
    for (int i = 0; i < UPSTREAM_SECONDS; i++) {
        all += watched->since_learned[i].second > second - UPSTREAM_SECONDS
                   ? watched->since_learned[i].requests
                   : 0;
    }
    if (all > (int64_t)watched->learned_per_min + 1) {
        simulation_violate(simulation,
                           "%s/%s is sent %" PRId64 " requests within a minute, and has said %u",
                           scenario_upstreams[upstream][0], scenario_upstreams[upstream][1], all,
                           watched->learned_per_min);
    }
}

static void learn(struct simulation *simulation, const struct call *call)
{
    struct watched_upstream *watched = &simulation->degradation.upstreams[call->upstream];
    if (call->limit_per_min > 0 && call->limit_per_min != watched->learned_per_min) {
        watched->learned_per_min = call->limit_per_min;
        memset(watched->since_learned, 0, sizeof(watched->since_learned));
    }
}

/* ---- limits, evenly ---- */

static double at_once(uint64_t per_min)
{
    const double twentieth_of_second = (double)per_min / 1200.0;
    return twentieth_of_second > 1.0 ? twentieth_of_second : 1.0;
}

/* A debt is over after a minute. */
static void change(struct allowance *allowance, uint64_t per_min, double more)
{
    const double most = at_once(per_min), least = -(double)per_min;
    const double level = allowance->level + more;
    allowance->level = level > most ? most : level < least ? least : level;
}

static void flow_in(struct allowance *allowance, uint64_t per_min, int64_t now_ms)
{
    const double per_ms = ((double)per_min + 1.0 - at_once(per_min)) / MINUTE_MS;
    change(allowance, per_min, (double)(now_ms - allowance->at_ms) * per_ms);
    allowance->at_ms = now_ms;
}

/* False: it goes, and may not yet. */
static bool take(struct allowance *allowance, uint64_t per_min, double amount, bool goes,
                 int64_t now_ms)
{
    flow_in(allowance, per_min, now_ms);
    const bool may_go = allowance->level > 1.0 - ROUNDING;
    change(allowance, per_min, -amount);
    return may_go || !goes;
}

static void take_evenly(struct simulation *simulation, uint32_t index, int requests, int64_t tokens)
{
    struct degradation *degradation = &simulation->degradation;
    const struct config_provider *provider = &simulation->scenario.providers[index];
    const int64_t now_ms = sim_broker_ms(simulation);
    if (provider->requests_per_min > 0 &&
        !take(&degradation->requests[index], provider->requests_per_min, requests, requests > 0,
              now_ms)) {
        simulation_violate(simulation,
                           "provider %s is called before its limit of %" PRIu64
                           " requests a minute lets it",
                           provider->name, provider->requests_per_min);
    }
    if (provider->tokens_per_min > 0 && !take(&degradation->tokens[index], provider->tokens_per_min,
                                              (double)tokens, requests > 0, now_ms)) {
        simulation_violate(simulation,
                           "provider %s is called before its limit of %" PRIu64
                           " tokens a minute lets it",
                           provider->name, provider->tokens_per_min);
    }
}

/* ---- limits, in any minute ---- */

static void check_minute(struct simulation *simulation, const struct config_provider *provider,
                         int64_t requests, int64_t tokens_before)
{
    if (provider->requests_per_min > 0 && requests > (int64_t)provider->requests_per_min + 1) {
        simulation_violate(simulation,
                           "provider %s is sent %" PRId64 " requests within a minute, and %" PRIu64
                           " is its limit",
                           provider->name, requests, provider->requests_per_min);
    }
    if (provider->tokens_per_min > 0 && tokens_before > (int64_t)provider->tokens_per_min + 1) {
        simulation_violate(simulation,
                           "provider %s is called after %" PRId64
                           " tokens within a minute, and %" PRIu64 " is its limit",
                           provider->name, tokens_before, provider->tokens_per_min);
    }
}

static void spend_in_minute(struct simulation *simulation, uint32_t index, int requests,
                            int64_t tokens)
{
    const int64_t second = sim_broker_ms(simulation) / 1000;
    struct spent *spent = simulation->degradation.spent[index];
    struct spent *now = &spent[second % UPSTREAM_SECONDS];
    if (now->second != second) {
        *now = (struct spent){.second = second};
    }
    now->requests += requests;
    now->tokens += tokens;
    int64_t all_requests = 0, all_tokens = 0;
    for (int i = 0; i < UPSTREAM_SECONDS && requests > 0; i++) {
        if (spent[i].second > second - UPSTREAM_SECONDS) {
            all_requests += spent[i].requests;
            all_tokens += spent[i].tokens;
        }
    }
    check_minute(simulation, &simulation->scenario.providers[index], all_requests,
                 all_tokens - tokens);
}

/* `requests` 1: it is dispatched; 0: it has used other tokens than estimated; -1: given back. */
static void spend(struct simulation *simulation, uint32_t upstream, int requests, int64_t tokens)
{
    const uint32_t index = provider_of(simulation, upstream);
    const struct config_provider *provider = &simulation->scenario.providers[index];
    spend_learned(simulation, upstream, requests);
    if (provider->requests_per_min > 0 || provider->tokens_per_min > 0) {
        take_evenly(simulation, index, requests, tokens);
        spend_in_minute(simulation, index, requests, tokens);
    }
}

/* What was given to it is not known any more: nothing may go at first, and there is no debt. */
static void forget_spent(struct simulation *simulation)
{
    struct degradation *degradation = &simulation->degradation;
    for (uint32_t i = 0; i < SCENARIO_PROVIDERS; i++) {
        degradation->requests[i] = degradation->tokens[i] =
            (struct allowance){.at_ms = sim_broker_ms(simulation)};
        for (int second = 0; second < UPSTREAM_SECONDS; second++) {
            degradation->spent[i][second].tokens = 0;
        }
    }
}

/* ---- slow start ---- */

static void see_back(struct simulation *simulation, struct watched_upstream *watched, bool is_up)
{
    watched->is_back = is_up;
    watched->back_ms = sim_broker_ms(simulation);
    watched->calls_since = 0;
}

/* One may go at once; then what has flowed in by now, at a rate that grows e times in a second. */
static void check_slow_start(struct simulation *simulation, uint32_t upstream)
{
    struct watched_upstream *watched = &simulation->degradation.upstreams[upstream];
    const int64_t for_ms = sim_broker_ms(simulation) - watched->back_ms;
    if (!watched->is_back || for_ms >= SLOW_START_MS) {
        watched->is_back = false;
        return;
    }
    const double most =
        1.0 + simulation->scenario.config.breaker.slow_start_per_s * expm1((double)for_ms / 1000.0);
    watched->calls_since++;
    if ((double)watched->calls_since > most + ROUNDING) {
        simulation_violate(simulation,
                           "upstream %s/%s is called %" PRId64 " times within %" PRId64
                           " ms after an outage",
                           scenario_upstreams[upstream][0], scenario_upstreams[upstream][1],
                           watched->calls_since, for_ms);
    }
}

/* ---- a restart ---- */

void degradation_restart(struct simulation *simulation)
{
    struct degradation *degradation = &simulation->degradation;
    memset(degradation->is_paused, 0, sizeof(degradation->is_paused));
    memset(degradation->upstreams, 0, sizeof(degradation->upstreams));
    memset(degradation->routes, 0, sizeof(degradation->routes));
    degradation->firsts = degradation->firsts_before = 0;
    memset(degradation->dispatches, 0, sizeof(degradation->dispatches));
    memset(degradation->hedges, 0, sizeof(degradation->hedges));
    degradation->lowest_missing = 0.0;
    degradation->since_ms = sim_broker_ms(simulation);
    forget_spent(simulation);
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        degradation->upstreams[i].probing_job = NO_JOB;
        degradation->upstreams[i].answered_ms = INT64_MIN / 2;
    }
    for (uint32_t i = 0; i < simulation->jobs_length; i++) {
        simulation->jobs[i].permit.is_open = simulation->jobs[i].is_retry = false;
        simulation->jobs[i].hedge.is_open = false;
    }
}

/* ---- dispatch ---- */

static void check_probe(struct simulation *simulation, uint32_t index, uint32_t upstream)
{
    struct watched_upstream *watched = &simulation->degradation.upstreams[upstream];
    const int64_t now_ms = sim_broker_ms(simulation);
    const struct sim_job *before =
        watched->probing_job == NO_JOB ? NULL : &simulation->jobs[watched->probing_job];
    Wire__JobState state;
    const char *worker;
    if (before != NULL && now_ms < watched->probe_until_ms && before->lease.is_held &&
        before->lease.attempt == watched->probing_attempt &&
        core_find_job(simulation->broker.core, &before->id, &state, &worker) == 0 &&
        state == WIRE__JOB_STATE__JOB_STATE_LEASED) {
        simulation_violate(simulation, "upstream %s/%s is probed by job %u while job %u probes it",
                           scenario_upstreams[upstream][0], scenario_upstreams[upstream][1], index,
                           watched->probing_job);
    }
    watched->probing_job = index;
    watched->probe_until_ms = now_ms + simulation->scenario.config.breaker.open_max_ms;
}

/* Of one route since the start; that no more are granted within less time is looked at by turns. */
static void see_attempt(struct simulation *simulation, struct sim_job *job, bool is_first)
{
    const struct config_retries *config = &simulation->scenario.config.retries;
    struct degradation *degradation = &simulation->degradation;
    struct watched_route *route = &degradation->routes[job->route];
    const double minutes = (double)(sim_broker_ms(simulation) - degradation->since_ms) / 60000.0;
    degradation->firsts += is_first;
    route->firsts += is_first;
    route->retries += job->is_retry;
    simulation->tally.retries += job->is_retry;
    job->is_retry = false;
    const double most = config->burst + (double)route->firsts * config->share_permille / 1000.0 +
                        minutes * config->least_per_min + 1.0;
    if ((double)route->retries > most) {
        simulation_violate(simulation,
                           "route %s has made %" PRIu64 " retries for %" PRIu64
                           " first attempts, more than its budget",
                           simulation->scenario.routes[job->route], route->retries, route->firsts);
    }
}

/* What ends each worker that runs it ends so many of them; a restart may have lost the count. */
static void check_killer(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    const uint64_t restarts = simulation->broker.incarnation - job->first_incarnation;
    const uint32_t losses_max = simulation->scenario.config.broker.losses_max;
    if (losses_max > 0 && job->kills > losses_max + restarts) { /* 0: nobody is condemned */
        simulation_violate(simulation, "job %u has ended %u workers and is given to another", index,
                           job->kills);
    }
}

void degradation_see_dispatch(struct simulation *simulation, uint32_t index,
                              const struct effect *effect)
{
    struct sim_job *job = &simulation->jobs[index];
    struct degradation *degradation = &simulation->degradation;
    const uint32_t upstream = degradation_upstream_of(simulation, effect);
    const bool is_probe = effect->as.dispatch.is_probe;
    job->hedge.is_open = false;
    degradation->dispatches[job->tier]++;
    if (upstream == SCENARIO_UPSTREAMS && job->route == SCENARIO_ROUTES - 1 &&
        simulation->scenario.config.routes_length == 0) {
        job->permit.is_open = false; /* its route is configured no more: any upstream may do */
        return;
    }
    if (upstream == SCENARIO_UPSTREAMS ||
        (simulation->scenario.candidates[job->route][job->tier] >> upstream & 1) == 0) {
        simulation_violate(simulation, "job %u is dispatched to an upstream that may not serve it",
                           index);
        return;
    }
    if (!is_probe && degradation->is_paused[job->pool][job->tier][job->route]) {
        simulation_violate(simulation, "job %u is dispatched though its queue is paused", index);
    }
    if (!is_probe && degradation->upstreams[upstream].is_down) {
        simulation_violate(simulation, "job %u is dispatched to %s/%s, which is down", index,
                           scenario_upstreams[upstream][0], scenario_upstreams[upstream][1]);
    }
    simulation_trace(simulation,
                     is_probe ? "job %" PRIu64 " probes upstream %" PRIu64 " by attempt %" PRIu64
                              : "job %" PRIu64 " may call upstream %" PRIu64 " by attempt %" PRIu64,
                     index, upstream, effect->as.dispatch.lease.attempt);
    if (is_probe) {
        check_probe(simulation, index, upstream);
        degradation->upstreams[upstream].probing_attempt = effect->as.dispatch.lease.attempt;
        simulation->tally.probes++;
    } else {
        check_slow_start(simulation, upstream);
    }
    spend(simulation, upstream, 1, job->tokens);
    see_attempt(simulation, job, effect->as.dispatch.lease.attempt == 1);
    check_killer(simulation, index);
    job->permit.is_open = true;
    job->permit.is_probe = is_probe;
    job->permit.upstream = upstream;
    job->permit.attempt = effect->as.dispatch.lease.attempt;
}

/* Tokens of all routes' budgets that were taken less what they earned, but for their caps. */
static double missing_retries(const struct simulation *simulation, uint64_t retries)
{
    const struct config_retries *config = &simulation->scenario.config.retries;
    const struct degradation *degradation = &simulation->degradation;
    const double minutes = (double)(sim_broker_ms(simulation) - degradation->since_ms) / 60000.0;
    return (double)retries - (double)degradation->firsts_before * config->share_permille / 1000.0 -
           minutes * config->least_per_min * SCENARIO_ROUTES;
}

/* At any time within any time: what was not used long ago cannot be used now. */
void degradation_check_turn(struct simulation *simulation, const struct core_stats *stats)
{
    const struct config_retries *config = &simulation->scenario.config.retries;
    struct degradation *degradation = &simulation->degradation;
    uint64_t retries = 0;
    for (size_t i = 0; i < stats->tiers_length; i++) {
        retries += stats->tiers[i].retries;
    }
    const uint64_t firsts = degradation->firsts - degradation->firsts_before;
    const double most = (double)(config->burst * SCENARIO_ROUTES) +
                        (double)firsts * config->share_permille / 1000.0 + 1.0;
    const double missing = missing_retries(simulation, retries);
    if (missing - degradation->lowest_missing > most) {
        simulation_violate(simulation, "%.0f retries more are granted within some time than may be",
                           missing - degradation->lowest_missing - most);
    }
    degradation->firsts_before = degradation->firsts;
    const double now = missing_retries(simulation, retries);
    degradation->lowest_missing =
        now < degradation->lowest_missing ? now : degradation->lowest_missing;
}

/* ---- notes ---- */

static uint32_t attempts_of(const struct simulation *simulation, const struct sim_job *job)
{
    return job->attempts_max > 0 ? job->attempts_max
                                 : simulation->scenario.tiers[job->tier].attempts_max;
}

/* For what ends its workers; nobody is condemned for less than what is configured. */
static void see_condemned(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    simulation->tally.poisoned++;
    if (job->crashes < simulation->scenario.config.broker.losses_max &&
        !flights_may_be_condemned(simulation, index)) {
        simulation_violate(simulation, "job %u is condemned after %u of its workers were lost",
                           index, job->crashes);
    }
}

static void see_death(struct simulation *simulation, const struct effect *effect)
{
    const uint32_t index = simulation_job_of(simulation, &effect->as.note.job_id);
    if (index != NO_JOB) {
        simulation->jobs[index].has_died = simulation->broker.incarnation;
    }
    if (index != NO_JOB && strcmp(effect->as.note.subject, "poison") == 0) {
        see_condemned(simulation, index);
    }
    if (index == NO_JOB || strcmp(effect->as.note.subject, "attempts_exhausted") != 0) {
        return;
    }
    const struct sim_job *job = &simulation->jobs[index];
    const uint32_t most = attempts_of(simulation, job);
    if (job->failures < most && !flights_may_die(simulation, index)) {
        simulation_violate(simulation,
                           "job %u dies of its attempts after %u of %u failures that count", index,
                           job->failures, most);
    }
}

/*
 * What a probe comes to decides, even when it was given up and another one is under way: from then
 * on the breaker counts anew.
 */
static void end_probe(struct simulation *simulation, const struct sim_job *job)
{
    if (job->permit.is_open && job->permit.is_probe) {
        simulation->degradation.upstreams[job->permit.upstream].probing_job = NO_JOB;
    }
}

/* A probe whose worker is lost is under way no more. */
static void see_lost(struct simulation *simulation, const struct effect *effect)
{
    const uint32_t index = simulation_job_of(simulation, &effect->as.note.job_id);
    if (index != NO_JOB) {
        simulation->jobs[index].is_cut = true;
        simulation->jobs[index].crashes +=
            effect->as.note.subject[0] != '\0' &&
            !attempts_is_leaving(simulation, effect->as.note.subject);
    }
    if (index != NO_JOB && simulation->jobs[index].permit.attempt == effect->as.note.number) {
        simulation->jobs[index].permit.is_open = simulation->jobs[index].hedge.is_open = false;
    }
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        struct watched_upstream *watched = &simulation->degradation.upstreams[i];
        if (watched->probing_job == index && watched->probing_attempt == effect->as.note.number) {
            watched->probing_job = NO_JOB;
        }
    }
}

void degradation_see_note(struct simulation *simulation, const struct effect *effect)
{
    const enum note_kind note = effect->as.note.note;
    if (note == NOTE_LEASE_LOST) {
        see_lost(simulation, effect);
    } else if (note == NOTE_DEAD_LETTER) {
        see_death(simulation, effect);
    } else if (note == NOTE_EXPIRED) {
        const uint32_t index = simulation_job_of(simulation, &effect->as.note.job_id);
        if (index != NO_JOB) {
            end_probe(simulation, &simulation->jobs[index]);
        }
    } else if (note == NOTE_UPSTREAM_DOWN || note == NOTE_UPSTREAM_UP) {
        const uint32_t upstream = upstream_of_subject(effect->as.note.subject);
        if (upstream < SCENARIO_UPSTREAMS) {
            simulation->degradation.upstreams[upstream].is_down = note == NOTE_UPSTREAM_DOWN;
            see_back(simulation, &simulation->degradation.upstreams[upstream],
                     note == NOTE_UPSTREAM_UP);
            simulation_trace(simulation,
                             note == NOTE_UPSTREAM_DOWN
                                 ? "core says that upstream %" PRIu64 " is down"
                                 : "core says that upstream %" PRIu64 " is up",
                             upstream, 0, 0);
            simulation->degradation.upstreams[upstream].failures = 0;
            simulation->tally.downs += note == NOTE_UPSTREAM_DOWN;
        }
    } else if (note == NOTE_QUEUE_PAUSED || note == NOTE_QUEUE_RESUMED) {
        bool *is_paused = queue_of_subject(simulation, effect->as.note.subject);
        if (is_paused != NULL) {
            *is_paused = note == NOTE_QUEUE_PAUSED;
            simulation->tally.pauses += *is_paused;
        }
    }
}

/* ---- ends of attempts ---- */

struct look {
    uint32_t upstream;
    bool is_down;
};

static void look_at(void *context, const struct core_upstream_view *view)
{
    struct look *look = context;
    if (scenario_upstream(view->provider, view->model) == look->upstream) {
        look->is_down = view->state == WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN ||
                        view->state == WIRE__UPSTREAM_STATE__STATE__UPSTREAM_HALF_OPEN;
    }
}

bool degradation_is_down(const struct simulation *simulation, uint32_t upstream)
{
    struct look look = {.upstream = upstream};
    core_visit_upstreams(simulation->broker.core, sim_broker_now(simulation), look_at, &look);
    return look.is_down;
}

static bool is_known(const struct simulation *simulation, uint64_t peer)
{
    return simulation->workers[network_link(simulation, peer)->owner].known_as == peer;
}

/*
 * What the attempt was permitted and has not used is given back, and what it has used beyond is
 * taken. Where it is not sure that the core will do so, more is given back than may be, and never
 * less.
 */
static void settle(struct simulation *simulation, const struct message *message, uint32_t upstream)
{
    const struct sim_job *job = &simulation->jobs[message->job];
    const struct call *call = degradation_call_at(message, upstream);
    if (call == NULL) {
        spend(simulation, upstream, -1, -(int64_t)job->tokens);
        simulation->degradation.upstreams[upstream].calls_since--;
        return;
    }
    const int64_t beyond = (int64_t)call->tokens - job->tokens;
    if (call->tokens > 0 && (beyond < 0 || simulation->degradation.holds)) {
        spend(simulation, upstream, 0, beyond);
    }
}

const struct call *degradation_call_at(const struct message *message, uint32_t upstream)
{
    const bool is_result = message->event == EVENT_ATTEMPT_RESULT;
    return is_result && message->call.is_made && message->call.upstream == upstream ? &message->call
           : is_result && message->other.is_made && message->other.upstream == upstream
               ? &message->other
               : NULL;
}

void degradation_see_second(struct simulation *simulation, uint32_t index, uint32_t upstream)
{
    if (simulation->degradation.upstreams[upstream].is_down) {
        simulation_violate(simulation, "job %u may call %s/%s besides, which is down", index,
                           scenario_upstreams[upstream][0], scenario_upstreams[upstream][1]);
    }
    check_slow_start(simulation, upstream);
    spend(simulation, upstream, 1, simulation->jobs[index].tokens);
}

void degradation_before_end(struct simulation *simulation, const struct message *message)
{
    struct sim_job *job = &simulation->jobs[message->job];
    struct degradation *degradation = &simulation->degradation;
    Wire__JobState state;
    const char *holder;
    const struct sim_worker *worker =
        &simulation->workers[network_link(simulation, message->peer)->owner];
    /* Not an attempt of the same number from before a restart. */
    const bool is_latest = job->permit.is_open && job->permit.attempt == message->attempt &&
                           job->lease.is_held && job->lease.peer == message->peer;
    degradation->may_count =
        core_find_job(simulation->broker.core, &job->id, &state, &holder) == 0 &&
        state == WIRE__JOB_STATE__JOB_STATE_LEASED && strcmp(holder, worker->name) == 0;
    degradation->holds = degradation->may_count && job->lease.is_held &&
                         job->lease.attempt == message->attempt && job->lease.peer == message->peer;
    const bool is_same = job->permit.is_open && job->permit.attempt == message->attempt;
    if (is_same && (is_latest || degradation->may_count)) {
        settle(simulation, message, job->permit.upstream);
    }
    const bool has_second = job->hedge.is_open && job->hedge.attempt == message->attempt;
    if (has_second && (is_latest || degradation->may_count)) {
        settle(simulation, message, job->hedge.upstream);
        hedges_settle(simulation, message);
    }
    if (is_latest) {
        end_probe(simulation, job);
        job->permit.is_open = job->hedge.is_open = false;
    }
}

/* In a row, and not by a worker's own fault: while none of its calls is answered for others. */
static void see_call(struct simulation *simulation, const struct call *call)
{
    struct watched_upstream *watched = &simulation->degradation.upstreams[call->upstream];
    const struct config_breaker *config = &simulation->scenario.config.breaker;
    const int64_t now_ms = sim_broker_ms(simulation);
    if (call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED) {
        watched->answered_ms = now_ms;
    }
    if (call->outcome != WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE) {
        watched->failures = 0;
        return;
    }
    if (!scenario_has_upstream(&simulation->scenario, call->upstream)) {
        return; /* nobody is told of its state */
    }
    watched->failures += now_ms - watched->answered_ms > config->window_ms;
    if (watched->failures >= config->failures && !degradation_is_down(simulation, call->upstream)) {
        simulation_violate(simulation, "upstream %s/%s failed %u calls in a row and is not down",
                           scenario_upstreams[call->upstream][0],
                           scenario_upstreams[call->upstream][1], watched->failures);
    }
}

/* Nobody has heard the call: that says nothing about the job. */
static bool is_unreached(const struct call *call)
{
    return strcmp(call->error_code, "connect") == 0 || strcmp(call->error_code, "tls") == 0;
}

void degradation_after_end(struct simulation *simulation, const struct message *message)
{
    const struct degradation *degradation = &simulation->degradation;
    struct sim_job *job = &simulation->jobs[message->job];
    if (message->event == EVENT_UNDELIVERABLE) {
        return;
    }
    if (message->number == WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE && degradation->may_count) {
        const bool was_spared = degradation->holds && message->call.is_made &&
                                (is_unreached(&message->call) ||
                                 degradation_is_down(simulation, message->call.upstream));
        job->failures += !was_spared;
        /* Of one that is configured no more nobody sees whether it is down. */
        job->is_retry |= degradation->holds && !was_spared &&
                         scenario_has_upstream(&simulation->scenario, message->call.upstream);
        simulation->tally.spared += was_spared;
    }
    const struct call *calls[] = {&message->other, &message->call};
    for (size_t i = 0; i < 2 && is_known(simulation, message->peer); i++) {
        if (calls[i]->is_made) {
            learn(simulation, calls[i]);
            see_call(simulation, calls[i]);
        }
    }
}
