/*
 * The calls that block, each on top of the ones that do not: hand in, dispatch until the callback
 * has run or the time is over. What is still pending then is let go of, since the callback's
 * context lies on this stack.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "client/client.h"
#include "common/clock.h"
#include "common/loop.h"

struct outcome {
    bool is_done;
    int result;                   /* of copying it */
    struct tiermq_answer *answer; /* owned */
    struct tiermq_status *status; /* owned */
};

static void take_answer(void *context, const struct tiermq_answer *answer)
{
    struct outcome *outcome = context;
    outcome->is_done = true;
    outcome->result = answer_copy(answer, &outcome->answer);
}

static int64_t deadline_of(int64_t timeout_ms)
{
    const int64_t now_ms = clock_monotonic_ms();
    return timeout_ms < 0 || timeout_ms > INT64_MAX - now_ms ? INT64_MAX : now_ms + timeout_ms;
}

/* Errors: -ETIMEDOUT, or of dispatching. */
static int dispatch_until(struct tiermq *client, const bool *is_done, int64_t deadline_ms)
{
    while (!*is_done) {
        const int64_t remains_ms = deadline_ms - clock_monotonic_ms();
        if (remains_ms <= 0) {
            return -ETIMEDOUT;
        }
        int r = tiermq_dispatch(client, remains_ms < INT32_MAX ? (int)remains_ms : INT32_MAX);
        if (r < 0) {
            client_complain(client, "cannot dispatch: %s", strerror(-r));
            return r;
        }
    }
    return 0;
}

static void complain_of_timeout(struct tiermq *client, int64_t timeout_ms)
{
    const char *why = tiermq_connection_error(client);
    client_complain(client, "no word within %lld ms%s%s", (long long)timeout_ms,
                    why[0] == '\0' ? "" : "; ", why);
}

/* The first step of each call. */
static int refuse_in_callback(struct tiermq *client)
{
    client_begin_call(client);
    if (!client->is_dispatching) {
        return 0;
    }
    client_complain(client, "a callback may not block; use the calls that end in _async");
    return -EDEADLK;
}

static int refusal(struct tiermq *client, const struct tiermq_answer *answer)
{
    client_complain(client, "%s: %s", answer->error_code, answer->error_text);
    return answer->retry_after_ms > 0 ? -EAGAIN : -EPERM;
}

int tiermq_submit(struct tiermq *client, const struct tiermq_job *job, int64_t timeout_ms,
                  tiermq_id *ret_id, int64_t *ret_retry_after_ms)
{
    struct outcome outcome = {0};
    struct tiermq_job detached = *job;
    detached.detach = true;
    struct pending *pending = NULL;
    int r = refuse_in_callback(client);
    if (r == 0) {
        r = jobs_submit(client, &detached,
                        &(struct tiermq_callbacks){.on_answer = take_answer, .context = &outcome},
                        &pending);
    }
    if (r < 0) {
        return r;
    }
    const int64_t until_ms = deadline_of(timeout_ms);
    if (until_ms < pending->retry_until_ms) {
        pending->retry_until_ms = until_ms; /* what cannot be tried again by then is told at once */
    }
    r = dispatch_until(client, &outcome.is_done, until_ms);
    if (!outcome.is_done) {
        jobs_forget(client, pending);
        complain_of_timeout(client, timeout_ms);
        return r;
    }
    if (outcome.result < 0) {
        return outcome.result;
    }
    switch (outcome.answer->state) {
    case TIERMQ_REJECTED:
        r = refusal(client, outcome.answer);
        break;
    case TIERMQ_EXPIRED:
    case TIERMQ_LOST:
        client_complain(client, "%s", outcome.answer->error_text);
        r = -ETIMEDOUT;
        break;
    case TIERMQ_UNKNOWN:
    case TIERMQ_PENDING:
    case TIERMQ_SUCCEEDED:
    case TIERMQ_DEAD:
    case TIERMQ_CANCELLED:
    case TIERMQ_COLLECTED:
        *ret_id = outcome.answer->known_as;
        r = 0;
        break;
    }
    if (r < 0 && ret_retry_after_ms != NULL) {
        *ret_retry_after_ms = outcome.answer->retry_after_ms;
    }
    tiermq_answer_free(&outcome.answer);
    return r;
}

