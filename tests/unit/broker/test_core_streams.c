/* Chunks of a running attempt: who gets them, from where on, and how far. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "broker/core/stream.h"
#include "tests/unit/broker/core_world.h"

#define ANSWERED WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED

static struct world w;
static uint64_t credits = 4; /* that worker 100 has had */

static void start(void)
{
    world_init(&w);
    w.config.broker.lease_ms = 1000000; /* no heartbeats here */
    w.config.broker.stream_log_bytes_max = 10000;
    world_start(&w);
    for (uint64_t peer = 1; peer <= 4; peer++) {
        world_client(&w, peer, "a");
    }
    world_worker(&w, 100, "w", 4);
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_streams, .init = start, .fini = stop);

static struct id submit(uint64_t peer, bool stream)
{
    static const uint8_t key[16] = {1};
    struct event event = world_submission(&w, peer, "realtime");
    event.as.submit.stream = stream;
    event.as.submit.canonical_key = key;
    return world_submit_event(&w, &event);
}

static void chunk_with(const struct id *job, uint32_t index, const char *text, uint32_t flags)
{
    const struct lease_ref lease = world_lease(&w, job);
    struct event event = {
        .kind = EVENT_CHUNK,
        .peer = 100,
        .as.chunk.header = {
            .job_id = *job, .attempt = lease.attempt, .index = index, .flags = flags}};
    cr_assert_eq(blob_create(text, strlen(text), &event.as.chunk.data), 0);
    world_turn(&w, &event);
    blob_unref(&event.as.chunk.data);
}

static void chunk(const struct id *job, uint32_t index, const char *text)
{
    chunk_with(job, index, text, 0);
}

static void wait_for(uint64_t peer, const struct id *job)
{
    world_turn(&w, &(struct event){.kind = EVENT_WAIT,
                                   .peer = peer,
                                   .as.job = {.job_id = *job, .stream = true}});
}

static void credit(uint64_t peer, const struct id *job, uint32_t chunks)
{
    world_turn(&w, &(struct event){.kind = EVENT_STREAM_CREDIT,
                                   .peer = peer,
                                   .as.stream_credit = {*job, chunks}});
}

/* What this peer got of the job as the library takes it: of one attempt, in order, without a gap.
 */
static const char *heard(uint64_t peer, const struct id *job)
{
    static char text[65536];
    uint32_t attempt = 0;
    uint32_t next = 0;
    text[0] = '\0';
    for (size_t i = 0; i < w.log_length; i++) {
        const struct effect *effect = &w.log[i].effect;
        if (effect->kind != EFFECT_CHUNK || effect->peer != peer ||
            !id_equal(&effect->as.chunk.header.job_id, job)) {
            continue;
        }
        attempt = attempt == 0 ? effect->as.chunk.header.attempt : attempt;
        if (effect->as.chunk.header.attempt == attempt) {
            cr_assert_eq(effect->as.chunk.header.index, next++);
            strcat(text, w.log[i].text);
        }
    }
    return text;
}

Test(core_streams, client_that_asks_late_gets_the_stream_from_the_start)
{
    const struct id job = submit(1, true);
    chunk(&job, 0, "a");
    chunk(&job, 1, "b");
    wait_for(2, &job);
    chunk_with(&job, 2, "c", FRAME_CHUNK_LAST);
    cr_assert_str_eq(heard(1, &job), "abc");
    cr_assert_str_eq(heard(2, &job), "abc");
    cr_assert(world_find(&w, EFFECT_CHUNK, &job, 2)->effect.as.chunk.header.flags &
              FRAME_CHUNK_LAST);
}

Test(core_streams, client_that_asks_again_gets_nothing_twice)
{
    const struct id job = submit(1, true);
    chunk(&job, 0, "a");
    wait_for(1, &job);
    chunk(&job, 1, "b");
    chunk(&job, 1, "b"); /* repeated */
    cr_assert_str_eq(heard(1, &job), "ab");
}

