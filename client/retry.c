/*
 * What was refused for now is submitted again, under the same id: not before the broker said, later
 * by up to a quarter of that at random and a minute at most, and only while the job's deadline
 * allows. So many may have been refused together that their return would be the next overload:
 * while most submissions of a tier are refused, a part of the resubmissions is put off once more
 * without being sent (throttle.h), for as long as the broker said and a minute at most, but no job
 * more than HOLDS_MAX times in a row. A first submission always goes: its caller is owed a word.
 */
#include <assert.h>
#include <stdio.h>
#include "client/client.h"

enum {
    RETRY_MOST_MS =
        24 * 3600 * 1000, /* of what a broker may ask for; a provider's word is as long */
    SPREAD_MOST_MS = 60 * 1000,
    HOLD_MOST_MS = 60 * 1000, /* throttles forget sooner */
    HOLDS_MAX = 3,
};

static struct throttle *throttle_of(const struct pending *pending)
{
    /* FNV-1a of the tier's name: a tier that is full shall not slow down another, and if two meet
     * no harm is done. */
    uint32_t hash = UINT32_C(2166136261);
    for (const char *at = pending->request->tier; *at != '\0'; at++) {
        hash = (hash ^ (uint8_t)*at) * UINT32_C(16777619);
    }
    return &pending->shard->throttles[hash % CLIENT_THROTTLES];
}

void retry_note_sent(struct pending *pending, int64_t now_ms)
{
    throttle_note_request(throttle_of(pending), now_ms);
}

void retry_note_accepted(struct pending *pending, int64_t now_ms)
{
    throttle_note_accept(throttle_of(pending), now_ms);
    pending->refusals = 0;
}

/* A minute is enough to keep clients apart. A quarter of the hours until a budget is refilled would
 * leave it unused for hours. */
static int64_t jittered(struct tiermq *client, int64_t ms)
{
    const int64_t spread_ms = ms / 4 < SPREAD_MOST_MS ? ms / 4 : SPREAD_MOST_MS;
    return ms + (int64_t)client_random_below(client, (uint64_t)spread_ms + 1);
}

static bool put_off(struct pending *pending, int64_t wait_ms, int64_t now_ms)
{
    struct tiermq *client = pending->shard->client;
    if (wait_ms >= pending->retry_until_ms - now_ms) {
        return false;
    }
    jobs_move(pending, PENDING_DEFERRED);
    if (heap_push(&client->deferred, pending, heap_key_from_ms(now_ms + wait_ms)) < 0) {
        jobs_move(pending, PENDING_SENT); /* out of memory: as if no word had come */
        pending->word_at_ms = now_ms;
    }
    if (id_equal(&client->refused_id, &pending->id)) {
        client->refused_until_ms = now_ms + wait_ms;
    }
    return true;
}

static void note_refusal(struct pending *pending, const char *code, const char *text,
                         int64_t until_ms)
{
    struct tiermq *client = pending->shard->client;
    pending->refused_as = code;
    client->refused_id = pending->id;
    client->refused_until_ms = until_ms;
    (void)snprintf(client->refusal, sizeof(client->refusal), "%s: %s", code, text);
}

const char *retry_refusal(const struct pending *pending)
{
    const struct tiermq *client = pending->shard->client;
    return id_equal(&client->refused_id, &pending->id) ? client->refusal : pending->refused_as;
}

const char *retry_refusal_now(const struct tiermq *client, int64_t *ret_until_ms)
{
    const struct pending *soonest = heap_peek(&client->deferred);
    if (soonest == NULL) {
        return "";
    }
    const struct pending *last = pending_table_first(&client->pending, &client->refused_id);
    while (last != NULL && last->state != PENDING_DEFERRED) {
        last = pending_table_next(last);
    }
    if (last != NULL) {
        *ret_until_ms = client->refused_until_ms;
        return client->refusal;
    }
    *ret_until_ms = heap_ms_from_key(heap_peek_key(&client->deferred));
    return soonest->refused_as;
}

bool retry_put_off(struct pending *pending, const char *code, const char *text,
                   int64_t retry_after_ms, int64_t now_ms)
{
    struct tiermq *client = pending->shard->client;
    const bool is_wanted = pending->is_accepted || client->retry_ms >= 0;
    if (retry_after_ms <= 0 || !is_wanted || pending->is_cancel_wanted) {
        return false;
    }
    pending->retry_after_ms = retry_after_ms < RETRY_MOST_MS ? retry_after_ms : RETRY_MOST_MS;
    pending->refusals++;
    pending->holds = 0;
    const int64_t wait_ms = jittered(client, pending->retry_after_ms);
    if (!put_off(pending, wait_ms, now_ms)) {
        return false;
    }
    note_refusal(pending, code, text, now_ms + wait_ms);
    return true;
}

/* True: it was put off once more. */
static bool hold_back(struct pending *pending, int64_t now_ms)
{
    struct tiermq *client = pending->shard->client;
    struct throttle *throttle = throttle_of(pending);
    const int64_t wait_ms =
        pending->retry_after_ms < HOLD_MOST_MS ? pending->retry_after_ms : HOLD_MOST_MS;
    if (pending->holds >= HOLDS_MAX ||
        client_random_below(client, THROTTLE_ALL) >= throttle_share(throttle, now_ms) ||
        !put_off(pending, jittered(client, wait_ms), now_ms)) {
        return false;
    }
    throttle_note_request(throttle, now_ms);
    pending->holds++;
    return true;
}

void retry_tick(struct tiermq *client, int64_t now_ms)
{
    while (heap_peek_key(&client->deferred) <= heap_key_from_ms(now_ms)) {
        struct pending *pending = heap_pop(&client->deferred);
        if (pending == NULL) {
            return;
        }
        client->looked_at_ms = now_ms;
        if (!hold_back(pending, now_ms)) {
            pending->shards_asked = 0;
            jobs_move(pending, PENDING_UNSENT);
        }
    }
}

int64_t retry_next_ms(const struct tiermq *client)
{
    return heap_peek(&client->deferred) == NULL
               ? INT64_MAX
               : heap_ms_from_key(heap_peek_key(&client->deferred));
}
