#include "broker/core/charge.h"
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/budget.h"
#include "broker/core/concluded.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/purse.h"
#include "broker/core/record.h"
#include "broker/core/state.h"
#include "broker/core/upstream.h"
#include "broker/core/worker.h"

enum {
    HEAD_BYTES = 6, /* of a record's key: then time, job, attempt, worker, run */
    WHICH_BYTES = ID_BYTES + 4 + 4 + 8,
    KEY_BYTES = HEAD_BYTES + 8 + WHICH_BYTES,
    OTHERS_MAX = 1024, /* of one record */
    RANGE_BYTES = HEAD_BYTES + 8,
    TRIM_MS = 5000,
};

enum state { HELD, AWAITED, ESTIMATED, SETTLED };
_Static_assert((int)SETTLED == (int)CHARGE_STATE_LAST, "records have these states");

/* Which attempt. A number may be given twice, when a broker forgot the first in a crash: runs are
 * told apart. */
struct which {
    struct id job_id;
    uint32_t attempt;
    uint32_t worker; /* hash of its name */
    uint64_t run;    /* as the worker says; 0: it has not yet */
};

enum { FIRST, SECOND, CALLS };

struct charge {
    struct table_link by_attempt;
    struct list_link link;    /* of those that are open, or over */
    struct list_link awaited; /* AWAITED, or SETTLED in this turn */
    struct which which;
    struct budget_scope scope;
    uint8_t state;
    bool is_recorded;
    int32_t day;     /* ESTIMATED: of its booking */
    int64_t unix_ms; /* when it was made: its key */
    int64_t made_ms; /* the same, by a clock that nobody sets */
    int64_t due_ms;  /* AWAITED: when it is estimated */
    struct {
        const struct upstream *upstream; /* NULL: not known */
        uint64_t nanousd;                /* the worst case: reserved, or booked; 0: none */
    } calls[CALLS];                      /* the attempt's, and the one beside it */
};

/* ---- finding, making, forgetting ---- */

static uint32_t worker_number(const char *name)
{
    return (uint32_t)XXH3_64bits(name, strlen(name));
}

static struct which which_of(const struct worker *worker, const struct id *job_id, uint32_t attempt)
{
    return (struct which){
        .job_id = *job_id, .attempt = attempt, .worker = worker_number(worker->name)};
}

static uint64_t hash_which(const struct which *which, uint64_t seed)
{
    return XXH3_64bits_withSeed(which, sizeof(*which), seed);
}

uint64_t charge_hash(const struct table_link *link, uint64_t seed)
{
    return hash_which(&CONTAINER_OF((struct table_link *)link, struct charge, by_attempt)->which,
                      seed);
}

static struct charge *find(const struct core *core, const struct which *which)
{
    const struct table *table = &core->charges.by_attempt;
    struct table_link *link = table_first(table, hash_which(which, table->seed));
    for (; link != NULL; link = link->next) {
        struct charge *charge = CONTAINER_OF(link, struct charge, by_attempt);
        if (memcmp(&charge->which, which, sizeof(*which)) == 0) {
            return charge;
        }
    }
    return NULL;
}

/* As long as its worker has not spoken of it. NULL: none is known, or it has. */
static struct charge *find_unsaid(const struct core *core, const struct which *which)
{
    struct charge *charge = find(core, which);
    return charge == NULL || charge->state == SETTLED ? NULL : charge;
}

static bool is_over(enum state state)
{
    return state == SETTLED || state == ESTIMATED;
}

static struct list *list_of(struct core *core, enum state state)
{
    return is_over(state) ? &core->charges.over : &core->charges.open;
}

static struct charge *first_of(const struct list *list)
{
    struct list_link *link = list_first(list);
    return link == NULL ? NULL : CONTAINER_OF(link, struct charge, link);
}

/* Its record is left, if it has one. */
static void leave(struct core *core, struct charge *charge)
{
    core->charges.is_due |= charge->is_recorded;
    table_remove(&core->charges.by_attempt, &charge->by_attempt);
    list_remove(list_of(core, charge->state), &charge->link);
    if (charge->state == SETTLED && charge->awaited.next != NULL) {
        list_remove(&core->charges.settled, &charge->awaited);
    }
}

static void forget(struct core *core, struct charge *charge)
{
    leave(core, charge);
    if (core->charges.spare == NULL) {
        core->charges.spare = charge;
    } else {
        free(charge);
    }
}

