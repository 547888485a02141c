/* After a crash: what was acknowledged is there, and runs once more at most. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
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

TestSuite(core_recovery, .init = start, .fini = stop);

static void restart(void)
{
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 0);
    world_forget_log(&w);
    world_client(&w, 1, "a");
}

static void hello(uint64_t peer, const struct lease_ref *held, size_t held_length,
                  const struct lease_ref *answered, size_t answered_length)
{
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = peer,
                                   .as.worker_hello = {.name = "w",
                                                       .slots = 4,
                                                       .held = held,
                                                       .held_length = held_length,
                                                       .answered = answered,
                                                       .answered_length = answered_length}});
    world_credit(&w, peer, 4);
}

Test(core_recovery, acknowledged_job_survives_and_keeps_all_that_it_was)
{
    struct event event = world_submission(&w, 1, "background");
    static const uint8_t canonical[16] = {1, 2, 3}, trace[24] = {4, 5, 6};
    event.as.submit.route = "m1";
    event.as.submit.priority = 7;
    event.as.submit.max_tokens = 55;
    event.as.submit.stream = true;
    event.as.submit.canonical_key = canonical;
    event.as.submit.trace_parent = trace;
    event.as.submit.idempotency_key = "k";
    event.as.submit.deadline_in_ms = 50000;
    const struct id job = world_submit_event(&w, &event);
    world_advance(&w, 1000);
    restart();
    world_worker(&w, 100, "w", 1);
    cr_assert_null(world_find(&w, EFFECT_DISPATCH, &job, 0), "workers get time to reclaim first");
    world_advance(&w, 2000);
    const struct world_effect *found = world_find(&w, EFFECT_DISPATCH, &job, 100);
    cr_assert_not_null(found);
    const struct effect_dispatch dispatch = found->effect.as.dispatch;
    cr_assert_eq(dispatch.tier_index, 2);
    cr_assert_eq(dispatch.max_tokens, 55);
    cr_assert_eq(dispatch.deadline_in_ms, 47000);
    cr_assert_eq(dispatch.queue_ms, 3000);
    cr_assert(dispatch.stream);
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
    cr_assert_str_eq(view.route, "m1");
    cr_assert_str_eq(view.tenant, "a");
    cr_assert_eq(view.priority, 7);
    struct event again = world_submission(&w, 1, "background");
    again.as.submit.idempotency_key = "k";
    world_submit_event(&w, &again);
    cr_assert(world_find(&w, EFFECT_ACCEPTED, NULL, 1)->effect.as.accepted.has_known_as);
    world_job_event(&w, EVENT_WAIT, 1, &job);
    world_result(&w, 100, &dispatch.lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &job, 1));
}

Test(core_recovery, worker_reclaims_what_it_ran_when_the_broker_fell)
{
    hello(100, NULL, 0, NULL, 0);
    const struct id recorded = world_submit(&w, 1, "standard");
    const struct lease_ref recorded_lease = world_lease(&w, &recorded);
    world_advance(&w, 500); /* this one has a lease record, the next one none */
    const struct id young = world_submit(&w, 1, "standard");
    const struct lease_ref held[] = {recorded_lease, world_lease(&w, &young)};
    restart();
    cr_assert_eq(world_state(&w, &recorded), WIRE__JOB_STATE__JOB_STATE_LEASED);
    hello(200, held, 2, NULL, 0);
    world_advance(&w, 5000);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 0);
    cr_assert_eq(world_count(&w, EFFECT_ATTEMPT_CANCEL, NULL), 0);
    for (size_t i = 0; i < 2; i++) {
        world_job_event(&w, EVENT_WAIT, 1, &held[i].job_id);
        world_result(&w, 200, &held[i], WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
        cr_assert_not_null(world_find(&w, EFFECT_RESULT, &held[i].job_id, 1));
    }
    cr_assert_eq(world_stats(&w).jobs, 0);
}

Test(core_recovery, answered_job_is_not_run_again_while_its_answer_is_on_the_way)
{
    hello(100, NULL, 0, NULL, 0);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref answered = world_lease(&w, &job);
    restart();
    hello(200, NULL, 0, &answered, 1);
    world_advance(&w, 5000);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 0);
    world_result(&w, 200, &answered, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CONCLUDED, &job, 200));
    cr_assert_eq(world_stats(&w).jobs, 0);
}

