/* Dead letters: their history, what an operator does with them, and jobs that end workers. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "broker/core/record.h"
#include "tests/unit/broker/core_world.h"

enum { WORKER = 100, SLOTS = 1000 };

static struct world w;
static uint64_t credit;

static void start(void)
{
    world_init(&w);
    for (size_t i = 0; i < WORLD_TIERS; i++) {
        w.tiers[i].deadline_ms = 3600000;
    }
    w.config.broker.lease_ms = 10000000; /* no heartbeats here */
    world_start(&w);
    world_client(&w, 1, "a");
    credit = SLOTS;
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_dead, .init = start, .fini = stop);

static void give_credit(void)
{
    world_credit(&w, WORKER, ++credit);
}

static void fail(const struct id *job, Wire__AttemptOutcome outcome, int64_t retry_after_ms)
{
    const struct lease_ref lease = world_lease(&w, job);
    world_result(&w, WORKER, &lease, outcome, retry_after_ms);
    give_credit();
}

static struct id die(const char *tier)
{
    const struct id job = world_submit(&w, 1, tier);
    fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_DEAD);
    return job;
}

static void one(enum dead_action action, const struct id *job)
{
    world_turn(&w, &(struct event){.kind = EVENT_DEAD_ONE,
                                   .as.dead_one = {.job_id = *job, .action = action}});
}

static uint64_t sweep(enum dead_action action, const struct dead_filter *filter, uint32_t rate)
{
    world_turn(&w, &(struct event){
                       .kind = EVENT_DEAD_SWEEP,
                       .as.dead_sweep = {.action = action, .filter = *filter, .rate_per_s = rate}});
    return core_latest_sweep(w.core);
}

static const struct dead_filter ALL;

struct sought {
    uint64_t number;
    struct core_sweep_view view;
    char waits[128];
};

static void look(void *context, const struct core_sweep_view *view)
{
    struct sought *sought = context;
    if (view->number == sought->number) {
        sought->view = *view;
        snprintf(sought->waits, sizeof(sought->waits), "%s", view->waits);
    }
}

static struct sought sweep_view(uint64_t number)
{
    struct sought sought = {.number = number};
    core_visit_sweeps(w.core, look, &sought);
    cr_assert_eq(sought.view.number, number);
    return sought;
}

static void restart(void)
{
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 0);
    world_forget_log(&w);
    world_client(&w, 1, "a");
}

/* ---- history ---- */

struct history {
    uint32_t kept, omitted;
    Record__AttemptRecord *entries[CORE_HISTORY_MAX]; /* NULL: not there */
};

static Record__AttemptRecord *read_entry(const uint8_t *data, size_t bytes)
{
    Record__AttemptRecord *record = NULL;
    cr_assert_eq(record_read_attempt(data, bytes, NULL, &record), 0);
    return record;
}

static Record__AttemptRecord *stored_entry(const uint8_t *key)
{
    for (size_t i = 0; i < w.records_length; i++) {
        const struct world_record *record = &w.records[i];
        if (record->family == STORE_ATTEMPTS && record->key_bytes == CORE_HISTORY_KEY_BYTES &&
            memcmp(record->key, key, CORE_HISTORY_KEY_BYTES) == 0) {
            return read_entry(record->value, record->value_bytes);
        }
    }
    return NULL;
}

static struct history history_of(const struct id *job)
{
    struct core_history_view view;
    struct history history = {0};
    cr_assert_eq(core_view_history(w.core, job, &view), 0);
    history.kept = view.kept;
    history.omitted = view.omitted;
    for (uint32_t i = 0; i < view.kept; i++) {
        const struct core_history_entry *entry = &view.entries[i];
        if (view.is_on_disk) {
            history.entries[i] = stored_entry(entry->key);
        } else if (entry->packed != NULL) {
            history.entries[i] = read_entry(entry->packed, entry->packed_bytes);
        }
    }
    return history;
}

static void forget(struct history *history)
{
    for (uint32_t i = 0; i < history->kept; i++) {
        if (history->entries[i] != NULL) {
            record__attempt_record__free_unpacked(history->entries[i], NULL);
        }
    }
}

static void fail_with_calls(const struct id *job)
{
    Wire__Upstream upstream = WIRE__UPSTREAM__INIT;
    upstream.provider = "p1";
    upstream.model = "m1";
    Wire__Call first = WIRE__CALL__INIT;
    first.upstream = &upstream;
    first.call_ms = 30;
    first.cost_nanousd = 5;
    Wire__Upstream other = WIRE__UPSTREAM__INIT;
    other.provider = "p2";
    other.model = "m2";
    Wire__Call second = first;
    second.upstream = &other;
    const Wire__Call *const calls[] = {&first, &second};
    Wire__Usage usage = WIRE__USAGE__INIT; /* of the first call others have paid a part */
    usage.provider = "p2";
    usage.model = "m2";
    usage.cost_nanousd = 7;
    const struct event event = {
        .kind = EVENT_ATTEMPT_RESULT,
        .peer = WORKER,
        .as.attempt_result = {.lease = world_lease(&w, job),
                              .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE,
                              .error_code = "http_503",
                              .error_text = "overloaded",
                              .usage = &usage,
                              .calls = calls,
                              .calls_length = 2}};
    world_turn(&w, &event);
    give_credit();
}

