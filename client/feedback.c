/*
 * Feedback on its way: it is about a job that one broker has, which one is not known here. So one
 * is asked after another, the tenant's home first, until one knows it. What was sent and not
 * answered is sent again after a welcome, and after a while: a broker that hears it twice counts it
 * once.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "client/client.h"
#include "common/clock.h"

enum { FEEDBACKS_MAX = 1000, COMMENT_BYTES_MAX = 512 };

struct feedback {
    struct list_link link; /* client.feedbacks */
    struct id job_id;
    Wire__Feedback message; /* points into this */
    struct shard *asked;    /* who is to be asked, or has been */
    uint64_t unknowing;     /* bit n: shard n does not know the job, or this client */
    bool is_sent;
    int64_t sent_at_ms;
    int result; /* of those that did not take it, the last */
    char error[CLIENT_ERROR_BYTES];
    tiermq_feedback_fn *on_done; /* may be NULL */
    void *context;
    char comment[];
};

static uint64_t bit_of(const struct shard *shard)
{
    return UINT64_C(1) << shard->index;
}

static struct feedback *at_link(struct list_link *link)
{
    return CONTAINER_OF(link, struct feedback, link);
}

/* ---- giving it ---- */

static bool is_comment(const char *text)
{
    json_t *string =
        strnlen(text, COMMENT_BYTES_MAX + 1) > COMMENT_BYTES_MAX ? NULL : json_string(text);
    json_decref(string);
    return string != NULL;
}

static int check(struct tiermq *client, const struct tiermq_feedback *feedback)
{
    if (!(feedback->score >= 0 && feedback->score <= 1)) {
        client_complain(client, "feedback.score: %g is out of range; use 0 (wrong) to 1 (right)",
                        feedback->score);
        return -EINVAL;
    }
    if (feedback->comment != NULL && !is_comment(feedback->comment)) {
        client_complain(client, "feedback.comment: must be UTF-8 text of %d bytes at most",
                        COMMENT_BYTES_MAX);
        return -EINVAL;
    }
    if (client->feedbacks.length >= FEEDBACKS_MAX) {
        client_complain(client, "%d pieces of feedback wait for a broker", FEEDBACKS_MAX);
        return -ENOBUFS;
    }
    return 0;
}

static struct feedback *create(struct tiermq *client, const struct id *job_id,
                               const struct tiermq_feedback *from)
{
    const char *comment = from->comment == NULL ? "" : from->comment;
    const size_t bytes = strlen(comment) + 1;
    struct feedback *feedback = calloc(1, sizeof(*feedback) + bytes);
    if (feedback == NULL) {
        return NULL;
    }
    feedback->job_id = *job_id;
    feedback->asked = &client->shards[0];
    wire__feedback__init(&feedback->message);
    feedback->message.job_id = (ProtobufCBinaryData){ID_BYTES, feedback->job_id.bytes};
    feedback->message.score = from->score;
    feedback->message.comment = memcpy(feedback->comment, comment, bytes);
    return feedback;
}

int feedbacks_add(struct tiermq *client, const tiermq_id *id,
                  const struct tiermq_feedback *feedback, tiermq_feedback_fn *on_done,
                  void *context, struct feedback **ret_feedback)
{
    struct id job_id;
    int r = client_read_id(client, id, &job_id);
    r = r < 0 ? r : check(client, feedback);
    r = r < 0 ? r : near_feedbacks_add(client, feedback);
    if (r < 0) {
        return r;
    }
    struct feedback *added = create(client, &job_id, feedback);
    if (added == NULL) {
        client_complain(client, "out of memory");
        return -ENOMEM;
    }
    added->on_done = on_done;
    added->context = context;
    list_append(&client->feedbacks, &added->link);
    *ret_feedback = added;
    return 0;
}

void feedbacks_forget(struct tiermq *client, struct feedback *feedback)
{
    list_remove(&client->feedbacks, &feedback->link);
    free(feedback);
}

void feedbacks_forget_all(struct tiermq *client)
{
    while (!list_is_empty(&client->feedbacks)) {
        feedbacks_forget(client, at_link(list_first(&client->feedbacks)));
    }
}

int tiermq_give_feedback_async(struct tiermq *client, const tiermq_id *id,
                               const struct tiermq_feedback *feedback, tiermq_feedback_fn *on_done,
                               void *context)
{
    struct feedback *added = NULL;
    client_begin_call(client);
    return feedbacks_add(client, id, feedback, on_done, context, &added);
}

/* ---- what brokers say ---- */

/* 0, or an errno and its words. The callback may add others. */
static void end(struct tiermq *client, struct feedback *feedback)
{
    list_remove(&client->feedbacks, &feedback->link);
    if (feedback->on_done != NULL) {
        feedback->on_done(feedback->context, feedback->result, feedback->error);
    }
    free(feedback);
}

/* Another one that may know it, one that can be reached rather than another; NULL: there is none.
 */
static struct shard *next_to_ask(struct tiermq *client, const struct feedback *feedback)
{
    struct shard *next = NULL;
    for (size_t i = 0; i < client->shards_length; i++) {
        struct shard *shard = &client->shards[i];
        if ((feedback->unknowing & bit_of(shard)) == 0 && shard != feedback->asked) {
            if (connection_is_open(shard->connection)) {
                return shard;
            }
            next = next == NULL ? shard : next;
        }
    }
    return next;
}

