/* The library against a broker that answers, forgets, refuses, vanishes, and talks nonsense. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "client/client.h"
#include "client/tiermq.h"
#include "common/clock.h"
#include "common/frame.h"
#include "common/link.h"
#include "common/loop.h"
#include "tests/unit/client/fake_broker.h"

#define CHAT(text) "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"" text "\"}}]}"

/* What came back to one caller. */
struct heard {
    struct tiermq *client;
    size_t accepted, answers, chunks;
    bool duplicate;
    enum tiermq_state state;
    tiermq_id id, known_as;
    char text[256], code[64], reason[512], streamed[256];
    int64_t retry_after_ms;
    uint64_t cost_nanousd;
    bool is_last;
    int blocking_result;
};

static void hear_accepted(void *context, const tiermq_id *id, bool duplicate)
{
    struct heard *heard = context;
    heard->accepted++;
    heard->id = *id;
    heard->duplicate = duplicate;
}

static void hear_answer(void *context, const struct tiermq_answer *answer)
{
    struct heard *heard = context;
    heard->answers++;
    heard->id = answer->id;
    heard->known_as = answer->known_as;
    heard->state = answer->state;
    heard->retry_after_ms = answer->retry_after_ms;
    heard->cost_nanousd = answer->cost_nanousd;
    snprintf(heard->text, sizeof(heard->text), "%s", answer->text);
    snprintf(heard->code, sizeof(heard->code), "%s", answer->error_code);
    snprintf(heard->reason, sizeof(heard->reason), "%s", answer->error_text);
    if (heard->client != NULL) {
        struct tiermq_answer *inner = NULL;
        heard->blocking_result = tiermq_wait(heard->client, &answer->id, 1000, &inner);
    }
}

static void hear_chunk(void *context, const tiermq_id *id, const void *data, size_t bytes, bool last)
{
    (void)id;
    struct heard *heard = context;
    heard->chunks++;
    heard->is_last = last;
    snprintf(heard->streamed + strlen(heard->streamed), sizeof(heard->streamed) - strlen(heard->streamed), "%.*s",
             (int)bytes, (const char *)data);
}

static struct tiermq_callbacks hear(struct heard *heard)
{
    return (struct tiermq_callbacks){
        .on_accepted = hear_accepted, .on_chunk = hear_chunk, .on_answer = hear_answer, .context = heard};
}

static struct fake_broker broker, other;
static struct tiermq *client;

static void open_client(const struct tiermq_options *more)
{
    struct tiermq_options options = more == NULL ? (struct tiermq_options){0} : *more;
    char brokers[2 * FAKE_ENDPOINT_BYTES + 2];
    snprintf(brokers, sizeof(brokers), "%s%s%s", broker.endpoint, other.loop == NULL ? "" : ",", other.endpoint);
    options.brokers = brokers;
    cr_assert_eq(tiermq_connect(&options, &client), 0);
}

static void setup(void)
{
    fake_broker_start(&broker);
    open_client(NULL);
}

static void teardown(void)
{
    tiermq_close(&client);
    fake_broker_finish(&broker);
    if (other.loop != NULL) {
        fake_broker_finish(&other);
    }
}

static tiermq_id public_id(const struct id *id)
{
    tiermq_id same;
    memcpy(same.bytes, id->bytes, sizeof(same.bytes));
    return same;
}

static struct id submit(struct heard *heard, struct tiermq_job job)
{
    tiermq_id id;
    struct id same;
    job.prompt = job.prompt == NULL && job.body == NULL ? "hello" : job.prompt;
    cr_assert_eq(tiermq_submit_async(client, &job, &(struct tiermq_callbacks){hear_accepted, hear_chunk, hear_answer, heard}, &id),
                 0, "%s", tiermq_last_error(client));
    memcpy(same.bytes, id.bytes, sizeof(same.bytes));
    return same;
}

static struct id submit_and_accept(struct heard *heard, struct tiermq_job job)
{
    const size_t before = broker.submits_length;
    const struct id id = submit(heard, job);
    fake_broker_run(&broker, client, &broker.submits_length, before + 1);
    fake_accept(&broker, &id, NULL);
    fake_broker_run(&broker, client, &heard->accepted, 1);
    return id;
}

TestSuite(client, .init = setup, .fini = teardown, .timeout = 60);

Test(client, job_goes_out_and_its_answer_comes_back_and_is_collected)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.tier = "realtime", .prompt = "what is \"x\"?"});
    cr_assert_str_eq(broker.submits[0].tier, "realtime");
    cr_assert_str_eq(broker.submits[0].route, "auto");
    cr_assert_str_eq(broker.submits[0].body, "{\"messages\":[{\"role\":\"user\",\"content\":\"what is \\\"x\\\"?\"}]}");
    cr_assert_eq(tiermq_pending(client), 1);

    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("a letter"));
    fake_broker_run(&broker, client, &broker.collected_length, 1);
    cr_assert_eq(heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_SUCCEEDED);
    cr_assert_str_eq(heard.text, "a letter");
    cr_assert_eq(heard.cost_nanousd, 1500);
    cr_assert(id_equal(&broker.collected[0], &id));
    cr_assert_eq(tiermq_pending(client), 0);
}

Test(client, jobs_of_one_turn_travel_in_one_message)
{
    struct heard heard = {0};
    const size_t ready = 1;
    fake_broker_run(&broker, client, &broker.hellos, ready);
    fake_broker_settle(&broker, client);
    for (int i = 0; i < 200; i++) {
        submit(&heard, (struct tiermq_job){0});
    }
    fake_broker_run(&broker, client, &broker.submits_length, 200);
    cr_assert_eq(broker.messages, 1);
}

Test(client, second_result_is_not_a_second_answer)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){0});
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("one"));
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_DEAD, NULL);
    fake_broker_settle(&broker, client);
    cr_assert_eq(heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_SUCCEEDED);
}

Test(client, restarted_broker_gets_what_it_had_not_accepted_again)
{
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){.prompt = "again"});
    fake_broker_run(&broker, client, &broker.submits_length, 1);
    fake_broker_stop(&broker);
    fake_broker_start(&broker);
    fake_broker_run(&broker, client, &broker.submits_length, 2);
    cr_assert(id_equal(&broker.submits[1].id, &id));
    cr_assert_str_eq(broker.submits[0].body, broker.submits[1].body);
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("yes"));
    fake_broker_run(&broker, client, &heard.answers, 1);
}

Test(client, restarted_broker_is_asked_for_what_it_had_accepted)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){0});
    fake_broker_stop(&broker);
    fake_broker_start(&broker);
    fake_broker_run(&broker, client, &broker.waits_length, 1);
    cr_assert(id_equal(&broker.waits[0], &id));
    cr_assert_eq(broker.submits_length, 1);
}

Test(client, accepted_job_that_a_restart_forgot_is_submitted_again)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.prompt = "memory tier", .deadline_ms = 60000});
    fake_broker_stop(&broker);
    fake_broker_start(&broker);
    fake_broker_run(&broker, client, &broker.waits_length, 1);
    fake_status(&broker, &id, WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
    fake_broker_run(&broker, client, &broker.submits_length, 2);
    cr_assert(id_equal(&broker.submits[1].id, &id));
    cr_assert_leq(broker.submits[1].deadline_in_ms, 60000);
    fake_accept(&broker, &id, NULL);
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("yes"));
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.accepted, 1); /* said once, whatever the wire repeats */
}

Test(client, forgotten_job_past_its_deadline_is_lost)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.deadline_ms = 50});
    /* The broker stays silent on it: two seconds after the deadline the client asks. */
    fake_broker_run(&broker, client, &broker.waits_length, 1);
    fake_status(&broker, &id, WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_LOST);
}

static void reopen_without_retries(void)
{
    tiermq_close(&client);
    open_client(&(struct tiermq_options){.retry_ms = TIERMQ_RETRY_NONE});
}

Test(client, rejection_says_why_and_when_to_try_again)
{
    struct heard heard = {0};
    reopen_without_retries();
    const struct id id = submit(&heard, (struct tiermq_job){0});
    fake_broker_run(&broker, client, &broker.submits_length, 1);
    fake_reject(&broker, &id, WIRE__REJECT_REASON__REJECT_QUEUE_FULL, 250);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_REJECTED);
    cr_assert_str_eq(heard.code, "queue_full");
    cr_assert_eq(heard.retry_after_ms, 250);
    cr_assert_eq(broker.collected_length, 0);
}

/* Turns both until the job has been submitted `count` times; returns how long that took. */
static int64_t run_until_submitted(size_t count)
{
    const int64_t before_ms = clock_monotonic_ms();
    fake_broker_run(&broker, client, &broker.submits_length, count);
    return clock_monotonic_ms() - before_ms;
}

Test(client, what_is_refused_for_now_is_submitted_again_but_not_before_it_was_told)
{
    const Wire__RejectReason reasons[] = {
        WIRE__REJECT_REASON__REJECT_QUEUE_FULL, WIRE__REJECT_REASON__REJECT_DEADLINE,
        WIRE__REJECT_REASON__REJECT_STORAGE, WIRE__REJECT_REASON__REJECT_DRAINING,
        WIRE__REJECT_REASON__REJECT_PAUSED};
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){.deadline_ms = 60000});
    (void)run_until_submitted(1);
    for (size_t i = 0; i < 5; i++) {
        const int64_t sent_ms = clock_monotonic_ms();
        fake_reject(&broker, &id, reasons[i], 200);
        (void)run_until_submitted(i + 2);
        cr_assert_geq(clock_monotonic_ms() - sent_ms, 200);
        cr_assert(id_equal(&broker.submits[i + 1].id, &id));
        cr_assert_leq(broker.submits[i + 1].deadline_in_ms, 60000 - 200 * (i + 1));
    }
    cr_assert_eq(heard.answers, 0);
    fake_accept(&broker, &id, NULL);
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("at last"));
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_str_eq(heard.text, "at last");
}

