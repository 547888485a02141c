#include "worker/cache/invalidations.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/list.h"
#include "worker/message_copy.h"

struct invalidation {
    struct list_link link; /* by number */
    uint64_t number;
    int64_t at_unix_ms;
    Wire__CacheSelector *message; /* NULL: everything */
    struct selector selector;     /* of the message */
};

struct invalidations {
    struct list list;
    uint64_t latest, forgotten;
    uint64_t blind; /* those up to this number are not known: all born before are invalid */
    const struct nearness *nearness;
    uint64_t compared; /* texts */
};

int invalidations_create(const struct nearness *nearness, struct invalidations **ret_invalidations)
{
    struct invalidations *invalidations = calloc(1, sizeof(*invalidations));
    if (invalidations == NULL) {
        return -ENOMEM;
    }
    invalidations->nearness = nearness;
    list_init(&invalidations->list);
    *ret_invalidations = invalidations;
    return 0;
}

static struct invalidation *oldest_of(const struct invalidations *invalidations)
{
    return CONTAINER_OF(list_first(&invalidations->list), struct invalidation, link);
}

/* … is what it fits from now on. */
static void take_everything(struct invalidation *invalidation)
{
    selector_finish(&invalidation->selector);
    if (invalidation->message != NULL) {
        wire__cache_selector__free_unpacked(invalidation->message, NULL);
    }
    invalidation->message = NULL;
}

static void release(struct invalidation *invalidation)
{
    take_everything(invalidation);
    free(invalidation);
}

static void drop(struct invalidations *invalidations, struct invalidation *invalidation)
{
    list_remove(&invalidations->list, &invalidation->link);
    release(invalidation);
}

void invalidations_destroy(struct invalidations **invalidations)
{
    struct invalidations *old = TAKE(*invalidations);
    while (old != NULL && !list_is_empty(&old->list)) {
        drop(old, oldest_of(old));
    }
    free(old);
}

/* ---- does it fit? ---- */

static bool is_among(char *const *texts, size_t length, const char *text)
{
    for (size_t i = 0; i < length; i++) {
        if (strcmp(texts[i], text) == 0) {
            return true;
        }
    }
    return false;
}

/* An empty one asks for nothing. */
static bool is_asked(const char *asked, const char *text)
{
    return asked[0] == '\0' || strcmp(asked, text) == 0;
}

static bool names_fit(const Wire__CacheSelector *selector, const Record__CacheAbout *about)
{
    return is_asked(selector->tenant, about->tenant) && is_asked(selector->route, about->route) &&
           is_asked(selector->model, about->model) &&
           is_asked(selector->template_version, about->template_version) &&
           (!selector->has_namespace ||
            strcmp(selector->cache_namespace, about->cache_namespace) == 0) &&
           (selector->tag[0] == '\0' || is_among(about->tags, about->n_tags, selector->tag)) &&
           (selector->document[0] == '\0' ||
            is_among(about->documents, about->n_documents, selector->document));
}

static bool bytes_fit(const ProtobufCBinaryData *asked, const void *data, size_t length)
{
    return asked->len == 0 || (asked->len == length && memcmp(asked->data, data, length) == 0);
}

static bool text_begins_as_asked(const Wire__CacheSelector *selector,
                                 const Record__CacheAbout *about)
{
    return strncmp(about->text, selector->text_prefix, strlen(selector->text_prefix)) == 0;
}

static bool is_old_enough(const Wire__CacheSelector *selector, const Record__CacheAbout *about,
                          int64_t at_unix_ms)
{
    return selector->older_than_ms == 0 ||
           (int64_t)about->filled_unix_ms < at_unix_ms - (int64_t)selector->older_than_ms;
}

/* An entry that is looked at. Its text is read when a selector first asks how near it is. */
struct entry {
    const uint8_t *key;
    const Record__CacheAbout *about;
    bool is_read;
    void *text;        /* owned */
    uint64_t compared; /* with texts that are asked for */
};

