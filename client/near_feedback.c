/*
 * What users say of near hits, on its way to the tenant's broker, where evidence adds up. The entry
 * of a wrong one is invalidated there at once, and here at the other brokers, whose workers may
 * have been given it, too.
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "client/client.h"

enum { FEEDBACKS_MAX = 1000, KEY_BYTES = 16 };

struct feedback {
    struct list_link link; /* shard.feedbacks */
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
    if (feedback->near_key == NULL || !client_read_hex(feedback->near_key, KEY_BYTES, ret_key)) {
        client_complain(client, "feedback.near_key: \"%.40s\" is not that of a near hit",
                        feedback->near_key == NULL ? "" : feedback->near_key);
        return -EINVAL;
    }
    if (feedback->embedder == NULL || feedback->embedder[0] == '\0' ||
        !is_name(feedback->embedder) || !is_name(tier)) {
        client_complain(client,
                        "feedback.embedder and feedback.tier: must be UTF-8 text of 1 to "
                        "%d bytes",
                        REQUEST_NAME_BYTES_MAX);
        return -EINVAL;
    }
    if (!isfinite(feedback->near_score)) {
        client_complain(client, "feedback.near_score: is no number");
        return -EINVAL;
    }
    return 0;
}

static struct feedback *create(const struct tiermq_feedback *from, const char *tier,
                               const uint8_t *key)
{
    const size_t tier_bytes = strlen(tier) + 1, embedder_bytes = strlen(from->embedder) + 1;
    struct feedback *feedback = calloc(1, sizeof(*feedback) + tier_bytes + embedder_bytes);
    if (feedback == NULL) {
        return NULL;
    }
    memcpy(feedback->near_key, key, KEY_BYTES);
    wire__cache_feedback__init(&feedback->message);
    feedback->message.tier = memcpy(feedback->strings, tier, tier_bytes);
    feedback->message.embedder =
        memcpy(feedback->strings + tier_bytes, from->embedder, embedder_bytes);
    feedback->message.near_score = from->near_score;
    feedback->message.near_key = (ProtobufCBinaryData){KEY_BYTES, feedback->near_key};
    feedback->message.is_right = from->is_right;
    return feedback;
}

/* The first broker would do it by itself, too; done for all alike it is answered for, and repeated.
 */
static int invalidate_wrong(struct tiermq *client, const struct tiermq_feedback *feedback)
{
    struct invalidation *invalidation = NULL;
    return client->shards_length == 1
               ? 0
               : invalidations_add(client, &(struct tiermq_selector){.key = feedback->near_key},
                                   "a client said it was wrong", NULL, NULL, &invalidation);
}

int tiermq_give_feedback(struct tiermq *client, const struct tiermq_feedback *feedback)
{
    uint8_t key[KEY_BYTES];
    const char *tier =
        feedback->tier == NULL || feedback->tier[0] == '\0' ? "standard" : feedback->tier;
    struct shard *shard = &client->shards[0]; /* the tenant's home */
    int r = check(client, feedback, tier, key);
    if (r == 0 && shard->feedbacks.length >= FEEDBACKS_MAX) {
        client_complain(client, "%d pieces of feedback wait for the broker", FEEDBACKS_MAX);
        r = -ENOBUFS;
    }
    r = r < 0 || feedback->is_right ? r : invalidate_wrong(client, feedback);
    if (r < 0) {
        return r;
    }
    struct feedback *kept = create(feedback, tier, key);
    if (kept == NULL) {
        client_complain(client, "out of memory");
        return -ENOMEM;
    }
    list_append(&shard->feedbacks, &kept->link);
    return 0;
}

size_t feedbacks_write(const struct shard *shard, Wire__CacheFeedback **ret_messages,
                       size_t messages_max)
{
    size_t length = 0;
    list_for_each (&shard->feedbacks, link) {
        if (length < messages_max) {
            ret_messages[length++] = &CONTAINER_OF(link, struct feedback, link)->message;
        }
    }
    return length;
}

void feedbacks_drop(struct shard *shard, size_t length)
{
    while (length-- > 0) {
        struct feedback *feedback =
            CONTAINER_OF(list_first(&shard->feedbacks), struct feedback, link);
        list_remove(&shard->feedbacks, &feedback->link);
        free(feedback);
    }
}