Test(client, refusal_is_the_answer_when_no_time_is_left_for_another_try)
{
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){.deadline_ms = 5000});
    (void)run_until_submitted(1);
    fake_reject(&broker, &id, WIRE__REJECT_REASON__REJECT_QUEUE_FULL, 5000);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_REJECTED);
    cr_assert_str_eq(heard.code, "queue_full");
    cr_assert_eq(heard.retry_after_ms, 5000);
}

Test(client, refusal_for_longer_than_a_long_deadline_is_the_answer_too)
{
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){.deadline_ms = 30 * 60000});
    (void)run_until_submitted(1);
    fake_reject(&broker, &id, WIRE__REJECT_REASON__REJECT_DEADLINE, 60 * 60000);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_REJECTED);
    cr_assert_eq(heard.retry_after_ms, 60 * 60000);
}

Test(client, what_will_never_be_taken_is_not_submitted_again)
{
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){0});
    (void)run_until_submitted(1);
    fake_reject(&broker, &id, WIRE__REJECT_REASON__REJECT_INVALID, 0);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_REJECTED);
    cr_assert_eq(broker.submits_length, 1);
}

Test(client, job_without_a_deadline_is_tried_again_for_as_long_as_the_options_say)
{
    struct heard heard = {0};
    tiermq_close(&client);
    open_client(&(struct tiermq_options){.retry_ms = 1000});
    const struct id id = submit(&heard, (struct tiermq_job){0});
    (void)run_until_submitted(1);
    fake_reject(&broker, &id, WIRE__REJECT_REASON__REJECT_PAUSED, 100);
    (void)run_until_submitted(2);
    fake_reject(&broker, &id, WIRE__REJECT_REASON__REJECT_PAUSED, 1000);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_REJECTED);
}

Test(client, shed_job_is_submitted_again_under_its_id)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.deadline_ms = 60000});
    const int64_t sent_ms = clock_monotonic_ms();
    fake_shed(&broker, &id, 200);
    (void)run_until_submitted(2);
    cr_assert_geq(clock_monotonic_ms() - sent_ms, 200);
    cr_assert(id_equal(&broker.submits[1].id, &id));
    fake_accept(&broker, &id, NULL);
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("yes"));
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_SUCCEEDED);
    cr_assert_eq(heard.accepted, 1);
}

Test(client, wait_of_hours_is_spread_over_a_minute_at_most)
{
    const int64_t until_midnight_ms = 20 * 3600 * INT64_C(1000);
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){.deadline_ms = 48 * 3600 * INT64_C(1000)});
    (void)run_until_submitted(1);
    fake_reject(&broker, &id, WIRE__REJECT_REASON__REJECT_BUDGET, (uint64_t)until_midnight_ms);
    fake_broker_settle(&broker, client);
    int64_t retry_after_ms = 0;
    cr_assert_not_null(tiermq_refusal(client, &retry_after_ms));
    cr_assert(retry_after_ms > until_midnight_ms - 10000 && retry_after_ms <= until_midnight_ms + 60000,
              "%lld", (long long)retry_after_ms);
}

/* Tomorrow, when the budget is refilled, but the tier is full: not another day later. */
Test(client, what_waited_for_hours_is_held_back_for_minutes)
{
    enum { JOBS = 20 };
    const int64_t day_ms = 24 * 3600 * INT64_C(1000);
    static struct heard heard[JOBS];
    for (int i = 0; i < JOBS; i++) {
        submit(&heard[i], (struct tiermq_job){.deadline_ms = 3 * day_ms});
    }
    (void)run_until_submitted(JOBS);
    for (int i = 0; i < JOBS; i++) {
        fake_reject(&broker, &broker.submits[i].id, WIRE__REJECT_REASON__REJECT_BUDGET, (uint64_t)day_ms);
    }
    fake_broker_settle(&broker, client);
    const int64_t tomorrow_ms = clock_monotonic_ms() + day_ms + 120000;
    for (int i = 0; i < CLIENT_THROTTLES * 1000; i++) {
        throttle_note_request(&client->shards[0].throttles[i % CLIENT_THROTTLES], tomorrow_ms);
    }
    retry_tick(client, tomorrow_ms);
    cr_assert_leq(retry_next_ms(client), tomorrow_ms + 120000);
}

Test(client, shed_job_is_told_when_it_is_not_to_be_tried_again)
{
    struct heard heard = {0};
    reopen_without_retries();
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.deadline_ms = 60000});
    fake_shed(&broker, &id, 200);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_EXPIRED);
    cr_assert_str_eq(heard.code, "shed");
    cr_assert_eq(heard.retry_after_ms, 200);
}

Test(client, job_that_waits_for_another_try_is_cancelled_here)
{
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){0});
    (void)run_until_submitted(1);
    fake_reject(&broker, &id, WIRE__REJECT_REASON__REJECT_QUEUE_FULL, 60000);
    fake_broker_settle(&broker, client);
    int64_t retry_after_ms = 0;
    cr_assert_str_eq(tiermq_refusal(client, &retry_after_ms), "queue_full: no room");
    cr_assert(retry_after_ms > 50000 && retry_after_ms <= 75000);
    const tiermq_id same = public_id(&id);
    cr_assert_eq(tiermq_cancel(client, &same), 0);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_CANCELLED);
    cr_assert_str_eq(heard.reason, "cancelled while it was refused for now; the last time: queue_full: no room");
    cr_assert_str_eq(tiermq_refusal(client, NULL), "");
    cr_assert_eq(broker.submits_length, 1);
}

Test(client, refusal_is_that_of_a_job_that_still_waits)
{
    struct heard first = {0}, last = {0};
    int64_t retry_after_ms = 0;
    const struct id waits = submit(&first, (struct tiermq_job){0});
    (void)run_until_submitted(1);
    fake_reject(&broker, &waits, WIRE__REJECT_REASON__REJECT_PAUSED, 60000);
    fake_broker_settle(&broker, client);
    const struct id goes_on = submit(&last, (struct tiermq_job){0});
    (void)run_until_submitted(2);
    fake_reject(&broker, &goes_on, WIRE__REJECT_REASON__REJECT_QUEUE_FULL, 1000);
    fake_broker_settle(&broker, client);
    cr_assert_str_eq(tiermq_refusal(client, NULL), "queue_full: no room");
    (void)run_until_submitted(3);
    cr_assert_str_eq(tiermq_refusal(client, &retry_after_ms), "paused");
    cr_assert(retry_after_ms > 50000 && retry_after_ms <= 75000);
    fake_accept(&broker, &goes_on, NULL);
    fake_broker_run(&broker, client, &last.accepted, 1);
    cr_assert_str_eq(tiermq_refusal(client, NULL), "paused");
}

Test(client, job_that_waits_for_another_try_is_not_asked_for_all_the_time)
{
    struct heard heard = {0}, more = {0};
    const struct id id = submit(&heard, (struct tiermq_job){0});
    (void)run_until_submitted(1);
    fake_reject(&broker, &id, WIRE__REJECT_REASON__REJECT_QUEUE_FULL, 60000);
    fake_broker_settle(&broker, client);
    const tiermq_id same = public_id(&id);
    const struct tiermq_callbacks callbacks = hear(&more);
    cr_assert_eq(tiermq_wait_async(client, &same, &callbacks), 0);
    const int64_t until_ms = clock_monotonic_ms() + 1000;
    for (size_t answered = 0; clock_monotonic_ms() < until_ms;) {
        cr_assert_eq(tiermq_dispatch(client, 1), 0);
        cr_assert_eq(loop_turn(broker.loop, 1), 0);
        for (; answered < broker.waits_length; answered++) {
            fake_status(&broker, &id, WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
        }
    }
    cr_assert_lt(broker.waits_length, 10, "%zu", broker.waits_length);
    cr_assert_eq(more.answers, 0);
}

Test(client, job_whose_cancellation_meets_a_refusal_is_not_tried_again)
{
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){0});
    (void)run_until_submitted(1);
    const tiermq_id same = public_id(&id);
    cr_assert_eq(tiermq_cancel(client, &same), 0);
    fake_reject(&broker, &id, WIRE__REJECT_REASON__REJECT_QUEUE_FULL, 100);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_REJECTED);
    fake_broker_settle(&broker, client);
    cr_assert_eq(broker.submits_length, 1);
}

