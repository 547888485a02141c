#include "worker/cache/keeper_walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/ask_json.h"
#include "worker/cache/invalidations.h"
#include "worker/cache/keeper_state.h"

enum { TOP_LENGTH = 20, TOP_LENGTH_MAX = 1000, STEP = 64 };
static const double AGE_MS_MAX = 1e15;

enum top_by { TOP_BY_SAVED, TOP_BY_HITS, TOP_BY_BYTES };

struct ranked {
    double rank;
    uint8_t key[CACHE_KEY_BYTES];
};

struct top {
    enum top_by by;
    const char *tenant, *cache_namespace, *route; /* of the argument */
    struct ranked *items;                         /* best first */
    size_t length, capacity;
    size_t listed;   /* of them, in `entries` */
    json_t *entries; /* NULL until all are ranked */
};

struct counting {
    Wire__CacheSelector message; /* its texts are those of the argument */
    uint8_t key[CACHE_KEY_BYTES], scope[CACHE_SCOPE_BYTES];
    struct selector selector; /* of the message */
    uint64_t entries, bytes;
};

struct keeper_walk {
    json_t *argument;
    const struct keeper *keeper; /* in a step: it may be another one later */
    uint64_t compared;           /* by its invalidations when the step began */
    cache_store_visit_fn *visit;
    uint8_t from[CACHE_KEY_BYTES];
    bool is_end;
    struct top top;
    struct counting counting;
};

static struct keeper_walk *create(const json_t *argument, cache_store_visit_fn *visit)
{
    struct keeper_walk *walk = calloc(1, sizeof(*walk));
    if (walk != NULL) {
        walk->argument = json_incref((json_t *)argument);
        walk->visit = visit;
    }
    return walk;
}

void keeper_walk_destroy(struct keeper_walk **walk)
{
    struct keeper_walk *old = TAKE(*walk);
    if (old == NULL) {
        return;
    }
    json_decref(old->argument);
    json_decref(old->top.entries);
    free(old->top.items);
    selector_finish(&old->counting.selector);
    free(old);
}

/* ---- top ---- */

static double rank_of(const struct top *top, const Record__CacheAbout *about)
{
    switch (top->by) {
    case TOP_BY_HITS:
        return (double)about->hits;
    case TOP_BY_BYTES:
        return (double)about->bytes;
    case TOP_BY_SAVED:
        break;
    }
    return (double)about->hits * ((double)about->cost_nanousd + 1.0);
}

static bool is_asked(const char *asked, const char *text)
{
    return asked == NULL || strcmp(asked, text) == 0;
}

static void place(struct top *top, double value, const uint8_t *key)
{
    size_t at = top->length < top->capacity ? top->length++ : top->length - 1;
    for (; at > 0 && top->items[at - 1].rank < value; at--) {
        top->items[at] = top->items[at - 1];
    }
    top->items[at].rank = value;
    memcpy(top->items[at].key, key, CACHE_KEY_BYTES);
}

static bool rank(void *context, const uint8_t key[CACHE_KEY_BYTES], const Record__CacheAbout *about)
{
    struct keeper_walk *walk = context;
    struct top *top = &walk->top;
    const double value = rank_of(top, about);
    const bool is_ranked =
        is_asked(top->tenant, about->tenant) && is_asked(top->route, about->route) &&
        is_asked(top->cache_namespace, about->cache_namespace) &&
        (top->length < top->capacity || value > top->items[top->length - 1].rank) &&
        !keeper_is_invalid(walk->keeper, key, about);
    if (is_ranked) {
        place(top, value, key);
    }
    return keeper_may_compare(walk->keeper, walk->compared);
}

int keeper_walk_top(const json_t *argument, struct keeper_walk **ret_walk, char *ret_error)
{
    static const char *const words[] = {"saved", "hits", "bytes"};
    const char *by = ask_text_at(argument, "by");
    struct top top = {.capacity = ask_limit_of(argument, TOP_LENGTH, TOP_LENGTH_MAX),
                      .tenant = ask_text_at(argument, "tenant"),
                      .route = ask_text_at(argument, "route"),
                      .cache_namespace = ask_text_at(argument, "namespace")};
    while (by != NULL && top.by < ARRAY_LENGTH(words) && strcmp(by, words[top.by]) != 0) {
        top.by++;
    }
    if (top.by == ARRAY_LENGTH(words)) {
        return ask_wrong(ret_error, "by must be saved, hits or bytes");
    }
    CLEANUP(keeper_walk_destroy) struct keeper_walk *walk = create(argument, rank);
    top.items = walk == NULL ? NULL : calloc(top.capacity, sizeof(*top.items));
    if (top.items == NULL) {
        return -ENOMEM;
    }
    walk->top = top;
    *ret_walk = TAKE(walk);
    return 0;
}

/* It may have gone since it was ranked. */
static int list_one(struct keeper *keeper, struct top *top, int64_t now_unix_ms, char *ret_error)
{
    const uint8_t *key = top->items[top->listed++].key;
    Record__CacheAbout *about = NULL;
    int r = cache_store_get_about(keeper->store, key, &about, ret_error);
    if (r == 0 && about != NULL) {
        (void)json_array_append_new(top->entries, ask_entry_object(key, about, now_unix_ms));
        record__cache_about__free_unpacked(about, NULL);
    }
    return r;
}

