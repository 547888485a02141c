/* What the cluster takes is counted by pool and day, in parts that add up to what there was. */
#include <criterion/criterion.h>
#include <string.h>
#include "broker/core/upkeep.h"
#include "tests/unit/broker/core_world.h"

enum { HOUR = 3600000 };
static const int64_t DAY_MS = INT64_C(86400000);

static struct world w;
static void start(void)
{
    world_init(&w);
    w.config.cost = (struct config_cost){.keep_days = 3, .rows_max = 100};
    w.now.unix_ms = INT64_C(1769860800000); /* 2026-01-31 12:00 UTC */
    world_start(&w);
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_upkeep, .init = start, .fini = stop);

static void joins(uint64_t peer, const char *name, const char *const *of, size_t length,
                  uint32_t gpus, uint32_t brokers)
{
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = peer,
                                   .as.worker_hello = {.name = name,
                                                       .pools = of,
                                                       .pools_length = length,
                                                       .slots = 1,
                                                       .gpus = gpus,
                                                       .brokers = brokers}});
}

static void leaves(uint64_t peer)
{
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE,
                                   .peer = peer,
                                   .as.worker_gone = {.said_goodbye = true}});
}

static void tell(uint64_t stored_bytes, uint64_t traffic_bytes)
{
    world_turn(&w, &(struct event){.kind = EVENT_UPKEEP,
                                   .as.upkeep = {.stored_bytes = stored_bytes,
                                                 .traffic_bytes = traffic_bytes}});
}

/* Time passes; nobody is heard of, so workers stay for as long as a lease. */
static void pass(int64_t ms)
{
    w.now.now_ms += ms;
    w.now.unix_ms += ms;
}

struct asked {
    const char *pool;
    size_t rows;
    struct core_upkeep sum;
};

static void add_up(void *context, const struct core_upkeep_view *view)
{
    struct asked *asked = context;
    if (strcmp(view->pool, asked->pool) == 0) {
        asked->rows++;
        asked->sum.worker_share_ms += view->sum->worker_share_ms;
        asked->sum.gpu_share_ms += view->sum->gpu_share_ms;
        asked->sum.stored_kb_ms += view->sum->stored_kb_ms;
        asked->sum.traffic_bytes += view->sum->traffic_bytes;
    }
}

static struct asked of(const char *pool)
{
    struct asked asked = {.pool = pool};
    core_visit_upkeep(w.core, add_up, &asked);
    return asked;
}

Test(core_upkeep, worker_counts_while_it_is_there)
{
    pass(500);
    joins(100, "w", NULL, 0, 2, 1);
    pass(1000);
    leaves(100);
    pass(700);
    tell(0, 0);
    cr_assert_eq(of("default").sum.worker_share_ms, UINT64_C(1000) * UPKEEP_SHARES);
    cr_assert_eq(of("default").sum.gpu_share_ms, UINT64_C(2000) * UPKEEP_SHARES);
    cr_assert_eq(of("gpu").rows, 0);
}

Test(core_upkeep, parts_of_a_worker_add_up)
{
    const char *const both[] = {"default", "gpu"};
    joins(100, "w", both, 2, 1, 3);
    pass(1000);
    tell(0, 0);
    const uint64_t whole = of("default").sum.worker_share_ms + of("gpu").sum.worker_share_ms;
    cr_assert_eq(whole, UINT64_C(1000) * (UPKEEP_SHARES / 3));
    cr_assert_leq(of("default").sum.worker_share_ms - of("gpu").sum.worker_share_ms, 1000);
}

Test(core_upkeep, worker_that_says_hello_again_counts_once)
{
    joins(100, "w", NULL, 0, 0, 1);
    pass(1000);
    joins(101, "w", NULL, 0, 0, 1);
    pass(1000);
    tell(0, 0);
    cr_assert_eq(of("default").sum.worker_share_ms, UINT64_C(2000) * UPKEEP_SHARES);
}

Test(core_upkeep, store_and_sockets_are_the_brokers_own)
{
    tell(5000000, 700);
    pass(HOUR);
    tell(5000000, 900);
    const struct asked own = of("");
    cr_assert_eq(own.sum.stored_kb_ms, UINT64_C(5000) * HOUR);
    cr_assert_eq(own.sum.traffic_bytes, 900);
    tell(0, 100); /* less than before: nothing is taken back */
    cr_assert_eq(of("").sum.traffic_bytes, 900);
}

Test(core_upkeep, store_counts_while_workers_come_and_go)
{
    tell(5000000, 0);
    pass(1000);
    joins(100, "w", NULL, 0, 0, 1);
    pass(1000);
    leaves(100);
    pass(1000);
    tell(5000000, 0);
    cr_assert_eq(of("").sum.stored_kb_ms, UINT64_C(5000) * 3000);
}

Test(core_upkeep, sums_survive_a_restart)
{
    joins(100, "w", NULL, 0, 1, 1);
    pass(1000);
    tell(2000000, 10);
    world_restart(&w);
    cr_assert_eq(of("default").sum.worker_share_ms, UINT64_C(1000) * UPKEEP_SHARES);
    cr_assert_eq(of("default").sum.gpu_share_ms, UINT64_C(1000) * UPKEEP_SHARES);
    cr_assert_eq(of("").sum.traffic_bytes, 10);
}

Test(core_upkeep, days_are_kept_apart_and_forgotten)
{
    for (int day = 0; day < 5; day++) {
        tell(0, 10 * (uint64_t)(day + 1));
        pass(DAY_MS);
    }
    tell(0, 60);
    cr_assert_eq(of("").rows, 3);
    cr_assert_eq(of("").sum.traffic_bytes, 30);
    world_restart(&w);
    cr_assert_eq(of("").rows, 3);
}
