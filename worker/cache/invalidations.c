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
    Wire__CacheSelector *selector; /* NULL: everything */
};

struct invalidations {
    struct list list;
    uint64_t latest, forgotten;
    uint64_t blind; /* those up to this number are not known: all born before are invalid */
    invalidations_near_fn *near;
    void *context;
};

int invalidations_create(invalidations_near_fn *near, void *context,
                         struct invalidations **ret_invalidations)
{
    struct invalidations *invalidations = calloc(1, sizeof(*invalidations));
    if (invalidations == NULL) {
        return -ENOMEM;
    }
    invalidations->near = near;
    invalidations->context = context;
    list_init(&invalidations->list);
    *ret_invalidations = invalidations;
    return 0;
}

static struct invalidation *oldest_of(const struct invalidations *invalidations)
{
    return CONTAINER_OF(list_first(&invalidations->list), struct invalidation, link);
}

static void set_selector(struct invalidation *invalidation, Wire__CacheSelector *selector)
{
    if (invalidation->selector != NULL) {
        wire__cache_selector__free_unpacked(invalidation->selector, NULL);
    }
    invalidation->selector = selector;
}

static void drop(struct invalidations *invalidations, struct invalidation *invalidation)
{
    list_remove(&invalidations->list, &invalidation->link);
    set_selector(invalidation, NULL);
    free(invalidation);
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

static bool text_fits(const Wire__CacheSelector *selector, const Record__CacheAbout *about,
                      invalidations_near_fn *near, void *context)
{
    if (strncmp(about->text, selector->text_prefix, strlen(selector->text_prefix)) != 0) {
        return false;
    }
    return selector->near_text[0] == '\0' ||
           (about->text[0] != '\0' &&
            near(context, selector->near_text, about->text) >= selector->near_cosine_min);
}

static bool is_old_enough(const Wire__CacheSelector *selector, const Record__CacheAbout *about,
                          int64_t at_unix_ms)
{
    return selector->older_than_ms == 0 ||
           (int64_t)about->filled_unix_ms < at_unix_ms - (int64_t)selector->older_than_ms;
}

bool selector_fits(const Wire__CacheSelector *selector, const uint8_t key[INVALIDATIONS_KEY_BYTES],
                   const Record__CacheAbout *about, int64_t at_unix_ms, invalidations_near_fn *near,
                   void *context)
{
    return names_fit(selector, about) && bytes_fit(&selector->key, key, INVALIDATIONS_KEY_BYTES) &&
           bytes_fit(&selector->scope, about->scope.data, about->scope.len) &&
           is_old_enough(selector, about, at_unix_ms) && text_fits(selector, about, near, context);
}

bool invalidations_fit(const struct invalidations *invalidations,
                       const uint8_t key[INVALIDATIONS_KEY_BYTES], const Record__CacheAbout *about,
                       uint64_t born)
{
    if (born < invalidations->blind) {
        return true;
    }
    if (born == invalidations->latest) {
        return false; /* the usual case */
    }
    const struct list_link *link = invalidations->list.head.previous; /* the latest */
    for (; link != &invalidations->list.head; link = link->previous) {
        const struct invalidation *at = CONTAINER_OF(link, struct invalidation, link);
        if (at->number <= born) {
            return false;
        }
        if (at->selector == NULL || selector_fits(at->selector, key, about, at->at_unix_ms,
                                                  invalidations->near, invalidations->context)) {
            return true;
        }
    }
    return false;
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
        if (names_an_entry(at->selector) &&
            memcmp(at->selector->key.data, selector->key.data, INVALIDATIONS_KEY_BYTES) == 0 &&
            strcmp(at->selector->tenant, selector->tenant) == 0) {
            drop(invalidations, at);
            return; /* there is one at most */
        }
    }
}

static const char *tenant_of(const struct invalidation *at)
{
    return at->selector == NULL ? "" : at->selector->tenant;
}

/* Without a tenant, or memory, that is everything. */
static void take_all_of_tenant(struct invalidation *at)
{
    Wire__CacheSelector all = WIRE__CACHE_SELECTOR__INIT;
    all.tenant = (char *)tenant_of(at);
    set_selector(at, all.tenant[0] == '\0' ? NULL : message_copy(&all.base));
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

int invalidations_add(struct invalidations *invalidations, const Wire__CacheSelector *selector,
                      uint64_t swept, int64_t now_unix_ms)
{
    struct invalidation *added = calloc(1, sizeof(*added));
    Wire__CacheSelector *copy = added == NULL || selector == NULL ? NULL : message_copy(&selector->base);
    invalidations->latest++;
    if (added == NULL || (selector != NULL && copy == NULL)) {
        free(added);
        invalidations->blind = invalidations->latest;
        return -ENOMEM;
    }
    if (names_an_entry(selector)) {
        drop_same(invalidations, selector);
    }
    added->number = invalidations->latest;
    added->at_unix_ms = now_unix_ms;
    added->selector = copy;
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