Test(core_recovery, leased_job_whose_worker_does_not_come_back_runs_elsewhere_after_a_full_lease)
{
    hello(100, NULL, 0, NULL, 0);
    const struct id job = world_submit(&w, 1, "standard");
    world_advance(&w, 500);
    restart();
    world_advance(&w, 10000);
    hello(300, NULL, 0, NULL, 0);
    world_advance(&w, 4999);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 0);
    world_advance(&w, 1);
    cr_assert_eq(world_lease(&w, &job).attempt, 2);
}

Test(core_recovery, late_worker_may_not_go_on_when_another_has_the_job)
{
    hello(100, NULL, 0, NULL, 0);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref held = world_lease(&w, &job);
    restart();
    world_worker(&w, 300, "other", 1);
    world_advance(&w, 2000);
    cr_assert_not_null(world_find(&w, EFFECT_DISPATCH, &job, 300));
    hello(200, &held, 1, NULL, 0);
    cr_assert_not_null(world_find(&w, EFFECT_ATTEMPT_CANCEL, &job, 200));
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, &job), 1);
}

Test(core_recovery, conclusion_survives_with_its_result)
{
    hello(100, NULL, 0, NULL, 0);
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.idempotency_key = "k";
    const struct id job = event.as.submit.job_id;
    world_turn(&w, &event);
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    restart();
    world_submit_event(&w, &event);
    cr_assert(world_find(&w, EFFECT_ACCEPTED, &job, 1)->effect.as.accepted.duplicate);
    const struct world_effect *result = world_find(&w, EFFECT_RESULT, &job, 1);
    cr_assert_not_null(result);
    cr_assert_eq(result->effect.as.result.state, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED);
    cr_assert_eq(memcmp(blob_data(result->effect.as.result.payload), "answer", 6), 0);
    struct event again = world_submission(&w, 1, "standard");
    again.as.submit.idempotency_key = "k";
    world_submit_event(&w, &again);
    cr_assert(
        id_equal(&world_find(&w, EFFECT_ACCEPTED, NULL, 1)->effect.as.accepted.known_as, &job));
}