/* For one more that is over. */
static void make_room(struct core *core)
{
    if (core->charges.over.length >= CHARGES_MAX) {
        forget(core, first_of(&core->charges.over));
    }
}

/*
 * Without memory the spare one is taken, or the oldest that is over makes room: what is not
 * remembered would be booked again if it were said again.
 */
static struct charge *allocate(struct core *core)
{
    struct charge *charge = calloc(1, sizeof(*charge));
    charge = charge != NULL ? charge : TAKE(core->charges.spare);
    if (charge == NULL && (charge = first_of(&core->charges.over)) != NULL) {
        leave(core, charge);
    }
    return charge;
}

/* Of this memory; NULL: there is none. */
static struct charge *make(struct core *core, struct charge *memory, const struct which *which,
                           struct budget_scope scope, enum state state, int64_t unix_ms)
{
    if (memory == NULL) {
        return NULL;
    }
    if (is_over(state)) {
        make_room(core);
    }
    *memory = (struct charge){.which = *which,
                              .scope = scope,
                              .state = (uint8_t)state,
                              .unix_ms = unix_ms,
                              .made_ms = core->now_ms};
    table_insert(&core->charges.by_attempt, &memory->by_attempt);
    list_append(list_of(core, state), &memory->link);
    return memory;
}

/* ---- records ---- */

static void write_which(const struct which *which, uint8_t ret_bytes[WHICH_BYTES])
{
    const uint32_t numbers[] = {htobe32(which->attempt), htobe32(which->worker)};
    const uint64_t run = htobe64(which->run);
    memcpy(ret_bytes, which->job_id.bytes, ID_BYTES);
    memcpy(ret_bytes + ID_BYTES, numbers, sizeof(numbers));
    memcpy(ret_bytes + WHICH_BYTES - sizeof(run), &run, sizeof(run));
}

/* Errors: -EBADMSG. */
static int read_which(const uint8_t bytes[WHICH_BYTES], struct which *ret_which)
{
    uint32_t numbers[2];
    struct which which = {.attempt = 0};
    int r = id_from_bytes(bytes, ID_BYTES, &which.job_id);
    memcpy(numbers, bytes + ID_BYTES, sizeof(numbers));
    memcpy(&which.run, bytes + WHICH_BYTES - sizeof(which.run), sizeof(which.run));
    which.run = be64toh(which.run);
    which.attempt = be32toh(numbers[0]);
    which.worker = be32toh(numbers[1]);
    if (r < 0) {
        return -EBADMSG;
    }
    *ret_which = which;
    return 0;
}

static void write_key(const struct charge *charge, uint8_t ret_key[KEY_BYTES])
{
    const uint64_t time = htobe64((uint64_t)charge->unix_ms);
    memcpy(ret_key, "charge", HEAD_BYTES);
    memcpy(ret_key + HEAD_BYTES, &time, sizeof(time));
    write_which(&charge->which, ret_key + HEAD_BYTES + sizeof(time));
}

static const char *name_at(const struct names *names, uint16_t index)
{
    return index < names->length ? names->items[index]->text : "";
}

/* Also while the disk cannot be written: the batch waits for that, and workers keep their results.
 */
static void record(struct core *core, struct charge *charge)
{
    uint8_t key[KEY_BYTES];
    Record__ChargeRecord message = RECORD__CHARGE_RECORD__INIT;
    message.state = charge->state;
    message.tenant = (char *)name_at(&core->tenants, charge->scope.tenant);
    message.tier = (char *)name_at(&core->tiers, charge->scope.tier);
    message.nanousd = charge->calls[FIRST].nanousd;
    message.second_nanousd = charge->calls[SECOND].nanousd;
    message.day = (uint32_t)charge->day;
    if (charge->calls[FIRST].upstream != NULL) {
        message.provider = charge->calls[FIRST].upstream->provider;
        message.model = charge->calls[FIRST].upstream->model;
    }
    if (charge->calls[SECOND].upstream != NULL) {
        message.second_provider = charge->calls[SECOND].upstream->provider;
        message.second_model = charge->calls[SECOND].upstream->model;
    }
    write_key(charge, key);
    core_put_record(core, STORE_META, key, sizeof(key), &message.base);
    charge->is_recorded = true;
}

static void erase(struct core *core, struct charge *charge)
{
    uint8_t key[KEY_BYTES];
    if (charge->is_recorded) {
        write_key(charge, key);
        core_delete(core, STORE_META, key, sizeof(key));
        charge->is_recorded = false;
    }
}