static void check_history(const char *tier)
{
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id job = world_submit(&w, 1, tier);
    world_advance(&w, 70);
    fail_with_calls(&job);
    world_advance(&w, 2000);
    fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED, 5000);
    world_advance(&w, 6000);
    fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
    struct history history = history_of(&job);
    cr_assert_eq(history.kept, 3);
    cr_assert_eq(history.omitted, 0);
    const Record__AttemptRecord *failed = history.entries[0];
    cr_expect_eq(failed->attempt, 1);
    cr_expect_eq(failed->outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE);
    cr_expect_str_eq(failed->error_code, "http_503");
    cr_expect_str_eq(failed->error_text, "overloaded");
    cr_expect_str_eq(failed->worker, "w");
    cr_expect_str_eq(failed->provider, "p2");
    cr_expect_str_eq(failed->model, "m2");
    cr_expect_eq(failed->calls, 2);
    cr_expect_eq(failed->call_ms, 60);
    cr_expect_eq(failed->cost_nanousd, 7);
    cr_expect_eq(failed->run_ms, 70);
    cr_expect_eq(failed->next, RECORD__ATTEMPT_NEXT__NEXT_BACKOFF);
    cr_expect(failed->wait_ms >= 1 && failed->wait_ms <= 1000);
    const Record__AttemptRecord *limited = history.entries[1];
    cr_expect_eq(limited->attempt, 2);
    cr_expect_eq(limited->outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED);
    cr_expect_eq(limited->retry_after_ms, 5000);
    cr_expect(limited->wait_ms >= 5000 && limited->wait_ms <= 5500);
    cr_expect_eq(history.entries[2]->next, RECORD__ATTEMPT_NEXT__NEXT_DEAD);
    forget(&history);
}

Test(core_dead, history_tells_of_each_attempt_what_followed)
{
    check_history("standard");
}

Test(core_dead, tiers_in_memory_have_a_history_too)
{
    check_history("realtime");
    cr_assert_eq(world_records(&w, STORE_ATTEMPTS), 0);
}

static void check_bounded_history(const char *tier)
{
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id job = world_submit(&w, 1, tier);
    for (int i = 0; i < 100; i++) {
        fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED, 1);
        world_advance(&w, 60001);
    }
    struct history history = history_of(&job);
    cr_assert_eq(history.kept, 32);
    cr_assert_eq(history.omitted, 68);
    for (uint32_t i = 0; i < 32; i++) {
        cr_assert_not_null(history.entries[i]);
        cr_expect_eq(history.entries[i]->attempt, i < 8 ? i + 1 : 69 + i);
    }
    forget(&history);
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, WORKER, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_eq(world_records(&w, STORE_ATTEMPTS), 0);
}

/* A deadline that the backoffs do not reach. */
static void be_patient(void)
{
    for (size_t i = 0; i < WORLD_TIERS; i++) {
        w.tiers[i].deadline_ms = INT64_C(1) << 40;
    }
    w.config.broker.lease_ms = INT64_C(1) << 40;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
}

Test(core_dead, history_keeps_the_first_and_the_latest_of_a_thousand)
{
    be_patient();
    check_bounded_history("standard");
}

Test(core_dead, history_in_memory_is_bounded_likewise)
{
    be_patient();
    check_bounded_history("realtime");
}

Test(core_dead, history_on_disk_goes_on_after_a_restart)
{
    be_patient();
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id job = world_submit(&w, 1, "standard");
    for (int i = 0; i < 40; i++) {
        fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED, 1);
        world_advance(&w, 60001);
    }
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE,
                                   .peer = WORKER,
                                   .as.worker_gone.said_goodbye = true});
    restart();
    world_worker(&w, WORKER, "w", SLOTS);
    credit = SLOTS;
    world_advance(&w, 70000);
    fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED, 1);
    struct history history = history_of(&job);
    cr_assert_eq(history.kept, 32);
    cr_assert_eq(history.omitted, 10);
    cr_expect_eq(history.entries[31]->attempt, history.entries[30]->attempt + 1);
    forget(&history);
    cr_assert_eq(world_records(&w, STORE_ATTEMPTS), 32);
}

Test(core_dead, histories_in_memory_are_bounded_in_bytes)
{
    w.config.broker.results_memory_bytes_max = 1 << 16;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, WORKER, "w", SLOTS);
    struct id jobs[64];
    for (size_t i = 0; i < 64; i++) {
        jobs[i] = world_submit(&w, 1, "realtime");
        fail(&jobs[i], WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, 600000);
    }
    struct history first = history_of(&jobs[0]);
    struct history last = history_of(&jobs[63]);
    cr_expect_eq(first.kept, 1);
    cr_expect_null(first.entries[0], "the oldest is forgotten");
    cr_expect_not_null(last.entries[0]);
    forget(&first);
    forget(&last);
}

