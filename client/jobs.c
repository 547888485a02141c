/*
 * The life of a pending job. What is hard about it: a broker may vanish between any two messages,
 * and the library does not know which tiers are durable. So it goes by what it was told: a job that
 * was not accepted is submitted again after every welcome; an accepted one is asked for, and
 * submitted again only when the broker says that it does not know it. Ids make all of these the
 * same job. See DESIGN.md, "A job's life", promises 2 and 3.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "client/client.h"
#include "common/clock.h"

static struct pending *at_link(struct list_link *link)
{
    return CONTAINER_OF(link, struct pending, link);
}

static void leave_state(struct pending *pending)
{
    list_remove(&pending->shard->jobs[pending->state], &pending->link);
    if (pending->deferred_position != HEAP_NONE) {
        heap_remove(&pending->shard->client->deferred, pending);
    }
}

void jobs_move(struct pending *pending, enum pending_state next)
{
    leave_state(pending);
    pending->state = next;
    list_append(&pending->shard->jobs[next], &pending->link);
}

static void move_to_shard(struct pending *pending, struct shard *shard, enum pending_state next)
{
    leave_state(pending);
    pending->shard = shard;
    pending->state = next;
    list_append(&shard->jobs[next], &pending->link);
}

void jobs_end(struct pending *pending, enum tiermq_state state, const char *code, const char *text)
{
    pending->ending.state = state;
    pending->ending.code = code;
    pending->ending.text = text;
    jobs_move(pending, PENDING_ENDING);
}

/* ------------------------------------------------------------------------------------------ in and
 * out of the table */

static size_t payload_bytes(const struct pending *pending)
{
    return pending->request == NULL ? 0 : blob_bytes(pending->request->payload);
}

static void pending_destroy(struct pending **pending)
{
    if (*pending != NULL) {
        stream_finish(*pending);
        request_destroy(&(*pending)->request);
        free(*pending);
        *pending = NULL;
    }
}

void jobs_forget(struct tiermq *client, struct pending *pending)
{
    leave_state(pending);
    pending_table_remove(&client->pending, pending);
    if (pending->overdue_position != HEAP_NONE) {
        heap_remove(&client->overdue, pending);
    }
    if (pending->is_detached) {
        list_remove(&client->detached, &pending->detached_link);
    }
    client->bytes -= payload_bytes(pending);
    pending_destroy(&pending);
}

static void forget_oldest_detached(struct tiermq *client)
{
    jobs_forget(client, CONTAINER_OF(list_first(&client->detached), struct pending, detached_link));
}

/* Makes room for one more. Accepted jobs that nobody waits for go first: the broker has them. */
static int reserve(struct tiermq *client, size_t bytes)
{
    for (;;) {
        const bool fits =
            client->pending.length < client->jobs_max && client->bytes + bytes <= client->bytes_max;
        if (fits) {
            return heap_reserve(&client->overdue, 1);
        }
        if (list_is_empty(&client->detached)) {
            client_complain(
                client,
                "%zu jobs and %zu bytes are pending already; wait for answers or raise pending_max",
                client->pending.length, client->bytes);
            return -ENOBUFS;
        }
        forget_oldest_detached(client);
    }
}

/* The tenant's home, unless it has been away for long. */
static struct shard *choose_shard(struct tiermq *client, int64_t now_ms)
{
    for (size_t i = 0; i < client->shards_length; i++) {
        struct shard *shard = &client->shards[i];
        const int64_t since_ms = connection_closed_since_ms(shard->connection);
        const bool is_usable = !connection_is_refused(shard->connection) &&
                               (since_ms == INT64_MAX || now_ms - since_ms < CLIENT_REHOME_MS);
        if (is_usable) {
            return shard;
        }
    }
    return &client->shards[0];
}

static struct pending *pending_create(const struct id *id, const struct tiermq_callbacks *callbacks)
{
    struct pending *pending = calloc(1, sizeof(*pending));
    if (pending == NULL) {
        return NULL;
    }
    pending->id = pending->wire_id = *id;
    pending->started_ns = clock_monotonic_ns();
    pending->overdue_position = pending->deferred_position = HEAP_NONE;
    list_init(&pending->held);
    if (callbacks != NULL) {
        pending->callbacks = *callbacks;
    }
    return pending;
}