/* From now on it is the latest in the list of `state`, and on the disk, in whose order it stays. */
static void renew(struct core *core, struct charge *charge, enum state state)
{
    erase(core, charge);
    list_remove(list_of(core, charge->state), &charge->link);
    charge->state = (uint8_t)state;
    charge->unix_ms = core->unix_ms;
    charge->made_ms = core->now_ms;
    list_append(list_of(core, state), &charge->link);
    record(core, charge);
}

/* ---- states ---- */

static uint64_t worst_of(const struct charge *charge)
{
    return price_add(charge->calls[FIRST].nanousd, charge->calls[SECOND].nanousd);
}

/* Adds the worst case of each of its calls to the ledger, or takes it back. */
static void estimate(struct core *core, const struct charge *charge,
                     void (*change)(struct core *core, int32_t day, const struct ledger_key *key,
                                    const struct core_cost *cost))
{
    for (size_t i = 0; i < CALLS; i++) {
        const struct upstream *upstream = charge->calls[i].upstream;
        const uint64_t nanousd = charge->calls[i].nanousd;
        const struct ledger_key key = {.tenant = name_at(&core->tenants, charge->scope.tenant),
                                       .tier = name_at(&core->tiers, charge->scope.tier),
                                       .model = upstream == NULL ? "" : upstream->model,
                                       .provider = upstream == NULL ? "" : upstream->provider};
        const struct core_cost cost = {.calls = 1,
                                       .estimated_calls = 1,
                                       .cost_nanousd = nanousd,
                                       .estimated_nanousd = nanousd,
                                       .late_nanousd = nanousd};
        if (nanousd > 0) {
            change(core, charge->day, &key, &cost);
        }
    }
}

/* Leaves its state: nothing is reserved for it, and nothing booked, any more. */
static void reopen(struct core *core, struct charge *charge)
{
    switch ((enum state)charge->state) {
    case AWAITED:
        list_remove(&core->charges.awaited, &charge->awaited);
        budget_release(core, charge->scope, worst_of(charge));
        break;
    case HELD:
        budget_release(core, charge->scope, worst_of(charge));
        break;
    case ESTIMATED:
        estimate(core, charge, ledger_take_back);
        budget_refund(core, charge->scope, worst_of(charge), charge->day);
        break;
    case SETTLED:
        break;
    }
}

static void drop(struct core *core, struct charge *charge)
{
    reopen(core, charge);
    erase(core, charge);
    forget(core, charge);
}

static void await(struct core *core, struct charge *charge, int64_t for_ms)
{
    charge->state = AWAITED;
    charge->due_ms = core->now_ms + for_ms;
    list_append(&core->charges.awaited, &charge->awaited);
}

static void book_estimate(struct core *core, struct charge *charge)
{
    list_remove(&core->charges.awaited, &charge->awaited);
    budget_release(core, charge->scope, worst_of(charge));
    charge->day = purse_day_of(core->unix_ms);
    estimate(core, charge, ledger_add);
    budget_spend(core, charge->scope, worst_of(charge));
    make_room(core);
    renew(core, charge, ESTIMATED);
}

/* ---- leases ---- */

/* What its second call may cost. */
static void reserve_second(struct core *core, struct charge *charge, const struct lease *lease)
{
    const struct upstream *upstream = lease->hedge.upstream;
    if (upstream != NULL) {
        charge->calls[SECOND].upstream = upstream;
        charge->calls[SECOND].nanousd = budget_worst_nanousd(core, lease->job, upstream);
        budget_reserve(core, charge->scope, charge->calls[SECOND].nanousd);
    }
}

static struct charge *reserve(struct core *core, const struct lease *lease)
{
    const struct which which = which_of(lease->worker, &lease->job->id, lease->attempt);
    const struct upstream *upstream = lease->permit.upstream;
    const uint64_t worst = budget_worst_nanousd(core, lease->job, upstream);
    struct charge *charge = find(core, &which);
    if (charge != NULL && charge->state == AWAITED) { /* it came back */
        list_remove(&core->charges.awaited, &charge->awaited);
        charge->state = HELD;
        return charge;
    }
    if (charge != NULL || (worst == 0 && lease->hedge.upstream == NULL)) {
        return charge;
    }
    charge = make(core, allocate(core), &which, budget_scope_of(lease->job), HELD, core->unix_ms);
    if (charge != NULL) {
        charge->calls[FIRST].nanousd = worst;
        charge->calls[FIRST].upstream = upstream;
        budget_reserve(core, charge->scope, worst);
        reserve_second(core, charge, lease);
    }
    return charge;
}