Test(core_recovery, collected_result_stays_collected)
{
    hello(100, NULL, 0, NULL, 0);
    struct id jobs[2];
    for (size_t i = 0; i < 2; i++) {
        jobs[i] = world_submit(&w, 1, "standard");
        const struct lease_ref lease = world_lease(&w, &jobs[i]);
        world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    }
    world_job_event(&w, EVENT_COLLECTED, 1, &jobs[0]);
    const struct core_stats before = world_stats(&w);
    cr_assert_eq(before.results, 1);
    restart();
    cr_expect_eq(world_stats(&w).results, 1);
    cr_expect_eq(world_stats(&w).results_bytes, before.results_bytes);
    cr_expect_eq(w.restore_errors, 0);
    world_job_event(&w, EVENT_WAIT, 1, &jobs[0]);
    cr_expect_eq(world_find(&w, EFFECT_RESULT, &jobs[0], 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_COLLECTED);
    world_job_event(&w, EVENT_WAIT, 1, &jobs[1]);
    cr_expect_eq(world_find(&w, EFFECT_RESULT, &jobs[1], 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_SUCCEEDED);
}

Test(core_recovery, crash_before_durability_leaves_nothing_of_what_was_not_acknowledged)
{
    hello(100, NULL, 0, NULL, 0);
    w.withholds_durability = true;
    const size_t before = w.records_length;
    const struct id job = world_submit(&w, 1, "standard");
    while (w.records_length > before) { /* the disk has not seen them */
        free(w.records[--w.records_length].value);
    }
    restart();
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
    cr_assert_eq(world_stats(&w).jobs, 0);
}

Test(core_recovery, failures_and_the_fence_are_remembered)
{
    hello(100, NULL, 0, NULL, 0);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, 0);
    restart();
    hello(200, NULL, 0, NULL, 0);
    world_advance(&w, 4000);
    cr_assert_eq(world_lease(&w, &job).attempt, 2);
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
    cr_assert_eq(view.attempts, 2);
}

Test(core_recovery, dead_letters_and_pauses_survive)
{
    hello(100, NULL, 0, NULL, 0);
    const struct id job = world_submit(&w, 1, "standard");
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
    world_turn(&w, &(struct event){.kind = EVENT_PAUSE,
                                   .as.pause = {PAUSE_ROUTE, PAUSE_HOLD, "m0", "fire"}});
    world_turn(&w, &(struct event){.kind = EVENT_PAUSE,
                                   .as.pause = {PAUSE_WORKER, PAUSE_DRAIN, "w", "old"}});
    restart();
    cr_assert_eq(world_stats(&w).dead_letters, 1);
    cr_assert_eq(world_stats(&w).jobs, 0);
    hello(200, NULL, 0, NULL, 0);
    cr_assert(world_find(&w, EFFECT_WORKER_DRAIN, NULL, 200)->effect.as.worker_drain.drain);
    world_worker(&w, 300, "v", 1);
    const struct id held = world_submit(&w, 1, "standard");
    cr_assert_eq(world_state(&w, &held), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    world_turn(
        &w, &(struct event){.kind = EVENT_RESUME, .as.pause = {PAUSE_ROUTE, PAUSE_HOLD, "m0", ""}});
    cr_assert_eq(world_state(&w, &held), WIRE__JOB_STATE__JOB_STATE_LEASED);
}

Test(core_recovery, damaged_records_are_skipped_and_told)
{
    const struct id first = world_submit(&w, 1, "standard");
    const struct id second = world_submit(&w, 1, "standard");
    for (size_t i = 0; i < w.records_length; i++) {
        if (w.records[i].family == STORE_JOBS &&
            memcmp(w.records[i].key, first.bytes, ID_BYTES) == 0) {
            w.records[i].value[0] = 99;
        }
    }
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 1);
    cr_assert_eq(world_state(&w, &first), WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
    cr_assert_eq(world_state(&w, &second), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    world_tick(&w);
    const struct world_effect *note = world_find(&w, EFFECT_NOTE, NULL, 0);
    cr_assert_not_null(note);
    cr_assert_eq(note->effect.as.note.note, NOTE_RECORD_DAMAGED);
}

/* Nothing is looked up for ids that follow each other: this one does not. */
Test(core_recovery, a_record_that_names_a_job_again_is_damaged)
{
    const struct id first = world_submit(&w, 1, "standard");
    const struct id second = world_submit(&w, 1, "standard");
    const struct id third = world_submit(&w, 1, "standard");
    const struct world_record *of_first = NULL;
    struct world_record *of_second = NULL;
    for (size_t i = 0; i < w.records_length; i++) {
        struct world_record *record = &w.records[i];
        if (record->family == STORE_JOBS && memcmp(record->key, first.bytes, ID_BYTES) == 0) {
            of_first = record;
        }
        if (record->family == STORE_JOBS && memcmp(record->key, second.bytes, ID_BYTES) == 0) {
            of_second = record;
        }
    }
    cr_assert_not_null(of_first);
    cr_assert_not_null(of_second);
    cr_assert_eq(of_first->value_bytes, of_second->value_bytes);
    memcpy(of_second->value, of_first->value, of_first->value_bytes);
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 1);
    cr_assert_eq(world_stats(&w).jobs, 2);
    cr_assert_eq(world_state(&w, &first), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    cr_assert_eq(world_state(&w, &second), WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
    cr_assert_eq(world_state(&w, &third), WIRE__JOB_STATE__JOB_STATE_QUEUED);
}

/* What the tenant may use is not known: its job waits as a dead letter. */
Test(core_recovery, tenants_and_routes_that_are_configured_no_more_lose_no_job)
{
    world_client(&w, 7, "b");
    const struct id of_tenant = world_submit(&w, 1, "standard");
    struct event event = world_submission(&w, 7, "standard");
    event.as.submit.route = "m2";
    world_submit_event(&w, &event);
    w.config.models_length = 2;
    w.config.tenants = &w.tenants[1];
    w.config.tenants_length = 3;
    world_restart(&w);
    world_worker(&w, 100, "w", 1);
    world_advance(&w, 2000);
    cr_assert_not_null(world_find(&w, EFFECT_DISPATCH, &event.as.submit.job_id, 100));
    cr_assert_null(world_find(&w, EFFECT_DISPATCH, &of_tenant, 100));
    cr_assert_eq(world_state(&w, &of_tenant), WIRE__JOB_STATE__JOB_STATE_DEAD);
}

Test(core_recovery, payload_beyond_the_memory_bound_is_loaded_for_its_dispatch)
{
    w.config.broker.memory_payload_bytes_max = 100;
    world_restart(&w);
    world_client(&w, 1, "a");
    struct id jobs[100];
    for (size_t i = 0; i < 100; i++) {
        jobs[i] = world_submit(&w, 1, "standard");
    }
    cr_assert_leq(world_stats(&w).payload_memory_bytes, 104);
    world_worker(&w, 100, "w", 100);
    for (size_t i = 0; i < 100; i++) {
        const struct lease_ref lease = world_lease(&w, &jobs[i]);
        cr_assert_eq(lease.attempt, 1);
    }
}

Test(core_recovery, job_that_is_cancelled_while_it_loads_is_not_dispatched)
{
    const struct id job = world_submit(&w, 1, "standard");
    restart();
    world_advance(&w, 2000);
    w.withholds_loads = true;
    world_worker(&w, 100, "w", 1);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LOADING);
    world_job_event(&w, EVENT_CANCEL, 1, &job);
    struct event loaded = {.kind = EVENT_LOADED, .as.loaded.token = UINT64_C(1) << 16};
    cr_assert_eq(blob_create("work", 4, &loaded.as.loaded.value), 0);
    world_turn(&w, &loaded);
    blob_unref(&loaded.as.loaded.value);
    cr_assert_eq(world_count(&w, EFFECT_DISPATCH, NULL), 0);
    cr_assert_eq(world_stats(&w).payload_memory_bytes, 0);
}

Test(core_recovery, lost_payload_is_a_dead_letter_and_not_a_hang)
{
    const struct id job = world_submit(&w, 1, "standard");
    for (size_t i = 0; i < w.records_length; i++) {
        if (w.records[i].family == STORE_PAYLOADS) {
            w.records[i].key[0] ^= 1;
        }
    }
    restart();
    world_job_event(&w, EVENT_WAIT, 1, &job);
    world_worker(&w, 100, "w", 1);
    world_advance(&w, 2000);
    const struct world_effect *result = world_find(&w, EFFECT_RESULT, &job, 1);
    cr_assert_not_null(result);
    cr_assert_str_eq(result->code, "payload_lost");
}

Test(core_recovery, lease_of_a_delayed_job_is_kept_when_the_wall_clock_is_set_back)
{
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.delay_ms = 1000;
    const struct id job = world_submit_event(&w, &event);
    world_worker(&w, 100, "w", 1);
    world_advance(&w, 1500);
    const struct lease_ref lease = world_lease(&w, &job);
    cr_assert_eq(world_records(&w, STORE_LEASES), 1);
    w.now.unix_ms -= 3600000;
    restart();
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
    hello(101, NULL, 0, &lease, 1);
    world_result(&w, 101, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_records(&w, STORE_LEASES), 0, "nothing else would ever delete it");
}

Test(core_recovery, results_keep_their_bound_from_the_first_turn_on)
{
    world_worker(&w, 100, "w", 4);
    for (int i = 0; i < 4; i++) {
        const struct id job = world_submit(&w, 1, "standard");
        const struct lease_ref lease = world_lease(&w, &job);
        world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    }
    const uint64_t bytes = world_stats(&w).results_bytes;
    cr_assert_gt(bytes, 0);
    w.config.broker.results_bytes_max = bytes / 2;
    restart();
    cr_assert_leq(world_stats(&w).results_bytes, bytes / 2);
}

Test(core_recovery, key_of_a_dead_letter_is_free_again_once_its_conclusion_is_forgotten)
{
    world_worker(&w, 100, "w", 1);
    struct event event = world_submission(&w, 1, "standard");
    const struct id dead = event.as.submit.job_id;
    event.as.submit.idempotency_key = "k";
    world_submit_event(&w, &event);
    const struct lease_ref lease = world_lease(&w, &dead);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
    restart();
    struct event same = world_submission(&w, 1, "standard");
    same.as.submit.idempotency_key = "k";
    world_submit_event(&w, &same);
    cr_assert(world_find(&w, EFFECT_ACCEPTED, NULL, 1)->effect.as.accepted.has_known_as,
              "remembered so far");
    world_advance(&w, 1000);
    const struct id next = world_submit(&w, 1, "standard");
    world_job_event(&w, EVENT_CANCEL, 1, &next);
    world_advance(&w, w.config.broker.dedup_window_ms + 60000);
    restart();
    cr_assert_eq(world_state(&w, &dead), WIRE__JOB_STATE__JOB_STATE_DEAD);
    struct event later = world_submission(&w, 1, "standard");
    const struct id job = later.as.submit.job_id;
    later.as.submit.idempotency_key = "k";
    world_submit_event(&w, &later);
    const struct world_effect *accepted = world_find(&w, EFFECT_ACCEPTED, &job, 1);
    cr_assert_not_null(accepted);
    cr_assert_not(accepted->effect.as.accepted.duplicate);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_QUEUED);
}
