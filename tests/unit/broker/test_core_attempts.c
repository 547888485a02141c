/* Leases, failures and what becomes of the job. */
#include <criterion/criterion.h>
#include <stdio.h>
#include "tests/unit/broker/core_world.h"

static struct world w;

static void start(void)
{
    world_init(&w);
    world_start(&w);
    world_client(&w, 1, "a");
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_attempts, .init = start, .fini = stop);

static void heartbeat(uint64_t peer, const struct lease_ref *held, size_t length)
{
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HEARTBEAT,
                                   .peer = peer,
                                   .as.worker_heartbeat = {.held = held, .held_length = length}});
}

static void hello(uint64_t peer, const char *name, const struct lease_ref *held, size_t held_length,
                  const struct lease_ref *answered, size_t answered_length)
{
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = peer,
                                   .as.worker_hello = {.name = name,
                                                       .slots = 4,
                                                       .held = held,
                                                       .held_length = held_length,
                                                       .answered = answered,
                                                       .answered_length = answered_length}});
}

Test(core_attempts, lease_lives_by_heartbeats_and_is_lost_without)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    for (int i = 0; i < 5; i++) {
        world_advance(&w, 10000);
        heartbeat(100, &lease, 1);
        cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
    }
    world_advance(&w, 14999);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
    world_advance(&w, 1);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    cr_assert_eq(world_stats(&w).workers, 0);
    cr_assert_eq(world_stats(&w).tiers[1].leases_lost, 1);
}

Test(core_attempts, job_of_a_worker_that_left_runs_elsewhere)
{
    world_worker(&w, 100, "w1", 1);
    const struct id job = world_submit(&w, 1, "standard");
    world_worker(&w, 101, "w2", 1);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    const struct world_effect *again = world_find(&w, EFFECT_DISPATCH, &job, 101);
    cr_assert_not_null(again);
    cr_assert_eq(again->effect.as.dispatch.lease.attempt, 2);
}

Test(core_attempts, lost_lease_that_answers_after_all_concludes_and_cancels_the_other)
{
    world_worker(&w, 100, "w1", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref first = world_lease(&w, &job);
    world_worker(&w, 101, "w2", 1);
    world_advance(&w, 10000);
    heartbeat(101, NULL, 0);
    heartbeat(100, NULL, 0); /* alive, but it does not name the lease */
    world_advance(&w, 5000);
    const struct lease_ref second = world_lease(&w, &job);
    cr_assert_eq(second.attempt, 2);
    const struct world_effect *dispatched = world_find(&w, EFFECT_DISPATCH, &job, 0);
    const uint64_t second_peer = dispatched->effect.peer;
    world_result(&w, 100, &first, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_SUCCEEDED);
    cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CANCEL, &job, second_peer));
    world_result(&w, second_peer, &second, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_count(&w, EFFECT_RESULT, &job), 1);
    cr_assert_eq(world_stats(&w).tiers[1].late_results, 1);
}

Test(core_attempts, answer_that_concluded_its_job_and_comes_again_is_not_late)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    world_forget_log(&w);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CONCLUDED, &job, 100));
    cr_assert_eq(world_stats(&w).tiers[1].late_results, 0);
    cr_assert_eq(world_stats(&w).tiers[1].duplicate_results, 1);

    world_restart(&w); /* its record names the tier */
    hello(100, "w", NULL, 0, &lease, 1);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_stats(&w).tiers[1].late_results, 0);
    cr_assert_eq(world_stats(&w).tiers[1].duplicate_results, 1);
    struct lease_ref other = lease;
    other.attempt++;
    world_result(&w, 100, &other, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_stats(&w).tiers[1].late_results, 1);
}

Test(core_attempts, failure_of_a_stale_attempt_changes_nothing)
{
    world_worker(&w, 100, "w1", 1);
    const struct id job = world_submit(&w, 1, "standard");
    struct lease_ref stale = world_lease(&w, &job);
    stale.attempt += 7;
    world_result(&w, 100, &stale, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
}

Test(core_attempts, unavailable_backs_off_within_its_bound_and_uses_an_attempt_up)
{
    world_worker(&w, 100, "w", 8);
    for (int i = 0; i < 8; i++) {
        const struct id job = world_submit(&w, 1, "standard");
        const struct lease_ref lease = world_lease(&w, &job);
        world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, 0);
        struct core_job_view view;
        cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
        cr_assert_eq(view.state, WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
        cr_assert(view.waits_ms >= 1 && view.waits_ms <= 1000);
        cr_assert_eq(view.attempts, 1);
    }
    cr_assert_eq(world_records(&w, STORE_ATTEMPTS), 8);
}

Test(core_attempts, attempts_are_bounded_and_then_the_job_is_a_dead_letter)
{
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    for (uint64_t i = 0; i < 3; i++) {
        const struct lease_ref lease = world_lease(&w, &job);
        cr_assert_eq(lease.attempt, i + 1);
        world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, 0);
        world_credit(&w, 100, i + 2);
        heartbeat(100, NULL, 0);
        world_advance(&w, 4000);
        heartbeat(100, NULL, 0);
    }
    const struct world_effect *result = world_find(&w, EFFECT_RESULT, &job, 1);
    cr_assert_not_null(result);
    cr_assert_eq(result->effect.as.result.state, WIRE__JOB_STATE__JOB_STATE_DEAD);
    cr_assert_eq(result->effect.as.result.attempts, 3);
    cr_assert_str_eq(result->code, "attempts_exhausted");
    cr_assert_eq(world_stats(&w).dead_letters, 1);
    cr_assert_eq(world_records(&w, STORE_JOBS), 1);
    cr_assert_eq(world_records(&w, STORE_PAYLOADS), 1);
    cr_assert_eq(world_records(&w, STORE_ATTEMPTS), 3);
}