/* Takes: *pending, on success. */
static int enlist(struct tiermq *client, struct pending **pending, enum pending_state state)
{
    struct pending *added = *pending;
    const size_t bytes = payload_bytes(added);
    int r = reserve(client, bytes);
    if (r == 0) {
        r = pending_table_add(&client->pending, added);
    }
    if (r < 0) {
        return r;
    }
    added->shard = choose_shard(client, added->started_ns / 1000000);
    added->state = state;
    added->word_at_ms = added->started_ns / 1000000;
    added->seen_in_round = client->round;
    list_append(&added->shard->jobs[state], &added->link);
    client->bytes += bytes;
    if (added->deadline_at_ms != 0) {
        r = heap_push(&client->overdue, added, heap_key_from_ms(added->deadline_at_ms));
        assert(r == 0); /* room was reserved */
    }
    *pending = NULL;
    return 0;
}

int jobs_submit(struct tiermq *client, const struct tiermq_job *job,
                const struct tiermq_callbacks *callbacks, struct pending **ret_pending)
{
    struct request *request = NULL;
    char reason[REQUEST_ERROR_BYTES] = "";
    int r = request_create(job, client->tenant, &request, reason);
    if (r < 0) {
        client_complain(client, "%s", reason);
        return r;
    }
    struct id id;
    memcpy(id.bytes, job->id.bytes, sizeof(id.bytes));
    if (id_is_zero(&id)) {
        id = id_make(&client->ids, clock_unix_ms());
    }
    CLEANUP(pending_destroy) struct pending *pending = pending_create(&id, callbacks);
    if (pending == NULL) {
        request_destroy(&request);
        client_complain(client, "out of memory");
        return -ENOMEM;
    }
    pending->request = request;
    pending->detach = job->detach;
    const int64_t started_ms = pending->started_ns / 1000000;
    pending->retry_until_ms =
        client->retry_ms < INT64_MAX - started_ms ? started_ms + client->retry_ms : INT64_MAX;
    if (request->deadline_ms > 0) {
        pending->deadline_at_ms = started_ms + request->deadline_ms;
        pending->retry_until_ms = pending->deadline_at_ms;
    }
    struct pending *added = pending;
    r = enlist(client, &pending, PENDING_UNSENT);
    if (r == 0) {
        *ret_pending = added;
    }
    return r;
}

int jobs_wait(struct tiermq *client, const struct id *id, const struct tiermq_callbacks *callbacks,
              pending_status_fn *on_status, struct pending **ret_pending)
{
    CLEANUP(pending_destroy) struct pending *pending = pending_create(id, callbacks);
    if (pending == NULL) {
        client_complain(client, "out of memory");
        return -ENOMEM;
    }
    pending->on_status = on_status;
    struct pending *added = pending;
    int r = enlist(client, &pending, PENDING_ASKING);
    if (r == 0) {
        *ret_pending = added;
    }
    return r;
}

/* --------------------------------------------------------------------------------------------------
 * conclusions */

static void detach(struct tiermq *client, struct pending *pending)
{
    pending->is_detached = true;
    list_append(&client->detached, &pending->detached_link);
    while (client->detached.length > CLIENT_DETACHED_MAX) {
        forget_oldest_detached(client);
    }
}

static tiermq_id public_id(const struct id *id)
{
    tiermq_id public = {{0}};
    memcpy(public.bytes, id->bytes, sizeof(public.bytes));
    return public;
}

static void call_back(const struct pending *pending, struct tiermq_answer *said)
{
    said->id = public_id(&pending->id);
    said->known_as = public_id(&pending->wire_id);
    said->total_us = (clock_monotonic_ns() - pending->started_ns) / 1000;
    if (pending->callbacks.on_answer != NULL) {
        pending->callbacks.on_answer(pending->callbacks.context, said);
    }
}

/* The job is let go of before its callback runs, so that the callback may hand in the same job
 * again. */
static void conclude(struct tiermq *client, struct pending *pending, struct tiermq_answer *said)
{
    const struct pending concluded = *pending;
    jobs_forget(client, pending);
    if (!concluded.is_detached) {
        call_back(&concluded, said);
    }
}