Test(core_streams, late_client_gets_no_more_than_its_credit)
{
    const struct id job = submit(1, true);
    chunk(&job, 0, "a");
    chunk(&job, 1, "b");
    chunk(&job, 2, "c");
    /* Both in one message: one turn. */
    core_step(
        w.core, w.now,
        &(struct event){.kind = EVENT_WAIT, .peer = 2, .as.job = {.job_id = job, .stream = true}},
        w.effects);
    credit(2, &job, 1);
    cr_assert_str_eq(heard(2, &job), "a");
    chunk(&job, 3, "d");
    cr_assert_str_eq(heard(2, &job), "a");
    credit(2, &job, 2);
    cr_assert_str_eq(heard(2, &job), "abc");
    credit(2, &job, 9);
    cr_assert_str_eq(heard(2, &job), "abcd");
    chunk(&job, 4, "e");
    cr_assert_str_eq(heard(2, &job), "abcde");
}

Test(core_streams, without_a_log_late_clients_get_the_result_alone)
{
    w.config.broker.stream_log_bytes_max = 200;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    const struct id job = submit(1, true);
    chunk(&job, 0, "a");
    wait_for(2, &job);
    chunk(&job, 1, "b");
    chunk(&job, 2, "c");
    chunk(&job, 3, "d"); /* one too many */
    wait_for(3, &job);
    chunk(&job, 4, "e");
    cr_assert_str_eq(heard(1, &job), "abcde");
    cr_assert_str_eq(heard(2, &job), "abcde");
    cr_assert_str_eq(heard(3, &job), "");
    world_result(&w, 100, &(struct lease_ref){job, 1}, ANSWERED, 0);
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &job, 3));
}

Test(core_streams, logs_of_all_streams_are_bounded_together)
{
    enum { PIECE = 1 << 20, STREAMS = 80 };
    w.config.broker.stream_log_bytes_max = 2 * PIECE;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    world_credit(&w, 100, STREAMS);
    world_worker(&w, 101, "big", STREAMS);
    char *piece = malloc(PIECE + 1);
    memset(piece, 'x', PIECE);
    piece[PIECE] = '\0';
    size_t late = 0;
    for (size_t i = 0; i < STREAMS; i++) {
        struct event event = world_submission(&w, 1, "realtime");
        event.as.submit.stream = true;
        world_submit_event(&w, &event);
        const struct id job = event.as.submit.job_id;
        struct event data = {.kind = EVENT_CHUNK,
                             .peer = world_find(&w, EFFECT_DISPATCH, &job, 0)->effect.peer,
                             .as.chunk.header = {.job_id = job, .attempt = 1}};
        cr_assert_eq(blob_create(piece, PIECE, &data.as.chunk.data), 0);
        world_turn(&w, &data);
        blob_unref(&data.as.chunk.data);
        wait_for(2, &job);
        late += world_find(&w, EFFECT_CHUNK, &job, 2) != NULL;
        cr_assert_not_null(world_find(&w, EFFECT_CHUNK, &job, 1));
    }
    free(piece);
    cr_assert_eq(late, 63); /* of 64 MiB, beside what each chunk takes itself */
}

Test(core_streams, gap_ends_the_stream_for_everybody)
{
    const struct id job = submit(1, true);
    chunk(&job, 0, "a");
    chunk(&job, 2, "c");
    wait_for(2, &job);
    chunk(&job, 3, "d");
    cr_assert_str_eq(heard(1, &job), "a");
    cr_assert_str_eq(heard(2, &job), "");
}

Test(core_streams, next_attempt_begins_its_own_log)
{
    const struct id job = submit(1, true);
    chunk(&job, 0, "a");
    chunk(&job, 1, "b");
    const struct lease_ref lease = world_lease(&w, &job);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED, 0);
    world_advance(&w, 1000);
    world_credit(&w, 100, 5);
    cr_assert_eq(world_lease(&w, &job).attempt, 2);
    wait_for(2, &job);
    cr_assert_str_eq(heard(2, &job), "");
    chunk(&job, 0, "x");
    wait_for(3, &job);
    chunk(&job, 1, "y");
    cr_assert_str_eq(heard(1, &job), "ab");
    cr_assert_eq(world_find(&w, EFFECT_CHUNK, &job, 1)->effect.as.chunk.header.attempt, 2);
    cr_assert_str_eq(heard(2, &job), "xy");
    cr_assert_str_eq(heard(3, &job), "xy");
}