/* Takes: `pending`. Gives: its answer. */
static int wait_for_answer(struct tiermq *client, struct pending *pending, struct outcome *outcome,
                           int64_t timeout_ms, struct tiermq_answer **ret_answer)
{
    int r = dispatch_until(client, &outcome->is_done, deadline_of(timeout_ms));
    if (!outcome->is_done) {
        jobs_forget(client, pending);
        complain_of_timeout(client, timeout_ms);
        return r;
    }
    if (outcome->result < 0) {
        client_complain(client, "out of memory");
        return outcome->result;
    }
    *ret_answer = TAKE(outcome->answer);
    return 0;
}

int tiermq_wait(struct tiermq *client, const tiermq_id *id, int64_t timeout_ms,
                struct tiermq_answer **ret_answer)
{
    struct outcome outcome = {0};
    struct pending *pending = NULL;
    struct id job_id;
    int r = refuse_in_callback(client);
    if (r == 0) {
        r = client_read_id(client, id, &job_id);
    }
    if (r == 0) {
        r = jobs_wait(client, &job_id,
                      &(struct tiermq_callbacks){.on_answer = take_answer, .context = &outcome},
                      NULL, &pending);
    }
    return r < 0 ? r : wait_for_answer(client, pending, &outcome, timeout_ms, ret_answer);
}

int tiermq_call(struct tiermq *client, const struct tiermq_job *job, int64_t timeout_ms,
                struct tiermq_answer **ret_answer)
{
    struct outcome outcome = {0};
    struct pending *pending = NULL;
    struct tiermq_job bounded = *job;
    bounded.detach = false;
    if (bounded.deadline_ms == 0 && timeout_ms > 0) {
        bounded.deadline_ms = timeout_ms;
    }
    int r = refuse_in_callback(client);
    if (r == 0) {
        r = jobs_submit(client, &bounded,
                        &(struct tiermq_callbacks){.on_answer = take_answer, .context = &outcome},
                        &pending);
    }
    if (r < 0) {
        return r;
    }
    tiermq_id id;
    memcpy(id.bytes, pending->id.bytes, sizeof(id.bytes));
    r = dispatch_until(client, &outcome.is_done, deadline_of(timeout_ms));
    /* Under an idempotency key it may be somebody else's job, who waits for longer. */
    const bool is_own = outcome.is_done || id_equal(&pending->id, &pending->wire_id);
    if (r == -ETIMEDOUT && is_own && tiermq_cancel(client, &id) == 0) {
        outbox_flush(pending->shard, clock_monotonic_ms());
        loop_settle(client->loop);
    }
    if (!outcome.is_done) {
        jobs_forget(client, pending);
        complain_of_timeout(client, timeout_ms);
        return r;
    }
    if (outcome.result == 0 && outcome.answer->state == TIERMQ_REJECTED) {
        outcome.result = refusal(client, outcome.answer);
        tiermq_answer_free(&outcome.answer);
    }
    if (outcome.result == 0) {
        *ret_answer = outcome.answer;
    }
    return outcome.result;
}

/* ----------------------------------------------------------------------------------------------
 * the cache, and feedback */

struct word {
    struct tiermq *client;
    bool is_done;
    int result;
};

static void take_word(void *context, int result, const char *error)
{
    struct word *word = context;
    word->is_done = true;
    word->result = result;
    if (result < 0) {
        client_complain(word->client, "%s", error);
    }
}

