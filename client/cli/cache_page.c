/*
 * cache_page: pages of all workers side by side. All go by key, and each stops where its page was
 * full: what lies below the first of those stops is complete, the rest comes with the next page.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "client/cli/cache.h"

enum { KEY_DIGITS = 32 };

static bool is_key(const char *text)
{
    return strlen(text) == KEY_DIGITS && strspn(text, "0123456789abcdef") == KEY_DIGITS;
}

/* Where the first worker stopped; NULL: none did before its end. Errors: -EBADMSG. */
static int find_stop(const json_t *answer, const char *from, const char **ret_stop)
{
    size_t i = 0;
    const json_t *worker = NULL;
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        const json_t *next = json_object_get(json_object_get(worker, "answer"), "next");
        const char *stop = json_string_value(next);
        if (stop != NULL && (!is_key(stop) || (from != NULL && strcmp(stop, from) <= 0))) {
            return -EBADMSG; /* it would be asked for the same for ever */
        }
        if (stop != NULL && (*ret_stop == NULL || strcmp(stop, *ret_stop) < 0)) {
            *ret_stop = stop;
        }
    }
    return 0;
}

static int add_entries(const json_t *entries, const char *from, const char *stop, json_t *by_key)
{
    size_t i = 0;
    json_t *entry = NULL;
    json_array_foreach (entries, i, entry) {
        const char *key = cache_text(entry, "key");
        if (!is_key(key)) {
            return -EBADMSG;
        }
        const bool is_here =
            (from == NULL || strcmp(key, from) >= 0) && (stop == NULL || strcmp(key, stop) < 0);
        if (is_here && json_object_get(by_key, key) == NULL &&
            json_object_set(by_key, key, entry) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int sort_by_key(json_t *by_key, json_t **ret_entries)
{
    const char **keys = calloc(json_object_size(by_key) + 1, sizeof(*keys));
    json_t *entries = keys == NULL ? NULL : json_array();
    if (entries == NULL) {
        free(keys);
        return -ENOMEM;
    }
    size_t length = 0;
    const char *key = NULL;
    json_t *entry = NULL;
    json_object_foreach (by_key, key, entry) {
        keys[length++] = key;
    }
    qsort(keys, length, sizeof(*keys), compare);
    int r = 0;
    for (size_t i = 0; r == 0 && i < length; i++) {
        r = json_array_append(entries, json_object_get(by_key, keys[i])) < 0 ? -ENOMEM : 0;
    }
    free(keys);
    if (r < 0) {
        json_decref(entries);
        return r;
    }
    *ret_entries = entries;
    return 0;
}

int cache_page_merge(const json_t *answer, const char *from, json_t **ret_entries,
                     const char **ret_next)
{
    const char *stop = NULL;
    json_t *by_key = json_object();
    int r = by_key == NULL ? -ENOMEM : find_stop(answer, from, &stop);
    size_t i = 0;
    const json_t *worker = NULL;
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        const json_t *page = json_object_get(worker, "answer");
        r = r < 0 ? r : add_entries(json_object_get(page, "entries"), from, stop, by_key);
    }
    r = r < 0 ? r : sort_by_key(by_key, ret_entries);
    json_decref(by_key);
    if (r == 0) {
        *ret_next = stop;
    }
    return r;
}
