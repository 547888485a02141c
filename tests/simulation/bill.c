#include "tests/simulation/bill.h"
#include <inttypes.h>
#include <stdlib.h>
#include "broker/core/core.h"
#include "tests/simulation/memory.h"
#include "tests/simulation/network.h"

enum { CALLS = 2 }; /* of an attempt: the second beside a slow one */

/* What one attempt of one job at one worker was said to have cost. */
struct item {
    uint32_t job, attempt, worker;
    struct {
        uint32_t upstream;
        uint64_t nanousd;
    } calls[CALLS];
    uint64_t run;
    bool is_overtaken; /* of another run under its number was told since: that is confirmed */
    bool is_confirmed;
};

/* Of an upstream; the last is of those that are not known. */
struct sum {
    uint64_t booked[SCENARIO_UPSTREAMS + 1], confirmed[SCENARIO_UPSTREAMS + 1],
        said[SCENARIO_UPSTREAMS + 1];
    bool is_whole; /* each row has its own upstream */
};

static uint32_t worker_at(const struct simulation *simulation, uint64_t peer)
{
    const struct link *link = network_link(simulation, peer);
    return link != NULL && link->is_worker && !link->is_stranger ? link->owner : UINT32_MAX;
}

static struct item *find(const struct simulation *simulation, const struct message *message,
                         uint32_t worker)
{
    struct item *items = simulation->bill.items;
    for (size_t i = simulation->bill.length; i > 0; i--) { /* the latest are asked for most */
        struct item *item = &items[i - 1];
        if (item->job == message->job && item->attempt == message->attempt &&
            item->worker == worker) {
            return item;
        }
    }
    return NULL;
}

static struct item *append(struct simulation *simulation)
{
    struct watched_bill *bill = &simulation->bill;
    if (bill->length == bill->capacity) {
        bill->capacity = bill->capacity == 0 ? 1024 : bill->capacity * 2;
        bill->items = must(realloc(bill->items, bill->capacity * sizeof(struct item)));
    }
    return &bill->items[bill->length++];
}

void bill_before_step(struct simulation *simulation, const struct message *message)
{
    const struct call *call = &message->call;
    if (message->event != EVENT_ATTEMPT_RESULT || message->job == NO_JOB) {
        return;
    }
    const uint32_t worker = worker_at(simulation, message->peer);
    struct item *known = find(simulation, message, worker);
    if (known != NULL) {
        known->is_overtaken = known->run != call->run;
    }
    if (call->outcome != WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED || call->tokens == 0) {
        return;
    }
    /* A number may be given again when a broker has forgotten it in a crash. */
    if (worker == UINT32_MAX || (known != NULL && known->run == call->run)) {
        return;
    }
    struct item *item = append(simulation);
    *item = (struct item){
        .job = message->job, .attempt = message->attempt, .worker = worker, .run = call->run};
    const struct call *calls[CALLS] = {call, &message->other};
    for (size_t i = 0; i < CALLS; i++) {
        const bool has_cost = i == 0 || calls[i]->is_made;
        item->calls[i].upstream = calls[i]->upstream;
        item->calls[i].nanousd = has_cost ? calls[i]->tokens * (uint64_t)SCENARIO_TOKEN_NANOUSD : 0;
        if (simulation->jobs[message->job].tenant == SCENARIO_LIMITED_TENANT) {
            simulation->bill.limited_nanousd += item->calls[i].nanousd;
        }
    }
    simulation->tally.both_billed += item->calls[0].nanousd > 0 && item->calls[1].nanousd > 0;
}

void bill_see_release(struct simulation *simulation, const struct message *message)
{
    if (message->effect != EFFECT_ATTEMPT_CONCLUDED || message->job == NO_JOB) {
        return;
    }
    struct item *item = find(simulation, message, worker_at(simulation, message->peer));
    if (item != NULL && !item->is_overtaken) {
        item->is_confirmed = true;
    }
}

/* ---- the ledger at the end ---- */

static void add_row(void *context, const struct core_cost_view *view)
{
    struct sum *sum = context;
    const uint32_t upstream = scenario_upstream(view->provider, view->model);
    sum->booked[upstream] += view->sum->cost_nanousd - view->sum->estimated_nanousd;
    sum->is_whole &= upstream < SCENARIO_UPSTREAMS || view->sum->cost_nanousd == 0 ||
                     view->sum->cost_nanousd == view->sum->estimated_nanousd;
}