void jobs_conclude_read(struct tiermq *client, struct pending *pending)
{
    CLEANUP(tiermq_answer_free) struct tiermq_answer *answer = TAKE(pending->answer);
    conclude(client, pending, answer);
}

/* Its answer is here, or on its way: brokers have nothing more to say of it. */
static bool is_over(const struct pending *pending)
{
    return pending->state == PENDING_ENDING || pending->state == PENDING_READING;
}

static void conclude_ending(struct tiermq *client, struct pending *pending)
{
    const enum tiermq_state state = pending->ending.state;
    char text[2 * CLIENT_ERROR_BYTES];
    const char *said_text = pending->ending.text;
    if (pending->refusals > 0 && (state == TIERMQ_CANCELLED || state == TIERMQ_EXPIRED)) {
        (void)snprintf(text, sizeof(text), "%s; the last time: %s", said_text,
                       retry_refusal(pending));
        said_text = text;
    }
    struct tiermq_answer said = answer_local(state, pending->ending.code, said_text);
    said.retry_after_ms = pending->ending.retry_after_ms;
    conclude(client, pending, &said);
}

/* ---------------------------------------------------------------------------------------- what a
 * broker said */

struct pending *jobs_first_unseen(struct tiermq *client, const struct id *id)
{
    struct pending *pending = pending_table_first(&client->pending, id);
    while (pending != NULL && pending->seen_in_round == client->round) {
        pending = pending_table_next(pending);
    }
    if (pending != NULL) {
        pending->seen_in_round = client->round;
    }
    return pending;
}

static bool is_past_deadline(const struct pending *pending, int64_t now_ms)
{
    return pending->deadline_at_ms != 0 && now_ms >= pending->deadline_at_ms;
}

/* The next broker that may know the job, or take it: one that is open if there is any. NULL: all
 * were asked. */
static struct shard *next_shard(struct tiermq *client, const struct pending *pending)
{
    struct shard *closed = NULL;
    for (size_t i = 0; i < client->shards_length; i++) {
        struct shard *shard = &client->shards[i];
        if ((pending->shards_asked >> i & 1) != 0) {
            continue;
        }
        if (connection_is_open(shard->connection)) {
            return shard;
        }
        closed = closed != NULL ? closed : shard;
    }
    return closed;
}

static void know_as(struct tiermq *client, struct pending *pending, const struct id *id)
{
    pending_table_remove(&client->pending, pending);
    pending->wire_id = *id;
    int r = pending_table_add(&client->pending, pending);
    assert(r == 0); /* one was just taken out, so the table does not grow */
}

/* Under an idempotency key that an earlier job has: from here on we wait for that one. */
static void take_known_as(struct tiermq *client, struct pending *pending,
                          const ProtobufCBinaryData *known_as)
{
    struct id id;
    if (id_from_bytes(known_as->data, known_as->len, &id) < 0 || id_equal(&id, &pending->wire_id)) {
        jobs_move(pending, PENDING_WAITING);
        return;
    }
    know_as(client, pending, &id);
    jobs_move(pending, PENDING_ASKING);
    /* The broker could not tell yet what was to be cancelled. */
    if (pending->is_cancel_wanted && id_queue_push(&pending->shard->cancels, &id) < 0) {
        client_complain(client, "a cancellation could not be sent: out of memory");
    }
}

static void take_accepted_one(struct tiermq *client, struct pending *pending,
                              const Wire__Accepted *accepted, int64_t now_ms)
{
    const bool is_news = !pending->is_accepted;
    pending->is_accepted = true;
    pending->word_at_ms = now_ms;
    retry_note_accepted(pending, now_ms);
    take_known_as(client, pending, &accepted->known_as);
    if (!is_news) {
        return;
    }
    const struct pending copy = *pending; /* callbacks may let go of a detached job */
    if (copy.detach) {
        detach(client, pending);
    }
    if (copy.callbacks.on_accepted != NULL) {
        const tiermq_id id = public_id(&copy.id);
        copy.callbacks.on_accepted(copy.callbacks.context, &id, accepted->duplicate);
    }
    if (copy.detach) {
        struct tiermq_answer said = answer_local(TIERMQ_PENDING, "", "");
        call_back(&copy, &said);
    }
}