Test(core_dead, worker_without_room_is_no_news_but_one_that_says_how_long_is)
{
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id job = world_submit(&w, 1, "standard");
    fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED, 0);
    world_advance(&w, 100);
    fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED, 3000);
    struct history history = history_of(&job);
    cr_assert_eq(history.kept, 1);
    cr_assert_eq(history.entries[0]->attempt, 2);
    cr_assert_eq(history.entries[0]->wait_ms, 3000);
    forget(&history);
}

/* ---- requeueing one ---- */

static void check_new_life(const char *tier)
{
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id job = die(tier);
    world_advance(&w, 1800000);
    world_forget_log(&w);
    one(DEAD_REQUEUE, &job);
    const struct lease_ref lease = world_lease(&w, &job);
    cr_expect_eq(lease.attempt, 2, "the fence goes on");
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
    cr_expect_eq(view.attempts, 1);
    cr_expect_eq(view.deadline_in_ms, 3600000);
    cr_expect_eq(world_stats(&w).dead_letters, 0);
    world_job_event(&w, EVENT_WAIT, 1, &job);
    cr_expect_eq(world_find(&w, EFFECT_STATUS, &job, 1)->effect.as.status.state,
                 WIRE__JOB_STATE__JOB_STATE_LEASED);
    cr_expect_null(world_find(&w, EFFECT_RESULT, &job, 1));
    world_result(&w, WORKER, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_expect_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_SUCCEEDED);
    world_forget_log(&w);
    world_job_event(&w, EVENT_WAIT, 1, &job);
    cr_expect_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, "the new conclusion is the one that counts");
    cr_expect_eq(world_stats(&w).concluded_ids, 2, "the withdrawn place is in the ring yet");
    cr_expect_eq(world_records(&w, STORE_JOBS) + world_records(&w, STORE_PAYLOADS) +
                     world_records(&w, STORE_ATTEMPTS),
                 0);
}

Test(core_dead, requeued_letter_has_a_new_life)
{
    check_new_life("standard");
    cr_expect_eq(world_records(&w, STORE_CONCLUDED), 1);
    cr_expect_eq(world_records(&w, STORE_RESULTS), 1);
}

Test(core_dead, letter_of_a_tier_in_memory_keeps_its_payload_and_can_be_requeued)
{
    check_new_life("realtime");
}

Test(core_dead, requeued_letter_is_pending_after_a_restart)
{
    world_worker(&w, WORKER, "w", SLOTS);
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.idempotency_key = "k";
    const struct id job = world_submit_event(&w, &event);
    fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
    world_job_event(&w, EVENT_COLLECTED, 1, &job);
    cr_assert_eq(world_records(&w, STORE_CONCLUDED), 2);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE,
                                   .peer = WORKER,
                                   .as.worker_gone.said_goodbye = true});
    one(DEAD_REQUEUE, &job);
    cr_assert_eq(world_records(&w, STORE_CONCLUDED), 0);
    restart();
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    cr_assert_eq(world_stats(&w).concluded_ids, 0);
    struct event again = world_submission(&w, 1, "standard");
    again.as.submit.idempotency_key = "k";
    world_submit_event(&w, &again);
    cr_assert(
        id_equal(&world_find(&w, EFFECT_ACCEPTED, NULL, 1)->effect.as.accepted.known_as, &job));
    world_advance(&w, 3000);
    world_worker(&w, WORKER, "w", SLOTS);
    const struct lease_ref lease = world_lease(&w, &job);
    cr_assert_eq(lease.attempt, 2);
    struct history history = history_of(&job);
    cr_assert_eq(history.kept, 2);
    cr_expect_eq(history.entries[1]->next, RECORD__ATTEMPT_NEXT__NEXT_REQUEUED);
    forget(&history);
    world_result(&w, WORKER, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    restart();
    world_job_event(&w, EVENT_WAIT, 1, &job);
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_SUCCEEDED);
}

Test(core_dead, key_of_a_requeued_letter_outlives_the_window_of_its_first_death)
{
    world_worker(&w, WORKER, "w", SLOTS);
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.idempotency_key = "k";
    const struct id job = world_submit_event(&w, &event);
    fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
    one(DEAD_REQUEUE, &job);
    world_advance(&w, 3599000);
    w.config.broker.dedup_window_ms = 1000;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_advance(&w, 6000 - 5100);
    struct event again = world_submission(&w, 1, "standard");
    again.as.submit.idempotency_key = "k";
    world_submit_event(&w, &again);
    cr_assert(
        id_equal(&world_find(&w, EFFECT_ACCEPTED, NULL, 1)->effect.as.accepted.known_as, &job));
}

Test(core_dead, letter_that_was_forgotten_by_the_window_can_be_requeued)
{
    w.config.broker.dedup_window_ms = 1000;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id job = die("standard");
    world_advance(&w, 20000);
    cr_assert_eq(world_stats(&w).concluded_ids, 0);
    world_forget_log(&w);
    one(DEAD_REQUEUE, &job);
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, WORKER, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
    cr_assert_null(world_find(&w, EFFECT_RESULT, &job, 0), "nobody waits for it");
    cr_assert_eq(world_stats(&w).concluded_ids, 1);
}