/* Its clients know, by the broker's incarnation: the answer will be whole. */
Test(core_streams, stream_that_began_before_a_restart_has_ended_with_it)
{
    struct event event = world_submission(&w, 1, "standard");
    event.as.submit.stream = true;
    world_submit_event(&w, &event);
    const struct id job = event.as.submit.job_id;
    chunk(&job, 0, "a");
    world_restart(&w);
    world_client(&w, 1, "a");
    world_client(&w, 2, "a");
    wait_for(1, &job);
    const struct lease_ref lease = {job, 1};
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = 100,
                                   .as.worker_hello = {
                                       .name = "w", .slots = 4, .held = &lease, .held_length = 1}});
    world_forget_log(&w);
    struct event next = {.kind = EVENT_CHUNK,
                         .peer = 100,
                         .as.chunk.header = {.job_id = job, .attempt = 1, .index = 1}};
    world_turn(&w, &next);
    wait_for(2, &job);
    next.as.chunk.header.index = 2;
    world_turn(&w, &next);
    cr_assert_null(world_find(&w, EFFECT_CHUNK, &job, 0));
}

/* The log went with the lease. */
Test(core_streams, reclaimed_attempt_streams_on_to_those_alone_who_have_its_beginning)
{
    const struct id job = submit(1, true);
    chunk(&job, 0, "a");
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    wait_for(2, &job);
    const struct lease_ref lease = {job, 1};
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = 101,
                                   .as.worker_hello = {
                                       .name = "w", .slots = 4, .held = &lease, .held_length = 1}});
    const struct event next = {.kind = EVENT_CHUNK,
                               .peer = 101,
                               .as.chunk.header = {.job_id = job, .attempt = 1, .index = 1}};
    world_turn(&w, &next);
    cr_assert_eq(world_find(&w, EFFECT_CHUNK, &job, 1)->effect.as.chunk.header.index, 1);
    cr_assert_null(world_find(&w, EFFECT_CHUNK, &job, 2));
}

/* Nothing that a worker says makes a reader be further than the stream is. */
Test(core_streams, worker_that_begins_its_stream_anew_harms_nobody)
{
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.stream = true;
    const struct id job = world_submit_event(&w, &event);
    for (uint32_t i = 0; i < 50; i++) {
        chunk(&job, i, "a");
    }
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    const struct lease_ref lease = {job, 1};
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = 100,
                                   .as.worker_hello = {
                                       .name = "w", .slots = 4, .held = &lease, .held_length = 1}});
    static char larger_than_a_log[12000];
    memset(larger_than_a_log, 'b', sizeof(larger_than_a_log) - 1);
    chunk(&job, 0, "b");
    chunk(&job, 1, larger_than_a_log);
    chunk(&job, 2, "b");
    cr_assert_eq(strlen(heard(1, &job)), 50);
}

/* ---- followers ---- */

Test(core_streams, follower_gets_the_stream_from_the_start_under_its_own_name)
{
    const struct id leader = submit(1, true);
    chunk(&leader, 0, "a");
    chunk(&leader, 1, "b");
    const struct id late = submit(2, true);
    const struct id quiet = submit(3, false);
    chunk(&leader, 2, "c");
    wait_for(4, &quiet);
    chunk(&leader, 3, "d");
    cr_assert_str_eq(heard(1, &leader), "abcd");
    cr_assert_str_eq(heard(2, &late), "abcd");
    cr_assert_str_eq(heard(3, &quiet), "");
    cr_assert_str_eq(heard(4, &quiet), "abcd");
    cr_assert_str_eq(heard(2, &leader), "");
}

Test(core_streams, stream_of_a_follower_is_asked_for_at_the_worker)
{
    world_worker(&w, 100, "w", 0);
    const struct id leader = submit(1, false);
    const struct id follower = submit(2, true);
    world_worker(&w, 100, "w", 1);
    cr_assert(world_find(&w, EFFECT_DISPATCH, &leader, 100)->effect.as.dispatch.stream);
    chunk(&leader, 0, "a");
    cr_assert_str_eq(heard(2, &follower), "a");
    cr_assert_str_eq(heard(1, &leader), "");
}