Test(core_attempts, rate_limit_is_honoured_and_uses_no_attempt_up)
{
    w.config.broker.lease_ms = 1000000; /* no heartbeats here */
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, 100, "w", 1);
    const struct id job = world_submit(&w, 1, "standard");
    for (uint64_t i = 0; i < 6; i++) {
        const struct lease_ref lease = world_lease(&w, &job);
        world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED, 20000);
        world_credit(&w, 100, i + 2);
        world_advance(&w, 19999);
        cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
        world_advance(&w, 13000);
        cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
    }
}

Test(core_attempts, rejected_and_invalid_are_dead_at_once)
{
    world_worker(&w, 100, "w", 2);
    const Wire__AttemptOutcome outcomes[] = {WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED,
                                             WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID};
    const char *const codes[] = {"rejected", "invalid"};
    for (size_t i = 0; i < 2; i++) {
        const struct id job = world_submit(&w, 1, "standard");
        const struct lease_ref lease = world_lease(&w, &job);
        world_result(&w, 100, &lease, outcomes[i], 0);
        const struct world_effect *result = world_find(&w, EFFECT_RESULT, &job, 1);
        cr_assert_eq(result->effect.as.result.state, WIRE__JOB_STATE__JOB_STATE_DEAD);
        cr_assert_str_eq(result->code, codes[i]);
    }
}

Test(core_attempts, deferred_is_no_attempt_and_sets_the_worker_aside)
{
    world_worker(&w, 100, "w", 2);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED, 0);
    world_advance(&w, 1000);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    world_credit(&w, 100, 3);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
    cr_assert_eq(view.attempts, 1);
}

Test(core_attempts, undeliverable_dispatch_goes_to_another_worker_at_once)
{
    world_worker(&w, 100, "w1", 1);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    world_worker(&w, 101, "w2", 1);
    world_turn(&w, &(struct event){
                       .kind = EVENT_UNDELIVERABLE, .peer = 100, .as.undeliverable.lease = lease});
    cr_assert_not_null(world_find(&w, EFFECT_DISPATCH, &job, 101));
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
}

Test(core_attempts, job_that_ends_every_worker_is_a_dead_letter)
{
    const struct id job = world_submit(&w, 1, "standard");
    for (uint64_t i = 0; i < 10; i++) {
        char name[16];
        snprintf(name, sizeof(name), "w%u", (unsigned)i);
        world_worker(&w, 100 + i, name, 1);
        world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100 + i});
    }
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_DEAD);
}

Test(core_attempts, worker_that_reconnects_keeps_what_it_holds)
{
    world_worker(&w, 100, "w", 4);
    const struct id kept = world_submit(&w, 1, "standard");
    const struct id lost = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &kept);
    hello(101, "w", &lease, 1, NULL, 0);
    cr_assert_eq(world_state(&w, &kept), WIRE__JOB_STATE__JOB_STATE_LEASED);
    cr_assert_eq(world_state(&w, &lost), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    world_result(&w, 101, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &kept, 1)->effect.as.result.attempts, 1);
    cr_assert_eq(world_stats(&w).workers, 1);
}

Test(core_attempts, worker_is_told_what_it_need_not_hold_any_more)
{
    world_worker(&w, 100, "w", 4);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    world_job_event(&w, EVENT_CANCEL, 1, &job);
    world_forget_log(&w);
    hello(101, "w", &lease, 1, &lease, 1);
    cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CANCEL, &job, 101));
    cr_assert_null(world_find(&w, EFFECT_ATTEMPT_CONCLUDED, &job, 101),
                   "what it used has to be heard");
    world_result(&w, 101, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CONCLUDED, &job, 101));
}

Test(core_attempts, dead_letters_are_bounded_with_their_records)
{
    world_worker(&w, 100, "w", 100);
    w.config.broker.dead_letters_max = 3;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    for (int i = 0; i < 10; i++) {
        const struct id job = world_submit(&w, 1, "standard");
        const struct lease_ref lease = world_lease(&w, &job);
        world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
    }
    world_tick(&w);
    cr_assert_eq(world_stats(&w).dead_letters, 3);
    cr_assert_eq(world_records(&w, STORE_JOBS), 3);
    cr_assert_eq(world_records(&w, STORE_PAYLOADS), 3);
    cr_assert_eq(world_records(&w, STORE_ATTEMPTS), 3);
}