bool charge_may_open(struct core *core)
{
    if (core->charges.spare == NULL) {
        core->charges.spare = calloc(1, sizeof(struct charge));
    }
    return core->charges.spare != NULL;
}

void charge_open(struct core *core, struct lease *lease)
{
    if (lease->worker == NULL || !budget_is_limited(core, budget_scope_of(lease->job))) {
        return;
    }
    struct charge *charge = reserve(core, lease);
    if (charge != NULL && charge->state == HELD && !charge->is_recorded && core->effects != NULL) {
        record(core, charge);
    }
}

static struct charge *charge_of(const struct core *core, const struct lease *lease)
{
    if (lease->worker == NULL) {
        return NULL; /* since a restart: what is known of it is awaited already */
    }
    const struct which which = which_of(lease->worker, &lease->job->id, lease->attempt);
    return find(core, &which);
}

void charge_open_second(struct core *core, struct lease *lease)
{
    if (!budget_is_limited(core, budget_scope_of(lease->job))) {
        return;
    }
    struct charge *charge = charge_of(core, lease);
    if (charge == NULL) { /* its first call costs nothing, or is from before the limit */
        charge = reserve(core, lease);
    } else if (charge->state == HELD && charge->calls[SECOND].nanousd == 0) {
        reserve_second(core, charge, lease);
    }
    if (charge != NULL && charge->state == HELD) {
        record(core, charge);
    }
}

void charge_give_back(struct core *core, struct lease *lease)
{
    struct charge *charge = charge_of(core, lease);
    lease->is_charged = true;
    if (charge != NULL && charge->state == HELD) {
        drop(core, charge);
    }
}

void charge_lease_ended(struct core *core, struct lease *lease)
{
    if (lease->is_charged || lease->worker == NULL) {
        return;
    }
    struct charge *charge = charge_of(core, lease);
    if (charge == NULL) {
        charge = reserve(core, lease);
    }
    if (charge != NULL && charge->state == HELD) {
        await(core, charge, core->limits.lease_ms);
        record(core, charge);
    }
}

/* ---- results ---- */

static bool is_paid(const Wire__Usage *usage)
{
    return usage != NULL && usage->provider[0] != '\0' &&
           (usage->cost_nanousd > 0 || usage->input_tokens > 0 || usage->output_tokens > 0);
}

/* Of the calls that were made, those that the usage is of: all but the one beside. */
struct told {
    uint64_t calls, estimated_calls;
};

