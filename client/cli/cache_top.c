/* cache_top: the entries that earn, serve or weigh most, over all workers. */
#include <stdlib.h>
#include <string.h>
#include "client/cli/cache.h"

static const char *member_of(const char *by)
{
    return strcmp(by, "hits") == 0 ? "hits" : strcmp(by, "bytes") == 0 ? "bytes" : "saved_usd";
}

/* Two workers' entries of one key: what they served adds up, what they are is the same. */
static void merge(json_t *into, const json_t *more)
{
    static const char *const sums[] = {"hits", "bytes"};
    for (size_t i = 0; i < ARRAY_LENGTH(sums); i++) {
        json_object_set_new(
            into, sums[i], json_integer(cache_number(into, sums[i]) + cache_number(more, sums[i])));
    }
    json_object_set_new(into, "saved_usd",
                        json_real(cache_real(into, "saved_usd") + cache_real(more, "saved_usd")));
    if (cache_number(more, "age_ms") > cache_number(into, "age_ms")) {
        json_object_set(into, "age_ms", json_object_get(more, "age_ms"));
    }
    const json_t *served = json_object_get(more, "served_ms_ago");
    if (json_is_integer(served) &&
        (!json_is_integer(json_object_get(into, "served_ms_ago")) ||
         json_integer_value(served) < cache_number(into, "served_ms_ago"))) {
        json_object_set(into, "served_ms_ago", (json_t *)served);
    }
    json_object_set_new(into, "workers", json_integer(cache_number(into, "workers") + 1));
}

static void add_entry(json_t *by_key, const json_t *entry)
{
    json_t *known = json_object_get(by_key, cache_text(entry, "key"));
    if (known != NULL) {
        merge(known, entry);
        return;
    }
    json_t *first = json_copy((json_t *)entry);
    json_object_set_new(first, "workers", json_integer(1));
    json_object_set_new(by_key, cache_text(entry, "key"), first);
}

struct ranked {
    double value;
    const char *key;
    json_t *entry;
};

/* The most first; equal ones by key, so that the order is always the same. */
static int compare(const void *a, const void *b)
{
    const struct ranked *one = a, *other = b;
    if (one->value != other->value) {
        return one->value > other->value ? -1 : 1;
    }
    return strcmp(one->key, other->key);
}

static json_t *sorted(json_t *by_key, const char *member, size_t limit)
{
    const size_t length = json_object_size(by_key);
    struct ranked *ranked = calloc(length + 1, sizeof(*ranked));
    json_t *list = ranked == NULL ? NULL : json_array();
    size_t n = 0;
    const char *key = NULL;
    json_t *entry = NULL;
    json_object_foreach (by_key, key, entry) {
        if (ranked != NULL) {
            ranked[n++] = (struct ranked){cache_real(entry, member), key, entry};
        }
    }
    if (list != NULL) {
        qsort(ranked, n, sizeof(*ranked), compare);
    }
    for (size_t i = 0; list != NULL && i < n && i < limit; i++) {
        json_array_append(list, ranked[i].entry);
    }
    free(ranked);
    return list;
}

json_t *cache_top_merge(const json_t *answer, const char *by, size_t limit)
{
    json_t *by_key = json_object();
    size_t i = 0;
    const json_t *worker = NULL;
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        size_t j = 0;
        const json_t *entry = NULL;
        json_array_foreach (json_object_get(json_object_get(worker, "answer"), "entries"), j,
                            entry) {
            if (by_key != NULL && json_is_object(entry)) {
                add_entry(by_key, entry);
            }
        }
    }
    json_t *list = by_key == NULL ? NULL : sorted(by_key, member_of(by), limit);
    json_decref(by_key);
    return list;
}

/* The beginning of the question, on one line. */
static void print_text(const char *text, FILE *out)
{
    enum { SHOWN_BYTES = 60 };
    size_t n = 0;
    for (; (n < SHOWN_BYTES || ((unsigned char)text[n] & 0xC0) == 0x80) && text[n] != '\0'; n++) {
        fputc((unsigned char)text[n] < ' ' ? ' ' : text[n], out);
    }
    fputs(text[n] == '\0' ? "\n" : "…\n", out);
}

void cache_top_print(const json_t *entries, FILE *out)
{
    fprintf(out, "%-32s %8s %12s %10s %10s %7s %-12s %-16s %-16s %s\n", "key", "hits", "saved USD",
            "bytes", "age s", "workers", "tenant", "route", "model", "text");
    size_t i = 0;
    const json_t *entry = NULL;
    json_array_foreach (entries, i, entry) {
        fprintf(out, "%-32s %8lld %12.6f %10lld %10.0f %7lld %-12s %-16s %-16s ",
                cache_text(entry, "key"), (long long)cache_number(entry, "hits"),
                cache_real(entry, "saved_usd"), (long long)cache_number(entry, "bytes"),
                cache_real(entry, "age_ms") / 1000.0, (long long)cache_number(entry, "workers"),
                cache_text(entry, "tenant"), cache_text(entry, "route"),
                cache_text(entry, "model"));
        print_text(cache_text(entry, "text"), out);
    }
}