Test(client, hello_that_is_refused_for_now_is_said_again_and_its_jobs_wait)
{
    struct heard heard = {0};
    tiermq_close(&client);
    fake_broker_stop(&broker);
    broker.refuses = true;
    broker.refuses_for_ms = 300;
    fake_broker_start(&broker);
    open_client(NULL);
    const size_t before = broker.hellos;
    const struct id id = submit(&heard, (struct tiermq_job){.deadline_ms = 60000});
    fake_broker_run(&broker, client, &broker.hellos, before + 1);
    const int64_t refused_ms = clock_monotonic_ms();
    fake_broker_run(&broker, client, &broker.hellos, before + 2);
    cr_assert_geq(clock_monotonic_ms() - refused_ms, 300 - 10); /* it was sent before it was counted here */
    cr_assert_eq(heard.answers, 0);
    broker.refuses = false;
    (void)run_until_submitted(1);
    cr_assert(id_equal(&broker.submits[0].id, &id));
}

Test(client, hello_that_is_refused_for_longer_than_a_deadline_refuses_its_job)
{
    struct heard heard = {0};
    tiermq_close(&client);
    fake_broker_stop(&broker);
    broker.refuses = true;
    broker.refuses_for_ms = 30000;
    fake_broker_start(&broker);
    open_client(NULL);
    (void)submit(&heard, (struct tiermq_job){.deadline_ms = 10000});
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_REJECTED);
    cr_assert_eq(heard.retry_after_ms, 30000);
}

Test(client, job_in_doubt_whose_client_is_refused_has_an_unknown_outcome)
{
    struct heard heard = {0};
    (void)submit(&heard, (struct tiermq_job){0});
    fake_broker_run(&broker, client, &broker.submits_length, 1);
    fake_broker_stop(&broker); /* it may have taken the job, and cannot say so any more */
    broker.refuses = true;
    fake_broker_start(&broker);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_LOST);
}

/* The broker of a test whose client blocks: refuses the first ones, accepts the others. */
struct refuser {
    size_t refusals;
    uint64_t retry_after_ms;
    atomic_bool is_over;
};

static void *refuse_first(void *context)
{
    struct refuser *refuser = context;
    for (size_t seen = 0; !atomic_load(&refuser->is_over);) {
        cr_assert_eq(loop_turn(broker.loop, 5), 0);
        for (; seen < broker.submits_length; seen++) {
            if (seen < refuser->refusals) {
                fake_reject(&broker, &broker.submits[seen].id, WIRE__REJECT_REASON__REJECT_QUEUE_FULL,
                            refuser->retry_after_ms);
            } else {
                fake_accept(&broker, &broker.submits[seen].id, NULL);
            }
        }
    }
    return NULL;
}

static int submit_blocking(struct refuser *refuser, int64_t timeout_ms, int64_t *ret_retry_after_ms)
{
    pthread_t thread;
    tiermq_id id;
    cr_assert_eq(pthread_create(&thread, NULL, refuse_first, refuser), 0);
    const int r = tiermq_submit(client, &(struct tiermq_job){.prompt = "x"}, timeout_ms, &id, ret_retry_after_ms);
    atomic_store(&refuser->is_over, true);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    return r;
}

Test(client, blocking_submit_comes_back_when_it_was_told_to)
{
    struct refuser refuser = {.refusals = 2, .retry_after_ms = 150};
    const int64_t before_ms = clock_monotonic_ms();
    int64_t retry_after_ms = -1;
    cr_assert_eq(submit_blocking(&refuser, 20000, &retry_after_ms), 0, "%s", tiermq_last_error(client));
    cr_assert_geq(clock_monotonic_ms() - before_ms, 300);
    cr_assert_eq(broker.submits_length, 3);
}

Test(client, blocking_submit_does_not_wait_for_what_comes_too_late)
{
    struct refuser refuser = {.refusals = 1, .retry_after_ms = 60000};
    const int64_t before_ms = clock_monotonic_ms();
    int64_t retry_after_ms = -1;
    cr_assert_eq(submit_blocking(&refuser, 30000, &retry_after_ms), -EAGAIN);
    cr_assert_lt(clock_monotonic_ms() - before_ms, 15000);
    cr_assert_eq(retry_after_ms, 60000);
    cr_assert_not_null(strstr(tiermq_last_error(client), "queue_full"));
}

/*
 * A full queue refuses all for two seconds, each for 100 ms: without the throttle every job would come some 17 times. A slow
 * machine sends fewer, never more.
 */
Test(client, jobs_hold_back_while_most_is_refused)
{
    enum { JOBS = 100, REFUSED_MS = 2000 };
    static struct heard heard[JOBS];
    for (int i = 0; i < JOBS; i++) {
        submit(&heard[i], (struct tiermq_job){.deadline_ms = 60000});
    }
    (void)run_until_submitted(JOBS);
    const int64_t until_ms = clock_monotonic_ms() + REFUSED_MS;
    size_t refused = 0;
    while (clock_monotonic_ms() < until_ms) {
        for (; refused < broker.submits_length; refused++) {
            fake_reject(&broker, &broker.submits[refused].id, WIRE__REJECT_REASON__REJECT_QUEUE_FULL, 100);
        }
        fake_broker_run(&broker, client, &broker.submits_length, refused + 1);
    }
    cr_assert_geq(broker.submits_length, 2 * JOBS);
    cr_assert_leq(broker.submits_length, 10 * JOBS, "%zu submissions", broker.submits_length);
    size_t answers = 0;
    for (size_t taken = refused; answers < JOBS;) { /* and all are done at last */
        for (; taken < broker.submits_length; taken++) {
            fake_accept(&broker, &broker.submits[taken].id, NULL);
            fake_result(&broker, &broker.submits[taken].id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("x"));
        }
        fake_broker_settle(&broker, client);
        answers = 0;
        for (int i = 0; i < JOBS; i++) {
            answers += heard[i].answers;
        }
    }
}

Test(client, refused_tenant_refuses_every_job)
{
    struct heard heard = {0};
    broker.refuses = true;
    submit(&heard, (struct tiermq_job){0});
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_REJECTED);
    cr_assert_not_null(strstr(tiermq_connection_error(client), "nobody"));
}

Test(client, accepted_job_outlives_a_refused_hello)
{
    struct heard kept = {0}, refused = {0};
    const struct id id = submit_and_accept(&kept, (struct tiermq_job){0});
    fake_broker_stop(&broker);
    broker.refuses = true;
    fake_broker_start(&broker);
    (void)submit(&refused, (struct tiermq_job){0});
    fake_broker_run(&broker, client, &refused.answers, 1);
    cr_assert_eq(refused.state, TIERMQ_LOST); /* it was sent to a broker that had gone unnoticed */
    cr_assert_eq(kept.answers, 0);
    broker.refuses = false;
    fake_broker_run(&broker, client, &broker.waits_length, 1);
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("yes"));
    fake_broker_run(&broker, client, &kept.answers, 1);
    cr_assert_eq(kept.state, TIERMQ_SUCCEEDED);
}

Test(client, payload_beyond_the_brokers_bound_is_refused_here)
{
    struct heard heard = {0};
    char prompt[5000];
    memset(prompt, 'a', sizeof(prompt) - 1);
    prompt[sizeof(prompt) - 1] = '\0';
    submit(&heard, (struct tiermq_job){.prompt = prompt});
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_REJECTED);
    cr_assert_str_eq(heard.code, "too_large");
    cr_assert_eq(broker.submits_length, 0);
}

Test(client, job_known_under_an_earlier_id_gets_the_earlier_jobs_answer)
{
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){.idempotency_key = "order-17"});
    const struct id earlier = {{1, 2, 3}};
    fake_broker_run(&broker, client, &broker.submits_length, 1);
    fake_accept(&broker, &id, &earlier);
    fake_broker_run(&broker, client, &broker.waits_length, 1);
    cr_assert(id_equal(&broker.waits[0], &earlier));
    fake_result(&broker, &earlier, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("same"));
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert(heard.duplicate);
    cr_assert_arr_eq(heard.id.bytes, id.bytes, sizeof(id.bytes));
    cr_assert_arr_eq(heard.known_as.bytes, earlier.bytes, sizeof(earlier.bytes));
}

Test(client, job_known_under_an_earlier_id_is_cancelled_under_that)
{
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){.idempotency_key = "order-17"});
    const struct id earlier = {{1, 2, 3}};
    tiermq_id ours;
    memcpy(ours.bytes, id.bytes, sizeof(ours.bytes));
    fake_broker_run(&broker, client, &broker.submits_length, 1);
    fake_accept(&broker, &id, &earlier);
    fake_broker_run(&broker, client, &broker.waits_length, 1);
    cr_assert_eq(tiermq_cancel(client, &ours), 0);
    fake_broker_run(&broker, client, &broker.cancels_length, 1);
    cr_assert(id_equal(&broker.cancels[0], &earlier));
}

Test(client, cancellation_follows_the_job_to_its_earlier_id)
{
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){.idempotency_key = "order-17"});
    const struct id earlier = {{1, 2, 3}};
    tiermq_id ours;
    memcpy(ours.bytes, id.bytes, sizeof(ours.bytes));
    fake_broker_run(&broker, client, &broker.submits_length, 1);
    cr_assert_eq(tiermq_cancel(client, &ours), 0);
    fake_broker_run(&broker, client, &broker.cancels_length, 1);
    fake_accept(&broker, &id, &earlier);
    fake_broker_run(&broker, client, &broker.cancels_length, 2);
    cr_assert(id_equal(&broker.cancels[1], &earlier));
}