static bool is_hit(const Wire__Usage *usage)
{
    return usage != NULL && usage->cache >= WIRE__CACHE_STATUS__CACHE_HIT;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* Without what is said of other calls, but for their number: `told`. What is not said of any is an
 * estimate all the same. */
static struct core_cost cost_of(const Wire__Usage *usage, const struct told *told,
                                uint64_t apart_nanousd, bool is_late)
{
    const uint64_t cost = less(usage->cost_nanousd, apart_nanousd);
    const uint64_t unsaid = less(usage->hedge_cost_nanousd, apart_nanousd);

    const uint64_t apart =
        price_add(usage->cached_input_tokens,
                  price_add(usage->cache_write_tokens, usage->cache_write_long_tokens));
    return (struct core_cost){
        .calls = told->calls,
        .estimated_calls = told->estimated_calls,
        .tokens = {[PRICE_INPUT] = less(usage->input_tokens, apart),
                   [PRICE_CACHED_INPUT] = usage->cached_input_tokens,
                   [PRICE_CACHE_WRITE] = usage->cache_write_tokens,
                   [PRICE_CACHE_WRITE_LONG] = usage->cache_write_long_tokens,
                   [PRICE_OUTPUT] = usage->output_tokens},
        .reasoning_tokens = usage->reasoning_tokens,
        .estimated_tokens =
            usage->is_estimated ? price_add(usage->input_tokens, usage->output_tokens) : 0,
        .cost_nanousd = cost,
        .estimated_nanousd = usage->is_estimated || unsaid > cost ? cost : unsaid,
        .late_nanousd = is_late || unsaid > cost ? cost : unsaid,
        .saved_prompt_cache_nanousd = usage->saved_prompt_cache_nanousd,
        .saved_batching_nanousd = usage->saved_batching_nanousd,
        .saved_optimising_nanousd = usage->saved_optimising_nanousd,
        .saved_routing_nanousd = usage->saved_routing_nanousd,
    };
}

/* As the job has it; else as the worker says; else as is remembered of the job. */
static struct budget_scope scope_of(const struct core *core, const struct job *job,
                                    const struct event_attempt_result *result)
{
    if (job != NULL) {
        return budget_scope_of(job);
    }
    const struct concluded_entry *entry = concluded_find(&core->concluded, &result->lease.job_id);
    const struct name *tenant =
        result->tenant == NULL ? NULL : names_find(&core->tenants, result->tenant);
    const struct name *tier = result->tier == NULL ? NULL : names_find(&core->tiers, result->tier);
    return (struct budget_scope){
        .tenant = tenant != NULL  ? tenant->index
                  : entry != NULL ? entry->tenant
                                  : BUDGET_NOBODY,
        .tier = tier != NULL    ? tier->index
                : entry != NULL ? concluded_tier(entry)
                                : BUDGET_NOBODY,
    };
}

static struct ledger_key key_of(const struct core *core, struct budget_scope scope,
                                const Wire__Usage *usage)
{
    return (struct ledger_key){.tenant = name_at(&core->tenants, scope.tenant),
                               .tier = name_at(&core->tiers, scope.tier),
                               .model = usage->model,
                               .provider = usage->provider};
}

/* ---- calls beside the one that counts ---- */

static struct core_cost cost_of_call(const Wire__Call *call)
{
    return (struct core_cost){
        .calls = 1,
        .estimated_calls = call->is_estimated,
        .tokens = {[PRICE_INPUT] = call->input_tokens, [PRICE_OUTPUT] = call->output_tokens},
        .estimated_tokens = price_add(call->input_tokens, call->output_tokens),
        .cost_nanousd = call->cost_nanousd,
        .estimated_nanousd = call->is_estimated ? call->cost_nanousd : 0,
        .late_nanousd = call->cost_nanousd,
    };
}

/* It is the one that the usage is of. */
static bool is_same(const Wire__Usage *usage, const Wire__Call *call)
{
    return strcmp(usage->provider, call->upstream->provider) == 0 &&
           strcmp(usage->model, call->upstream->model) == 0;
}

/* It is not, and has used something. */
static bool is_apart(const Wire__Usage *usage, const Wire__Call *call)
{
    return !is_same(usage, call) && (call->cost_nanousd > 0 || call->input_tokens > 0);
}

/*
 * A call for several jobs is told with the result of one of them, and what it used with each, in
 * parts: so calls are counted where they are told, and none with a part alone. A job that was asked
 * alone afterwards may tell of two. An answer that was shared with nobody had a call, told or not:
 * a list that is not whole is not taken.
 */
static struct told told_by(const struct event_attempt_result *result)
{
    struct told told = {0};
    for (size_t i = 0; i < result->calls_length; i++) {
        const Wire__Call *call = result->calls[i];
        const bool has_used = call->cost_nanousd > 0 || call->tokens > 0 ||
                              call->input_tokens > 0 || call->output_tokens > 0;
        if (has_used && is_same(result->usage, call)) {
            told.calls++;
            told.estimated_calls += call->is_estimated;
        }
    }
    const bool is_answer_of_its_own =
        result->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED && result->usage->combined == 0;
    if (told.calls == 0 && is_answer_of_its_own && is_paid(result->usage)) {
        told = (struct told){.calls = 1, .estimated_calls = result->usage->is_estimated};
    }
    return told;
}

static uint64_t apart_nanousd(const struct event_attempt_result *result)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < result->calls_length; i++) {
        sum = price_add(
            sum, is_apart(result->usage, result->calls[i]) ? result->calls[i]->cost_nanousd : 0);
    }
    return sum;
}

static bool has_apart(const struct event_attempt_result *result)
{
    for (size_t i = 0; i < result->calls_length; i++) {
        if (is_apart(result->usage, result->calls[i])) {
            return true;
        }
    }
    return false;
}

static void book_apart(struct core *core, struct budget_scope scope,
                       const struct event_attempt_result *result)
{
    for (size_t i = 0; i < result->calls_length; i++) {
        const Wire__Call *call = result->calls[i];
        if (is_apart(result->usage, call)) {
            const struct ledger_key key = {.tenant = name_at(&core->tenants, scope.tenant),
                                           .tier = name_at(&core->tiers, scope.tier),
                                           .model = call->upstream->model,
                                           .provider = call->upstream->provider};
            const struct core_cost cost = cost_of_call(call);
            ledger_add(core, purse_day_of(core->unix_ms), &key, &cost);
            budget_spend(core, scope, call->cost_nanousd);
        }
    }
}