Test(core_dead, failures_and_losses_count_anew_in_the_new_life)
{
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id job = world_submit(&w, 1, "standard");
    for (int life = 0; life < 2; life++) {
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_LEASED);
            fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, 0);
            world_advance(&w, 60000);
        }
        cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_DEAD);
        one(DEAD_REQUEUE, &job);
    }
    struct history history = history_of(&job);
    cr_assert_eq(history.kept, 8);
    cr_assert_eq(world_lease(&w, &job).attempt, 7);
    forget(&history);
}

Test(core_dead, payloads_in_memory_are_bounded_and_what_has_none_says_so)
{
    w.config.broker.results_memory_bytes_max = 40; /* a quarter of it: two payloads of 4 bytes */
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, WORKER, "w", SLOTS);
    struct id jobs[3];
    struct core_dead_view view;
    for (size_t i = 0; i < 3; i++) {
        jobs[i] = die("realtime");
    }
    cr_assert_eq(core_view_dead(w.core, &jobs[1], &view), 0);
    cr_expect_str_eq(view.why_not, "");
    cr_expect_eq(blob_bytes(view.payload), 4);
    cr_assert_eq(core_view_dead(w.core, &jobs[2], &view), 0);
    cr_expect(view.is_lost);
    cr_expect_null(view.payload);
    one(DEAD_REQUEUE, &jobs[2]);
    cr_expect_eq(world_state(&w, &jobs[2]), WIRE__JOB_STATE__JOB_STATE_DEAD);
    one(DEAD_REQUEUE, &jobs[0]);
    cr_expect_eq(world_state(&w, &jobs[0]), WIRE__JOB_STATE__JOB_STATE_LEASED);
    const struct id next = die("realtime");
    cr_assert_eq(core_view_dead(w.core, &next, &view), 0);
    cr_expect(!view.is_lost, "room was made");
    const uint64_t done = sweep(DEAD_REQUEUE, &ALL, 0);
    cr_expect_eq(sweep_view(done).view.done, 2);
    cr_expect_eq(sweep_view(done).view.skipped, 1);
    cr_expect(sweep_view(done).view.is_over);
}

Test(core_dead, result_that_is_on_its_way_when_the_letter_is_requeued_is_not_given)
{
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id job = die("standard");
    world_forget_log(&w);
    w.withholds_loads = true;
    world_job_event(&w, EVENT_WAIT, 1, &job);
    one(DEAD_REQUEUE, &job);
    world_turn(&w, &(struct event){.kind = EVENT_LOADED,
                                   .as.loaded = {.token = UINT64_C(1) << 16, .result = -2}});
    cr_assert_eq(world_find(&w, EFFECT_STATUS, &job, 1)->effect.as.status.state,
                 WIRE__JOB_STATE__JOB_STATE_LOADING);
    cr_assert_null(world_find(&w, EFFECT_RESULT, &job, 1));
}