/* It waits for the next job's message, or for some milliseconds; a client may have no other job for hours. */
Test(client, collected_is_told_while_another_job_is_pending)
{
    struct heard first = {0}, second = {0};
    const struct id id = submit_and_accept(&first, (struct tiermq_job){0});
    (void)submit_and_accept(&second, (struct tiermq_job){.prompt = "and this?"});
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("a letter"));
    fake_broker_run(&broker, client, &first.answers, 1);
    const int timeout_ms = tiermq_timeout_ms(client);
    cr_assert(timeout_ms >= 0 && timeout_ms <= 5, "%d", timeout_ms);
    fake_broker_run(&broker, client, &broker.collected_length, 1);
    cr_assert(id_equal(&broker.collected[0], &id));
    cr_assert_eq(second.answers, 0);
}

Test(client, everybody_who_waits_for_a_job_gets_its_answer)
{
    struct heard first = {0}, second = {0};
    const struct id id = submit_and_accept(&first, (struct tiermq_job){0});
    const tiermq_id same = public_id(&id);
    const struct tiermq_callbacks callbacks = hear(&second);
    cr_assert_eq(tiermq_wait_async(client, &same, &callbacks), 0);
    fake_broker_run(&broker, client, &broker.waits_length, 1);
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_DEAD, NULL);
    fake_broker_run(&broker, client, &broker.collected_length, 1);
    cr_assert_eq(first.answers, 1);
    cr_assert_eq(second.answers, 1);
    cr_assert_eq(second.state, TIERMQ_DEAD);
}

Test(client, id_that_no_broker_knows_is_unknown)
{
    struct heard heard = {0};
    const tiermq_id id = {{9, 9}};
    struct id same;
    memcpy(same.bytes, id.bytes, sizeof(same.bytes));
    const struct tiermq_callbacks callbacks = hear(&heard);
    cr_assert_eq(tiermq_wait_async(client, &id, &callbacks), 0);
    fake_broker_run(&broker, client, &broker.waits_length, 1);
    fake_status(&broker, &same, WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_UNKNOWN);
}

static void *conclude_when_asked(void *context)
{
    const struct id *id = context;
    while (broker.waits_length == 0) {
        cr_assert_eq(loop_turn(broker.loop, 5), 0);
    }
    fake_result(&broker, id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("later"));
    return NULL;
}

Test(client, status_of_what_is_concluded_meanwhile_leaves_its_answer_at_the_broker)
{
    struct id id = {{9, 9}};
    struct tiermq_status *status = NULL;
    pthread_t thread;
    const tiermq_id same = public_id(&id);
    cr_assert_eq(pthread_create(&thread, NULL, conclude_when_asked, &id), 0);
    cr_assert_eq(tiermq_get_status(client, &same, 20000, &status), 0, "%s", tiermq_last_error(client));
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_str_eq(status->state, "succeeded");
    tiermq_status_free(&status);
    struct heard heard = {0};
    const struct tiermq_callbacks callbacks = hear(&heard);
    cr_assert_eq(tiermq_wait_async(client, &same, &callbacks), 0);
    fake_broker_run(&broker, client, &broker.waits_length, 2);
    cr_assert_eq(broker.collected_length, 0);
}

Test(client, chunks_come_in_order_and_of_one_attempt_only)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.stream = true});
    cr_assert(broker.submits[0].stream);
    fake_chunk(&broker, &id, 1, 0, false, "a");
    fake_chunk(&broker, &id, 1, 0, false, "a"); /* repeated */
    fake_chunk(&broker, &id, 2, 0, false, "x"); /* another attempt */
    fake_chunk(&broker, &id, 1, 1, true, "b");
    fake_chunk(&broker, &id, 1, 2, false, "c"); /* after the end */
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("ab"));
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_str_eq(heard.streamed, "ab");
    cr_assert(heard.is_last);
    cr_assert_str_eq(heard.text, "ab");
}

Test(client, stream_that_is_not_read_here_is_for_others)
{
    struct heard heard = {0};
    const struct tiermq_job job = {.prompt = "hello", .stream = true};
    const struct tiermq_callbacks answer_alone = {.on_answer = hear_answer, .context = &heard};
    cr_assert_eq(tiermq_submit_async(client, &job, &answer_alone, NULL), 0);
    (void)submit(&heard, job);
    (void)run_until_submitted(2);
    cr_assert(broker.submits[0].stream && broker.submits[0].stream_unread);
    cr_assert(broker.submits[1].stream && !broker.submits[1].stream_unread);
}

Test(client, stream_is_not_continued_with_the_chunks_of_a_restarted_broker)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.stream = true});
    fake_chunk(&broker, &id, 1, 0, false, "a");
    fake_broker_run(&broker, client, &heard.chunks, 1);
    fake_broker_stop(&broker);
    fake_broker_start(&broker);
    fake_broker_run(&broker, client, &broker.waits_length, 1);
    /* The broker has forgotten the job, takes it anew, and counts its attempts from 1 again. */
    fake_status(&broker, &id, WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
    fake_broker_run(&broker, client, &broker.submits_length, 2);
    fake_accept(&broker, &id, NULL);
    fake_chunk(&broker, &id, 1, 0, false, "x");
    fake_chunk(&broker, &id, 1, 1, true, "y");
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("xy"));
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_str_eq(heard.streamed, "a");
    cr_assert_not(heard.is_last);
    cr_assert_str_eq(heard.text, "xy");
}

Test(client, stream_with_a_gap_ends_and_its_answer_is_whole)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.stream = true});
    fake_chunk(&broker, &id, 1, 0, false, "a");
    fake_chunk(&broker, &id, 1, 2, false, "c");
    fake_chunk(&broker, &id, 1, 1, false, "b");
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("abc"));
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_str_eq(heard.streamed, "a");
    cr_assert_not(heard.is_last);
    cr_assert_str_eq(heard.text, "abc");
}

static struct id paused_after_one_chunk(struct heard *heard)
{
    const struct id id = submit_and_accept(heard, (struct tiermq_job){.stream = true});
    const tiermq_id same = public_id(&id);
    fake_chunk(&broker, &id, 1, 0, false, "a");
    fake_broker_run(&broker, client, &heard->chunks, 1);
    cr_assert_eq(tiermq_stream_pause(client, &same), 0);
    return id;
}

static void resume(const struct id *id)
{
    const tiermq_id same = public_id(id);
    cr_assert_eq(tiermq_stream_resume(client, &same), 0);
}

Test(client, paused_stream_goes_on_where_it_was_and_its_answer_comes_after_it)
{
    struct heard heard = {0}, quick = {0};
    const struct id id = paused_after_one_chunk(&heard);
    fake_chunk(&broker, &id, 1, 1, false, "b");
    fake_chunk(&broker, &id, 1, 2, true, "c");
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("abc"));
    const struct id other_job = submit_and_accept(&quick, (struct tiermq_job){.stream = true});
    fake_chunk(&broker, &other_job, 1, 0, true, "x");
    fake_result(&broker, &other_job, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("x"));
    fake_broker_run(&broker, client, &quick.answers, 1);
    cr_assert_str_eq(quick.streamed, "x");
    cr_assert_str_eq(heard.streamed, "a");
    cr_assert_eq(heard.answers, 0);
    resume(&id);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_str_eq(heard.streamed, "abc");
    cr_assert(heard.is_last);
    cr_assert_str_eq(heard.text, "abc");
    cr_assert_eq(tiermq_pending(client), 0);
}

Test(client, credit_is_given_back_as_chunks_are_read)
{
    struct heard heard = {0};
    const struct id id = paused_after_one_chunk(&heard);
    cr_assert_eq(broker.submits[0].stream_chunks, 64);
    for (uint32_t i = 1; i < 64; i++) {
        fake_chunk(&broker, &id, 1, i, false, "b");
    }
    fake_broker_settle(&broker, client);
    cr_assert_eq(heard.chunks, 1);
    cr_assert_eq(broker.credit, 0);
    resume(&id);
    fake_broker_run(&broker, client, &broker.credit, 64);
    cr_assert_eq(heard.chunks, 64);
    cr_assert_eq(broker.credit, 64);
}

static void *stream_before_status(void *context)
{
    const struct id *id = context;
    while (broker.waits_length == 0) {
        cr_assert_eq(loop_turn(broker.loop, 2), 0);
    }
    for (uint32_t i = 0; i < 15; i++) {
        fake_chunk(&broker, id, 1, i, false, "b");
    }
    fake_status(&broker, id, WIRE__JOB_STATE__JOB_STATE_LEASED);
    cr_assert_eq(loop_turn(broker.loop, 2), 0);
    return NULL;
}

Test(client, credit_is_not_lost_to_who_asks_for_the_status_meanwhile)
{
    struct heard heard = {0};
    struct tiermq_status *status = NULL;
    pthread_t thread;
    struct id id = submit_and_accept(&heard, (struct tiermq_job){.stream = true});
    const tiermq_id same = public_id(&id);
    cr_assert_eq(pthread_create(&thread, NULL, stream_before_status, &id), 0);
    cr_assert_eq(tiermq_get_status(client, &same, 20000, &status), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    tiermq_status_free(&status);
    fake_chunk(&broker, &id, 1, 15, false, "b");
    fake_broker_run(&broker, client, &broker.credit, 16);
    cr_assert_eq(heard.chunks, 16);
}

Test(client, those_who_wait_for_one_stream_keep_no_credit_each)
{
    enum { OTHERS = 5, CHUNKS = 15 /* less than what is given back at once */ };
    struct heard heard = {0}, others[OTHERS] = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.stream = true});
    const tiermq_id same = public_id(&id);
    uint32_t index = 0;
    for (size_t i = 0; i < OTHERS; i++) {
        const struct tiermq_callbacks callbacks = hear(&others[i]);
        cr_assert_eq(tiermq_wait_async(client, &same, &callbacks), 0);
        fake_broker_run(&broker, client, &broker.waits_length, i + 1);
        for (size_t n = 0; n < CHUNKS; n++) {
            fake_chunk(&broker, &id, 1, index++, false, "b");
        }
    }
    fake_broker_run(&broker, client, &heard.chunks, OTHERS * CHUNKS);
    fake_broker_run(&broker, client, &broker.credit, 64);
}