static void take_accepted(struct shard *shard, const Wire__Accepted *accepted, int64_t now_ms)
{
    struct id id;
    if (id_from_bytes(accepted->job_id.data, accepted->job_id.len, &id) < 0) {
        return;
    }
    struct pending *pending = NULL;
    shard->client->round++;
    while ((pending = jobs_first_unseen(shard->client, &id)) != NULL) {
        const bool is_submission =
            pending->request != NULL && pending->shard == shard && !is_over(pending);
        if (is_submission) {
            take_accepted_one(shard->client, pending, accepted, now_ms);
        }
    }
}

static int64_t at_most_int64(uint64_t value)
{
    return value < INT64_MAX ? (int64_t)value : INT64_MAX;
}

static void take_rejected_one(struct shard *shard, struct pending *pending,
                              const Wire__Rejected *rejected, int64_t now_ms)
{
    pending->shards_asked |= UINT64_C(1) << shard->index;
    struct shard *other = rejected->reason == WIRE__REJECT_REASON__REJECT_DRAINING
                              ? next_shard(shard->client, pending)
                              : NULL;
    if (other != NULL && connection_is_open(other->connection)) {
        move_to_shard(pending, other, PENDING_UNSENT);
        return;
    }
    if (pending->is_accepted && pending->deadline_at_ms == 0) {
        pending->retry_until_ms = INT64_MAX; /* forgotten in a restart: the promise stands */
    }
    pending->was_sent = pending->is_accepted; /* this broker, at least, has it not */
    const char *code = answer_reject_name(rejected->reason);
    if (retry_put_off(pending, code, rejected->text, at_most_int64(rejected->retry_after_ms),
                      now_ms)) {
        return;
    }
    struct tiermq_answer said = answer_local(TIERMQ_REJECTED, code, rejected->text);
    said.retry_after_ms = at_most_int64(rejected->retry_after_ms);
    conclude(shard->client, pending, &said);
}

static void take_rejected(struct shard *shard, const Wire__Rejected *rejected, int64_t now_ms)
{
    struct id id;
    if (id_from_bytes(rejected->job_id.data, rejected->job_id.len, &id) < 0) {
        return;
    }
    struct pending *pending = NULL;
    shard->client->round++;
    while ((pending = jobs_first_unseen(shard->client, &id)) != NULL) {
        if (pending->request != NULL && pending->shard == shard && pending->state == PENDING_SENT) {
            take_rejected_one(shard, pending, rejected, now_ms);
        }
    }
}

/* Given up in an overload, and not run: the broker takes it again under its own id. */
static bool put_off_shed(struct tiermq *client, struct pending *pending,
                         const struct tiermq_answer *answer, int64_t now_ms)
{
    const bool is_shed = answer->state == TIERMQ_EXPIRED && answer->retry_after_ms > 0;
    if (!is_shed || pending->request == NULL || pending->state == PENDING_ENDING ||
        client->retry_ms < 0 ||
        !retry_put_off(pending, "shed", answer->error_text, answer->retry_after_ms, now_ms)) {
        return false;
    }
    know_as(client, pending, &pending->id);
    pending->was_sent = false;
    return true;
}

/* Concluded while only its status was asked for: whoever wants the answer asks for that. */
static void tell_status(struct tiermq *client, struct pending *pending, const Wire__Result *result)
{
    pending_status_fn *on_status = pending->on_status;
    void *context = pending->callbacks.context;
    Wire__JobStatus status = WIRE__JOB_STATUS__INIT;
    status.job_id = result->job_id;
    status.state = result->state;
    status.attempts = result->attempts;
    jobs_forget(client, pending);
    on_status(context, &status);
}