Test(core_streams, promoted_follower_does_not_go_on_where_its_leader_stopped)
{
    const struct id leader = submit(1, true);
    const struct id follower = submit(2, true);
    chunk(&leader, 0, "a");
    chunk(&leader, 1, "b");
    const uint32_t before =
        world_find(&w, EFFECT_CHUNK, &follower, 2)->effect.as.chunk.header.attempt;
    world_job_event(&w, EVENT_CANCEL, 1, &leader);
    world_credit(&w, 100, 5);
    chunk(&follower, 0, "x");
    chunk(&follower, 1, "y");
    chunk(&follower, 2, "z");
    cr_assert(world_find(&w, EFFECT_CHUNK, &follower, 2)->effect.as.chunk.header.attempt > before);
    cr_assert_str_eq(heard(2, &follower), "ab");
}

Test(core_streams, leaders_next_attempt_is_another_one_of_the_follower_too)
{
    const struct id leader = submit(1, true);
    const struct id follower = submit(2, true);
    chunk(&leader, 0, "a");
    const struct lease_ref lease = world_lease(&w, &leader);
    world_result(&w, 100, &lease, WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED, 0);
    world_advance(&w, 1000);
    world_credit(&w, 100, 5);
    const struct id late = submit(3, true);
    chunk(&leader, 0, "x");
    chunk(&leader, 1, "y");
    cr_assert_str_eq(heard(2, &follower), "a");
    cr_assert_str_eq(heard(3, &late), "xy");
}

Test(core_streams, follower_whose_credit_is_used_up_goes_on_when_there_is_more)
{
    const struct id leader = submit(1, true);
    const struct id follower = submit(2, true);
    credit(2, &follower, 1);
    chunk(&leader, 0, "a");
    chunk(&leader, 1, "b");
    cr_assert_str_eq(heard(2, &follower), "a");
    credit(2, &follower, 5);
    chunk(&leader, 2, "c");
    cr_assert_str_eq(heard(2, &follower), "abc");
}

Test(core_streams, many_late_chunks_are_spread_over_the_turns)
{
    w.config.broker.stream_log_bytes_max = 1 << 20;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    const struct id job = submit(1, true);
    for (uint32_t i = 0; i < 1500; i++) {
        chunk(&job, i, "");
    }
    world_forget_log(&w);
    wait_for(2, &job);
    const size_t first = world_count(&w, EFFECT_CHUNK, &job);
    cr_assert(first > 0 && first < 1500);
    cr_assert_eq(core_next_deadline_ms(w.core), w.now.now_ms);
    world_tick(&w);
    cr_assert_eq(world_count(&w, EFFECT_CHUNK, &job), 1500);
    cr_assert_str_eq(heard(2, &job), "");
}

/* A chunk of one leader is many: of each of its followers, to each of their clients. */
Test(core_streams, many_followers_of_one_chunk_are_spread_over_the_turns)
{
    enum { FOLLOWERS = 1024, CLIENTS = 20, ALL = FOLLOWERS * CLIENTS };
    for (uint64_t peer = 5; peer <= CLIENTS; peer++) {
        world_client(&w, peer, "a");
    }
    const struct id leader = submit(1, false);
    static struct id followers[FOLLOWERS];
    for (size_t i = 0; i < FOLLOWERS; i++) {
        followers[i] = submit(1, true);
        for (uint64_t peer = 2; peer <= CLIENTS; peer++) {
            wait_for(peer, &followers[i]);
        }
    }
    chunk(&leader, 0, "a");
    cr_assert_leq(world_count(&w, EFFECT_CHUNK, NULL), ALL - 2000);
    chunk(&leader, 1, "b");
    world_advance(&w, 1);
    cr_assert_eq(world_count(&w, EFFECT_CHUNK, NULL), 2 * ALL);
    for (size_t i = 0; i < FOLLOWERS; i += 100) {
        cr_assert_str_eq(heard(1, &followers[i]), "ab");
        cr_assert_str_eq(heard(CLIENTS, &followers[i]), "ab");
    }
}

static void leave(uint64_t peer)
{
    world_turn(&w, &(struct event){.kind = EVENT_CLIENT_GONE, .peer = peer});
}

static int64_t patience_ms(void)
{
    return (STREAM_UNREAD_HEARTBEATS + 1) * w.config.broker.heartbeat_ms;
}

Test(core_streams, stream_that_nobody_reads_is_cancelled_on_a_tier_in_memory)
{
    const struct id job = submit(1, true);
    chunk(&job, 0, "a");
    leave(1);
    world_advance(&w, patience_ms());
    cr_assert_eq(world_count(&w, EFFECT_ATTEMPT_CANCEL, &job), 1);
    world_advance(&w, patience_ms());
    cr_assert_eq(world_count(&w, EFFECT_ATTEMPT_CANCEL, &job), 1);
}

