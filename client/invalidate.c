/*
 * Invalidations on their way: each goes to every broker, since each has workers of its own, and is
 * done when all have answered. What was sent and not answered is sent again after a welcome, and
 * after a while: a broker that carries it out twice does no harm.
 */
#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "client/client.h"
#include "common/clock.h"

enum {
    INVALIDATIONS_MAX = 1000,
    TEXT_BYTES_MAX = 8192, /* as the broker checks them */
    REASON_BYTES_MAX = 256,
    KEY_BYTES = 16,
    PUT_OFF_MS_MAX = 60000,
};
static const int64_t AGE_MS_MAX = INT64_C(1) << 40;
static const double NEAR_PRESET = 0.8;

static uint64_t bit_of(const struct shard *shard)
{
    return UINT64_C(1) << shard->index;
}

/* ---- reading a selector ---- */

static int check_text(struct tiermq *client, const char *field, const char *text, size_t bytes_max)
{
    if (text == NULL) {
        return 0;
    }
    json_t *string = strnlen(text, bytes_max + 1) > bytes_max ? NULL : json_string(text);
    json_decref(string);
    if (string == NULL) {
        client_complain(client, "%s: must be UTF-8 text of %zu bytes at most", field, bytes_max);
        return -EINVAL;
    }
    return 0;
}

static int check_texts(struct tiermq *client, const struct tiermq_selector *selector)
{
    const struct {
        const char *field, *text;
    } texts[] = {{"selector.cache_namespace", selector->cache_namespace},
                 {"selector.tag", selector->tag},
                 {"selector.document", selector->document},
                 {"selector.route", selector->route},
                 {"selector.model", selector->model},
                 {"selector.template_version", selector->template_version},
                 {"selector.text_prefix", selector->text_prefix},
                 {"selector.near_text", selector->near_text}};
    int r = 0;
    for (size_t i = 0; r == 0 && i < ARRAY_LENGTH(texts); i++) {
        r = check_text(client, texts[i].field, texts[i].text, TEXT_BYTES_MAX);
    }
    return r;
}