Test(client, waiting_for_the_answer_alone_stops_no_stream_that_is_read_here)
{
    struct heard heard = {0}, answer = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.stream = true});
    const tiermq_id same = public_id(&id);
    const struct tiermq_callbacks callbacks = {.on_answer = hear_answer, .context = &answer};
    cr_assert_eq(tiermq_wait_async(client, &same, &callbacks), 0);
    fake_broker_run(&broker, client, &broker.waits_length, 1);
    cr_assert(broker.waits_stream[0]);
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("a"));
    fake_broker_run(&broker, client, &answer.answers, 1);
    cr_assert_eq(heard.answers, 1);
}

Test(client, chunks_that_nobody_wants_hold_nobody_up)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.stream = true});
    for (uint32_t i = 0; i < 32; i++) {
        fake_chunk(&broker, &id, 2, i + 5, false, "b"); /* it has a gap */
    }
    fake_broker_run(&broker, client, &broker.credit, 32);
    cr_assert_eq(heard.chunks, 0);
}

Test(client, answer_waits_for_what_its_broker_still_has_of_the_stream)
{
    struct heard heard = {0};
    const struct id id = paused_after_one_chunk(&heard);
    fake_result_of_stream(&broker, &id, CHAT("abc"), 3);
    resume(&id);
    fake_broker_settle(&broker, client);
    cr_assert_eq(heard.answers, 0);
    fake_chunk(&broker, &id, 1, 1, false, "b");
    fake_chunk(&broker, &id, 1, 2, true, "c");
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_str_eq(heard.streamed, "abc");
}

/* Of three chunks two have come, and one was read. */
static struct id answered_before_its_rest(struct heard *heard)
{
    const struct id id = paused_after_one_chunk(heard);
    fake_chunk(&broker, &id, 1, 1, false, "b");
    fake_result_of_stream(&broker, &id, CHAT("abc"), 3);
    fake_broker_run(&broker, client, &broker.collected_length, 1);
    return id;
}

static void hear_answer_without_its_rest(struct heard *heard)
{
    fake_broker_run(&broker, client, &heard->answers, 1);
    cr_assert_str_eq(heard->streamed, "ab");
    cr_assert_not(heard->is_last);
    cr_assert_str_eq(heard->text, "abc");
}

Test(client, answer_waits_for_no_rest_of_a_broker_that_was_restarted)
{
    struct heard heard = {0};
    const struct id id = answered_before_its_rest(&heard);
    resume(&id);
    fake_broker_stop(&broker);
    fake_broker_start(&broker);
    hear_answer_without_its_rest(&heard);
}

Test(client, answer_waits_for_no_rest_of_a_broker_that_is_gone)
{
    struct heard heard = {0};
    const struct id id = answered_before_its_rest(&heard);
    fake_broker_stop(&broker);
    fake_broker_settle(&broker, client);
    cr_assert_eq(heard.answers, 0, "it is paused");
    resume(&id);
    hear_answer_without_its_rest(&heard);
}

/* On a durable tier chunks may come while the result waits for the disk. */
Test(client, answer_waits_for_no_rest_of_another_attempt_that_has_come_before_it)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.stream = true});
    fake_chunk(&broker, &id, 1, 0, false, "a");
    for (uint32_t i = 0; i < 3; i++) {
        fake_chunk(&broker, &id, 2, i, i == 2, "x");
    }
    fake_result_of_stream(&broker, &id, CHAT("xxx"), 3);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_str_eq(heard.streamed, "a");
    cr_assert_not(heard.is_last);
    cr_assert_str_eq(heard.text, "xxx");
}

Test(client, any_other_outcome_does_not_wait_for_a_paused_stream)
{
    struct heard heard = {0};
    const struct id id = paused_after_one_chunk(&heard);
    fake_chunk(&broker, &id, 1, 1, false, "b");
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_EXPIRED, NULL);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_EXPIRED);
    cr_assert_str_eq(heard.streamed, "a");
}

Test(client, cancelled_while_its_answer_waits_it_is_given_at_once)
{
    struct heard heard = {0};
    const struct id id = paused_after_one_chunk(&heard);
    const tiermq_id same = public_id(&id);
    fake_chunk(&broker, &id, 1, 1, true, "b");
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("ab"));
    fake_broker_run(&broker, client, &broker.collected_length, 1);
    cr_assert_eq(tiermq_cancel(client, &same), 0);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_SUCCEEDED);
    cr_assert_str_eq(heard.streamed, "a");
}

Test(client, what_is_no_stream_here_cannot_be_paused)
{
    const tiermq_id id = {{1}}, zero = {{0}};
    cr_assert_eq(tiermq_stream_pause(client, &id), -ENOENT);
    cr_assert_eq(tiermq_stream_resume(client, &zero), -EINVAL);
}

Test(client, distinct_job_names_no_key_under_which_it_could_be_joined)
{
    struct heard heard = {0};
    submit_and_accept(&heard, (struct tiermq_job){0});
    submit_and_accept(&heard, (struct tiermq_job){.distinct = true});
    cr_assert(broker.submits[0].has_canonical);
    cr_assert_not(broker.submits[1].has_canonical);
}

Test(client, job_that_was_not_sent_is_cancelled_here)
{
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){0});
    const tiermq_id same = public_id(&id);
    cr_assert_eq(tiermq_cancel(client, &same), 0);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_CANCELLED);
    cr_assert_eq(broker.submits_length, 0);
}

Test(client, job_that_was_sent_before_under_the_same_id_is_cancelled_by_the_broker)
{
    struct heard heard = {0}, again = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.detach = true});
    const tiermq_id same = public_id(&id);
    submit(&again, (struct tiermq_job){.id = same});
    cr_assert_eq(tiermq_cancel(client, &same), 0);
    fake_broker_run(&broker, client, &broker.submits_length, 2);
    fake_broker_run(&broker, client, &broker.cancels_length, 1);
    cr_assert_eq(again.answers, 0);
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("too late"));
    fake_broker_run(&broker, client, &again.answers, 1);
    cr_assert_eq(again.state, TIERMQ_SUCCEEDED);
}

Test(client, cancellation_of_what_was_not_accepted_follows_it_to_a_restarted_broker)
{
    struct heard heard = {0};
    const struct id id = submit(&heard, (struct tiermq_job){0});
    const tiermq_id same = public_id(&id);
    fake_broker_run(&broker, client, &broker.submits_length, 1);
    cr_assert_eq(tiermq_cancel(client, &same), 0);
    fake_broker_run(&broker, client, &broker.cancels_length, 1);
    fake_broker_stop(&broker);
    fake_broker_start(&broker);
    fake_broker_run(&broker, client, &broker.submits_length, 2);
    fake_broker_run(&broker, client, &broker.cancels_length, 2);
    cr_assert(id_equal(&broker.cancels[1], &id));
}

Test(client, cancellation_is_repeated_to_a_restarted_broker)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){0});
    const tiermq_id same = public_id(&id);
    cr_assert_eq(tiermq_cancel(client, &same), 0);
    fake_broker_run(&broker, client, &broker.cancels_length, 1);
    fake_broker_stop(&broker);
    fake_broker_start(&broker);
    fake_broker_run(&broker, client, &broker.cancels_length, 2);
    cr_assert(id_equal(&broker.cancels[1], &id));
    cr_assert_eq(heard.answers, 0);
}

Test(client, detached_job_is_done_with_when_accepted_and_leaves_its_result_at_the_broker)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){.detach = true});
    cr_assert_eq(heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_PENDING);
    cr_assert_eq(tiermq_pending(client), 0);
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("kept"));
    fake_broker_settle(&broker, client);
    cr_assert_eq(heard.answers, 1);
    cr_assert_eq(broker.collected_length, 0);
}

Test(client, callback_may_not_block)
{
    struct heard heard = {.client = client};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){0});
    fake_result(&broker, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("x"));
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_eq(heard.blocking_result, -EDEADLK);
}