static void take_result(struct shard *shard, const Wire__Result *result, const void *payload,
                        size_t payload_bytes, int64_t now_ms)
{
    struct id id;
    if (id_from_bytes(result->job_id.data, result->job_id.len, &id) < 0) {
        return;
    }
    struct answer_view view;
    answer_read(result, payload, payload_bytes, &view);
    const bool is_conclusion =
        view.answer.state != TIERMQ_PENDING && view.answer.state != TIERMQ_UNKNOWN;
    bool is_collected = false;
    struct pending *pending = NULL;
    shard->client->round++;
    while (is_conclusion && (pending = jobs_first_unseen(shard->client, &id)) != NULL) {
        if (pending->state == PENDING_READING ||
            put_off_shed(shard->client, pending, &view.answer, now_ms)) {
            continue;
        }
        if (pending->on_status != NULL) {
            tell_status(shard->client, pending, result);
            continue;
        }
        /* Nobody sees the answer of a detached job: it stays at the broker for a later
         * tiermq_wait(). */
        struct tiermq_answer said =
            pending->detach ? answer_local(TIERMQ_PENDING, "", "") : view.answer;
        is_collected = is_collected || (!pending->detach && said.state != TIERMQ_COLLECTED);
        if (!stream_keep_answer(pending, &said, result->chunks)) {
            conclude(shard->client, pending, &said);
        }
    }
    answer_view_finish(&view);
    if (is_collected) {
        outbox_collected(shard, &id);
    }
}

/* The broker has never heard of it, or forgot it in a restart. */
static void take_unknown(struct shard *shard, struct pending *pending, int64_t now_ms)
{
    struct tiermq *client = shard->client;
    if (pending->request != NULL) {
        if (is_past_deadline(pending, now_ms)) {
            jobs_end(pending, TIERMQ_LOST, "lost",
                     "the broker forgot the job, and its deadline has passed");
            return;
        }
        know_as(client, pending, &pending->id);
        jobs_move(pending, PENDING_UNSENT);
        return;
    }
    pending->shards_asked |= UINT64_C(1) << shard->index;
    struct shard *other = next_shard(client, pending);
    if (other != NULL) {
        move_to_shard(pending, other, PENDING_ASKING);
        return;
    }
    jobs_end(pending, TIERMQ_UNKNOWN, "unknown", "no broker knows this id");
}

/* There is no answer now. At the list's head, where its time is looked at first. */
static void ask_soon(struct pending *pending, int64_t now_ms)
{
    struct list *waiting = &pending->shard->jobs[PENDING_WAITING];
    pending->word_at_ms = now_ms - CLIENT_ASK_MS + CLIENT_ASK_SOON_MS;
    list_remove(waiting, &pending->link);
    list_prepend(waiting, &pending->link);
}

static void take_status_one(struct shard *shard, struct pending *pending,
                            const Wire__JobStatus *status, int64_t now_ms, bool is_kept_here)
{
    const bool is_unknown = status->state == WIRE__JOB_STATE__JOB_STATE_UNKNOWN;
    const bool is_concluded = !is_unknown && answer_state(status->state) != TIERMQ_PENDING;
    /* Its submission goes out again before, maybe later; or its result cannot be had yet. */
    if ((is_unknown && pending->request == NULL && is_kept_here) ||
        (is_concluded && pending->on_status == NULL)) {
        ask_soon(pending, now_ms);
    } else if (is_unknown) {
        take_unknown(shard, pending, now_ms);
    } else if (pending->on_status != NULL) {
        pending_status_fn *on_status = pending->on_status;
        void *context = pending->callbacks.context;
        jobs_forget(shard->client, pending);
        on_status(context, status);
    } else {
        pending->word_at_ms = now_ms;
        jobs_move(pending, PENDING_WAITING);
    }
}

static void take_status(struct shard *shard, const Wire__JobStatus *status, int64_t now_ms)
{
    struct id id;
    if (id_from_bytes(status->job_id.data, status->job_id.len, &id) < 0) {
        return;
    }
    bool is_kept_here = false;
    const struct pending *kept = pending_table_first(&shard->client->pending, &id);
    for (; kept != NULL; kept = pending_table_next(kept)) {
        is_kept_here |=
            kept->request != NULL && kept->shard == shard && !is_past_deadline(kept, now_ms);
    }
    struct pending *pending = NULL;
    shard->client->round++;
    while ((pending = jobs_first_unseen(shard->client, &id)) != NULL) {
        if (pending->shard == shard && pending->state == PENDING_WAITING) {
            take_status_one(shard, pending, status, now_ms, is_kept_here);
        }
    }
}