int tiermq_invalidate(struct tiermq *client, const struct tiermq_selector *selector,
                      const char *reason, int64_t timeout_ms)
{
    struct word word = {.client = client};
    struct invalidation *invalidation = NULL;
    int r = refuse_in_callback(client);
    if (r == 0) {
        r = invalidations_add(client, selector, reason, take_word, &word, &invalidation);
    }
    if (r < 0) {
        return r;
    }
    r = dispatch_until(client, &word.is_done, deadline_of(timeout_ms));
    if (!word.is_done) {
        invalidations_forget(client, invalidation);
        complain_of_timeout(client, timeout_ms);
        return r;
    }
    return word.result;
}

int tiermq_give_feedback(struct tiermq *client, const tiermq_id *id,
                         const struct tiermq_feedback *feedback, int64_t timeout_ms)
{
    struct word word = {.client = client};
    struct feedback *added = NULL;
    int r = refuse_in_callback(client);
    if (r == 0) {
        r = feedbacks_add(client, id, feedback, take_word, &word, &added);
    }
    if (r < 0) {
        return r;
    }
    r = dispatch_until(client, &word.is_done, deadline_of(timeout_ms));
    if (!word.is_done) {
        feedbacks_forget(client, added);
        complain_of_timeout(client, timeout_ms);
        return r;
    }
    return word.result;
}

/* ----------------------------------------------------------------------------------------------
 * the status */

static int status_copy(const struct id *id, const char *state, const Wire__JobStatus *status,
                       struct tiermq_status **ret_status)
{
    const char *why = status == NULL ? "" : status->why;
    struct tiermq_status *copy = calloc(1, sizeof(*copy) + strlen(why) + 1);
    if (copy == NULL) {
        return -ENOMEM;
    }
    memcpy(copy->id.bytes, id->bytes, sizeof(copy->id.bytes));
    copy->state = state;
    copy->why = strcpy((char *)(copy + 1), why);
    if (status != NULL) {
        copy->attempts = status->attempts;
        copy->waits_ms = (int64_t)status->waits_ms;
        copy->position = status->position;
        copy->has_estimate = status->has_estimate;
        copy->starts_in_ms = (int64_t)status->starts_in_ms;
    }
    *ret_status = copy;
    return 0;
}

static void take_status(void *context, const Wire__JobStatus *status)
{
    struct outcome *outcome = context;
    struct id id;
    memcpy(id.bytes, status->job_id.data, sizeof(id.bytes)); /* 16 bytes: it was found by them */
    outcome->is_done = true;
    outcome->result = status_copy(&id, answer_state_name(status->state), status, &outcome->status);
}

int tiermq_get_status(struct tiermq *client, const tiermq_id *id, int64_t timeout_ms,
                      struct tiermq_status **ret_status)
{
    struct outcome outcome = {0};
    struct pending *pending = NULL;
    struct id job_id;
    int r = refuse_in_callback(client);
    if (r == 0) {
        r = client_read_id(client, id, &job_id);
    }
    if (r == 0) {
        r = jobs_wait(client, &job_id,
                      &(struct tiermq_callbacks){.on_answer = take_answer, .context = &outcome},
                      take_status, &pending);
    }
    if (r < 0) {
        return r;
    }
    r = dispatch_until(client, &outcome.is_done, deadline_of(timeout_ms));
    if (!outcome.is_done) {
        jobs_forget(client, pending);
        complain_of_timeout(client, timeout_ms);
        return r;
    }
    if (outcome.answer != NULL && outcome.answer->state == TIERMQ_REJECTED) {
        outcome.result = refusal(client, outcome.answer);
    } else if (outcome.answer != NULL) {
        outcome.result = status_copy(&job_id, "unknown", NULL, &outcome.status);
    }
    tiermq_answer_free(&outcome.answer);
    if (outcome.result == 0) {
        *ret_status = outcome.status;
    }
    return outcome.result;
}

void tiermq_status_free(struct tiermq_status **status)
{
    if (status != NULL) {
        free(*status);
        *status = NULL;
    }
}