Test(core_streams, reader_that_comes_back_in_time_gets_its_stream)
{
    const struct id job = submit(1, true);
    chunk(&job, 0, "a");
    leave(1);
    world_advance(&w, STREAM_UNREAD_HEARTBEATS * w.config.broker.heartbeat_ms - 1);
    world_client(&w, 5, "a");
    wait_for(5, &job);
    world_advance(&w, patience_ms());
    chunk(&job, 1, "b");
    cr_assert_str_eq(heard(5, &job), "ab");
    cr_assert_eq(world_count(&w, EFFECT_ATTEMPT_CANCEL, &job), 0);
}

Test(core_streams, stream_goes_on_while_somebody_waits_for_its_result)
{
    const struct id job = submit(1, true);
    chunk(&job, 0, "a");
    world_turn(&w, &(struct event){.kind = EVENT_WAIT, .peer = 2, .as.job = {.job_id = job}});
    leave(1);
    world_advance(&w, 2 * patience_ms());
    cr_assert_eq(world_count(&w, EFFECT_ATTEMPT_CANCEL, &job), 0);
}

Test(core_streams, stream_goes_on_while_somebody_follows_its_job)
{
    const struct id job = submit(1, true);
    (void)submit(2, false);
    chunk(&job, 0, "a");
    leave(1);
    world_advance(&w, 2 * patience_ms());
    cr_assert_eq(world_count(&w, EFFECT_ATTEMPT_CANCEL, &job), 0);
}

/* ---- readers that hold their stream ---- */

static uint64_t allowed(const struct id *job)
{
    uint64_t bytes_total = 0;
    for (size_t i = 0; i < w.log_length; i++) {
        const struct effect *effect = &w.log[i].effect;
        if (effect->kind == EFFECT_STREAM_ALLOWANCE &&
            id_equal(&effect->as.stream_allowance.lease.job_id, job)) {
            bytes_total = effect->as.stream_allowance.bytes_total;
        }
    }
    return bytes_total;
}

static struct id submit_with_credit(uint64_t peer, uint32_t chunks)
{
    struct event event = world_submission(&w, peer, "realtime");
    event.as.submit.stream = true;
    event.as.submit.stream_chunks = chunks;
    return world_submit_event(&w, &event);
}

/* Chunks that count 100 bytes each. */
static void chunks_of_100(const struct id *job, uint32_t from, uint32_t until)
{
    for (uint32_t i = from; i < until; i++) {
        chunk(job, i, "abcdefghijklmnopqrstuvwxyz0123456789");
    }
}

Test(core_streams, worker_is_told_at_first_how_far_it_may_go)
{
    const struct id job = submit_with_credit(1, 1);
    cr_assert_eq(world_find(&w, EFFECT_DISPATCH, &job, 0)->effect.as.dispatch.stream_bytes, 10000);
}

Test(core_streams, reader_that_keeps_up_lets_the_worker_go_on)
{
    const struct id job = submit_with_credit(1, 1000);
    chunks_of_100(&job, 0, 50);
    cr_assert_eq(allowed(&job), 15000);
    chunks_of_100(&job, 50, 200);
    cr_assert_geq(allowed(&job), 20000 + 5000);
}

Test(core_streams, reader_without_credit_holds_the_worker_and_loses_nothing)
{
    const struct id job = submit_with_credit(1, 10);
    chunks_of_100(&job, 0, 110);
    cr_assert_eq(allowed(&job), 0, "held at what the log may have: %" PRIu64, allowed(&job));
    credit(1, &job, 60);
    cr_assert_eq(allowed(&job), 7000 + 10000);
    chunks_of_100(&job, 110, 170);
    credit(1, &job, 1000);
    cr_assert_eq(strlen(heard(1, &job)), 170 * 36);
}

Test(core_streams, reader_that_is_held_up_holds_nobody_who_reads_or_waits)
{
    const struct id job = submit_with_credit(1, 10);
    chunks_of_100(&job, 0, 10);
    wait_for(2, &job); /* takes all */
    chunks_of_100(&job, 10, 300);
    cr_assert_geq(allowed(&job), 30000 + 5000);
    cr_assert_eq(strlen(heard(2, &job)), 300 * 36);
    credit(1, &job, 1000);
    cr_assert_eq(strlen(heard(1, &job)), 10 * 36, "what it lacks is not kept any more");
}