/* ---- booking ---- */

static void book(struct core *core, struct budget_scope scope,
                 const struct event_attempt_result *result, bool is_late)
{
    const Wire__Usage *usage = result->usage;
    const struct ledger_key key = key_of(core, scope, usage);
    const struct told told = told_by(result);
    const struct core_cost cost = cost_of(usage, &told, apart_nanousd(result), is_late);
    book_apart(core, scope, result);
    if (told.calls > 0 || (is_paid(usage) && (cost.cost_nanousd > 0 || usage->input_tokens > 0))) {
        ledger_add(core, purse_day_of(core->unix_ms), &key, &cost);
        budget_spend(core, scope, cost.cost_nanousd);
    }
}

/* Said again it cannot be told from the first time once its job is concluded and forgotten: it is
 * only a saving. */
static void book_hit(struct core *core, const struct job *job, const Wire__Usage *usage)
{
    if (job == NULL) {
        return;
    }
    const struct ledger_key key = key_of(core, budget_scope_of(job), usage);
    const struct core_cost cost = {
        .hits = 1, .saved_cache_nanousd = usage->saved_nanousd, .saved_cache_ms = usage->saved_ms};
    ledger_add(core, purse_day_of(core->unix_ms), &key, &cost);
    core->charges.is_booked = true;
}

/* `charge`: what was known of it so far; NULL: nothing. */
static void settle(struct core *core, struct charge *charge, const struct which *which,
                   struct budget_scope scope, const struct event_attempt_result *result,
                   bool is_late)
{
    if (charge != NULL) {
        scope = charge->scope;
        drop(core, charge);
    }
    book(core, scope, result, is_late);
    core->charges.is_booked = true;
    charge = make(core, allocate(core), which, scope, SETTLED, core->unix_ms);
    if (charge != NULL) { /* else it would be booked again if it were said again */
        list_append(&core->charges.settled, &charge->awaited);
    }
}

/* What it may have used: nothing, since it carried on what another attempt had begun. */
static void close_own(struct core *core, const struct worker *worker,
                      const struct event_attempt_result *result)
{
    const struct which which = which_of(worker, &result->lease.job_id, result->lease.attempt);
    struct charge *own = find_unsaid(core, &which);
    if (own != NULL) {
        drop(core, own);
    }
}

void charge_result(struct core *core, const struct worker *worker, struct job *job,
                   struct lease *lease, const struct event_attempt_result *result)
{
    const bool is_answer = result->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED;
    const uint32_t attempt = result->made_by > 0 ? result->made_by : result->lease.attempt;
    struct which which = which_of(worker, &result->lease.job_id, attempt);
    struct charge *charge = find_unsaid(core, &which);
    which.run = result->run;
    const struct charge *known = find(core, &which);
    const bool is_known = known != NULL && known->state == SETTLED;
    core->charges.is_booked = is_known; /* maybe in a batch that is not on the disk yet */
    if (is_known && !is_answer) {
        return; /* of one that has this number since a crash, too, it may say more */
    }
    if (lease != NULL) {
        lease->is_charged = true;
    }
    if (attempt != result->lease.attempt) {
        close_own(core, worker, result);
    }
    if (!is_known && result->usage != NULL &&
        (is_paid(result->usage) || has_apart(result) || told_by(result).calls > 0)) {
        const bool is_late = job == NULL || !is_answer;
        settle(core, charge, &which, scope_of(core, job, result), result, is_late);
    } else if (charge != NULL) {
        drop(core, charge);
    }
    if (!is_known && is_hit(result->usage) && !is_paid(result->usage)) {
        book_hit(core, job, result->usage);
    }
}

uint64_t charge_batch(const struct core *core)
{
    return core->charges.is_booked ? effects_batch(core->effects) : 0;
}

void charge_follower(struct core *core, const struct job *job, const Wire__Usage *usage)
{
    if (usage == NULL) {
        return;
    }
    const struct ledger_key key = key_of(core, budget_scope_of(job), usage);
    const struct core_cost cost = {.followers = 1,
                                   .saved_followers_nanousd = usage->saved_nanousd,
                                   .saved_followers_ms = usage->saved_ms};
    ledger_add(core, purse_day_of(core->unix_ms), &key, &cost);
}

/* ---- time ---- */

static struct charge *next_awaited(const struct core *core)
{
    struct list_link *link = list_first(&core->charges.awaited);
    return link == NULL ? NULL : CONTAINER_OF(link, struct charge, awaited);
}