/* Without memory it is near: rather a call too many than an answer that holds no more. */
static bool is_near(const struct selector *selector, struct entry *entry)
{
    const struct nearness *nearness = selector->nearness;
    if (!entry->is_read && nearness->read(entry->about->text, &entry->text) < 0) {
        return true;
    }
    entry->is_read = true;
    entry->compared++;
    const bool can_be_compared = selector->near_text != NULL && entry->text != NULL;
    const double cosine = can_be_compared ? nearness->cosine(selector->near_text, entry->text) : 0;
    return cosine >= selector->message->near_cosine_min;
}

/* What is dear comes last. */
static bool fits(const struct selector *selector, struct entry *entry)
{
    const Wire__CacheSelector *message = selector->message;
    const Record__CacheAbout *about = entry->about;
    return names_fit(message, about) &&
           bytes_fit(&message->key, entry->key, INVALIDATIONS_KEY_BYTES) &&
           bytes_fit(&message->scope, about->scope.data, about->scope.len) &&
           is_old_enough(message, about, selector->at_unix_ms) &&
           text_begins_as_asked(message, about) &&
           (message->near_text[0] == '\0' || (about->text[0] != '\0' && is_near(selector, entry)));
}

int selector_init(struct selector *selector, const Wire__CacheSelector *message, int64_t at_unix_ms,
                  const struct nearness *nearness)
{
    void *near_text = NULL;
    int r = message->near_text[0] == '\0' ? 0 : nearness->read(message->near_text, &near_text);
    if (r < 0) {
        return r;
    }
    *selector = (struct selector){
        .message = message, .at_unix_ms = at_unix_ms, .nearness = nearness, .near_text = near_text};
    return 0;
}

void selector_finish(struct selector *selector)
{
    free(TAKE(selector->near_text));
}

bool selector_fits(const struct selector *selector, const uint8_t key[INVALIDATIONS_KEY_BYTES],
                   const Record__CacheAbout *about)
{
    struct entry entry = {.key = key, .about = about};
    const bool does_fit = fits(selector, &entry);
    free(entry.text);
    return does_fit;
}

static bool one_fits(const struct invalidations *invalidations, struct entry *entry, uint64_t born)
{
    const struct list_link *link = invalidations->list.head.previous; /* the latest */
    for (; link != &invalidations->list.head; link = link->previous) {
        const struct invalidation *at = CONTAINER_OF(link, struct invalidation, link);
        if (at->number <= born) {
            return false;
        }
        if (at->message == NULL || fits(&at->selector, entry)) {
            return true;
        }
    }
    return false;
}

bool invalidations_fit(struct invalidations *invalidations,
                       const uint8_t key[INVALIDATIONS_KEY_BYTES], const Record__CacheAbout *about,
                       uint64_t born)
{
    struct entry entry = {.key = key, .about = about};
    if (born < invalidations->blind) {
        return true;
    }
    if (born == invalidations->latest) {
        return false; /* the usual case */
    }
    const bool does_fit = one_fits(invalidations, &entry, born);
    invalidations->compared += entry.compared;
    free(entry.text);
    return does_fit;
}

/* ---- keeping ---- */

/* As clients say that an answer was wrong: this entry, whatever it is. */
static bool names_an_entry(const Wire__CacheSelector *selector)
{
    return selector != NULL && selector->key.len == INVALIDATIONS_KEY_BYTES &&
           !selector->has_namespace && selector->tag[0] == '\0' && selector->document[0] == '\0' &&
           selector->scope.len == 0 && selector->route[0] == '\0' && selector->model[0] == '\0' &&
           selector->template_version[0] == '\0' && selector->older_than_ms == 0 &&
           selector->text_prefix[0] == '\0' && selector->near_text[0] == '\0';
}

static void drop_same(struct invalidations *invalidations, const Wire__CacheSelector *selector)
{
    list_for_each (&invalidations->list, link) {
        struct invalidation *at = CONTAINER_OF(link, struct invalidation, link);
        if (names_an_entry(at->message) &&
            memcmp(at->message->key.data, selector->key.data, INVALIDATIONS_KEY_BYTES) == 0 &&
            strcmp(at->message->tenant, selector->tenant) == 0) {
            drop(invalidations, at);
            return; /* there is one at most */
        }
    }
}