Test(core_streams, who_waits_for_the_result_alone_is_not_held_up)
{
    const struct id job = submit_with_credit(1, 10);
    chunks_of_100(&job, 0, 10);
    world_turn(&w, &(struct event){.kind = EVENT_WAIT, .peer = 2, .as.job = {.job_id = job}});
    chunks_of_100(&job, 10, 60);
    cr_assert_eq(allowed(&job), 15000);
}

Test(core_streams, reader_that_is_gone_holds_nobody)
{
    const struct id job = submit_with_credit(1, 10);
    chunks_of_100(&job, 0, 110);
    world_turn(&w, &(struct event){.kind = EVENT_CLIENT_GONE, .peer = 1});
    world_advance(&w, w.config.broker.heartbeat_ms + 1);
    cr_assert_eq(allowed(&job), 11000 + 10000);
}

Test(core_streams, answer_does_not_wait_for_its_reader_who_gets_the_rest_after_it)
{
    const struct id job = submit_with_credit(1, 1);
    chunk(&job, 0, "a");
    chunk(&job, 1, "b");
    chunk(&job, 2, "c");
    chunk_with(&job, 3, "d", FRAME_CHUNK_LAST);
    world_result(&w, 100, &(struct lease_ref){job, 1}, ANSWERED, 0);
    const struct effect *result = &world_find(&w, EFFECT_RESULT, &job, 1)->effect;
    cr_assert_eq(result->as.result.chunks, 4);
    cr_assert_str_eq(heard(1, &job), "a");
    credit(1, &job, 2);
    cr_assert_str_eq(heard(1, &job), "abc");
    credit(1, &job, 5);
    cr_assert_str_eq(heard(1, &job), "abcd");
    credit(1, &job, 5);
    cr_assert_str_eq(heard(1, &job), "abcd");
}

Test(core_streams, result_says_that_nothing_follows_when_the_reader_has_all_or_took_what_came)
{
    const struct id job = submit_with_credit(1, 10);
    chunk_with(&job, 0, "a", FRAME_CHUNK_LAST);
    world_result(&w, 100, &(struct lease_ref){job, 1}, ANSWERED, 0);
    cr_assert_eq(world_find(&w, EFFECT_RESULT, &job, 1)->effect.as.result.chunks, 0);
}

Test(core_streams, rest_goes_with_its_reader)
{
    const struct id job = submit_with_credit(1, 1);
    chunk(&job, 0, "a");
    chunk_with(&job, 1, "b", FRAME_CHUNK_LAST);
    world_result(&w, 100, &(struct lease_ref){job, 1}, ANSWERED, 0);
    world_turn(&w, &(struct event){.kind = EVENT_CLIENT_GONE, .peer = 1});
    world_client(&w, 1, "a");
    credit(1, &job, 5);
    cr_assert_str_eq(heard(1, &job), "a");
}

/* As one that has submitted a job for nobody to wait for, and waits for it then. */
Test(core_streams, reader_that_took_all_has_credit_from_when_it_says_so)
{
    const struct id job = submit(1, true);
    chunk(&job, 0, "a");
    const struct event wait = {.kind = EVENT_WAIT,
                               .peer = 1,
                               .as.job = {.job_id = job, .stream = true, .stream_chunks = 2}};
    world_turn(&w, &wait);
    chunk(&job, 1, "b");
    chunk(&job, 2, "c");
    chunk(&job, 3, "d");
    cr_assert_str_eq(heard(1, &job), "abc");
    world_turn(&w, &wait);
    cr_assert_str_eq(heard(1, &job), "abc");
}

Test(core_streams, stream_that_its_client_does_not_read_is_there_for_others)
{
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.stream = event.as.submit.stream_unread = true;
    const struct id job = world_submit_event(&w, &event);
    chunk(&job, 0, "a");
    world_turn(&w, &(struct event){.kind = EVENT_WAIT, .peer = 2, .as.job = {.job_id = job, .stream = true, .stream_chunks = 1}});
    chunk(&job, 1, "b");
    credit(2, &job, 5);
    chunk_with(&job, 2, "c", FRAME_CHUNK_LAST);
    world_result(&w, 100, &(struct lease_ref){job, 1}, ANSWERED, 0);
    cr_assert_str_eq(heard(1, &job), "");
    cr_assert_str_eq(heard(2, &job), "abc");
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &job, 1));
}