Test(client, nonsense_from_a_broker_changes_nothing)
{
    struct heard heard = {0};
    const struct id id = submit_and_accept(&heard, (struct tiermq_job){0});
    fake_send_raw(&broker, "", 0);
    fake_send_raw(&broker, "HTTP/1.1 400", 12);
    fake_send_raw(&broker, "TQ\x01\x02\xff\xff\xff\xff", 8);
    fake_send_raw(&broker, "TQ\x09\x02", 4);
    fake_send_raw(&broker, "TQ\x01\x05garbage", 11);
    Wire__Result result = WIRE__RESULT__INIT, *results[] = {&result};
    result.job_id = (ProtobufCBinaryData){.len = 3, .data = (uint8_t *)"abc"};
    Wire__BrokerToClient message = WIRE__BROKER_TO_CLIENT__INIT;
    message.n_result = 1;
    message.result = results;
    fake_send(&broker, &message, NULL, 0);
    result.job_id = (ProtobufCBinaryData){.len = 16, .data = (uint8_t *)id.bytes};
    result.state = (Wire__JobState)77; /* of a later protocol: no conclusion that we know */
    fake_send(&broker, &message, NULL, 0);
    fake_broker_settle(&broker, client);
    cr_assert_eq(heard.answers, 0);

    result.state = WIRE__JOB_STATE__JOB_STATE_SUCCEEDED;
    result.has_payload = true; /* and the part is no ModelResponse */
    fake_send(&broker, &message, "\xff\xff\xff", 3);
    fake_broker_run(&broker, client, &heard.answers, 1);
    cr_assert_str_eq(heard.text, "");
}

Test(client, more_than_pending_max_is_refused)
{
    struct heard heard = {0};
    tiermq_close(&client);
    open_client(&(struct tiermq_options){.pending_max = 2});
    submit(&heard, (struct tiermq_job){0});
    submit(&heard, (struct tiermq_job){0});
    const struct tiermq_callbacks callbacks = hear(&heard);
    cr_assert_eq(tiermq_submit_async(client, &(struct tiermq_job){.prompt = "x"}, &callbacks, NULL), -ENOBUFS);
}

Test(client, call_that_times_out_asks_for_cancellation)
{
    struct tiermq_answer *answer = NULL;
    fake_broker_run(&broker, client, &broker.hellos, 1);
    fake_broker_settle(&broker, client);
    cr_assert_eq(tiermq_call(client, &(struct tiermq_job){.prompt = "slow"}, 50, &answer), -ETIMEDOUT);
    cr_assert_null(answer);
    cr_assert_eq(tiermq_pending(client), 0);
    fake_broker_run(&broker, client, &broker.cancels_length, 1);
    cr_assert_geq(broker.submits[0].deadline_in_ms, 1); /* the timeout is the job's deadline, too */
    cr_assert_leq(broker.submits[0].deadline_in_ms, 50);
}

static void *accept_as_an_earlier_one(void *context)
{
    const struct id earlier = {{1, 2, 3}};
    const atomic_bool *is_over = context;
    for (bool is_accepted = false; !atomic_load(is_over);) {
        cr_assert_eq(loop_turn(broker.loop, 5), 0);
        if (broker.submits_length == 1 && !is_accepted) {
            fake_accept(&broker, &broker.submits[0].id, &earlier);
            is_accepted = true;
        }
    }
    return NULL;
}

Test(client, call_that_times_out_leaves_an_earlier_job_under_its_key_alone)
{
    pthread_t thread;
    atomic_bool is_over = false;
    struct heard heard = {0};
    struct tiermq_answer *answer = NULL;
    cr_assert_eq(pthread_create(&thread, NULL, accept_as_an_earlier_one, &is_over), 0);
    const struct tiermq_job job = {.prompt = "x", .idempotency_key = "order-17"};
    cr_assert_eq(tiermq_call(client, &job, 1000, &answer), -ETIMEDOUT);
    atomic_store(&is_over, true);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_geq(broker.waits_length, 1);
    (void)submit(&heard, (struct tiermq_job){0});
    fake_broker_run(&broker, client, &broker.submits_length, 2); /* it would have come with that */
    cr_assert_eq(broker.cancels_length, 0);
}

Test(client, malformed_endpoint_is_refused)
{
    struct tiermq *none = NULL;
    cr_assert_eq(tiermq_connect(&(struct tiermq_options){.brokers = "nonsense"}, &none), -EINVAL);
    cr_assert_eq(tiermq_connect(&(struct tiermq_options){.brokers = " , "}, &none), -EINVAL);
    cr_assert_null(none);
}

Test(client, without_a_broker_a_job_expires_at_its_deadline)
{
    struct heard heard = {0};
    fake_broker_stop(&broker);
    const int64_t before_ms = clock_monotonic_ms();
    submit(&heard, (struct tiermq_job){.deadline_ms = 300});
    while (heard.answers == 0) {
        cr_assert_eq(tiermq_dispatch(client, 1000), 0);
    }
    cr_assert_eq(heard.state, TIERMQ_EXPIRED);
    cr_assert_geq(clock_monotonic_ms() - before_ms, 300);
    cr_assert_lt(clock_monotonic_ms() - before_ms, 5000);
}

enum { CROWD = 2000 };

Test(client, without_a_word_of_any_broker_an_expired_job_names_them)
{
    struct tiermq *lonely = NULL;
    struct heard heard = {0};
    fake_broker_stop(&broker);
    cr_assert_eq(tiermq_connect(&(struct tiermq_options){.brokers = "tcp://127.0.0.1:1"}, &lonely), 0);
    const struct tiermq_callbacks callbacks = hear(&heard);
    const struct tiermq_job job = {.prompt = "x", .deadline_ms = 1};
    cr_assert_eq(tiermq_submit_async(lonely, &job, &callbacks, NULL), 0);
    while (heard.answers == 0) {
        cr_assert_eq(tiermq_dispatch(lonely, 1000), 0);
    }
    cr_assert_eq(heard.state, TIERMQ_EXPIRED);
    cr_assert_not_null(strstr(heard.reason, "before its deadline; tcp://127.0.0.1:1: "), "%s", heard.reason);
    tiermq_close(&lonely);
}

Test(client, crowd_whose_deadlines_pass_without_a_broker_wakes_its_process_few_times)
{
    fake_broker_stop(&broker);
    struct heard heard = {0};
    for (int i = 0; i < CROWD; i++) {
        submit(&heard, (struct tiermq_job){.deadline_ms = 500 + i});
    }
    size_t turns = 0;
    for (; heard.answers < CROWD; turns++) {
        cr_assert_eq(tiermq_dispatch(client, -1), 0);
    }
    cr_assert_lt(turns, 100, "%zu turns", turns); /* five a second, and those of the connection */
}

Test(client, broker_that_was_killed_is_missed_at_once)
{
    struct heard heard = {0};
    submit_and_accept(&heard, (struct tiermq_job){0});
    cr_assert(tiermq_is_connected(client));
    fake_broker_stop(&broker);
    const int64_t before_ms = clock_monotonic_ms();
    while (tiermq_is_connected(client)) {
        cr_assert_eq(tiermq_dispatch(client, 1000), 0);
    }
    cr_assert_lt(clock_monotonic_ms() - before_ms, 500);
    cr_assert(strstr(tiermq_connection_error(client), "lost: ") != NULL, "%s",
              tiermq_connection_error(client));
}

static void *finish_broker(void *context)
{
    fake_broker_finish(context); /* returns when the last of what it said is on its way */
    return NULL;
}

Test(client, answers_that_came_before_the_broker_was_killed_are_all_taken)
{
    enum { ANSWERS = 3 * LINK_MESSAGES_PER_TURN };
    struct heard heard = {0};
    struct id ids[ANSWERS];
    for (size_t i = 0; i < ANSWERS; i++) {
        ids[i] = submit(&heard, (struct tiermq_job){0});
    }
    fake_broker_run(&broker, client, &broker.submits_length, ANSWERS);
    for (size_t i = 0; i < ANSWERS; i++) {
        fake_accept(&broker, &ids[i], NULL);
    }
    fake_broker_run(&broker, client, &heard.accepted, ANSWERS);
    for (size_t i = 0; i < ANSWERS; i++) {
        fake_result(&broker, &ids[i], WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("one"));
    }
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, finish_broker, &broker), 0);
    while (tiermq_is_connected(client)) {
        cr_assert_eq(tiermq_dispatch(client, 1000), 0);
    }
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(heard.answers, ANSWERS, "%zu of %d", heard.answers, ANSWERS);
}

Test(client, nobody_lingers_for_a_broker_that_is_gone)
{
    struct heard heard = {0};
    submit_and_accept(&heard, (struct tiermq_job){0});
    fake_broker_stop(&broker);
    while (tiermq_is_connected(client)) {
        cr_assert_eq(tiermq_dispatch(client, 1000), 0);
    }
    const int64_t before_ms = clock_monotonic_ms();
    tiermq_close(&client);
    cr_assert_lt(clock_monotonic_ms() - before_ms, 500);
}

/* ---- the cache ---- */

#define KEY "000102030405060708090a0b0c0d0e0f"

struct done {
    size_t count;
    int result;
    char error[128];
};

static void hear_done(void *context, int result, const char *error)
{
    struct done *done = context;
    done->count++;
    done->result = result;
    snprintf(done->error, sizeof(done->error), "%s", error);
}

static void invalidate(struct done *done, struct tiermq_selector selector)
{
    cr_assert_eq(tiermq_invalidate_async(client, &selector, "new prices", hear_done, done), 0, "%s",
                 tiermq_last_error(client));
}