void jobs_message(void *context, const Wire__BrokerToClient *message, struct link_message *parts)
{
    struct shard *shard = context;
    const int64_t now_ms = clock_monotonic_ms();
    for (size_t i = 0; i < message->n_accepted; i++) {
        take_accepted(shard, message->accepted[i], now_ms);
    }
    for (size_t i = 0; i < message->n_rejected; i++) {
        take_rejected(shard, message->rejected[i], now_ms);
    }
    size_t part = 1;
    for (size_t i = 0; i < message->n_result; i++) {
        const Wire__Result *result = message->result[i];
        size_t bytes = 0;
        const void *payload = NULL;
        if (result->has_payload && part < link_message_parts(parts)) {
            payload = link_message_part(parts, part++, &bytes);
        }
        take_result(shard, result, payload, bytes, now_ms);
    }
    for (size_t i = 0; i < message->n_status; i++) {
        take_status(shard, message->status[i], now_ms);
    }
    for (size_t i = 0; i < message->n_cache_invalidated; i++) {
        invalidations_take(shard, message->cache_invalidated[i]);
    }
    for (size_t i = 0; i < message->n_feedback_taken; i++) {
        feedbacks_take(shard, message->feedback_taken[i]);
    }
}

/* --------------------------------------------------------------------------------------- brokers
 * come and go */

static void move_all(struct shard *shard, enum pending_state from, enum pending_state to)
{
    while (!list_is_empty(&shard->jobs[from])) {
        jobs_move(at_link(list_first(&shard->jobs[from])), to);
    }
}

static void repeat_cancels(struct shard *shard)
{
    list_for_each (&shard->jobs[PENDING_WAITING], link) {
        const struct pending *pending = at_link(link);
        if (pending->is_cancel_wanted && id_queue_push(&shard->cancels, &pending->wire_id) < 0) {
            client_complain(shard->client, "a cancellation could not be repeated: out of memory");
            return;
        }
    }
}

/*
 * A broker that was restarted may give a job the number of an attempt anew, whose wording need not
 * be that of the chunks that were handed on.
 */
static void end_streams(struct shard *shard)
{
    for (size_t i = 0; i < PENDING_STATES; i++) {
        list_for_each (&shard->jobs[i], link) {
            struct pending *pending = at_link(link);
            pending->is_stream_over = pending->is_stream_over || pending->chunk_attempt != 0;
        }
    }
}

/* Accepted jobs that were sent again, and not accepted again yet, are asked for like the others:
 * the answer is the same. */
void jobs_opened(void *context)
{
    struct shard *shard = context;
    const uint64_t incarnation = connection_incarnation(shard->connection);
    if (shard->incarnation != 0 && shard->incarnation != incarnation) {
        end_streams(shard);
    }
    shard->incarnation = incarnation;
    streams_opened(shard);
    shard->blocked_until_ms = 0;
    repeat_cancels(shard);
    invalidations_opened(shard);
    feedbacks_opened(shard);
    move_all(shard, PENDING_SENT, PENDING_UNSENT);
    move_all(shard, PENDING_WAITING, PENDING_ASKING);
}

/* A refusal that passes is waited for, as a broker is that cannot be reached. */
static bool waits_for_welcome(const struct tiermq *client, const struct pending *pending,
                              int64_t retry_after_ms, int64_t now_ms)
{
    return retry_after_ms > 0 && client->retry_ms >= 0 &&
           (pending->request == NULL || retry_after_ms < pending->retry_until_ms - now_ms);
}

