/* What the core does when more comes than it can serve: estimates, shedding, and the words for it.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "broker/core/shed.h"
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
    return world_submit_event(&w, &event);
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

/* ---- the law alone ---- */

static struct shed_look look(int64_t now_ms, int64_t waited_ms)
{
    return (struct shed_look){.target_ms = 100, .now_ms = now_ms, .waited_ms = waited_ms};
}

Test(shed, burst_that_drains_within_the_interval_loses_nothing)
{
    struct shed shed = {0};
    int64_t now_ms = 1000;
    for (int64_t waited_ms = 190; waited_ms > 90; waited_ms -= 5, now_ms += 9) {
        const struct shed_look one = look(now_ms, waited_ms);
        cr_assert_not(shed_judge(&shed, &one), "after %lld ms", (long long)now_ms);
    }
}

Test(shed, queue_that_stands_is_shed_ever_faster_until_it_is_below_the_target)
{
    struct shed shed = {0};
    int64_t at_ms[6] = {0};
    size_t n = 0;
    int64_t now_ms = 1000;
    for (; n < 6; now_ms++) {
        const struct shed_look one = look(now_ms, 150);
        at_ms[n] = now_ms;
        n += shed_judge(&shed, &one);
    }
    cr_assert_eq(at_ms[0], 1200, "an interval after it was first above");
    cr_assert_eq(at_ms[1] - at_ms[0], 200);
    for (size_t i = 2; i < 6; i++) {
        cr_assert_lt(at_ms[i] - at_ms[i - 1], at_ms[i - 1] - at_ms[i - 2] + (i == 2));
    }
    const struct shed_look better = look(now_ms, 99), worse = look(now_ms + 1, 150);
    cr_assert_not(shed_judge(&shed, &better));
    cr_assert_not(shed_judge(&shed, &worse));
}

Test(shed, overload_serves_nothing_beyond_twice_the_target_nor_what_comes_too_late)
{
    struct shed shed = {0};
    for (int64_t now_ms = 1000; now_ms <= 1200; now_ms += 10) {
        const struct shed_look one = look(now_ms, 150);
        (void)shed_judge(&shed, &one);
    }
    struct shed_look one = look(1210, 201);
    for (int i = 0; i < 1000; i++) {
        cr_assert(shed_judge(&shed, &one));
    }
    one.waited_ms = 199;
    cr_assert_not(shed_judge(&shed, &one));
    one.is_hopeless = true;
    cr_assert(shed_judge(&shed, &one));
    one.is_last = true;
    cr_assert_not(shed_judge(&shed, &one), "alone it keeps nobody waiting");
}

Test(shed, interval_is_twice_the_target_within_bounds)
{
    cr_assert_eq(shed_interval_ms(1), 100);
    cr_assert_eq(shed_interval_ms(2000), 4000);
    cr_assert_eq(shed_interval_ms(INT64_MAX), 30000);
}

/* ---- shedding ---- */

static void start_shedding(void)
{
    world_init(&w);
    w.tiers[0].shed_target_ms = 500;
    w.tiers[0].deadline_ms = 5000;
}

TestSuite(core_shedding, .init = start_shedding, .fini = stop);

/* Four times what one slot of 50 ms serves, for so long. */
static void overload_for(int64_t ms, uint64_t peer, struct server *server)
{
    for (int64_t i = 0; i < ms / 50; i++) {
        for (int n = 0; n < 4; n++) {
            (void)world_submit(&w, peer, "realtime");
        }
        serve_for(50, server, 1);
    }
}

static size_t count_results(Wire__JobState state, const char *code)
{
    size_t n = 0;
    for (size_t i = 0; i < w.log_length; i++) {
        n += w.log[i].effect.kind == EFFECT_RESULT && w.log[i].effect.as.result.state == state &&
             strcmp(w.log[i].code, code) == 0;
    }
    return n;
}

static const struct world_effect *latest_shed(void)
{
    for (size_t i = w.log_length; i-- > 0;) {
        if (w.log[i].effect.kind == EFFECT_RESULT && strcmp(w.log[i].code, "shed") == 0) {
            return &w.log[i];
        }
    }
    return NULL;
}