Test(core_dead, requeued_letter_follows_an_identical_job_that_is_pending)
{
    static const uint8_t canonical[16] = {1, 2, 3};
    world_worker(&w, WORKER, "w", SLOTS);
    struct id jobs[2];
    for (size_t i = 0; i < 2; i++) {
        struct event event = world_submission(&w, 1, "standard");
        event.as.submit.canonical_key = canonical;
        jobs[i] = event.as.submit.job_id;
        world_submit_event(&w, &event);
        if (i == 0) {
            fail(&jobs[0], WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
        }
    }
    one(DEAD_REQUEUE, &jobs[0]);
    cr_assert_eq(world_state(&w, &jobs[0]), WIRE__JOB_STATE__JOB_STATE_FOLLOWING);
    cr_assert_eq(world_stats(&w).dead_letters, 0);
    const struct lease_ref lease = world_lease(&w, &jobs[1]);
    world_result(&w, WORKER, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
    world_tick(&w);
    cr_assert_eq(world_state(&w, &jobs[0]), WIRE__JOB_STATE__JOB_STATE_DEAD);
    cr_assert_eq(world_stats(&w).dead_letters, 2);
}

Test(core_dead, dropped_letter_leaves_nothing_but_its_conclusion)
{
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id job = die("standard");
    one(DEAD_DROP, &job);
    cr_expect_eq(world_stats(&w).dead_letters, 0);
    cr_expect_eq(world_stats(&w).tiers[1].dead_dropped, 1);
    cr_expect_eq(world_records(&w, STORE_JOBS) + world_records(&w, STORE_PAYLOADS) +
                     world_records(&w, STORE_ATTEMPTS),
                 0);
    world_forget_log(&w);
    world_job_event(&w, EVENT_WAIT, 1, &job);
    cr_expect_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.state,
                 WIRE__JOB_STATE__JOB_STATE_DEAD);
}

/* ---- lists and sweeps ---- */

struct list_of {
    size_t length;
    struct id ids[64];
};

static void add(void *context, const struct core_dead_view *view)
{
    struct list_of *list = context;
    list->ids[list->length++] = view->id;
}

static struct list_of list_all(const struct dead_filter *filter, size_t limit)
{
    struct list_of list = {0};
    uint64_t cursor = 0;
    do {
        cursor = core_visit_dead(w.core, filter, cursor, limit, add, &list);
    } while (cursor != 0);
    return list;
}

Test(core_dead, list_goes_on_behind_its_cursor_whatever_went_away)
{
    world_worker(&w, WORKER, "w", SLOTS);
    struct id jobs[10];
    for (size_t i = 0; i < 10; i++) {
        world_advance(&w, 10);
        jobs[i] = die("standard");
    }
    struct list_of list = {0};
    uint64_t cursor = core_visit_dead(w.core, &ALL, 0, 4, add, &list);
    for (size_t i = 2; i < 6; i++) {
        one(DEAD_DROP, &jobs[i]);
    }
    cursor = core_visit_dead(w.core, &ALL, cursor, 2, add, &list);
    cr_assert_neq(cursor, 0);
    cursor = core_visit_dead(w.core, &ALL, cursor, 10, add, &list);
    cr_assert_eq(cursor, 0);
    static const size_t expected[] = {0, 1, 2, 3, 6, 7, 8, 9};
    cr_assert_eq(list.length, 8);
    for (size_t i = 0; i < 8; i++) {
        cr_expect(id_equal(&list.ids[i], &jobs[expected[i]]));
    }
}

Test(core_dead, letters_are_in_order_of_death_after_a_restart_and_know_of_what_they_died)
{
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id first = world_submit(&w, 1, "standard");
    world_advance(&w, 10);
    const struct id second = world_submit(&w, 1, "standard");
    fail_with_calls(&second);
    world_advance(&w, 2000);
    fail(&second, WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID, 0);
    world_advance(&w, 10);
    fail(&first, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
    restart();
    const struct list_of list = list_all(&ALL, 1);
    cr_assert_eq(list.length, 2);
    cr_expect(id_equal(&list.ids[0], &second));
    cr_expect(id_equal(&list.ids[1], &first));
    struct core_dead_view view;
    cr_assert_eq(core_view_dead(w.core, &second, &view), 0);
    cr_expect_str_eq(view.code, "invalid");
    cr_expect_str_eq(view.worker, "w");
    cr_expect_eq(view.attempts, 2);
    cr_expect_eq(view.died_unix_ms, w.now.unix_ms - 10);
}

/* Without what this version adds to a job's record. */
static void age_record(const struct id *job)
{
    for (size_t i = 0; i < w.records_length; i++) {
        struct world_record *record = &w.records[i];
        Record__JobRecord *message = NULL;
        if (record->family != STORE_JOBS || memcmp(record->key, job->bytes, ID_BYTES) != 0) {
            continue;
        }
        cr_assert_eq(record_read_job(record->value, record->value_bytes, NULL, &message), 0);
        char *const texts[] = {message->died_worker, message->died_provider};
        message->died_worker = message->died_provider = (char *)protobuf_c_empty_string;
        message->history = 0;
        message->died_unix_ms = 0;
        record->value_bytes = record_bytes(&message->base);
        record_write(&message->base, record->value); /* it gets shorter */
        message->died_worker = texts[0];
        message->died_provider = texts[1];
        record__job_record__free_unpacked(message, NULL);
    }
}

Test(core_dead, letter_of_an_earlier_version_is_read_with_its_history)
{
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id job = world_submit(&w, 1, "standard");
    fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, 0);
    world_advance(&w, 2000);
    fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
    age_record(&job);
    restart();
    struct core_dead_view view;
    cr_assert_eq(core_view_dead(w.core, &job, &view), 0);
    cr_expect_str_eq(view.code, "rejected");
    cr_expect_str_eq(view.worker, "");
    struct history history = history_of(&job);
    cr_expect_eq(history.kept, 2);
    cr_expect_not_null(history.entries[1]);
    forget(&history);
    one(DEAD_REQUEUE, &job);
    cr_expect_eq(world_records(&w, STORE_CONCLUDED), 0);
    one(DEAD_DROP, &job);
    cr_expect_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_QUEUED, "it lives");
}

Test(core_dead, filters_take_what_fits_alone)
{
    world_client(&w, 2, "b");
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id first = die("standard");
    world_advance(&w, 1000);
    const struct id second = die("background");
    const struct id theirs = world_submit(&w, 2, "standard");
    fail(&theirs, WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID, 0);
    const struct {
        struct dead_filter filter;
        size_t length;
        const struct id *first;
    } cases[] = {
        {{.tenant = "a"}, 2, &first},
        {{.tenant = "b"}, 1, &theirs},
        {{.tenant = "c"}, 0, NULL},
        {{.tier = "background"}, 1, &second},
        {{.code = "invalid"}, 1, &theirs},
        {{.code = "rejected", .tier = "standard"}, 1, &first},
        {{.route = "m0"}, 3, &first},
        {{.route = "m1"}, 0, NULL},
        {{.worker = "w"}, 3, &first},
        {{.provider = "p"}, 0, NULL},
        {{.from_unix_ms = w.now.unix_ms}, 2, &second},
        {{.until_unix_ms = w.now.unix_ms}, 1, &first},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        const struct list_of list = list_all(&cases[i].filter, 2);
        cr_assert_eq(list.length, cases[i].length, "case %zu", i);
        cr_assert(list.length == 0 || id_equal(&list.ids[0], cases[i].first), "case %zu", i);
    }
}