Test(client, invalidation_is_done_when_the_broker_says_so)
{
    struct done done = {0};
    invalidate(&done, (struct tiermq_selector){.tag = "prices"});
    fake_broker_run(&broker, client, &broker.invalidations_length, 1);
    cr_assert_str_eq(broker.invalidations[0].tag, "prices");
    cr_assert_str_eq(broker.invalidations[0].tenant, "default");
    cr_assert_str_eq(broker.invalidations[0].reason, "new prices");
    cr_assert_float_eq(broker.invalidations[0].near_min, 0.8, 1e-9);
    fake_broker_settle(&broker, client);
    cr_assert_eq(done.count, 0);
    fake_invalidated(&broker, broker.invalidations[0].number, NULL);
    fake_broker_run(&broker, client, &done.count, 1);
    cr_assert_eq(done.result, 0);
    fake_invalidated(&broker, broker.invalidations[0].number, NULL); /* once more */
    fake_broker_settle(&broker, client);
    cr_assert_eq(done.count, 1);
    cr_assert_eq(broker.invalidations_length, 1);
}

Test(client, refused_invalidation_says_why)
{
    struct done done = {0};
    invalidate(&done, (struct tiermq_selector){.key = KEY});
    fake_broker_run(&broker, client, &broker.invalidations_length, 1);
    cr_assert_eq(broker.invalidations[0].key[15], 15);
    fake_invalidated(&broker, broker.invalidations[0].number, "not yours");
    fake_broker_run(&broker, client, &done.count, 1);
    cr_assert_eq(done.result, -EPERM);
    cr_assert_str_eq(done.error, "not yours");
}

Test(client, invalidation_that_is_put_off_is_sent_again)
{
    struct done done = {0};
    invalidate(&done, (struct tiermq_selector){.key = KEY});
    fake_broker_run(&broker, client, &broker.invalidations_length, 1);
    fake_invalidation_put_off(&broker, broker.invalidations[0].number, "too many", 20);
    fake_broker_run(&broker, client, &broker.invalidations_length, 2);
    cr_assert_eq(broker.invalidations[1].number, broker.invalidations[0].number);
    cr_assert_eq(done.count, 0, "it is not refused for good");
    fake_invalidated(&broker, broker.invalidations[0].number, NULL);
    fake_broker_run(&broker, client, &done.count, 1);
    cr_assert_eq(done.result, 0);
}

Test(client, restarted_broker_gets_an_invalidation_again)
{
    struct done done = {0};
    invalidate(&done, (struct tiermq_selector){.all = true});
    fake_broker_run(&broker, client, &broker.invalidations_length, 1);
    fake_broker_stop(&broker);
    fake_broker_start(&broker);
    fake_broker_run(&broker, client, &broker.invalidations_length, 2);
    cr_assert_eq(broker.invalidations[0].number, broker.invalidations[1].number);
    fake_invalidated(&broker, broker.invalidations[1].number, NULL);
    fake_broker_run(&broker, client, &done.count, 1);
}

Test(client, blocking_invalidation_without_an_answer_times_out_and_is_let_go_of)
{
    const struct tiermq_selector selector = {.document = "d"};
    cr_assert_eq(tiermq_invalidate(client, &selector, NULL, 50), -ETIMEDOUT);
    cr_assert_not_null(strstr(tiermq_last_error(client), "50 ms"));
    fake_broker_settle(&broker, client);
    cr_assert_eq(broker.invalidations_length, 0); /* it had not been sent when nobody waited any more */
}

Test(client, refused_tenant_refuses_its_invalidations)
{
    struct done done = {0};
    broker.refuses = true;
    invalidate(&done, (struct tiermq_selector){.tag = "prices"});
    fake_broker_run(&broker, client, &done.count, 1);
    cr_assert_eq(done.result, -EPERM);
}