/* What was accepted before goes on at the broker, which may take this client again. */
void jobs_refused(void *context, const char *reason, int64_t retry_after_ms)
{
    struct shard *shard = context;
    const int64_t now_ms = clock_monotonic_ms();
    const enum pending_state states[] = {PENDING_UNSENT, PENDING_SENT, PENDING_DEFERRED,
                                         PENDING_ASKING, PENDING_WAITING};
    for (size_t i = 0; i < ARRAY_LENGTH(states); i++) {
        const struct list *jobs = &shard->jobs[states[i]];
        struct list_link *next = NULL;
        for (struct list_link *link = jobs->head.next; link != &jobs->head; link = next) {
            next = link->next;
            struct pending *pending = at_link(link);
            if (pending->is_accepted ||
                waits_for_welcome(shard->client, pending, retry_after_ms, now_ms)) {
                continue;
            }
            if (pending->request != NULL && pending->was_sent) {
                jobs_end(pending, TIERMQ_LOST, "lost", reason); /* the broker may have it */
            } else {
                pending->ending.retry_after_ms = retry_after_ms;
                jobs_end(pending, TIERMQ_REJECTED, "refused", reason);
            }
        }
    }
    if (retry_after_ms == 0) {
        invalidations_refused(shard, reason);
        feedbacks_refused(shard, reason);
    }
    client_complain(shard->client, "%s", reason);
}

/* -------------------------------------------------------------------------------------------------
 * the clock */

/* What was provably not sent to a broker that is away may go to another one. */
static void rehome(struct tiermq *client, struct shard *away, int64_t now_ms)
{
    struct shard *shard = choose_shard(client, now_ms);
    if (shard == away || !connection_is_open(shard->connection)) {
        return;
    }
    struct list_link *next = NULL;
    struct list *unsent = &away->jobs[PENDING_UNSENT];
    for (struct list_link *link = unsent->head.next; link != &unsent->head; link = next) {
        next = link->next;
        if (!at_link(link)->was_sent) {
            move_to_shard(at_link(link), shard, PENDING_UNSENT);
        }
    }
}

/* Messages can be lost without the connection being so: a broker drops what a full queue does not
 * take. */
static void ask_again(struct shard *shard, int64_t now_ms)
{
    const struct {
        enum pending_state from, to;
        int64_t after_ms;
    } rules[] = {{PENDING_SENT, PENDING_UNSENT, CLIENT_RESUBMIT_MS},
                 {PENDING_WAITING, PENDING_ASKING, CLIENT_ASK_MS}};
    for (size_t i = 0; i < ARRAY_LENGTH(rules); i++) {
        const struct list *jobs = &shard->jobs[rules[i].from];
        while (!list_is_empty(jobs) &&
               now_ms - at_link(list_first(jobs))->word_at_ms >= rules[i].after_ms) {
            jobs_move(at_link(list_first(jobs)), rules[i].to);
        }
    }
}

/* Brokers that there is nothing to say of yet. */
static void name_silent(const struct tiermq *client, char *ret_text, size_t bytes)
{
    size_t length = 0;
    for (size_t i = 0; i < client->shards_length && length < bytes; i++) {
        const int r = snprintf(ret_text + length, bytes - length, "%s%.100s", i == 0 ? "" : ", ",
                               client->shards[i].endpoint);
        length += r < 0 ? 0 : (size_t)r;
    }
    if (length < bytes) {
        (void)snprintf(ret_text + length, bytes - length, ": no answer yet");
    }
}

/* The words are the client's, since those of a connection are gone when the answer is told. */
static void expire_unsent(struct tiermq *client, struct pending *pending)
{
    if (pending->refusals > 0) {
        jobs_end(pending, TIERMQ_EXPIRED, "deadline",
                 "it was refused for now until its deadline had passed");
        return;
    }
    char silent[CLIENT_ERROR_BYTES - 100] = "";
    const char *why = tiermq_connection_error(client);
    if (why[0] == '\0') {
        name_silent(client, silent, sizeof(silent));
        why = silent;
    }
    (void)snprintf(client->unreached, sizeof(client->unreached),
                   "no broker could be reached before its deadline; %s", why);
    jobs_end(pending, TIERMQ_EXPIRED, "deadline", client->unreached);
}

/* Its deadline is over and the broker has not said so. */
static void take_overdue(struct tiermq *client, struct pending *pending, int64_t now_ms)
{
    const bool is_open = connection_is_open(pending->shard->connection);
    const bool is_over = now_ms >= pending->deadline_at_ms + CLIENT_OVERDUE_MS;
    if (!pending->was_sent) {
        expire_unsent(client, pending);
        return;
    }
    if (is_over && !is_open) {
        jobs_end(pending, TIERMQ_LOST, "lost",
                 "its deadline passed without a broker's word; a durable tier may still have it");
        return;
    }
    if (is_over && (pending->state == PENDING_SENT || pending->state == PENDING_WAITING)) {
        jobs_move(pending, PENDING_ASKING);
    }
    int r = heap_push(&client->overdue, pending, heap_key_from_ms(now_ms + CLIENT_OVERDUE_MS));
    assert(r == 0); /* one was just taken out */
}