Test(core_dead, array_of_letters_survives_holes_growth_and_bounds)
{
    world_worker(&w, WORKER, "w", SLOTS);
    w.config.broker.dead_letters_max = 300;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    struct id jobs[600];
    size_t dropped = 0;
    for (size_t i = 0; i < 600; i++) {
        jobs[i] = die("standard");
        if (i % 3 != 0) {
            one(DEAD_DROP, &jobs[i - i % 2]);
            dropped++;
        }
        uint64_t cursor = 0;
        size_t length = 0;
        struct list_of list = {0};
        do {
            list.length = 0;
            cursor = core_visit_dead(w.core, &ALL, cursor, 64, add, &list);
            length += list.length;
        } while (cursor != 0);
        cr_assert_eq(length, world_stats(&w).dead_letters);
    }
    cr_assert_gt(dropped, 0);
    cr_assert_leq(world_stats(&w).dead_letters, 300);
}

Test(core_dead, letters_beyond_a_lower_bound_go_a_few_in_each_turn)
{
    w.config.broker.dead_letters_max = 10000;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, WORKER, "w", SLOTS);
    for (int i = 0; i < 1500; i++) {
        (void)die("standard");
    }
    w.config.broker.dead_letters_max = 10;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    w.withholds_durability = true; /* else its batch would be a turn of its own */
    world_tick(&w);
    cr_assert_eq(world_stats(&w).dead_letters, 1500 - 256);
    cr_assert_leq(core_next_deadline_ms(w.core), w.now.now_ms);
    w.withholds_durability = false;
    world_make_durable(&w);
    world_advance(&w, 1);
    cr_assert_eq(world_stats(&w).dead_letters, 10);
    cr_assert_eq(world_records(&w, STORE_JOBS), 10);
}

Test(core_dead, sweep_keeps_its_rate)
{
    w.config.broker.dead_letters_max = 10000;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, WORKER, "w", SLOTS);
    for (int i = 0; i < 500; i++) {
        (void)die("standard");
    }
    world_turn(&w, &(struct event){.kind = EVENT_PAUSE,
                                   .as.pause = {PAUSE_TIER, PAUSE_HOLD, "standard", ""}});
    const uint64_t number = sweep(DEAD_REQUEUE, &ALL, 100);
    cr_assert_eq(sweep_view(number).view.done, 1);
    world_advance(&w, 1000);
    cr_assert_eq(sweep_view(number).view.done, 101);
    world_advance(&w, 2000);
    cr_assert_eq(sweep_view(number).view.done, 301);
    cr_assert_eq(world_stats(&w).dead_letters, 199);
    world_turn(&w, &(struct event){.kind = EVENT_DEAD_STOP, .as.dead_stop.number = number});
    world_advance(&w, 5000);
    const struct sought sought = sweep_view(number);
    cr_assert(sought.view.is_over && sought.view.is_stopped);
    cr_assert_eq(sought.view.done, 301);
    cr_assert_eq(world_stats(&w).tiers[1].dead_requeued, 301);
}

Test(core_dead, sweep_ends_with_those_that_were_there_when_it_began)
{
    world_worker(&w, WORKER, "w", SLOTS);
    const struct id job = die("standard");
    const uint64_t number = sweep(DEAD_REQUEUE, &ALL, 10);
    cr_assert_eq(sweep_view(number).view.done, 1);
    fail(&job, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, 0);
    world_advance(&w, 5000);
    cr_assert(sweep_view(number).view.is_over);
    cr_assert_eq(sweep_view(number).view.done, 1);
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_DEAD);
}

Test(core_dead, sweep_waits_for_room_and_for_the_store)
{
    world_worker(&w, WORKER, "w", SLOTS);
    for (int i = 0; i < 5; i++) {
        (void)die("standard");
    }
    world_turn(&w, &(struct event){.kind = EVENT_PAUSE,
                                   .as.pause = {PAUSE_TIER, PAUSE_HOLD, "standard", ""}});
    w.tiers[1].jobs_max = 2;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    const uint64_t number = sweep(DEAD_REQUEUE, &ALL, 0);
    world_advance(&w, 3000);
    cr_assert_eq(sweep_view(number).view.done, 2);
    cr_assert_not_null(strstr(sweep_view(number).waits, "full"));
    w.tiers[1].jobs_max = 100;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_turn(&w, &(struct event){.kind = EVENT_STORE_DOWN,
                                   .as.store_down = {.first_batch = w.batch, .why = "full"}});
    world_advance(&w, 3000);
    cr_assert_eq(sweep_view(number).view.done, 2);
    cr_assert_not_null(strstr(sweep_view(number).waits, "disk"));
    world_turn(&w, &(struct event){.kind = EVENT_STORE_UP});
    world_advance(&w, 3000);
    cr_assert_eq(sweep_view(number).view.done, 5);
    cr_assert(sweep_view(number).view.is_over);
}

