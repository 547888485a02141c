#include "tests/simulation/upkeep.h"
#include <inttypes.h>
#include <string.h>
#include "broker/core/core.h"
#include "broker/core/upkeep.h"
#include "tests/simulation/broker.h"

enum {
    GPUS = 3,    /* of a worker: 0, 1 or 2 */
    BROKERS = 2, /* of a worker: 1 or 2 */
    STORED_KB_STEPS = 7,
    STORED_KB_EACH = 1500,
    TRAFFIC_BYTES_EACH = 100000,
    KILOBYTE = 1000,
};

uint32_t upkeep_gpus_of(const struct sim_worker *worker)
{
    return worker->index % GPUS;
}

uint32_t upkeep_brokers_of(const struct sim_worker *worker)
{
    return 1 + worker->index % BROKERS;
}

/* ---- what there was ---- */

struct present {
    const struct simulation *simulation;
    uint64_t worker_shares, gpu_shares;
};

static void see_worker(void *context, const struct core_worker_view *view)
{
    struct present *present = context;
    const struct simulation *simulation = present->simulation;
    for (uint32_t i = 0; i < simulation->scenario.options.workers; i++) {
        const struct sim_worker *worker = &simulation->workers[i];
        if (strcmp(worker->name, view->name) == 0) {
            const uint64_t share = UPKEEP_SHARES / upkeep_brokers_of(worker);
            present->worker_shares += share;
            present->gpu_shares += share * upkeep_gpus_of(worker);
            return;
        }
    }
    present->worker_shares += UPKEEP_SHARES; /* a stranger says nothing of itself */
}

void upkeep_see_start(struct simulation *simulation)
{
    struct watched_upkeep *watched = &simulation->upkeep;
    watched->now = watched->stored;
    watched->at_ms = watched->told_ms = sim_broker_now(simulation).now_ms;
    watched->traffic_bytes = 0;
    watched->length = 0;
    watched->has_lost_records |= simulation->broker.has_damage;
}

void upkeep_before_step(struct simulation *simulation)
{
    struct watched_upkeep *watched = &simulation->upkeep;
    const struct core_time now = sim_broker_now(simulation);
    const int64_t past_ms = now.now_ms - watched->at_ms;
    struct present present = {.simulation = simulation};
    if (past_ms <= 0) {
        return; /* a clock that was set back stands still for the core */
    }
    watched->at_ms = now.now_ms;
    core_visit_workers(simulation->broker.core, now, see_worker, &present);
    watched->now.worker_share_ms += present.worker_shares * (uint64_t)past_ms;
    watched->now.gpu_share_ms += present.gpu_shares * (uint64_t)past_ms;
}

bool upkeep_is_due(struct simulation *simulation, struct event *ret_event)
{
    struct watched_upkeep *watched = &simulation->upkeep;
    const int64_t now_ms = sim_broker_now(simulation).now_ms;
    const int64_t past_ms = now_ms - watched->told_ms;
    if (past_ms < UPKEEP_MS) {
        return false;
    }
    const uint64_t stored_kb = watched->tellings++ % STORED_KB_STEPS * STORED_KB_EACH;
    watched->told_ms = now_ms;
    watched->traffic_bytes += TRAFFIC_BYTES_EACH;
    watched->now.traffic_bytes += TRAFFIC_BYTES_EACH;
    watched->now.stored_kb_ms += stored_kb * (uint64_t)past_ms;
    *ret_event = (struct event){.kind = EVENT_UPKEEP,
                                .as.upkeep = {.stored_bytes = stored_kb * KILOBYTE,
                                              .traffic_bytes = watched->traffic_bytes}};
    return true;
}

/* ---- what is shown ---- */

static void add_row(void *context, const struct core_upkeep_view *view)
{
    struct core_upkeep *sum = context;
    sum->worker_share_ms += view->sum->worker_share_ms;
    sum->gpu_share_ms += view->sum->gpu_share_ms;
    sum->stored_kb_ms += view->sum->stored_kb_ms;
    sum->traffic_bytes += view->sum->traffic_bytes;
}

static void compare(struct simulation *simulation, const char *what, uint64_t shown, uint64_t was)
{
    if (shown != was) {
        simulation_violate(simulation,
                           "infrastructure: %" PRIu64 " %s are shown, and %" PRIu64 " there were",
                           shown, what, was);
    }
}

/* So many batches may wait for the disk; of older ones nothing is asked any more. */
static void remember(struct simulation *simulation)
{
    struct watched_upkeep *watched = &simulation->upkeep;
    if (watched->length == UPKEEP_TOLD) {
        watched->stored = watched->told[0].sum;
        memmove(&watched->told[0], &watched->told[1], (UPKEEP_TOLD - 1) * sizeof(*watched->told));
        watched->length--;
    }
    watched->told[watched->length].batch = simulation->broker.batch_next;
    watched->told[watched->length++].sum = watched->now;
}

void upkeep_after_told(struct simulation *simulation)
{
    const struct watched_upkeep *watched = &simulation->upkeep;
    struct core_upkeep shown = {0};
    remember(simulation);
    if (simulation->scenario.faults.allocation > 0 || watched->has_lost_records) {
        return;
    }
    core_visit_upkeep(simulation->broker.core, add_row, &shown);
    compare(simulation, "parts of worker-milliseconds", shown.worker_share_ms,
            watched->now.worker_share_ms);
    compare(simulation, "parts of GPU-milliseconds", shown.gpu_share_ms, watched->now.gpu_share_ms);
    compare(simulation, "kilobyte-milliseconds", shown.stored_kb_ms, watched->now.stored_kb_ms);
    compare(simulation, "bytes of messages", shown.traffic_bytes, watched->now.traffic_bytes);
}

void upkeep_see_stop(struct simulation *simulation, uint64_t first_lost)
{
    struct watched_upkeep *watched = &simulation->upkeep;
    for (size_t i = 0; i < watched->length && watched->told[i].batch < first_lost; i++) {
        watched->stored = watched->told[i].sum;
    }
}