static void delete_records_before(struct core *core, int64_t unix_ms)
{
    const uint64_t times[] = {htobe64((uint64_t)core->charges.deleted_unix_ms),
                              htobe64((uint64_t)unix_ms)};
    struct effect *effect = effects_add(core->effects, EFFECT_DELETE_RANGE, 0, 0);
    effect->as.range.family = STORE_META;
    effect->as.range.from_bytes = effect->as.range.to_bytes = RANGE_BYTES;
    memcpy(effect->as.range.from, "charge", HEAD_BYTES);
    memcpy(effect->as.range.to, "charge", HEAD_BYTES);
    memcpy(effect->as.range.from + HEAD_BYTES, &times[0], sizeof(times[0]));
    memcpy(effect->as.range.to + HEAD_BYTES, &times[1], sizeof(times[1]));
    core->batch_last = effects_batch(core->effects);
    core->charges.deleted_unix_ms = unix_ms;
}

/* Before all records that are needed. */
static int64_t needed_from_unix_ms(const struct core *core)
{
    const struct charge *const first[] = {first_of(&core->charges.open),
                                          first_of(&core->charges.over)};
    int64_t from = core->unix_ms;
    for (size_t i = 0; i < ARRAY_LENGTH(first); i++) {
        from = first[i] != NULL && first[i]->unix_ms < from ? first[i]->unix_ms : from;
    }
    return from;
}

/* An attempt that takes longer than what is over is kept is recorded anew: records are deleted from
 * the oldest on. */
static void trim(struct core *core)
{
    const int64_t before_ms = core->now_ms - core->limits.dedup_window_ms;
    struct charge *first;
    while ((first = first_of(&core->charges.over)) != NULL && first->made_ms < before_ms) {
        forget(core, first);
    }
    while ((first = first_of(&core->charges.open)) != NULL && first->made_ms < before_ms &&
           effects_reserve(core->effects, 2)) {
        renew(core, first, first->state);
    }
    const int64_t until = needed_from_unix_ms(core);
    if (core->charges.is_due && until > core->charges.deleted_unix_ms) {
        core->charges.is_due = false;
        delete_records_before(core, until);
    }
}

static struct charge *take_settled(struct core *core)
{
    struct list_link *link = list_first(&core->charges.settled);
    if (link == NULL) {
        return NULL;
    }
    struct charge *charge = CONTAINER_OF(link, struct charge, awaited);
    list_remove(&core->charges.settled, link);
    charge->is_recorded = true;
    return charge;
}

/* All that matters of them is that they were. */
static void record_settled(struct core *core)
{
    uint8_t key[KEY_BYTES];
    uint8_t others[OTHERS_MAX * WHICH_BYTES];
    struct charge *charge;
    while ((charge = take_settled(core)) != NULL) {
        Record__ChargeRecord message = RECORD__CHARGE_RECORD__INIT;
        write_key(charge, key);
        size_t length = 0;
        while (length < OTHERS_MAX && (charge = take_settled(core)) != NULL) {
            write_which(&charge->which, others + length++ * WHICH_BYTES);
        }
        message.state = SETTLED;
        message.others = (ProtobufCBinaryData){.len = length * WHICH_BYTES, .data = others};
        core_put_record(core, STORE_META, key, sizeof(key), &message.base);
    }
}

void charge_tick(struct core *core)
{
    record_settled(core);
    struct charge *charge;
    while ((charge = next_awaited(core)) != NULL && charge->due_ms <= core->now_ms) {
        book_estimate(core, charge);
    }
    if (core->now_ms >= core->charges.trim_at_ms) {
        core->charges.trim_at_ms = core->now_ms + TRIM_MS;
        trim(core);
    }
}

int64_t charge_next_deadline_ms(const struct core *core)
{
    const struct charge *charge = next_awaited(core);
    return charge == NULL ? INT64_MAX : charge->due_ms;
}

/* ---- making, restoring ---- */

int charge_init(struct core *core, uint64_t seed)
{
    list_init(&core->charges.open);
    list_init(&core->charges.over);
    list_init(&core->charges.awaited);
    list_init(&core->charges.settled);
    core->charges.spare = calloc(1, sizeof(struct charge));
    return core->charges.spare == NULL ? -ENOMEM
                                       : table_init(&core->charges.by_attempt, seed, charge_hash);
}

