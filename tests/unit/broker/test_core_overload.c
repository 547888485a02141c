/* What the core does when more comes than it can serve: estimates, shedding, and the words for it.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include "tests/unit/broker/core_world.h"

static struct world w;

static void start(void)
{
    world_init(&w);
}

static void stop(void)
{
    world_finish(&w);
}

/* ---- a worker that takes `run_ms` for each job ---- */

enum { RUNNING_MAX = 64 };

struct server {
    uint64_t peer, credit;
    int64_t run_ms;
    struct {
        struct lease_ref lease;
        int64_t ends_ms;
    } running[RUNNING_MAX];
    size_t length;
    size_t seen; /* of the world's log */
    int64_t queue_ms_worst;
    size_t served;
};

static struct server server_start(uint64_t peer, const char *pool, uint32_t slots, int64_t run_ms)
{
    char name[16];
    snprintf(name, sizeof(name), "w%u", (unsigned)peer);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = peer,
                                   .as.worker_hello = {.name = name,
                                                       .pools = (const char *const[]){pool},
                                                       .pools_length = 1,
                                                       .slots = slots}});
    world_credit(&w, peer, slots);
    return (struct server){.peer = peer, .credit = slots, .run_ms = run_ms};
}

static void server_take(struct server *server)
{
    for (; server->seen < w.log_length; server->seen++) {
        const struct effect *effect = &w.log[server->seen].effect;
        if (effect->kind == EFFECT_DISPATCH && effect->peer == server->peer) {
            cr_assert_lt(server->length, RUNNING_MAX);
            server->running[server->length].lease = effect->as.dispatch.lease;
            server->running[server->length++].ends_ms = w.now.now_ms + server->run_ms;
            server->served++;
            if (effect->as.dispatch.queue_ms > server->queue_ms_worst) {
                server->queue_ms_worst = effect->as.dispatch.queue_ms;
            }
        }
    }
}

static void server_answer(struct server *server)
{
    server_take(server);
    for (size_t i = server->length; i-- > 0;) {
        if (server->running[i].ends_ms <= w.now.now_ms) {
            const struct lease_ref lease = server->running[i].lease;
            server->running[i] = server->running[--server->length];
            world_result(&w, server->peer, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
            world_credit(&w, server->peer, ++server->credit);
        }
    }
    server_take(server);
}

static void serve_for(int64_t ms, struct server *servers, size_t length)
{
    for (int64_t i = 0; i < ms / 10; i++) {
        world_advance(&w, 10);
        for (size_t s = 0; s < length; s++) {
            server_answer(&servers[s]);
        }
        world_tick(&w);
    }
}

static void begin(void)
{
    world_start(&w);
    world_client(&w, 1, "a");
    world_client(&w, 2, "b");
}

static struct id submit_to(uint64_t peer, const char *tier, const char *pool, int64_t deadline_ms)
{
    struct event event = world_submission(&w, peer, tier);
    event.as.submit.pool = pool;
    event.as.submit.deadline_in_ms = deadline_ms;
    world_submit_event(&w, &event);
    return event.as.submit.job_id;
}

/* ---- estimates ---- */

TestSuite(core_estimate, .init = start, .fini = stop);

/* The tier as a whole drains 21 jobs a second, this queue of it one. */
Test(core_estimate, slow_queue_is_judged_by_its_own_rate)
{
    begin();
    struct server servers[] = {server_start(100, "default", 1, 50),
                               server_start(101, "gpu", 1, 1000)};
    for (int i = 0; i < 200; i++) {
        (void)submit_to(1, "standard", "", 0);
    }
    for (int i = 0; i < 30; i++) {
        (void)submit_to(1, "standard", "gpu", 0);
    }
    serve_for(5000, servers, 2);
    const struct id late = submit_to(1, "standard", "gpu", 10000);
    const struct world_effect *rejected = world_find(&w, EFFECT_REJECTED, &late, 1);
    cr_assert_not_null(rejected, "25 jobs at one a second do not fit into 10 s");
    cr_assert_eq(rejected->effect.as.rejected.reason, WIRE__REJECT_REASON__REJECT_DEADLINE);
    const int64_t after_ms = rejected->effect.as.rejected.retry_after_ms;
    cr_assert(after_ms > 10000 && after_ms < 30000, "%lld", (long long)after_ms);
    const struct id quick = submit_to(1, "standard", "", 10000);
    cr_assert_not_null(world_find(&w, EFFECT_ACCEPTED, &quick, 1), "100 jobs at 20 a second fit");
}

/* Before, the time without a worker counted as a rate of nothing, from which the mean recovered
 * only slowly. */
Test(core_estimate, time_without_a_worker_says_nothing_about_the_rate)
{
    begin();
    for (int i = 0; i < 100; i++) {
        (void)submit_to(1, "standard", "", 0);
    }
    serve_for(1500, NULL, 0);
    struct server server = server_start(100, "default", 1, 50);
    serve_for(1000, &server, 1);
    const struct id job = submit_to(1, "standard", "", 20000);
    cr_assert_not_null(world_find(&w, EFFECT_ACCEPTED, &job, 1), "80 jobs at 20 a second take 4 s");
}
