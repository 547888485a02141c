/*
 * Whether a near hit was right, besides what is said of its job: told to the tenant's broker once,
 * and not answered; of a wrong one every broker is asked to invalidate the entry, which is.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "client/client.h"

enum { NEAR_FEEDBACKS_MAX = 1000, KEY_BYTES = 16 };
static const double SCORE_RIGHT = 0.5;

struct near_feedback {
    struct list_link link; /* shard.near_feedbacks */
    uint8_t near_key[KEY_BYTES];
    Wire__CacheFeedback message; /* points into this */
    char strings[];
};

static bool is_name(const char *text)
{
    json_t *string = strnlen(text, REQUEST_NAME_BYTES_MAX + 1) > REQUEST_NAME_BYTES_MAX
                         ? NULL
                         : json_string(text);
    json_decref(string);
    return string != NULL;
}

static int check(struct tiermq *client, const struct tiermq_feedback *feedback, const char *tier,
                 uint8_t *ret_key)
{
    if (!client_read_hex(feedback->near_key, KEY_BYTES, ret_key)) {
        client_complain(client, "feedback.near_key: \"%.40s\" is not that of a near hit",
                        feedback->near_key);
        return -EINVAL;
    }
    if (feedback->embedder == NULL || feedback->embedder[0] == '\0' ||
        !is_name(feedback->embedder) || !is_name(tier)) {
        client_complain(client,
                        "feedback.embedder and feedback.tier: must be UTF-8 text of 1 to %d bytes",
                        REQUEST_NAME_BYTES_MAX);
        return -EINVAL;
    }
    if (!isfinite(feedback->near_score)) {
        client_complain(client, "feedback.near_score: is no number");
        return -EINVAL;
    }
    return 0;
}

static struct near_feedback *create(const struct tiermq_feedback *from, const char *tier,
                                    const uint8_t *key)
{
    const size_t tier_bytes = strlen(tier) + 1, embedder_bytes = strlen(from->embedder) + 1;
    struct near_feedback *feedback = calloc(1, sizeof(*feedback) + tier_bytes + embedder_bytes);
    if (feedback == NULL) {
        return NULL;
    }
    memcpy(feedback->near_key, key, KEY_BYTES);
    wire__cache_feedback__init(&feedback->message);
    feedback->message.tier = memcpy(feedback->strings, tier, tier_bytes);
    feedback->message.embedder =
        memcpy(feedback->strings + tier_bytes, from->embedder, embedder_bytes);
    feedback->message.near_score = from->near_score;
    feedback->message.is_right = from->score >= SCORE_RIGHT;
    feedback->message.near_key = (ProtobufCBinaryData){KEY_BYTES, feedback->near_key};
    return feedback;
}

/* The tenant's broker invalidates it anyway; the others have to be told. */
static int invalidate(struct tiermq *client, const char *near_key)
{
    struct invalidation *invalidation = NULL;
    return client->shards_length == 1
               ? 0
               : invalidations_add(client, &(struct tiermq_selector){.key = near_key},
                                   "a client said it was wrong", NULL, NULL, &invalidation);
}

int near_feedbacks_add(struct tiermq *client, const struct tiermq_feedback *feedback)
{
    const char *tier =
        feedback->tier == NULL || feedback->tier[0] == '\0' ? "standard" : feedback->tier;
    struct shard *shard = &client->shards[0]; /* the tenant's home */
    uint8_t key[KEY_BYTES];
    if (feedback->near_key == NULL || feedback->near_key[0] == '\0') {
        return 0;
    }
    const bool is_right = feedback->score >= SCORE_RIGHT;
    int r = check(client, feedback, tier, key);
    if (r < 0) {
        return r;
    }
    if (shard->near_feedbacks.length >= NEAR_FEEDBACKS_MAX) {
        client_complain(client, "%d pieces of feedback wait for the broker", NEAR_FEEDBACKS_MAX);
        return -ENOBUFS;
    }
    r = is_right ? 0 : invalidate(client, feedback->near_key);
    if (r < 0) {
        return r;
    }
    struct near_feedback *kept = create(feedback, tier, key);
    if (kept == NULL) {
        client_complain(client, "out of memory");
        return -ENOMEM;
    }
    list_append(&shard->near_feedbacks, &kept->link);
    return 0;
}

size_t near_feedbacks_write(const struct shard *shard, Wire__CacheFeedback **ret_messages,
                            size_t messages_max)
{
    size_t length = 0;
    list_for_each (&shard->near_feedbacks, link) {
        if (length < messages_max) {
            ret_messages[length++] = &CONTAINER_OF(link, struct near_feedback, link)->message;
        }
    }
    return length;
}

void near_feedbacks_drop(struct shard *shard, size_t length)
{
    while (length-- > 0) {
        struct near_feedback *feedback =
            CONTAINER_OF(list_first(&shard->near_feedbacks), struct near_feedback, link);
        list_remove(&shard->near_feedbacks, &feedback->link);
        free(feedback);
    }
}