void charge_destroy(struct core *core)
{
    struct list *const lists[] = {&core->charges.open, &core->charges.over};
    for (size_t i = 0; i < ARRAY_LENGTH(lists); i++) {
        struct charge *charge;
        while (lists[i]->head.next != NULL && (charge = first_of(lists[i])) != NULL) {
            forget(core, charge);
        }
    }
    free(core->charges.spare);
    table_finish(&core->charges.by_attempt);
}

static int read_key(const uint8_t *key, size_t key_bytes, struct which *ret_which,
                    int64_t *ret_unix_ms)
{
    uint64_t time;
    struct which which;
    if (key_bytes != KEY_BYTES || read_which(key + HEAD_BYTES + sizeof(time), &which) < 0) {
        return -EBADMSG;
    }
    memcpy(&time, key + HEAD_BYTES, sizeof(time));
    time = be64toh(time);
    if (time > INT64_MAX) {
        return -EBADMSG;
    }
    *ret_which = which;
    *ret_unix_ms = (int64_t)time;
    return 0;
}

static int restore_scope(struct core *core, const Record__ChargeRecord *record,
                         struct budget_scope *ret_scope)
{
    struct tenant *tenant = NULL;
    int r = record->tenant[0] == '\0' ? 0 : core_add_tenant(core, record->tenant, &tenant);
    const struct name *tier = names_find(&core->tiers, record->tier);
    ret_scope->tenant = tenant == NULL ? BUDGET_NOBODY : tenant->name->index;
    ret_scope->tier = tier == NULL ? BUDGET_NOBODY : tier->index;
    return r;
}

/* NULL: no memory, and no other one makes room: it would be forgotten. */
static struct charge *restore_one(struct core *core, const struct which *which,
                                  struct budget_scope scope, enum state state, int64_t unix_ms)
{
    struct charge *charge = make(core, calloc(1, sizeof(*charge)), which, scope, state, unix_ms);
    if (charge != NULL) {
        charge->is_recorded = true;
    }
    return charge;
}

/* Errors: -EBADMSG, -ENOMEM. */
static int restore_others(struct core *core, const ProtobufCBinaryData *others, int64_t unix_ms)
{
    const struct budget_scope nobody = {.tenant = BUDGET_NOBODY, .tier = BUDGET_NOBODY};
    if (others->len % WHICH_BYTES != 0) {
        return -EBADMSG;
    }
    for (size_t at = 0; at < others->len; at += WHICH_BYTES) {
        struct which which;
        if (read_which(others->data + at, &which) < 0 || find(core, &which) != NULL) {
            return -EBADMSG;
        }
        if (restore_one(core, &which, nobody, SETTLED, unix_ms) == NULL) {
            return -ENOMEM;
        }
    }
    return 0;
}

int charge_restore(struct core *core, const void *key, size_t key_bytes, const void *value,
                   size_t value_bytes)
{
    struct which which;
    int64_t unix_ms;
    struct budget_scope scope;
    Record__ChargeRecord *message;
    int r = read_key(key, key_bytes, &which, &unix_ms);
    r = r < 0 ? r
              : record_read_charge(value, value_bytes, arena_protobuf_allocator(core->arena),
                                   &message);
    r = r < 0 ? r : restore_scope(core, message, &scope);
    if (r < 0) {
        return r;
    }
    core->budgets.was_restored = true;
    if (find(core, &which) != NULL) {
        return -EBADMSG;
    }
    core->unix_ms = later_ms(core->unix_ms, unix_ms); /* else new ones would be older than it */
    struct charge *charge = restore_one(core, &which, scope, message->state, unix_ms);
    if (charge == NULL) {
        return -ENOMEM;
    }
    charge->calls[FIRST].nanousd = message->nanousd;
    charge->calls[FIRST].upstream = upstream_find(core, message->provider, message->model);
    charge->calls[SECOND].nanousd = message->second_nanousd;
    charge->calls[SECOND].upstream =
        upstream_find(core, message->second_provider, message->second_model);
    charge->day = (int32_t)message->day;
    if (!is_over(charge->state)) {
        budget_reserve(core, scope, worst_of(charge));
        await(core, charge, 0);
    }
    return restore_others(core, &message->others, unix_ms);
}

void charge_restored(struct core *core)
{
    const int64_t wait_ms = later_ms(core->limits.lease_ms, core->limits.reclaim_ms);
    list_for_each (&core->charges.awaited, link) {
        CONTAINER_OF(link, struct charge, awaited)->due_ms = core->now_ms + wait_ms;
    }
}