static void compare(struct simulation *simulation, const char *of, uint64_t booked,
                    uint64_t confirmed, uint64_t said)
{
    if (booked < confirmed) {
        simulation_violate(simulation,
                           "the ledger has %" PRIu64 " nano-dollars%s, and workers may have "
                           "forgotten %" PRIu64,
                           booked, of, confirmed);
    }
    if (booked > said) {
        simulation_violate(simulation,
                           "the ledger has %" PRIu64 " nano-dollars%s of the %" PRIu64
                           " that workers have spoken of",
                           booked, of, said);
    }
}

static void add_up(const struct simulation *simulation, struct sum *sum)
{
    const struct item *items = simulation->bill.items;
    for (size_t i = 0; i < simulation->bill.length; i++) {
        for (size_t j = 0; j < CALLS; j++) {
            const uint32_t upstream = items[i].calls[j].upstream;
            const uint64_t nanousd = items[i].calls[j].nanousd;
            sum->said[upstream] += nanousd;
            sum->confirmed[upstream] += items[i].is_confirmed ? nanousd : 0;
        }
    }
    core_visit_costs(simulation->broker.core, add_row, sum);
}

static void check_ledger(struct simulation *simulation)
{
    /* Without memory for a row another one takes what it would have. */
    struct sum sum = {.is_whole = simulation->scenario.faults.allocation == 0};
    uint64_t booked = 0;
    uint64_t confirmed = 0;
    uint64_t said = 0;
    add_up(simulation, &sum);
    for (size_t i = 0; i <= SCENARIO_UPSTREAMS; i++) {
        booked += sum.booked[i];
        confirmed += sum.confirmed[i];
        said += sum.said[i];
        if (sum.is_whole) {
            compare(simulation, " for one upstream", sum.booked[i], sum.confirmed[i], sum.said[i]);
        }
    }
    compare(simulation, "", booked, confirmed, said);
}

/* ---- the budget ---- */

void bill_see_call(struct simulation *simulation, uint32_t job)
{
    simulation->jobs[job].called_in_batch = simulation->broker.batch_next;
}

void bill_see_stop(struct simulation *simulation, uint64_t first_lost)
{
    for (uint32_t i = 0; i < simulation->jobs_length; i++) {
        struct sim_job *job = &simulation->jobs[i];
        if (job->tenant == SCENARIO_LIMITED_TENANT && job->called_in_batch >= first_lost) {
            simulation->bill.unreserved++;
        }
        job->called_in_batch = 0;
    }
}

static uint64_t most(const struct simulation *simulation)
{
    return simulation->scenario.budget.monthly_nanousd +
           CALLS * simulation->bill.unreserved * (uint64_t)SCENARIO_CALL_NANOUSD_MAX;
}

static void look(void *context, const struct core_budget_view *view)
{
    struct simulation *simulation = context;
    simulation->bill.reserved_nanousd = view->reserved_nanousd;
    if (view->month_nanousd > most(simulation)) {
        simulation_violate(simulation, "a budget of %" PRIu64 " is exceeded: %" PRIu64 " are spent",
                           view->monthly_max_nanousd, view->month_nanousd);
    }
}

void bill_check_turn(struct simulation *simulation)
{
    struct watched_bill *bill = &simulation->bill;
    bill->reserved_nanousd = 0;
    bill->has_lost_records |= simulation->broker.has_damage;
    if (simulation->scenario.config.budgets_length == 0 || bill->has_lost_records) {
        return;
    }
    core_visit_budgets(simulation->broker.core, look, simulation);
    if (bill->limited_nanousd > most(simulation)) {
        simulation_violate(simulation,
                           "a budget of %" PRIu64 " is exceeded: workers have used %" PRIu64,
                           simulation->scenario.budget.monthly_nanousd, bill->limited_nanousd);
    }
}

/* Attempts whose workers said nothing are awaited for a lease. */
int64_t bill_settles_ms(const struct simulation *simulation)
{
    const struct config *config = &simulation->scenario.config;
    return config->budgets_length > 0 ? 2 * config->broker.lease_ms : 0;
}

void bill_check_end(struct simulation *simulation)
{
    check_ledger(simulation);
    bill_check_turn(simulation);
    if (simulation->bill.reserved_nanousd > 0) {
        simulation_violate(simulation, "%" PRIu64 " nano-dollars stay reserved for nothing",
                           simulation->bill.reserved_nanousd);
    }
}

void bill_finish(struct simulation *simulation)
{
    free(simulation->bill.items);
}