Test(client, selectors_are_checked_in_words)
{
    static char long_text[8194], long_reason[258];
    memset(long_text, 'a', sizeof(long_text) - 1);
    memset(long_reason, 'a', sizeof(long_reason) - 1);
    const struct {
        struct tiermq_selector selector;
        const char *reason, *word;
    } cases[] = {
        {{0}, "", "says nothing"},
        {{.all = true, .tag = "x"}, "", "all"},
        {{.key = "00"}, "", "key"},
        {{.key = KEY "0"}, "", "key"},
        {{.scope = "zz0102030405060708090a0b0c0d0e0f"}, "", "scope"},
        {{.tag = long_text}, "", "tag"},
        {{.near_text = "\xff"}, "", "near_text"},
        {{.tag = "x", .older_than_ms = -1}, "", "older_than_ms"},
        {{.near_text = "x", .near_min = 1.5}, "", "near_min"},
        {{.tag = "x"}, long_reason, "reason"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_assert_eq(tiermq_invalidate_async(client, &cases[i].selector, cases[i].reason, NULL, NULL), -EINVAL, "case %zu", i);
        cr_assert_not_null(strstr(tiermq_last_error(client), cases[i].word), "case %zu: %s", i, tiermq_last_error(client));
    }
    cr_assert_eq(tiermq_invalidate_async(client, &(struct tiermq_selector){.tag = "x"}, "", NULL, NULL), 0);
    cr_assert_str_eq(tiermq_last_error(client), "", "it is of an earlier call");
}

Test(client, invalidations_that_wait_are_bounded)
{
    const struct tiermq_selector selector = {.tag = "x"};
    int r = 0;
    for (int i = 0; i <= 1000 && r == 0; i++) {
        r = tiermq_invalidate_async(client, &selector, NULL, NULL, NULL);
    }
    cr_assert_eq(r, -ENOBUFS);
    fake_broker_run(&broker, client, &broker.invalidations_length, 1000);
}

#define ACCEPTED WIRE__FEEDBACK_OUTCOME__FEEDBACK_ACCEPTED
#define REPEATED WIRE__FEEDBACK_OUTCOME__FEEDBACK_REPEATED
#define UNKNOWN  WIRE__FEEDBACK_OUTCOME__FEEDBACK_UNKNOWN
#define REFUSED  WIRE__FEEDBACK_OUTCOME__FEEDBACK_REFUSED
#define PUT_OFF  WIRE__FEEDBACK_OUTCOME__FEEDBACK_PUT_OFF

static const tiermq_id judged = {{0, 1, 2}};

static struct word {
    size_t count;
    int result;
    char error[64];
} word;

static void take_word(void *context, int result, const char *error)
{
    struct word *to = context;
    to->count++;
    to->result = result;
    snprintf(to->error, sizeof(to->error), "%s", error);
}

static int say(double score, const char *comment)
{
    word = (struct word){0};
    const struct tiermq_feedback feedback = {.score = score, .comment = comment};
    return tiermq_give_feedback_async(client, &judged, &feedback, take_word, &word);
}

Test(client, feedback_goes_out_once_and_is_answered)
{
    static const struct {
        Wire__FeedbackOutcome outcome;
        int result;
    } cases[] = {{ACCEPTED, 0}, {REPEATED, 0}, {UNKNOWN, -ENOENT}, {REFUSED, -EPERM}, {PUT_OFF, -EAGAIN}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_assert_eq(say(0.25, "too long"), 0);
        fake_broker_run(&broker, client, &broker.feedbacks_length, i + 1);
        cr_assert_eq(memcmp(broker.feedbacks[i].job_id.bytes, judged.bytes, 16), 0);
        cr_assert_float_eq(broker.feedbacks[i].score, 0.25, 1e-9);
        cr_assert_str_eq(broker.feedbacks[i].comment, "too long");
        fake_broker_settle(&broker, client);
        cr_assert_eq(word.count, 0);
        fake_feedback_taken(&broker, &broker.feedbacks[i].job_id, cases[i].outcome,
                            cases[i].result == 0 ? "" : "words");
        fake_broker_run(&broker, client, &word.count, 1);
        cr_assert_eq(word.result, cases[i].result);
        cr_assert_str_eq(word.error, cases[i].result == 0 ? "" : "words");
    }
    fake_broker_settle(&broker, client);
    cr_assert_eq(broker.feedbacks_length, 5);
    cr_assert_eq(broker.near_feedbacks_length, 0);
}

Test(client, feedback_is_said_again_to_a_broker_that_was_restarted)
{
    cr_assert_eq(say(1, NULL), 0);
    fake_broker_run(&broker, client, &broker.feedbacks_length, 1);
    fake_broker_stop(&broker);
    fake_broker_start(&broker);
    fake_broker_run(&broker, client, &broker.feedbacks_length, 2);
    fake_feedback_taken(&broker, &broker.feedbacks[0].job_id, ACCEPTED, "");
    fake_broker_run(&broker, client, &word.count, 1);
    cr_assert_eq(word.result, 0);
}

Test(client, malformed_feedback_is_refused)
{
    char long_comment[514];
    memset(long_comment, 'x', 513);
    long_comment[513] = '\0';
    const struct tiermq_feedback bad[] = {
        {.score = -0.1},
        {.score = 1.1},
        {.score = 0.0 / 0.0},
        {.score = 1, .comment = long_comment},
        {.score = 1, .comment = "\xff"},
        {.near_key = "12", .embedder = "e"},
        {.near_key = KEY, .embedder = ""},
        {.near_key = KEY, .embedder = "e", .near_score = 0.0 / 0.0},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_assert_eq(tiermq_give_feedback_async(client, &judged, &bad[i], NULL, NULL), -EINVAL,
                     "case %zu", i);
        cr_assert_eq(strncmp(tiermq_last_error(client), "feedback.", 9), 0);
    }
    const tiermq_id none = {{0}};
    cr_assert_eq(tiermq_give_feedback_async(client, &none, &(struct tiermq_feedback){0}, NULL, NULL),
                 -EINVAL);
}

Test(client, no_more_feedback_waits_than_fits)
{
    int r = 0;
    for (int i = 0; i <= 1000 && r == 0; i++) {
        r = say(1, NULL);
    }
    cr_assert_eq(r, -ENOBUFS);
    fake_broker_run(&broker, client, &broker.feedbacks_length, 1000);
}

Test(client, what_is_thought_of_a_near_hit_is_told_besides)
{
    struct tiermq_feedback feedback = {
        .score = 0.5, .tier = "realtime", .near_key = KEY, .embedder = "builtin/1", .near_score = 2.5};
    cr_assert_eq(tiermq_give_feedback_async(client, &judged, &feedback, NULL, NULL), 0);
    fake_broker_run(&broker, client, &broker.near_feedbacks_length, 1);
    cr_assert(broker.near_feedbacks[0].is_right);
    feedback.score = 0.4;
    cr_assert_eq(tiermq_give_feedback_async(client, &judged, &feedback, NULL, NULL), 0);
    fake_broker_run(&broker, client, &broker.near_feedbacks_length, 2);
    cr_assert_str_eq(broker.near_feedbacks[1].tier, "realtime");
    cr_assert_str_eq(broker.near_feedbacks[1].embedder, "builtin/1");
    cr_assert_eq(broker.near_feedbacks[1].near_key[15], 15);
    cr_assert_float_eq(broker.near_feedbacks[1].near_score, 2.5, 1e-9);
    cr_assert(!broker.near_feedbacks[1].is_right);
    fake_broker_settle(&broker, client);
    cr_assert_eq(broker.near_feedbacks_length, 2);
    cr_assert_eq(broker.invalidations_length, 0);
}

static void setup_two(void)
{
    fake_broker_start(&broker);
    fake_broker_start(&other);
    open_client(NULL);
}

/* Turns all three until `*at_least` reaches `count`. */
static void run_two(const size_t *at_least, size_t count)
{
    const int64_t deadline_ms = clock_monotonic_ms() + 20000;
    while (*at_least < count) {
        size_t now = 0;
        fake_broker_run(&broker, client, &now, 0);
        cr_assert_eq(tiermq_dispatch(client, 1), 0);
        fake_broker_settle(&broker, client);
        fake_broker_settle(&other, client);
        cr_assert_lt(clock_monotonic_ms(), deadline_ms);
    }
}

TestSuite(two_brokers, .init = setup_two, .fini = teardown, .timeout = 60);

/* The broker that got the job, once one has. */
static struct fake_broker *home(struct heard *heard, struct id *ret_id)
{
    *ret_id = submit(heard, (struct tiermq_job){0});
    while (broker.submits_length + other.submits_length == 0) {
        fake_broker_settle(&broker, client);
        fake_broker_settle(&other, client);
    }
    return broker.submits_length > 0 ? &broker : &other;
}

Test(two_brokers, draining_one_hands_its_job_to_the_other)
{
    struct heard heard = {0};
    struct id id;
    reopen_without_retries();
    run_two(&broker.hellos, 1);
    run_two(&other.hellos, 1);
    struct fake_broker *first = home(&heard, &id);
    struct fake_broker *second = first == &broker ? &other : &broker;
    fake_reject(first, &id, WIRE__REJECT_REASON__REJECT_DRAINING, 1000);
    run_two(&second->submits_length, 1);
    cr_assert(id_equal(&second->submits[0].id, &id));
    fake_reject(second, &id, WIRE__REJECT_REASON__REJECT_DRAINING, 1000);
    run_two(&heard.answers, 1);
    cr_assert_eq(heard.state, TIERMQ_REJECTED);
}

/* A job that is with another broker than its tenant's, since that one is draining. */
static struct id moved_away(struct heard *heard, struct fake_broker **ret_home,
                            struct fake_broker **ret_away)
{
    struct id id;
    run_two(&broker.hellos, 1);
    run_two(&other.hellos, 1);
    *ret_home = home(heard, &id);
    *ret_away = *ret_home == &broker ? &other : &broker;
    fake_reject(*ret_home, &id, WIRE__REJECT_REASON__REJECT_DRAINING, 1000);
    run_two(&(*ret_away)->submits_length, 1);
    fake_accept(*ret_away, &id, NULL);
    run_two(&heard->accepted, 1);
    return id;
}

/* And waited for by another, of whom its first broker hears. */
static struct id waited_for_away(struct heard *heard, struct heard *more,
                                 struct fake_broker **ret_home, struct fake_broker **ret_away)
{
    const struct id id = moved_away(heard, ret_home, ret_away);
    const tiermq_id same = public_id(&id);
    const struct tiermq_callbacks callbacks = hear(more);
    cr_assert_eq(tiermq_wait_async(client, &same, &callbacks), 0);
    run_two(&(*ret_home)->waits_length, 1);
    return id;
}

Test(two_brokers, credit_goes_to_the_one_whose_stream_it_is)
{
    struct heard heard = {0}, more = {0};
    struct fake_broker *first, *second;
    const struct id id = waited_for_away(&heard, &more, &first, &second);
    for (uint32_t i = 0; i < 16; i++) {
        fake_chunk(second, &id, 1, i, false, "b");
    }
    run_two(&second->credit, 16);
    cr_assert_eq(first->credit, 0);
}

Test(two_brokers, what_one_does_not_know_is_asked_of_the_other_to_which_it_went)
{
    struct heard heard = {0}, more = {0};
    struct fake_broker *first, *second;
    const struct id id = waited_for_away(&heard, &more, &first, &second);
    fake_status(first, &id, WIRE__JOB_STATE__JOB_STATE_UNKNOWN);
    run_two(&second->waits_length, 1);
    cr_assert_eq(first->waits_length, 1);
    fake_result(second, &id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, CHAT("there"));
    run_two(&more.answers, 1);
    cr_assert_eq(more.state, TIERMQ_SUCCEEDED);
}

Test(two_brokers, what_was_sent_to_one_that_vanished_waits_for_it)
{
    struct heard heard = {0};
    struct id id;
    run_two(&broker.hellos, 1);
    run_two(&other.hellos, 1);
    struct fake_broker *first = home(&heard, &id);
    struct fake_broker *second = first == &broker ? &other : &broker;
    fake_broker_stop(first);
    const int64_t until_ms = clock_monotonic_ms() + 6000; /* until it is known to be silent, and longer */
    while (clock_monotonic_ms() < until_ms) {
        fake_broker_settle(second, client);
    }
    cr_assert_eq(second->submits_length, 0);
    struct heard later = {0};
    submit(&later, (struct tiermq_job){0}); /* a new one need not wait */
    fake_broker_run(second, client, &second->submits_length, 1);
    fake_broker_start(first);
    run_two(&first->submits_length, 2);
    cr_assert(id_equal(&first->submits[1].id, &id));
}

Test(two_brokers, invalidation_is_done_when_both_have_answered)
{
    struct done done = {0};
    invalidate(&done, (struct tiermq_selector){.tag = "prices"});
    run_two(&broker.invalidations_length, 1);
    run_two(&other.invalidations_length, 1);
    fake_invalidated(&broker, broker.invalidations[0].number, NULL);
    fake_broker_settle(&broker, client);
    cr_assert_eq(done.count, 0);
    fake_invalidated(&other, other.invalidations[0].number, NULL);
    run_two(&done.count, 1);
    cr_assert_eq(done.result, 0);
}

Test(two_brokers, wrong_hit_is_told_to_one_and_invalidated_at_both)
{
    const struct tiermq_feedback feedback = {.score = 0, .near_key = KEY, .embedder = "builtin/1"};
    run_two(&broker.hellos, 1);
    run_two(&other.hellos, 1);
    cr_assert_eq(tiermq_give_feedback_async(client, &judged, &feedback, NULL, NULL), 0);
    run_two(&broker.invalidations_length, 1);
    run_two(&other.invalidations_length, 1);
    fake_broker_settle(&broker, client);
    fake_broker_settle(&other, client);
    cr_assert_eq(broker.near_feedbacks_length + other.near_feedbacks_length, 1);
    const struct fake_broker *told = broker.near_feedbacks_length == 1 ? &broker : &other;
    cr_assert_str_eq(told->near_feedbacks[0].tier, "standard");
    cr_assert_eq(broker.invalidations[0].key[15], 15);
}

Test(two_brokers, feedback_finds_the_broker_that_has_the_job)
{
    run_two(&broker.hellos, 1);
    run_two(&other.hellos, 1);
    cr_assert_eq(say(1, NULL), 0);
    for (int i = 0; i < 1000 && broker.feedbacks_length + other.feedbacks_length == 0; i++) {
        fake_broker_settle(&broker, client);
        fake_broker_settle(&other, client);
    }
    struct fake_broker *first = broker.feedbacks_length == 1 ? &broker : &other;
    struct fake_broker *second = first == &broker ? &other : &broker;
    cr_assert_eq(second->feedbacks_length, 0);
    fake_feedback_taken(first, &first->feedbacks[0].job_id, UNKNOWN, "not here");
    run_two(&second->feedbacks_length, 1);
    cr_assert_eq(word.count, 0);
    fake_feedback_taken(second, &second->feedbacks[0].job_id, ACCEPTED, "");
    run_two(&word.count, 1);
    cr_assert_eq(word.result, 0);
    cr_assert_eq(first->feedbacks_length, 1);
}