Test(core_streams, submission_that_reads_nothing_turns_off_no_reader_of_its_client)
{
    struct event event = world_submission(&w, 1, "realtime");
    event.as.submit.stream = true;
    event.as.submit.stream_chunks = 8;
    event.as.submit.idempotency_key = "k";
    const struct id job = world_submit_event(&w, &event);
    chunk(&job, 0, "a");
    struct event again = world_submission(&w, 1, "realtime");
    again.as.submit.stream = again.as.submit.stream_unread = true;
    again.as.submit.idempotency_key = "k";
    (void)world_submit_event(&w, &again);
    chunk_with(&job, 1, "b", FRAME_CHUNK_LAST);
    cr_assert_str_eq(heard(1, &job), "ab");
}

Test(core_streams, follower_that_its_client_does_not_read_is_there_for_others)
{
    static const uint8_t key[16] = {1};
    world_worker(&w, 100, "w", 0);
    const struct id leader = submit(1, false);
    struct event event = world_submission(&w, 2, "realtime");
    event.as.submit.stream = event.as.submit.stream_unread = true;
    event.as.submit.canonical_key = key;
    (void)world_submit_event(&w, &event);
    world_worker(&w, 100, "w", 1);
    cr_assert(world_find(&w, EFFECT_DISPATCH, &leader, 100)->effect.as.dispatch.stream);
}

/* So many followers are concluded in one turn, and the others later. */
Test(core_streams, follower_that_is_concluded_later_gives_credit_for_its_rest_before)
{
    enum { OTHERS = 2500 };
    static const uint8_t key[16] = {1};
    const struct id leader = submit(1, true);
    for (int i = 0; i < OTHERS; i++) {
        (void)submit(1, false);
    }
    struct event event = world_submission(&w, 2, "realtime");
    event.as.submit.stream = true;
    event.as.submit.stream_chunks = 1;
    event.as.submit.canonical_key = key;
    const struct id last = world_submit_event(&w, &event);
    chunk(&leader, 0, "a");
    chunk(&leader, 1, "b");
    chunk_with(&leader, 2, "c", FRAME_CHUNK_LAST);
    world_result(&w, 100, &(struct lease_ref){leader, 1}, ANSWERED, 0);
    cr_assert_null(world_find(&w, EFFECT_RESULT, &last, 2));
    credit(2, &last, 5);
    world_advance(&w, 1);
    cr_assert_not_null(world_find(&w, EFFECT_RESULT, &last, 2));
    cr_assert_str_eq(heard(2, &last), "abc");
}

/* An answered stream of which this reader has the first of two chunks. Returns whether the rest is
 * kept. */
static bool leaves_a_rest(uint64_t peer)
{
    const struct id job = submit_with_credit(peer, 1);
    chunk(&job, 0, "a");
    chunk_with(&job, 1, "b", FRAME_CHUNK_LAST);
    world_result(&w, 100, &(struct lease_ref){job, 1}, ANSWERED, 0);
    const bool is_kept = world_find(&w, EFFECT_RESULT, &job, peer)->effect.as.result.chunks > 0;
    world_forget_log(&w);
    world_credit(&w, 100, ++credits);
    return is_kept;
}

Test(core_streams, rests_of_one_tenant_leave_room_for_those_of_others)
{
    uint32_t kept = 0;
    world_client(&w, 5, "b");
    while (kept < 1100 && leaves_a_rest(1)) {
        kept++;
    }
    cr_assert_eq(kept, 1024);
    cr_assert(leaves_a_rest(5));
    world_turn(&w, &(struct event){.kind = EVENT_CLIENT_GONE, .peer = 1});
    world_client(&w, 1, "a");
    cr_assert(leaves_a_rest(1), "what is gone counts no more");
}