Test(core_shedding, served_jobs_are_in_time_and_shed_ones_hear_when_to_come_back)
{
    begin();
    struct server server = server_start(100, "default", 1, 50);
    overload_for(3000, 1, &server);
    server.queue_ms_worst = 0;
    server.served = 0;
    const size_t before = world_stats(&w).tiers[0].shed;
    overload_for(10000, 1, &server);
    cr_assert_leq(server.queue_ms_worst, 1000 + 50);
    cr_assert_geq(server.served, 190, "the slot is busy all the time: %zu", server.served);
    const struct core_tier_stats stats = world_stats(&w).tiers[0];
    cr_assert_gt(stats.shed - before, 300);
    cr_assert_eq(count_results(WIRE__JOB_STATE__JOB_STATE_EXPIRED, "deadline"), 0);
    const struct world_effect *shed = latest_shed();
    cr_assert_not_null(shed);
    cr_assert_geq(shed->effect.as.result.retry_after_ms, 100);
    /* Some 80 jobs are there, a second of submissions; served at 20 a second, all but 10 are gone
     * in 3.5 s. */
    cr_assert_leq(shed->effect.as.result.retry_after_ms, 6000);
    cr_assert_not_null(strstr(shed->text, "shed_target"));
    cr_assert_eq(shed->effect.as.result.attempts, 0);
    const size_t notes = world_count(&w, EFFECT_NOTE, NULL);
    cr_assert(notes > 5 && notes < 40, "one a second, not one a job: %zu", notes);
}

/* What shedding is for: the same load without it. */
Test(core_shedding, without_it_the_same_load_is_served_too_late)
{
    w.tiers[0].shed_target_ms = 0;
    begin();
    struct server server = server_start(100, "default", 1, 50);
    overload_for(10000, 1, &server);
    server.queue_ms_worst = 0;
    overload_for(3000, 1, &server);
    cr_assert_gt(server.queue_ms_worst, 4000);
    cr_assert_eq(world_stats(&w).tiers[0].shed, 0);
}

/*
 * An attempt takes 200 ms. Every second job has a deadline that leaves it hardly 100 ms when it is
 * at the head, after nearly twice the target.
 */
Test(core_shedding, overload_gives_no_slot_to_what_would_come_too_late)
{
    begin();
    struct server server = server_start(100, "default", 4, 200);
    for (int i = 0; i < 200; i++) {
        for (int n = 0; n < 4; n++) {
            (void)submit_to(1, "realtime", "", n % 2 == 0 ? 1050 : 0);
        }
        serve_for(50, &server, 1);
        if (i == 80) {
            world_forget_log(&w);
            server.seen = 0;
        }
    }
    size_t dispatched = 0;
    for (size_t i = 0; i < w.log_length; i++) {
        if (w.log[i].effect.kind == EFFECT_DISPATCH) {
            dispatched++;
            cr_assert_geq(w.log[i].effect.as.dispatch.deadline_in_ms, 100);
        }
    }
    cr_assert_gt(dispatched, 110, "20 a second for six seconds: %zu", dispatched);
}

Test(core_shedding, durable_tiers_shed_nothing)
{
    w.tiers[1].shed_target_ms = 100;
    w.tiers[1].deadline_ms = 60000;
    begin();
    struct server server = server_start(100, "default", 1, 50);
    for (int i = 0; i < 200; i++) {
        (void)world_submit(&w, 1, "standard");
    }
    serve_for(8000, &server, 1);
    cr_assert_eq(world_stats(&w).tiers[1].shed, 0);
}

Test(core_shedding, one_tenants_flood_sheds_nothing_of_another)
{
    begin();
    struct server server = server_start(100, "default", 1, 50);
    size_t calm = 0;
    for (int i = 0; i < 100; i++) {
        if (i % 4 == 0) { /* five a second, of the ten that are its share */
            (void)world_submit(&w, 2, "realtime");
            calm++;
        }
        overload_for(50, 1, &server);
    }
    serve_for(2000, &server, 1);
    size_t answered = 0;
    for (size_t i = 0; i < w.log_length; i++) {
        answered += w.log[i].effect.kind == EFFECT_RESULT && w.log[i].effect.peer == 2 &&
                    w.log[i].effect.as.result.state == WIRE__JOB_STATE__JOB_STATE_SUCCEEDED;
    }
    cr_assert_eq(answered, calm);
    cr_assert_gt(world_stats(&w).tiers[0].shed, 0);
}

static void pause(enum event_kind kind, enum pause_subject subject, const char *name)
{
    world_turn(&w, &(struct event){.kind = kind, .as.pause = {subject, PAUSE_HOLD, name, "test"}});
}