static const char *tenant_of(const struct invalidation *at)
{
    return at->message == NULL ? "" : at->message->tenant;
}

/* Without a tenant, or memory, that is everything. */
static void take_all_of_tenant(struct invalidation *at)
{
    Wire__CacheSelector all = WIRE__CACHE_SELECTOR__INIT;
    all.tenant = (char *)tenant_of(at);
    Wire__CacheSelector *message = all.tenant[0] == '\0' ? NULL : message_copy(&all.base);
    take_everything(at);
    at->message = message;
    at->selector.message = message;
}

/* Nothing that it fits may be served: the next one of its tenant takes more instead. */
static void give_up_unswept(struct invalidations *invalidations, struct invalidation *oldest)
{
    list_for_each (&invalidations->list, link) {
        struct invalidation *at = CONTAINER_OF(link, struct invalidation, link);
        if (at != oldest && strcmp(tenant_of(at), tenant_of(oldest)) == 0) {
            take_all_of_tenant(at);
            drop(invalidations, oldest);
            return;
        }
    }
    invalidations->blind = oldest->number;
    drop(invalidations, oldest);
}

static void keep_bound(struct invalidations *invalidations, uint64_t swept)
{
    while (invalidations->list.length > INVALIDATIONS_MAX) {
        struct invalidation *oldest = oldest_of(invalidations);
        if (oldest->number <= swept) {
            invalidations_forget(invalidations, oldest->number);
        } else {
            give_up_unswept(invalidations, oldest);
        }
    }
}

/* NULL: no memory. */
static struct invalidation *make(const Wire__CacheSelector *selector, int64_t now_unix_ms,
                                 const struct nearness *nearness)
{
    struct invalidation *made = calloc(1, sizeof(*made));
    if (made == NULL || selector == NULL) {
        return made;
    }
    made->message = message_copy(&selector->base);
    if (made->message == NULL ||
        selector_init(&made->selector, made->message, now_unix_ms, nearness) < 0) {
        release(made);
        return NULL;
    }
    return made;
}

int invalidations_add(struct invalidations *invalidations, const Wire__CacheSelector *selector,
                      uint64_t swept, int64_t now_unix_ms)
{
    struct invalidation *added = make(selector, now_unix_ms, invalidations->nearness);
    invalidations->latest++;
    if (added == NULL) {
        invalidations->blind = invalidations->latest;
        return -ENOMEM;
    }
    if (names_an_entry(selector)) {
        drop_same(invalidations, selector);
    }
    added->number = invalidations->latest;
    added->at_unix_ms = now_unix_ms;
    list_append(&invalidations->list, &added->link);
    keep_bound(invalidations, swept);
    return 0;
}

uint64_t invalidations_latest(const struct invalidations *invalidations)
{
    return invalidations->latest;
}

void invalidations_forget(struct invalidations *invalidations, uint64_t number)
{
    while (!list_is_empty(&invalidations->list) && oldest_of(invalidations)->number <= number) {
        drop(invalidations, oldest_of(invalidations));
    }
    invalidations->forgotten = number > invalidations->forgotten ? number : invalidations->forgotten;
    if (invalidations->blind <= number) {
        invalidations->blind = 0;
    }
}

uint64_t invalidations_before(const struct invalidations *invalidations, int64_t at_unix_ms)
{
    const struct list_link *link = invalidations->list.head.previous; /* the latest */
    for (; link != &invalidations->list.head; link = link->previous) {
        const struct invalidation *at = CONTAINER_OF(link, struct invalidation, link);
        if (at->at_unix_ms < at_unix_ms) {
            return at->number;
        }
    }
    return invalidations->forgotten > 0 ? invalidations->forgotten - 1 : 0;
}

uint64_t invalidations_forgotten(const struct invalidations *invalidations)
{
    return invalidations->forgotten;
}

void invalidations_count_from(struct invalidations *invalidations, uint64_t number)
{
    invalidations->latest = invalidations->forgotten = number;
}

size_t invalidations_length(const struct invalidations *invalidations)
{
    return invalidations->list.length;
}

uint64_t invalidations_compared(const struct invalidations *invalidations)
{
    return invalidations->compared;
}