static void ask_next(struct tiermq *client, struct feedback *feedback, int result,
                     const char *error)
{
    feedback->unknowing |= bit_of(feedback->asked);
    feedback->result = result;
    (void)snprintf(feedback->error, sizeof(feedback->error), "%s", error);
    struct shard *next = next_to_ask(client, feedback);
    if (next == NULL) {
        end(client, feedback);
        return;
    }
    feedback->asked = next;
    feedback->is_sent = false;
}

static void end_with(struct tiermq *client, struct feedback *feedback, int result,
                     const char *error)
{
    feedback->result = result;
    (void)snprintf(feedback->error, sizeof(feedback->error), "%s", error);
    end(client, feedback);
}

static struct feedback *find_sent(const struct shard *shard, const ProtobufCBinaryData *job_id)
{
    list_for_each (&shard->client->feedbacks, link) {
        struct feedback *feedback = at_link(link);
        if (feedback->asked == shard && feedback->is_sent && job_id->len == ID_BYTES &&
            memcmp(feedback->job_id.bytes, job_id->data, ID_BYTES) == 0) {
            return feedback;
        }
    }
    return NULL;
}

void feedbacks_take(struct shard *shard, const Wire__FeedbackTaken *taken)
{
    struct feedback *feedback = find_sent(shard, &taken->job_id);
    if (feedback == NULL) {
        return;
    }
    switch (taken->outcome) {
    case WIRE__FEEDBACK_OUTCOME__FEEDBACK_ACCEPTED:
    case WIRE__FEEDBACK_OUTCOME__FEEDBACK_REPEATED:
        end_with(shard->client, feedback, 0, "");
        return;
    case WIRE__FEEDBACK_OUTCOME__FEEDBACK_UNKNOWN:
        ask_next(shard->client, feedback, -ENOENT, taken->error);
        return;
    case WIRE__FEEDBACK_OUTCOME__FEEDBACK_PUT_OFF:
        end_with(shard->client, feedback, -EAGAIN, taken->error);
        return;
    case WIRE__FEEDBACK_OUTCOME__FEEDBACK_OUTCOME_NONE:
    case WIRE__FEEDBACK_OUTCOME__FEEDBACK_REFUSED:
    case _WIRE__FEEDBACK_OUTCOME_IS_INT_SIZE:
        break;
    }
    end_with(shard->client, feedback, -EPERM, taken->error);
}

void feedbacks_opened(struct shard *shard)
{
    list_for_each (&shard->client->feedbacks, link) {
        struct feedback *feedback = at_link(link);
        feedback->is_sent = feedback->is_sent && feedback->asked != shard;
    }
}

/* One that is to be asked of this broker; NULL: there is none. */
static struct feedback *first_asked(const struct shard *shard)
{
    list_for_each (&shard->client->feedbacks, link) {
        if (at_link(link)->asked == shard) {
            return at_link(link);
        }
    }
    return NULL;
}

void feedbacks_refused(struct shard *shard, const char *reason)
{
    struct feedback *feedback = NULL;
    /* As many as there are now: a callback may add one that is refused next time. */
    for (size_t n = shard->client->feedbacks.length;
         n > 0 && (feedback = first_asked(shard)) != NULL; n--) {
        ask_next(shard->client, feedback, -EPERM, reason);
    }
}

/* ---- sending ---- */

static bool is_due(const struct feedback *feedback, const struct shard *shard)
{
    return feedback->asked == shard && !feedback->is_sent;
}

bool feedbacks_are_due(const struct shard *shard)
{
    list_for_each (&shard->client->feedbacks, link) {
        if (is_due(at_link(link), shard)) {
            return true;
        }
    }
    return false;
}

size_t feedbacks_write(const struct shard *shard, Wire__Feedback **ret_messages,
                       size_t messages_max)
{
    size_t length = 0;
    list_for_each (&shard->client->feedbacks, link) {
        struct feedback *feedback = at_link(link);
        if (length < messages_max && is_due(feedback, shard)) {
            ret_messages[length++] = &feedback->message;
        }
    }
    return length;
}

void feedbacks_note_sent(struct shard *shard, size_t length, int64_t now_ms)
{
    list_for_each (&shard->client->feedbacks, link) {
        struct feedback *feedback = at_link(link);
        if (length > 0 && is_due(feedback, shard)) {
            feedback->is_sent = true;
            feedback->sent_at_ms = now_ms;
            length--;
        }
    }
}

void feedbacks_tick(struct tiermq *client, int64_t now_ms)
{
    list_for_each (&client->feedbacks, link) {
        struct feedback *feedback = at_link(link);
        if (feedback->is_sent && now_ms - feedback->sent_at_ms >= CLIENT_RESUBMIT_MS) {
            feedback->is_sent = false;
        }
        if (!feedback->is_sent && !connection_is_open(feedback->asked->connection)) {
            struct shard *next = next_to_ask(client, feedback);
            const bool is_better = next != NULL && connection_is_open(next->connection);
            feedback->asked = is_better ? next : feedback->asked;
        }
    }
}

int64_t feedbacks_next_ms(const struct tiermq *client)
{
    int64_t next_ms = INT64_MAX;
    list_for_each (&client->feedbacks, link) {
        const struct feedback *feedback = at_link(link);
        const int64_t again_ms = feedback->sent_at_ms + CLIENT_RESUBMIT_MS;
        if (feedback->is_sent && again_ms < next_ms) {
            next_ms = again_ms;
        }
    }
    return next_ms;
}