/* Its worker goes by what it was told, and holds the call there. */
Test(core_streams, log_that_was_enlarged_after_the_dispatch_lets_the_worker_go_on)
{
    const struct id job = submit_with_credit(1, 1000);
    w.config.broker.stream_log_bytes_max = 100000;
    cr_assert_eq(core_reconfigure(w.core, &w.config, w.now), 0);
    chunks_of_100(&job, 0, 100);
    cr_assert_geq(allowed(&job), 10000 + 5000);
}

static size_t times_allowed(void)
{
    size_t times = 0;
    for (size_t i = 0; i < w.log_length; i++) {
        times += w.log[i].effect.kind == EFFECT_STREAM_ALLOWANCE;
    }
    return times;
}

static void come_back(enum event_kind kind, uint64_t peer, const struct lease_ref *held)
{
    struct event event = {.kind = kind, .peer = peer};
    if (kind == EVENT_WORKER_HELLO) {
        event.as.worker_hello.name = "w";
        event.as.worker_hello.slots = 4;
        event.as.worker_hello.held = held;
        event.as.worker_hello.held_length = 1;
    } else {
        event.as.worker_heartbeat.held = held;
        event.as.worker_heartbeat.held_length = 1;
    }
    world_turn(&w, &event);
}

Test(core_streams, worker_that_comes_back_is_told_again_and_one_that_was_there_is_not)
{
    const struct id job = submit_with_credit(1, 10);
    const struct lease_ref lease = world_lease(&w, &job);
    come_back(EVENT_WORKER_HELLO, 100, &lease);
    cr_assert_eq(allowed(&job), 10000, "before its first chunk, too");
    chunks_of_100(&job, 0, 20);
    come_back(EVENT_WORKER_HELLO, 100, &lease);
    cr_assert_eq(times_allowed(), 2);
    come_back(EVENT_WORKER_HEARTBEAT, 100, &lease);
    cr_assert_eq(times_allowed(), 2);
}

/* It goes by what it was told of the lease that was lost. */
Test(core_streams, worker_that_comes_back_with_a_lost_lease_is_told_that_nothing_bounds_it)
{
    const struct id job = submit_with_credit(1, 10);
    chunk(&job, 0, "a");
    const struct lease_ref lease = world_lease(&w, &job);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_GONE, .peer = 100});
    come_back(EVENT_WORKER_HELLO, 100, &lease);
    cr_assert_eq(times_allowed(), 1);
    cr_assert_eq(allowed(&job), 0);
}

/* It may have sent all that it was allowed, and waits for word of it. */
Test(core_streams, worker_that_comes_back_having_lost_chunks_is_held_no_more)
{
    const struct id job = submit_with_credit(1, 10);
    const struct lease_ref lease = world_lease(&w, &job);
    const uint32_t sent = 3;
    chunk(&job, 0, "a");
    chunk(&job, 1, "b");
    struct event event = {
        .kind = EVENT_WORKER_HELLO,
        .peer = 100,
        .as.worker_hello = {
            .name = "w", .slots = 4, .held = &lease, .held_chunks = &sent, .held_length = 1}};
    world_turn(&w, &event);
    cr_assert_eq(times_allowed(), 1);
    cr_assert_eq(allowed(&job), 0);
    chunk(&job, 3, "d");
    cr_assert_eq(times_allowed(), 1);
}

static struct core_stats stats(void)
{
    struct core_stats stats;
    core_read_stats(w.core, w.now, &stats);
    return stats;
}

Test(core_streams, what_is_held_and_kept_is_counted)
{
    const struct id job = submit_with_credit(1, 10);
    chunks_of_100(&job, 0, 99);
    cr_assert_eq(stats().streams, 1);
    cr_assert_eq(stats().streams_held, 0);
    chunks_of_100(&job, 99, 100);
    cr_assert_eq(stats().streams_held, 1);
    cr_assert_eq(stats().stream_log_bytes, 10000);
    world_result(&w, 100, &(struct lease_ref){job, 1}, ANSWERED, 0);
    cr_assert_eq(stats().streams, 0);
    cr_assert_eq(stats().streams_held, 0);
    cr_assert_eq(stats().stream_log_bytes, 0);
    cr_assert_eq(stats().stream_rests, 1);
    cr_assert_eq(stats().stream_rest_bytes, 9000);
    credit(1, &job, 1000);
    cr_assert_eq(stats().stream_rests, 0);
    cr_assert_eq(stats().stream_rest_bytes, 0);
}