Test(core_dead, sweep_without_a_rate_is_bounded_in_each_tick)
{
    w.config.broker.dead_letters_max = 10000;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_worker(&w, WORKER, "w", SLOTS);
    for (int i = 0; i < 1500; i++) {
        (void)die("realtime");
    }
    const uint64_t number = sweep(DEAD_DROP, &ALL, 0);
    cr_assert_eq(sweep_view(number).view.done, 256);
    world_advance(&w, 1);
    cr_assert_eq(sweep_view(number).view.done, 1500);
    const uint64_t idle = sweep(DEAD_DROP, &(struct dead_filter){.tenant = "d"}, 0);
    world_advance(&w, 1);
    cr_assert(sweep_view(idle).view.is_over);
}

Test(core_dead, sweeps_are_bounded_and_those_that_run_are_kept)
{
    world_worker(&w, WORKER, "w", SLOTS);
    for (int i = 0; i < 40; i++) {
        (void)die("standard");
    }
    const uint64_t running = sweep(DEAD_REQUEUE, &(struct dead_filter){.code = "rejected"}, 1);
    for (int i = 0; i < 30; i++) {
        cr_assert_eq(sweep(DEAD_REQUEUE, &(struct dead_filter){.code = "nothing"}, 0),
                     running + (uint64_t)i + 1);
    }
    cr_assert(!sweep_view(running).view.is_over);
    for (int i = 0; i < 40; i++) {
        (void)sweep(DEAD_REQUEUE, &ALL, 1);
    }
    const uint64_t latest = core_latest_sweep(w.core);
    (void)sweep(DEAD_REQUEUE, &ALL, 1);
    cr_assert_eq(core_latest_sweep(w.core), latest, "as many run as may");
    cr_assert(!sweep_view(running).view.is_over);
}

/* ---- jobs that end workers ---- */

enum { WORKERS = 3, WORKER_SLOTS = 64, INNOCENTS = 199 };

static uint64_t peers[WORKERS];
static uint64_t peer_last;

static void start_worker(size_t index)
{
    char name[16];
    snprintf(name, sizeof(name), "w%zu", index);
    peers[index] = ++peer_last;
    world_worker(&w, peers[index], name, WORKER_SLOTS);
}

/* Workers that hold the poison are gone before they answer anything; the others answer all they
 * hold. */
static void live_one_round(const struct id *poison, const struct id *innocents, size_t length)
{
    const struct world_effect *given = world_find(&w, EFFECT_DISPATCH, poison, 0);
    const bool holds = world_state(&w, poison) == WIRE__JOB_STATE__JOB_STATE_LEASED;
    const uint64_t doomed = holds ? given->effect.peer : 0;
    for (size_t i = 0; i < WORKERS; i++) {
        if (peers[i] == doomed) {
            world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = doomed});
            start_worker(i);
        }
    }
    for (size_t i = 0; i < length; i++) {
        if (world_state(&w, &innocents[i]) != WIRE__JOB_STATE__JOB_STATE_LEASED) {
            continue;
        }
        const struct world_effect *to = world_find(&w, EFFECT_DISPATCH, &innocents[i], 0);
        if (rand() % 4 == 0) { /* the others take longer */
            const struct lease_ref lease = to->effect.as.dispatch.lease;
            world_result(&w, to->effect.peer, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
        }
    }
    for (size_t i = 0; i < WORKERS; i++) {
        world_credit(&w, peers[i], 1000000);
    }
    world_advance(&w, 500);
}

static void check_poison(const char *tier, unsigned seed)
{
    srand(seed);
    peer_last = WORKER;
    for (size_t i = 0; i < WORKERS; i++) {
        start_worker(i);
    }
    struct id innocents[INNOCENTS];
    struct id poison = {0};
    const size_t place = (size_t)rand() % INNOCENTS;
    for (size_t i = 0; i < INNOCENTS; i++) {
        if (i == place) {
            poison = world_submit(&w, 1, tier);
        }
        innocents[i] = world_submit(&w, 1, tier);
    }
    for (int round = 0; round < 200 && world_stats(&w).jobs > 0; round++) {
        live_one_round(&poison, innocents, INNOCENTS);
    }
    const struct core_tier_stats *stats = &world_stats(&w).tiers[strcmp(tier, "realtime") != 0];
    cr_assert_eq(stats->concluded[WIRE__JOB_STATE__JOB_STATE_SUCCEEDED], INNOCENTS, "seed %u",
                 seed);
    cr_assert_eq(stats->concluded[WIRE__JOB_STATE__JOB_STATE_DEAD], 1, "seed %u", seed);
    struct core_dead_view view;
    cr_assert_eq(core_view_dead(w.core, &poison, &view), 0);
    cr_assert_str_eq(view.code, "poison");
    cr_assert_eq(view.losses, 5);
    struct history history = history_of(&poison);
    cr_assert_eq(history.kept, 5);
    for (uint32_t i = 0; i < 5; i++) {
        cr_assert(history.entries[i]->lost);
        cr_assert_eq(history.entries[i]->worker[0], 'w');
        cr_assert_eq(history.entries[i]->next,
                     i == 4 ? RECORD__ATTEMPT_NEXT__NEXT_DEAD : RECORD__ATTEMPT_NEXT__NEXT_RETRY);
    }
    forget(&history);
}