/* Twenty jobs take the one slot a second: within twice the target. */
static void expect_no_massacre(struct server *server)
{
    serve_for(1500, server, 1);
    cr_assert_eq(world_stats(&w).tiers[0].shed, 0);
    cr_assert_eq(count_results(WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, ""), 15);
}

static void submit_15(void)
{
    for (int i = 0; i < 15; i++) {
        (void)world_submit(&w, 1, "realtime");
    }
}

Test(core_shedding, end_of_a_pause_is_no_massacre)
{
    const enum pause_subject subjects[] = {PAUSE_ROUTE, PAUSE_TIER, PAUSE_TENANT, PAUSE_WORKER};
    const char *const names[] = {"m0", "realtime", "a", "w100"};
    w.tiers[0].deadline_ms = 60000;
    begin();
    struct server server = server_start(100, "default", 1, 50);
    for (size_t i = 0; i < 4; i++) {
        pause(EVENT_PAUSE, subjects[i], names[i]);
        submit_15();
        serve_for(10000, &server, 1);
        world_forget_log(&w);
        server.seen = 0;
        pause(EVENT_RESUME, subjects[i], names[i]);
        expect_no_massacre(&server);
    }
}

Test(core_shedding, first_worker_after_none_finds_everything_there)
{
    w.tiers[0].deadline_ms = 60000;
    begin();
    submit_15();
    serve_for(10000, NULL, 0);
    struct server server = server_start(100, "default", 1, 50);
    expect_no_massacre(&server);
}

/* Gives: its submission, with the payload. */
static struct event submit_until_one_is_shed(struct server *server)
{
    static char key[16];
    for (int i = 0; i < 100; i++) {
        (void)world_submit(&w, 1, "realtime"); /* the first of a turn is the one that is served */
        struct event event = world_submission(&w, 1, "realtime");
        snprintf(key, sizeof(key), "order-%d", i);
        event.as.submit.idempotency_key = key;
        const struct id job = event.as.submit.job_id;
        world_turn(&w, &event);
        while (world_find(&w, EFFECT_RESULT, &job, 1) == NULL) {
            overload_for(50, 1, server);
        }
        if (strcmp(world_find(&w, EFFECT_RESULT, &job, 1)->code, "shed") == 0) {
            return event;
        }
        blob_unref(&event.as.submit.payload);
    }
    cr_assert(false, "none was shed");
    return (struct event){0};
}

Test(core_shedding, shed_job_may_be_submitted_again_under_the_same_id_and_key)
{
    begin();
    struct server server = server_start(100, "default", 1, 50);
    overload_for(2000, 1, &server);
    struct event event = submit_until_one_is_shed(&server);
    const struct id job = event.as.submit.job_id;
    cr_assert_str_eq(world_find(&w, EFFECT_RESULT, &job, 1)->code, "shed");
    world_job_event(&w, EVENT_WAIT, 1, &job);
    cr_assert_str_eq(world_find(&w, EFFECT_RESULT, &job, 1)->code, "shed", "it is remembered");
    serve_for(3000, &server, 1); /* the flood is over */
    world_forget_log(&w);
    server.seen = 0;
    world_turn(&w, &event);
    const struct world_effect *accepted = world_find(&w, EFFECT_ACCEPTED, &job, 1);
    cr_assert_not_null(accepted);
    cr_assert_not(accepted->effect.as.accepted.duplicate);
    serve_for(200, &server, 1);
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_SUCCEEDED);
    /* From now on it is concluded as every other. */
    world_turn(&w, &event);
    cr_assert(world_find(&w, EFFECT_ACCEPTED, &job, 1)->effect.as.accepted.duplicate);
    blob_unref(&event.as.submit.payload);
}

Test(core_shedding, key_of_a_shed_job_may_be_used_again_and_its_outcome_stays)
{
    begin();
    struct server server = server_start(100, "default", 1, 50);
    overload_for(2000, 1, &server);
    struct event event = submit_until_one_is_shed(&server);
    const struct id shed = event.as.submit.job_id;
    serve_for(3000, &server, 1);
    world_forget_log(&w);
    event.as.submit.job_id = world_id(&w);
    world_turn(&w, &event);
    cr_assert_not(
        world_find(&w, EFFECT_ACCEPTED, &event.as.submit.job_id, 1)->effect.as.accepted.duplicate);
    world_job_event(&w, EVENT_WAIT, 1, &shed);
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &shed, 1));
    cr_assert_str_eq(world_find(&w, EFFECT_RESULT, &shed, 1)->code, "shed");
    blob_unref(&event.as.submit.payload);
}