static void look_at_deadlines(struct tiermq *client, int64_t now_ms)
{
    while (heap_peek_key(&client->overdue) <= heap_key_from_ms(now_ms)) {
        client->looked_at_ms = now_ms;
        struct pending *pending = heap_pop(&client->overdue);
        if (!is_over(pending)) {
            take_overdue(client, pending, now_ms);
        }
    }
}

static void tick_shard(struct tiermq *client, struct shard *shard, int64_t now_ms)
{
    connection_tick(shard->connection, now_ms);
    if (connection_is_open(shard->connection)) {
        ask_again(shard, now_ms);
    } else {
        streams_closed(shard);
        if (client->shards_length > 1) {
            rehome(client, shard, now_ms);
        }
    }
    /* As many as there are now: what callbacks add has its turn later. */
    for (size_t n = shard->jobs[PENDING_ENDING].length;
         n > 0 && !list_is_empty(&shard->jobs[PENDING_ENDING]); n--) {
        conclude_ending(client, at_link(list_first(&shard->jobs[PENDING_ENDING])));
    }
}

void jobs_tick(struct tiermq *client, int64_t now_ms)
{
    look_at_deadlines(client, now_ms);
    retry_tick(client, now_ms);
    invalidations_tick(client, now_ms);
    feedbacks_tick(client, now_ms);
    streams_tick(client);
    for (size_t i = 0; i < client->shards_length; i++) {
        tick_shard(client, &client->shards[i], now_ms);
    }
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t next_of_shard(const struct shard *shard)
{
    int64_t next_ms = connection_next_ms(shard->connection);
    if (!list_is_empty(&shard->jobs[PENDING_ENDING])) {
        return 0;
    }
    if (!connection_is_open(shard->connection)) {
        return next_ms;
    }
    next_ms = earlier(next_ms, outbox_due_ms(shard));
    if (!list_is_empty(&shard->jobs[PENDING_SENT])) {
        next_ms = earlier(next_ms, at_link(list_first(&shard->jobs[PENDING_SENT]))->word_at_ms +
                                       CLIENT_RESUBMIT_MS);
    }
    if (!list_is_empty(&shard->jobs[PENDING_WAITING])) {
        next_ms = earlier(next_ms, at_link(list_first(&shard->jobs[PENDING_WAITING]))->word_at_ms +
                                       CLIENT_ASK_MS);
    }
    return next_ms;
}

/*
 * When the next deadline is to be looked at, or job submitted again. One that is alone has its time
 * to the millisecond; thousands would be as many wakes, so those that follow within
 * CLIENT_GATHER_MS share one. What is to be submitted again is held up only when there is nobody to
 * submit it to.
 */
static int64_t next_of_jobs(const struct tiermq *client)
{
    const int64_t gathered_ms = client->looked_at_ms + CLIENT_GATHER_MS;
    const int64_t retry_ms = retry_next_ms(client);
    const int64_t overdue_ms = heap_peek(&client->overdue) == NULL
                                   ? INT64_MAX
                                   : heap_ms_from_key(heap_peek_key(&client->overdue));
    return earlier(tiermq_is_connected(client) ? retry_ms : later(retry_ms, gathered_ms),
                   later(overdue_ms, gathered_ms));
}

int64_t jobs_next_ms(const struct tiermq *client)
{
    int64_t next_ms = earlier(next_of_jobs(client), invalidations_next_ms(client));
    next_ms = earlier(next_ms, feedbacks_next_ms(client));
    next_ms = list_is_empty(&client->streams_due) ? next_ms : 0;
    for (size_t i = 0; i < client->shards_length; i++) {
        next_ms = earlier(next_ms, next_of_shard(&client->shards[i]));
    }
    return next_ms;
}