static void check_poisons(const char *tier)
{
    for (unsigned seed = 1; seed <= 10; seed++) {
        stop();
        start();
        check_poison(tier, seed);
    }
}

Test(core_dead, poison_job_alone_is_condemned)
{
    check_poisons("standard");
}

Test(core_dead, poison_job_of_a_tier_in_memory_alone_is_condemned)
{
    check_poisons("realtime");
}

/* Without the rule this one has 199 innocents on a single worker with it, crash after crash. */
Test(core_dead, nobody_is_condemned_for_a_crash_that_was_shared_with_another_suspect)
{
    peer_last = WORKER;
    start_worker(0);
    struct id jobs[40];
    for (size_t i = 0; i < 40; i++) {
        jobs[i] = world_submit(&w, 1, "standard");
    }
    for (int crash = 0; crash < 2; crash++) {
        world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = peers[0]});
        start_worker(0);
    }
    size_t running = 0;
    for (size_t i = 0; i < 40; i++) {
        running += world_state(&w, &jobs[i]) == WIRE__JOB_STATE__JOB_STATE_LEASED;
    }
    cr_assert_eq(running, 1, "each of them has been lost twice: one suspect at a time");
    const struct id fresh = world_submit(&w, 1, "standard");
    cr_assert_eq(world_state(&w, &fresh), WIRE__JOB_STATE__JOB_STATE_LEASED,
                 "suspects hold nobody up");
    world_advance(&w, 1000);
    world_job_event(&w, EVENT_WAIT, 1, &jobs[39]);
    const struct world_effect *status = world_find(&w, EFFECT_STATUS, &jobs[39], 1);
    cr_assert_eq(status->effect.as.status.state, WIRE__JOB_STATE__JOB_STATE_BACKING_OFF);
    for (int i = 0; i < 100 && world_stats(&w).jobs > 1; i++) {
        for (size_t j = 0; j < 40; j++) {
            if (world_state(&w, &jobs[j]) == WIRE__JOB_STATE__JOB_STATE_LEASED) {
                const struct lease_ref lease = world_lease(&w, &jobs[j]);
                world_result(&w, peers[0], &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, 0);
            }
        }
        world_credit(&w, peers[0], 1000000);
        world_advance(&w, 300);
    }
    cr_assert_eq(world_stats(&w).tiers[1].concluded[WIRE__JOB_STATE__JOB_STATE_SUCCEEDED], 40);
}

Test(core_dead, job_whose_workers_said_goodbye_is_never_condemned)
{
    peer_last = WORKER;
    const struct id job = world_submit(&w, 1, "standard");
    for (int i = 0; i < 20; i++) {
        start_worker(0);
        world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE,
                                       .peer = peers[0],
                                       .as.worker_gone.said_goodbye = true});
    }
    cr_assert_eq(world_state(&w, &job), WIRE__JOB_STATE__JOB_STATE_QUEUED);
    struct history history = history_of(&job);
    cr_assert_eq(history.kept, 20);
    cr_assert(history.entries[19]->lost);
    forget(&history);
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
    cr_assert_eq(view.attempts, 0);
}

Test(core_dead, lease_that_nobody_reclaims_after_a_restart_is_in_the_history_and_blames_nobody)
{
    w.config.broker.lease_ms = 15000;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    peer_last = WORKER;
    start_worker(0);
    const struct id job = world_submit(&w, 1, "standard");
    world_advance(&w, 500); /* now the lease is on disk */
    restart();
    world_advance(&w, 15000);
    struct history history = history_of(&job);
    cr_assert_eq(history.kept, 1);
    cr_expect(history.entries[0]->lost);
    cr_expect_str_eq(history.entries[0]->worker, "");
    struct core_job_view view;
    cr_assert_eq(core_view_job(w.core, &job, w.now, &view), 0);
    cr_expect_eq(view.attempts, 0);
    forget(&history);
}

static int crashes_until_dead(uint32_t losses_max)
{
    w.config.broker.losses_max = losses_max;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    peer_last += 1000;
    const struct id job = world_submit(&w, 1, "standard");
    for (int crashes = 1; crashes <= 20; crashes++) {
        start_worker(0);
        world_advance(&w, 1000);
        world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = peers[0]});
        if (world_state(&w, &job) == WIRE__JOB_STATE__JOB_STATE_DEAD) {
            return crashes;
        }
    }
    world_job_event(&w, EVENT_CANCEL, 1, &job);
    return 0;
}

Test(core_dead, bound_of_losses_is_configured)
{
    cr_expect_eq(crashes_until_dead(5), 5);
    cr_expect_eq(crashes_until_dead(12), 12);
    cr_expect_eq(crashes_until_dead(2), 2);
    cr_expect_eq(crashes_until_dead(1), 2, "the first one may have been shared with anybody");
    cr_expect_eq(crashes_until_dead(0), 0, "never");
}
