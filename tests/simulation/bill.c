#include "tests/simulation/bill.h"
#include <inttypes.h>
#include <stdlib.h>
#include "broker/core/core.h"
#include "tests/simulation/memory.h"
#include "tests/simulation/network.h"

/* What one attempt of one job at one worker was said to have cost. */
struct item {
    uint32_t job, attempt, worker;
    uint64_t nanousd, run;
    bool is_confirmed;
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
    if (message->event != EVENT_ATTEMPT_RESULT || message->job == NO_JOB ||
        call->outcome != WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED || call->tokens == 0) {
        return;
    }
    const uint32_t worker = worker_at(simulation, message->peer);
    const struct item *known = find(simulation, message, worker);
    /* A number may be given again when a broker has forgotten it in a crash. */
    if (worker == UINT32_MAX || (known != NULL && known->run == call->run)) {
        return;
    }
    const uint64_t tokens =
        (uint64_t)call->tokens + (message->other.is_made ? message->other.tokens : 0);
    *append(simulation) = (struct item){.job = message->job,
                                        .attempt = message->attempt,
                                        .worker = worker,
                                        .nanousd = tokens * SCENARIO_TOKEN_NANOUSD,
                                        .run = call->run};
}

void bill_see_release(struct simulation *simulation, const struct message *message)
{
    if (message->effect != EFFECT_ATTEMPT_CONCLUDED || message->job == NO_JOB) {
        return;
    }
    struct item *item = find(simulation, message, worker_at(simulation, message->peer));
    if (item != NULL) {
        item->is_confirmed = true;
    }
}

static void add_row(void *context, const struct core_cost_view *view)
{
    *(uint64_t *)context += view->sum->cost_nanousd - view->sum->estimated_nanousd;
}

void bill_check_end(struct simulation *simulation)
{
    uint64_t booked = 0;
    uint64_t confirmed = 0;
    uint64_t said = 0;
    const struct item *items = simulation->bill.items;
    for (size_t i = 0; i < simulation->bill.length; i++) {
        said += items[i].nanousd;
        confirmed += items[i].is_confirmed ? items[i].nanousd : 0;
    }
    core_visit_costs(simulation->broker.core, add_row, &booked);
    if (booked < confirmed) {
        simulation_violate(simulation,
                           "the ledger has %" PRIu64 " nano-dollars, and workers may have "
                           "forgotten %" PRIu64,
                           booked, confirmed);
    }
    if (booked > said) {
        simulation_violate(simulation,
                           "the ledger has %" PRIu64 " nano-dollars of the %" PRIu64
                           " that workers have spoken of",
                           booked, said);
    }
}

void bill_finish(struct simulation *simulation)
{
    free(simulation->bill.items);
}