/* A few of them; the answer when all are told. */
static int list_top(struct keeper *keeper, struct top *top, int64_t now_unix_ms,
                    json_t **ret_answer, char *ret_error)
{
    int r = 0;
    top->entries = top->entries == NULL ? json_array() : top->entries;
    for (size_t i = 0; r == 0 && i < STEP && top->listed < top->length; i++) {
        r = list_one(keeper, top, now_unix_ms, ret_error);
    }
    if (r < 0 || top->listed < top->length) {
        return r;
    }
    *ret_answer = json_pack("{s:O}", "entries", top->entries);
    return *ret_answer == NULL ? -ENOMEM : 0;
}

/* ---- count ---- */

static bool count(void *context, const uint8_t key[CACHE_KEY_BYTES],
                  const Record__CacheAbout *about)
{
    struct keeper_walk *walk = context;
    struct counting *counting = &walk->counting;
    if (!keeper_is_invalid(walk->keeper, key, about) &&
        selector_fits(&counting->selector, key, about)) {
        counting->entries++;
        counting->bytes += about->bytes;
    }
    return keeper_may_compare(walk->keeper, walk->compared);
}

static void read_texts(const json_t *argument, Wire__CacheSelector *selector)
{
    const struct {
        const char *name;
        char **text;
    } texts[] = {{"tenant", &selector->tenant},
                 {"namespace", &selector->cache_namespace},
                 {"tag", &selector->tag},
                 {"document", &selector->document},
                 {"route", &selector->route},
                 {"model", &selector->model},
                 {"template_version", &selector->template_version},
                 {"text_prefix", &selector->text_prefix},
                 {"near_text", &selector->near_text}};
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        const char *text = ask_text_at(argument, texts[i].name);
        *texts[i].text = text == NULL ? *texts[i].text : (char *)text;
    }
    selector->has_namespace = ask_text_at(argument, "namespace") != NULL;
}

/* NULL: it is right; else what is wrong with it. */
static const char *read_selector(const json_t *argument, struct counting *counting)
{
    Wire__CacheSelector *selector = &counting->message;
    const json_t *near_min = json_object_get(argument, "near_cosine_min");
    wire__cache_selector__init(selector);
    read_texts(argument, selector);
    selector->near_cosine_min = json_is_number(near_min) ? json_number_value(near_min) : 0.8;
    if (ask_count_at(argument, "older_than_ms", AGE_MS_MAX, &selector->older_than_ms) < 0) {
        return "older_than_ms must be a number of milliseconds";
    }
    if (ask_text_at(argument, "key") != NULL) {
        if (ask_read_hex(ask_text_at(argument, "key"), CACHE_KEY_BYTES, counting->key) < 0) {
            return "key must be 32 hexadecimal digits";
        }
        selector->key = (ProtobufCBinaryData){CACHE_KEY_BYTES, counting->key};
    }
    if (ask_text_at(argument, "scope") != NULL) {
        if (ask_read_hex(ask_text_at(argument, "scope"), CACHE_SCOPE_BYTES, counting->scope) < 0) {
            return "scope must be 32 hexadecimal digits";
        }
        selector->scope = (ProtobufCBinaryData){CACHE_SCOPE_BYTES, counting->scope};
    }
    return NULL;
}

int keeper_walk_count(const json_t *argument, int64_t now_unix_ms, struct keeper_walk **ret_walk,
                      char *ret_error)
{
    CLEANUP(keeper_walk_destroy) struct keeper_walk *walk = create(argument, count);
    if (walk == NULL) {
        return -ENOMEM;
    }
    const char *complaint = read_selector(argument, &walk->counting);
    if (complaint != NULL) {
        return ask_wrong(ret_error, complaint);
    }
    struct counting *counting = &walk->counting;
    int r = selector_init(&counting->selector, &counting->message, now_unix_ms, &keeper_nearness);
    if (r < 0) {
        return r;
    }
    *ret_walk = TAKE(walk);
    return 0;
}

/* ---- a step ---- */

static int count_answer(const struct counting *counting, json_t **ret_answer)
{
    *ret_answer = json_pack("{s:I, s:I}", "entries", (json_int_t)counting->entries, "bytes",
                            (json_int_t)counting->bytes);
    return *ret_answer == NULL ? -ENOMEM : 0;
}

static int scan(struct keeper *keeper, struct keeper_walk *walk, char *ret_error)
{
    walk->keeper = keeper;
    walk->compared = invalidations_compared(keeper->invalidations);
    return cache_store_scan(keeper->store, walk->from, STEP, walk->visit, walk, walk->from,
                            &walk->is_end, ret_error);
}

int keeper_walk_on(struct keeper *keeper, struct keeper_walk **walk, int64_t now_unix_ms,
                   json_t **ret_answer, char ret_error[CACHE_ERROR_BYTES])
{
    struct keeper_walk *on = *walk;
    *ret_answer = NULL;
    int r = !on->is_end          ? scan(keeper, on, ret_error)
            : on->visit == count ? count_answer(&on->counting, ret_answer)
                                 : list_top(keeper, &on->top, now_unix_ms, ret_answer, ret_error);
    if (r < 0 || *ret_answer != NULL) {
        keeper_walk_destroy(walk);
    }
    return r;
}