static bool is_set(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static bool is_restricted(const struct tiermq_selector *selector)
{
    return is_set(selector->key) || is_set(selector->scope) || selector->cache_namespace != NULL ||
           is_set(selector->tag) || is_set(selector->document) || is_set(selector->route) ||
           is_set(selector->model) || is_set(selector->template_version) ||
           selector->older_than_ms > 0 || is_set(selector->text_prefix) ||
           is_set(selector->near_text);
}

static int check_reach(struct tiermq *client, const struct tiermq_selector *selector)
{
    if (is_restricted(selector) == selector->all) {
        client_complain(
            client, selector->all ? "selector.all: goes with no other field"
                                  : "selector: says nothing; set a field, or all for every entry");
        return -EINVAL;
    }
    if (selector->older_than_ms < 0 || selector->older_than_ms > AGE_MS_MAX) {
        client_complain(client, "selector.older_than_ms: %lld is out of range; use 0 to %lld",
                        (long long)selector->older_than_ms, (long long)AGE_MS_MAX);
        return -EINVAL;
    }
    const bool is_near = selector->near_min >= 0.1 && selector->near_min <= 1.0;
    if (selector->near_min != 0 && !is_near) {
        client_complain(client, "selector.near_min: %g is out of range; use 0.1 to 1, or 0 for %g",
                        selector->near_min, NEAR_PRESET);
        return -EINVAL;
    }
    return 0;
}

/* What the fields of a message that is packed point to. */
struct draft {
    uint8_t key[KEY_BYTES], scope[KEY_BYTES];
    Wire__CacheSelector selector;
};

static char *or_empty(const char *text)
{
    return (char *)(text == NULL ? "" : text);
}

static int read_key(struct tiermq *client, const char *field, const char *text, uint8_t *bytes,
                    ProtobufCBinaryData *ret_data)
{
    if (!is_set(text)) {
        return 0;
    }
    if (!client_read_hex(text, KEY_BYTES, bytes)) {
        client_complain(client, "%s: \"%.40s\" has not %d hexadecimal digits", field, text,
                        2 * KEY_BYTES);
        return -EINVAL;
    }
    *ret_data = (ProtobufCBinaryData){KEY_BYTES, bytes};
    return 0;
}

static int read_selector(struct tiermq *client, const struct tiermq_selector *from,
                         struct draft *ret_draft)
{
    Wire__CacheSelector *selector = &ret_draft->selector;
    wire__cache_selector__init(selector);
    int r = check_reach(client, from);
    r = r < 0 ? r : check_texts(client, from);
    r = r < 0 ? r : read_key(client, "selector.key", from->key, ret_draft->key, &selector->key);
    r = r < 0 ? r
              : read_key(client, "selector.scope", from->scope, ret_draft->scope, &selector->scope);
    selector->tenant = client->tenant;
    selector->has_namespace = from->cache_namespace != NULL;
    selector->cache_namespace = or_empty(from->cache_namespace);
    selector->tag = or_empty(from->tag);
    selector->document = or_empty(from->document);
    selector->route = or_empty(from->route);
    selector->model = or_empty(from->model);
    selector->template_version = or_empty(from->template_version);
    selector->older_than_ms = (uint64_t)from->older_than_ms;
    selector->text_prefix = or_empty(from->text_prefix);
    selector->near_text = or_empty(from->near_text);
    selector->near_cosine_min = from->near_min == 0 ? NEAR_PRESET : from->near_min;
    return r;
}

/* ---- the list ---- */

/* Gives: a copy of the message with all that it points to; NULL: no memory. */
static Wire__CacheInvalidate *copy(const Wire__CacheInvalidate *message)
{
    const size_t bytes = wire__cache_invalidate__get_packed_size(message);
    uint8_t *packed = malloc(bytes);
    if (packed == NULL) {
        return NULL;
    }
    (void)wire__cache_invalidate__pack(message, packed);
    Wire__CacheInvalidate *copied = wire__cache_invalidate__unpack(NULL, bytes, packed);
    free(packed);
    return copied;
}

static void destroy(struct invalidation *invalidation)
{
    wire__cache_invalidate__free_unpacked(invalidation->message, NULL);
    free(invalidation);
}

void invalidations_forget(struct tiermq *client, struct invalidation *invalidation)
{
    list_remove(&client->invalidations, &invalidation->link);
    destroy(invalidation);
}

int invalidations_add(struct tiermq *client, const struct tiermq_selector *selector,
                      const char *reason, tiermq_invalidated_fn *on_done, void *context,
                      struct invalidation **ret_invalidation)
{
    struct draft draft;
    int r = check_text(client, "reason", reason, REASON_BYTES_MAX);
    r = r < 0 ? r : read_selector(client, selector, &draft);
    if (r < 0) {
        return r;
    }
    if (client->invalidations.length >= INVALIDATIONS_MAX) {
        client_complain(client, "%d invalidations wait for a broker", INVALIDATIONS_MAX);
        return -ENOBUFS;
    }
    Wire__CacheInvalidate message = WIRE__CACHE_INVALIDATE__INIT;
    message.number = ++client->invalidation_number;
    message.selector = &draft.selector;
    message.reason = or_empty(reason);
    struct invalidation *invalidation = calloc(1, sizeof(*invalidation));
    Wire__CacheInvalidate *copied = invalidation == NULL ? NULL : copy(&message);
    if (copied == NULL) {
        free(invalidation);
        client_complain(client, "out of memory");
        return -ENOMEM;
    }
    invalidation->message = copied;
    invalidation->on_done = on_done;
    invalidation->context = context;
    for (size_t i = 0; i < client->shards_length; i++) {
        invalidation->missing |= bit_of(&client->shards[i]);
    }
    invalidation->unsent = invalidation->missing;
    list_append(&client->invalidations, &invalidation->link);
    *ret_invalidation = invalidation;
    return 0;
}

void invalidations_forget_all(struct tiermq *client)
{
    while (!list_is_empty(&client->invalidations)) {
        invalidations_forget(
            client, CONTAINER_OF(list_first(&client->invalidations), struct invalidation, link));
    }
}

/* ---- what brokers say ---- */

/* One broker has answered: 0, or an errno and its words. The callback may add others. */
static void answered(struct shard *shard, struct invalidation *invalidation, int result,
                     const char *error)
{
    invalidation->missing &= ~bit_of(shard);
    invalidation->unsent &= invalidation->missing;
    if (result < 0 && invalidation->result == 0) {
        invalidation->result = result;
        (void)snprintf(invalidation->error, sizeof(invalidation->error), "%s", error);
    }
    if (invalidation->missing == 0) {
        list_remove(&shard->client->invalidations, &invalidation->link);
        if (invalidation->on_done != NULL) {
            invalidation->on_done(invalidation->context, invalidation->result, invalidation->error);
        }
        destroy(invalidation);
    }
}

static struct invalidation *find(struct tiermq *client, uint64_t number)
{
    list_for_each (&client->invalidations, link) {
        struct invalidation *invalidation = CONTAINER_OF(link, struct invalidation, link);
        if (invalidation->message->number == number) {
            return invalidation;
        }
    }
    return NULL;
}

/* Refused for now: it, and all behind it, go then and a little later, and one at a time until one
 * is taken. */
static void put_off(struct shard *shard, struct invalidation *invalidation, uint64_t retry_after_ms)
{
    const uint64_t for_ms = retry_after_ms < PUT_OFF_MS_MAX ? retry_after_ms : PUT_OFF_MS_MAX;
    const int64_t spread_ms = (int64_t)randombytes_uniform((uint32_t)for_ms / 4 + 1);
    shard->invalidations_at_ms = clock_monotonic_ms() + (int64_t)for_ms + spread_ms;
    shard->invalidations_most = 1;
    invalidation->unsent |= bit_of(shard);
}

void invalidations_take(struct shard *shard, const Wire__CacheInvalidated *answer)
{
    struct invalidation *invalidation = find(shard->client, answer->number);
    if (invalidation == NULL || (invalidation->missing & bit_of(shard)) == 0) {
        return;
    }
    if (answer->retry_after_ms > 0) {
        put_off(shard, invalidation, answer->retry_after_ms);
        return;
    }
    if (answer->error[0] == '\0' && shard->invalidations_most > 0) {
        shard->invalidations_most *= 2;
    }
    answered(shard, invalidation, answer->error[0] == '\0' ? 0 : -EPERM, answer->error);
}

void invalidations_opened(struct shard *shard)
{
    list_for_each (&shard->client->invalidations, link) {
        struct invalidation *invalidation = CONTAINER_OF(link, struct invalidation, link);
        invalidation->unsent |= invalidation->missing & bit_of(shard);
    }
}

/* Those that wait for this broker; NULL: none does. */
static struct invalidation *first_missing(struct shard *shard)
{
    list_for_each (&shard->client->invalidations, link) {
        struct invalidation *invalidation = CONTAINER_OF(link, struct invalidation, link);
        if ((invalidation->missing & bit_of(shard)) != 0) {
            return invalidation;
        }
    }
    return NULL;
}

void invalidations_refused(struct shard *shard, const char *reason)
{
    struct invalidation *invalidation = NULL;
    /* As many as there are now: a callback may add one that is refused next time. */
    for (size_t n = shard->client->invalidations.length;
         n > 0 && (invalidation = first_missing(shard)) != NULL; n--) {
        answered(shard, invalidation, -EPERM, reason);
    }
}

/* ---- sending ---- */

/* How many may be sent now. */
static size_t room(const struct shard *shard)
{
    size_t under_way = 0;
    if (shard->invalidations_most == 0) {
        return SIZE_MAX;
    }
    if (clock_monotonic_ms() < shard->invalidations_at_ms) {
        return 0;
    }
    list_for_each (&shard->client->invalidations, link) {
        const struct invalidation *invalidation = CONTAINER_OF(link, struct invalidation, link);
        under_way += (invalidation->missing & ~invalidation->unsent & bit_of(shard)) != 0;
    }
    return under_way < shard->invalidations_most ? shard->invalidations_most - under_way : 0;
}

static bool has_unsent(const struct shard *shard)
{
    list_for_each (&shard->client->invalidations, link) {
        const struct invalidation *invalidation = CONTAINER_OF(link, struct invalidation, link);
        if ((invalidation->unsent & bit_of(shard)) != 0) {
            return true;
        }
    }
    return false;
}

bool invalidations_are_due(const struct shard *shard)
{
    return has_unsent(shard) && room(shard) > 0;
}

size_t invalidations_write(const struct shard *shard, Wire__CacheInvalidate **ret_messages,
                           size_t messages_max)
{
    size_t length = 0;
    const size_t most = room(shard) < messages_max ? room(shard) : messages_max;
    list_for_each (&shard->client->invalidations, link) {
        const struct invalidation *invalidation = CONTAINER_OF(link, struct invalidation, link);
        if (length < most && (invalidation->unsent & bit_of(shard)) != 0) {
            ret_messages[length++] = invalidation->message;
        }
    }
    return length;
}

void invalidations_note_sent(struct shard *shard, size_t length, int64_t now_ms)
{
    list_for_each (&shard->client->invalidations, link) {
        struct invalidation *invalidation = CONTAINER_OF(link, struct invalidation, link);
        if (length > 0 && (invalidation->unsent & bit_of(shard)) != 0) {
            invalidation->unsent &= ~bit_of(shard);
            invalidation->sent_at_ms = now_ms;
            length--;
        }
    }
}

void invalidations_tick(struct tiermq *client, int64_t now_ms)
{
    list_for_each (&client->invalidations, link) {
        struct invalidation *invalidation = CONTAINER_OF(link, struct invalidation, link);
        if (invalidation->unsent != invalidation->missing &&
            now_ms - invalidation->sent_at_ms >= CLIENT_RESUBMIT_MS) {
            invalidation->unsent = invalidation->missing;
        }
    }
}

int64_t invalidations_next_ms(const struct tiermq *client)
{
    int64_t next_ms = INT64_MAX;
    for (size_t i = 0; i < client->shards_length; i++) {
        const struct shard *shard = &client->shards[i];
        if (shard->invalidations_most > 0 && has_unsent(shard) &&
            shard->invalidations_at_ms < next_ms) {
            next_ms = shard->invalidations_at_ms;
        }
    }
    list_for_each (&client->invalidations, link) {
        const struct invalidation *invalidation = CONTAINER_OF(link, struct invalidation, link);
        const int64_t again_ms = invalidation->sent_at_ms + CLIENT_RESUBMIT_MS;
        if (invalidation->unsent != invalidation->missing && again_ms < next_ms) {
            next_ms = again_ms;
        }
    }
    return next_ms;
}

int tiermq_invalidate_async(struct tiermq *client, const struct tiermq_selector *selector,
                            const char *reason, tiermq_invalidated_fn *on_done, void *context)
{
    struct invalidation *invalidation = NULL;
    client_begin_call(client);
    return invalidations_add(client, selector, reason, on_done, context, &invalidation);
}
