/* What operators ask of the keeper: as JSON in and out. See docs/cache.md, "Commands". */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/decision.h"
#include "worker/cache/eviction.h"
#include "worker/cache/invalidations.h"
#include "worker/cache/keeper_state.h"
#include "worker/cache/likeness.h"

enum {
    TOP_LENGTH = 20,
    TOP_LENGTH_MAX = 1000,
    PAGE_LENGTH = 50, /* of an export */
    PAGE_LENGTH_MAX = 200,
    PAGE_BYTES = 512 << 10, /* beyond, the page ends */
    /* An entry alone, so that its page is an answer: worker/cache_mail.h, CACHE_MAIL_BYTES_MAX. */
    PAGE_ENTRY_BYTES_MAX = (1 << 20) - 1024,
    SCAN_STEP = 256
};
static const double NANOUSD = 1e-9;
/* Of what is imported. */
static const double AGE_MS_MAX = 100 * 365.25 * 86400e3, COUNT_MAX = 1e12, USD_MAX = 1e6;

/* ---- small things ---- */

static void write_hex(const uint8_t *bytes, size_t length, char *ret_text)
{
    for (size_t i = 0; i < length; i++) {
        (void)snprintf(ret_text + 2 * i, 3, "%02x", bytes[i]);
    }
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Errors: -EINVAL. */
static int read_hex(const char *text, size_t length, uint8_t *ret_bytes)
{
    if (text == NULL || strlen(text) != 2 * length) {
        return -EINVAL;
    }
    for (size_t i = 0; i < length; i++) {
        const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return -EINVAL;
        }
        ret_bytes[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

static const char *text_at(const json_t *argument, const char *name)
{
    return json_string_value(json_object_get(argument, name));
}

/* From a number, or from digits in a text, as queries have them. */
static size_t limit_of(const json_t *argument, size_t usual, size_t most)
{
    const json_t *limit = json_object_get(argument, "limit");
    const long long number = json_is_integer(limit)  ? json_integer_value(limit)
                             : json_is_string(limit) ? atoll(json_string_value(limit))
                                                     : (long long)usual;
    return number < 1 ? 1 : number > (long long)most ? most : (size_t)number;
}

/* Of one that is not there: 0. Errors: -EINVAL it is no number, negative, or above `most`. */
static int number_at(const json_t *object, const char *name, double most, double *ret_number)
{
    const json_t *member = json_object_get(object, name);
    const double number = json_number_value(member);
    if ((member != NULL && !json_is_number(member)) || number < 0 || number > most) {
        return -EINVAL;
    }
    *ret_number = number;
    return 0;
}

static int count_at(const json_t *object, const char *name, double most, uint64_t *ret_count)
{
    double number;
    int r = number_at(object, name, most, &number);
    *ret_count = r < 0 ? *ret_count : (uint64_t)number;
    return r;
}

static json_t *wrong(char *ret_error, const char *text)
{
    (void)snprintf(ret_error, CACHE_ERROR_BYTES, "%s", text);
    return NULL;
}

/* ---- entries ---- */

static json_t *names_of(char *const *names, size_t length)
{
    json_t *list = json_array();
    for (size_t i = 0; i < length; i++) {
        (void)json_array_append_new(list, json_string(names[i]));
    }
    return list;
}

static json_t *entry_object(const uint8_t *key, const Record__CacheAbout *about, int64_t now_unix_ms)
{
    char hex[2 * CACHE_KEY_BYTES + 1], scope[2 * CACHE_SCOPE_BYTES + 1] = "";
    write_hex(key, CACHE_KEY_BYTES, hex);
    if (about->scope.len == CACHE_SCOPE_BYTES) {
        write_hex(about->scope.data, CACHE_SCOPE_BYTES, scope);
    }
    const int64_t served_ago =
        about->served_unix_ms > 0 ? now_unix_ms - (int64_t)about->served_unix_ms : -1;
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:I, s:f, s:f, s:I, s:I, s:I, "
        "s:I, "
        "s:I, s:b}",
        "key", hex, "scope", scope, "tenant", about->tenant, "namespace", about->cache_namespace,
        "route", about->route, "tier", about->tier, "model", about->model, "template_version",
        about->template_version, "text", about->text, "tags", names_of(about->tags, about->n_tags),
        "documents", names_of(about->documents, about->n_documents), "hits",
        (json_int_t)about->hits, "saved_usd",
        (double)about->hits * (double)about->cost_nanousd * NANOUSD, "cost_usd",
        (double)about->cost_nanousd * NANOUSD, "bytes", (json_int_t)about->bytes, "age_ms",
        (json_int_t)(now_unix_ms - (int64_t)about->filled_unix_ms), "expires_in_ms",
        (json_int_t)((int64_t)about->expires_unix_ms - now_unix_ms), "served_ms_ago",
        (json_int_t)served_ago, "run_ms", (json_int_t)about->run_ms, "denied", about->is_denied);
}

/* `about`: as it is now; the entry's own is from when it was filled. */
static json_t *whole_object(const uint8_t *key, const Record__CacheEntry *entry,
                            const Record__CacheAbout *about, int64_t now_unix_ms)
{
    json_t *object = entry_object(key, about, now_unix_ms);
    json_t *more = json_pack("{s:s, s:I, s:I, s:I, s:I, s:o}", "provider", entry->provider,
                             "input_tokens", (json_int_t)entry->input_tokens, "cached_input_tokens",
                             (json_int_t)entry->cached_input_tokens, "output_tokens",
                             (json_int_t)entry->output_tokens, "reasoning_tokens",
                             (json_int_t)entry->reasoning_tokens, "body",
                             json_stringn((const char *)entry->body.data, entry->body.len));
    (void)json_object_update(object, more);
    json_decref(more);
    return object;
}

/* *ret_object is NULL when there is no such entry. Errors: of the store. */
static int get_object(struct keeper *keeper, const uint8_t *key, int64_t now_unix_ms,
                      json_t **ret_object, char *ret_error)
{
    Record__CacheAbout *about = NULL;
    Record__CacheEntry *entry = NULL;
    *ret_object = NULL;
    int r = cache_store_get_about(keeper->store, key, &about, ret_error);
    if (r == 0 && about != NULL && !keeper_is_invalid(keeper, key, about)) {
        r = cache_store_get(keeper->store, key, &entry, ret_error);
    }
    if (r == 0 && entry != NULL) {
        *ret_object = whole_object(key, entry, about, now_unix_ms);
    }
    if (entry != NULL) {
        record__cache_entry__free_unpacked(entry, NULL);
    }
    if (about != NULL) {
        record__cache_about__free_unpacked(about, NULL);
    }
    return r;
}

static json_t *ask_get(struct keeper *keeper, const json_t *argument, int64_t now_unix_ms, char *ret_error)
{
    uint8_t key[CACHE_KEY_BYTES];
    json_t *object;
    if (read_hex(text_at(argument, "key"), CACHE_KEY_BYTES, key) < 0) {
        return wrong(ret_error, "key must be 32 hexadecimal digits");
    }
    if (get_object(keeper, key, now_unix_ms, &object, ret_error) < 0) {
        return NULL;
    }
    return object == NULL ? wrong(ret_error, "there is no such entry here") : object;
}

/* ---- top ---- */

enum top_by { TOP_BY_SAVED, TOP_BY_HITS, TOP_BY_BYTES };

struct ranked {
    double rank;
    uint8_t key[CACHE_KEY_BYTES];
};

struct top {
    const struct keeper *keeper;
    enum top_by by;
    const char *tenant, *cache_namespace, *route;
    struct ranked *items; /* best first */
    size_t length, capacity;
};

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

static void rank(void *context, const uint8_t key[CACHE_KEY_BYTES], const Record__CacheAbout *about)
{
    struct top *top = context;
    const double value = rank_of(top, about);
    if (!is_asked(top->tenant, about->tenant) || !is_asked(top->route, about->route) ||
        !is_asked(top->cache_namespace, about->cache_namespace) ||
        keeper_is_invalid(top->keeper, key, about) ||
        (top->length == top->capacity && value <= top->items[top->length - 1].rank)) {
        return;
    }
    size_t at = top->length < top->capacity ? top->length++ : top->length - 1;
    for (; at > 0 && top->items[at - 1].rank < value; at--) {
        top->items[at] = top->items[at - 1];
    }
    top->items[at].rank = value;
    memcpy(top->items[at].key, key, CACHE_KEY_BYTES);
}

static int scan_all(struct keeper *keeper, cache_store_visit_fn *visit, void *context, char *ret_error)
{
    uint8_t from[CACHE_KEY_BYTES] = {0};
    bool is_end = false;
    int r = 0;
    while (r == 0 && !is_end) {
        r = cache_store_scan(keeper->store, from, SCAN_STEP, visit, context, from, &is_end, ret_error);
    }
    return r;
}

static json_t *list_top(struct keeper *keeper, const struct top *top, int64_t now_unix_ms, char *ret_error)
{
    json_t *entries = json_array();
    for (size_t i = 0; i < top->length; i++) {
        Record__CacheAbout *about = NULL;
        if (cache_store_get_about(keeper->store, top->items[i].key, &about, ret_error) == 0 &&
            about != NULL) {
            (void)json_array_append_new(entries, entry_object(top->items[i].key, about, now_unix_ms));
            record__cache_about__free_unpacked(about, NULL);
        }
    }
    return json_pack("{s:o}", "entries", entries);
}

static json_t *ask_top(struct keeper *keeper, const json_t *argument, int64_t now_unix_ms, char *ret_error)
{
    static const char *const words[] = {"saved", "hits", "bytes"};
    const char *by = text_at(argument, "by");
    struct top top = {.keeper = keeper,
                      .capacity = limit_of(argument, TOP_LENGTH, TOP_LENGTH_MAX),
                      .tenant = text_at(argument, "tenant"),
                      .route = text_at(argument, "route"),
                      .cache_namespace = text_at(argument, "namespace")};
    while (by != NULL && top.by < ARRAY_LENGTH(words) && strcmp(by, words[top.by]) != 0) {
        top.by++;
    }
    if (top.by == ARRAY_LENGTH(words)) {
        return wrong(ret_error, "by must be saved, hits or bytes");
    }
    top.items = calloc(top.capacity, sizeof(*top.items));
    if (top.items == NULL) {
        return NULL;
    }
    json_t *answer = scan_all(keeper, rank, &top, ret_error) < 0
                         ? NULL
                         : list_top(keeper, &top, now_unix_ms, ret_error);
    free(top.items);
    return answer;
}

/* ---- count ---- */

struct counting {
    const struct keeper *keeper;
    Wire__CacheSelector selector;
    int64_t now_unix_ms;
    uint64_t entries, bytes;
};

static void count(void *context, const uint8_t key[CACHE_KEY_BYTES], const Record__CacheAbout *about)
{
    struct counting *counting = context;
    if (!keeper_is_invalid(counting->keeper, key, about) &&
        selector_fits(&counting->selector, key, about, counting->now_unix_ms, keeper_cosine_of_texts, NULL)) {
        counting->entries++;
        counting->bytes += about->bytes;
    }
}

static json_t *ask_count(struct keeper *keeper, const json_t *argument, int64_t now_unix_ms, char *ret_error)
{
    struct counting counting = {.keeper = keeper, .now_unix_ms = now_unix_ms};
    Wire__CacheSelector *selector = &counting.selector;
    uint8_t key[CACHE_KEY_BYTES], scope[CACHE_SCOPE_BYTES];
    wire__cache_selector__init(selector);
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
        const char *text = text_at(argument, texts[i].name);
        *texts[i].text = text == NULL ? *texts[i].text : (char *)text;
    }
    selector->has_namespace = text_at(argument, "namespace") != NULL;
    selector->older_than_ms =
        (uint64_t)json_integer_value(json_object_get(argument, "older_than_ms"));
    const json_t *near_min = json_object_get(argument, "near_cosine_min");
    selector->near_cosine_min = json_is_number(near_min) ? json_number_value(near_min) : 0.8;
    if (text_at(argument, "key") != NULL) {
        if (read_hex(text_at(argument, "key"), CACHE_KEY_BYTES, key) < 0) {
            return wrong(ret_error, "key must be 32 hexadecimal digits");
        }
        selector->key = (ProtobufCBinaryData){CACHE_KEY_BYTES, key};
    }
    if (text_at(argument, "scope") != NULL) {
        if (read_hex(text_at(argument, "scope"), CACHE_SCOPE_BYTES, scope) < 0) {
            return wrong(ret_error, "scope must be 32 hexadecimal digits");
        }
        selector->scope = (ProtobufCBinaryData){CACHE_SCOPE_BYTES, scope};
    }
    return scan_all(keeper, count, &counting, ret_error) < 0
               ? NULL
               : json_pack("{s:I, s:I}", "entries", (json_int_t)counting.entries, "bytes",
                           (json_int_t)counting.bytes);
}

/* ---- explain ---- */

static json_t *features_of(const struct likeness *likeness)
{
    json_t *features = json_object();
    for (size_t i = 0; i < LIKENESS_FEATURES; i++) {
        (void)json_object_set_new(features, likeness_feature_name((enum likeness_feature)i),
                                  json_real((double)likeness->features[i]));
    }
    return features;
}

/* Of vectors that are brought, who asks has it already. */
static double cosine_of(const struct keeper *keeper, const json_t *argument, const struct near_text *a,
                        const struct near_text *b)
{
    return keeper_vectors_are_brought(keeper) ? json_number_value(json_object_get(argument, "cosine"))
           : a->has_dense ? vector_cosine(a->dense, b->dense, keeper->options.embedder.dimensions)
                          : sparse_vector_cosine(&a->sparse, &b->sparse);
}

static json_t *ask_explain(struct keeper *keeper, const json_t *argument, char *ret_error)
{
    struct near_text a, b;
    struct likeness likeness;
    enum likeness_feature reason;
    const char *left = text_at(argument, "a"), *right = text_at(argument, "b");
    if (left == NULL || right == NULL || !keeper_read_text(keeper, left, &a) || !keeper_read_text(keeper, right, &b)) {
        return wrong(ret_error, "a and b must be texts of 1 to 128 words of which the embedder knows something");
    }
    const double cosine = cosine_of(keeper, argument, &a, &b);
    likeness_of(&a.profile.profile, &b.profile.profile, cosine, &likeness);
    const double score = keeper_score(keeper, &likeness);
    const bool is_forbidden = decision_is_forbidden(&likeness, &reason);
    const json_t *threshold = json_object_get(argument, "threshold");
    const char *verdict = is_forbidden && json_is_true(json_object_get(argument, "strict")) ? "forbidden"
                          : !json_is_number(threshold)                ? "closed"
                          : score < json_number_value(threshold)    ? "unsure"
                                                                    : "near";
    json_t *answer = json_pack("{s:o, s:f, s:f, s:s, s:s?}", "features", features_of(&likeness), "cosine",
                               cosine, "score", score, "verdict", verdict, "forbidden",
                               is_forbidden ? likeness_feature_name(reason) : NULL);
    (void)json_object_set_new(answer, "threshold",
                              json_is_number(threshold) ? json_deep_copy(threshold) : json_null());
    return answer;
}

/* ---- export, import ---- */

struct page {
    json_t *entries;
    size_t bytes;
    json_int_t left_out;           /* too large for any page */
    uint8_t from[CACHE_KEY_BYTES]; /* of the next page */
    bool is_end;
};

struct found {
    bool is_found;
    uint8_t key[CACHE_KEY_BYTES];
};

static void note_key(void *context, const uint8_t key[CACHE_KEY_BYTES],
                     const Record__CacheAbout *about)
{
    (void)about;
    struct found *found = context;
    found->is_found = true;
    memcpy(found->key, key, CACHE_KEY_BYTES);
}

/* False: the page is full, and the entry is the next one's first. Takes: object. */
static bool add_to_page(struct page *page, json_t *object)
{
    const size_t bytes = json_dumpb(object, NULL, 0, JSON_COMPACT);
    const bool is_too_large = bytes > PAGE_ENTRY_BYTES_MAX;
    const bool has_room = page->bytes == 0 || page->bytes + bytes <= PAGE_BYTES;
    if (has_room && !is_too_large) {
        page->bytes += bytes;
        (void)json_array_append(page->entries, object);
    }
    page->left_out += is_too_large ? 1 : 0;
    json_decref(object);
    return has_room || is_too_large;
}

/* Adds the next entry. Returns 1: the page is full. Errors: of the store. */
static int turn_to_next(struct keeper *keeper, struct page *page, int64_t now_unix_ms,
                        char *ret_error)
{
    struct found found = {.is_found = false};
    uint8_t next[CACHE_KEY_BYTES];
    bool is_end;
    json_t *object = NULL;
    int r =
        cache_store_scan(keeper->store, page->from, 1, note_key, &found, next, &is_end, ret_error);
    if (r == 0 && found.is_found) {
        r = get_object(keeper, found.key, now_unix_ms, &object, ret_error);
    }
    if (r < 0) {
        return r;
    }
    if (object != NULL && !add_to_page(page, object)) {
        return 1;
    }
    memcpy(page->from, next, CACHE_KEY_BYTES);
    page->is_end = is_end;
    return 0;
}

static json_t *ask_export(struct keeper *keeper, const json_t *argument, int64_t now_unix_ms, char *ret_error)
{
    struct page page = {.is_end = false};
    const size_t limit = limit_of(argument, PAGE_LENGTH, PAGE_LENGTH_MAX);
    char hex[2 * CACHE_KEY_BYTES + 1];
    const char *begin = text_at(argument, "from");
    if (begin != NULL && read_hex(begin, CACHE_KEY_BYTES, page.from) < 0) {
        return wrong(ret_error, "from must be 32 hexadecimal digits");
    }
    page.entries = json_array();
    int r = 0;
    while (r == 0 && !page.is_end && json_array_size(page.entries) < limit) {
        r = turn_to_next(keeper, &page, now_unix_ms, ret_error);
    }
    if (r < 0) {
        json_decref(page.entries);
        return NULL;
    }
    write_hex(page.from, CACHE_KEY_BYTES, hex);
    return json_pack("{s:o, s:s?, s:I}", "entries", page.entries, "next", page.is_end ? NULL : hex,
                     "left_out", page.left_out);
}

static char **texts_of(const json_t *list, size_t *ret_length)
{
    char **texts = calloc(json_array_size(list) + 1, sizeof(char *));
    *ret_length = 0;
    for (size_t i = 0; texts != NULL && i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text != NULL) {
            texts[(*ret_length)++] = (char *)text;
        }
    }
    return texts;
}

static char *or_empty(const char *text)
{
    return (char *)(text == NULL ? "" : text);
}

/* Errors: -EINVAL one is not as it can be. */
static int import_numbers(const json_t *object, int64_t now_unix_ms, Record__CacheEntry *entry)
{
    Record__CacheAbout *about = entry->about;
    const double age_ms_max = AGE_MS_MAX < (double)now_unix_ms ? AGE_MS_MAX : (double)now_unix_ms;
    uint64_t age_ms = 0, left_ms = 0;
    double cost_usd;
    if (count_at(object, "age_ms", age_ms_max, &age_ms) < 0 ||
        count_at(object, "expires_in_ms", AGE_MS_MAX, &left_ms) < 0 || left_ms == 0 ||
        number_at(object, "cost_usd", USD_MAX, &cost_usd) < 0 ||
        count_at(object, "run_ms", AGE_MS_MAX, &about->run_ms) < 0 ||
        count_at(object, "hits", COUNT_MAX, &about->hits) < 0 ||
        count_at(object, "input_tokens", COUNT_MAX, &entry->input_tokens) < 0 ||
        count_at(object, "cached_input_tokens", COUNT_MAX, &entry->cached_input_tokens) < 0 ||
        count_at(object, "output_tokens", COUNT_MAX, &entry->output_tokens) < 0 ||
        count_at(object, "reasoning_tokens", COUNT_MAX, &entry->reasoning_tokens) < 0) {
        return -EINVAL;
    }
    about->filled_unix_ms = (uint64_t)now_unix_ms - age_ms;
    about->expires_unix_ms = about->stale_until_unix_ms = (uint64_t)now_unix_ms + left_ms;
    about->cost_nanousd = (uint64_t)(cost_usd / NANOUSD + 0.5);
    return 0;
}

static void import_names(const json_t *object, Record__CacheEntry *entry)
{
    Record__CacheAbout *about = entry->about;
    entry->provider = or_empty(text_at(object, "provider"));
    about->tenant = or_empty(text_at(object, "tenant"));
    about->cache_namespace = or_empty(text_at(object, "namespace"));
    about->route = or_empty(text_at(object, "route"));
    about->tier = or_empty(text_at(object, "tier"));
    about->model = or_empty(text_at(object, "model"));
    about->template_version = or_empty(text_at(object, "template_version"));
    about->text = or_empty(text_at(object, "text"));
    about->is_denied = json_is_true(json_object_get(object, "denied"));
}

/* Errors: -EINVAL it lacks something, or is not as it can be. */
static int import_one(struct keeper *keeper, const json_t *object, int64_t now_unix_ms, char *ret_error)
{
    uint8_t key[CACHE_KEY_BYTES], scope[CACHE_SCOPE_BYTES];
    const char *body = text_at(object, "body");
    const char *scope_text = text_at(object, "scope");
    const bool has_scope = scope_text != NULL && scope_text[0] != '\0';
    Record__CacheAbout about = RECORD__CACHE_ABOUT__INIT;
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    entry.about = &about;
    if (read_hex(text_at(object, "key"), CACHE_KEY_BYTES, key) < 0 || body == NULL ||
        text_at(object, "tenant") == NULL || import_numbers(object, now_unix_ms, &entry) < 0 ||
        (has_scope && read_hex(scope_text, CACHE_SCOPE_BYTES, scope) < 0)) {
        return -EINVAL;
    }
    import_names(object, &entry);
    entry.body = (ProtobufCBinaryData){strlen(body), (uint8_t *)body};
    about.scope = (ProtobufCBinaryData){has_scope ? CACHE_SCOPE_BYTES : 0, scope};
    about.tags = texts_of(json_object_get(object, "tags"), &about.n_tags);
    about.documents = texts_of(json_object_get(object, "documents"), &about.n_documents);
    int r = about.tags == NULL || about.documents == NULL
                ? -ENOMEM
                : keeper_fill(keeper, key, &entry, NULL, keeper_latest(keeper), now_unix_ms, ret_error);
    free(about.tags);
    free(about.documents);
    return r;
}

static json_t *ask_import(struct keeper *keeper, const json_t *argument, int64_t now_unix_ms, char *ret_error)
{
    const json_t *entries = json_object_get(argument, "entries");
    json_int_t taken = 0, refused = 0;
    if (!json_is_array(entries)) {
        return wrong(ret_error, "entries must be a list, as an export has it");
    }
    for (size_t i = 0; i < json_array_size(entries); i++) {
        const int r = import_one(keeper, json_array_get(entries, i), now_unix_ms, ret_error);
        if (r < 0 && r != -EINVAL) {
            return NULL;
        }
        taken += r == 0;
        refused += r < 0;
    }
    return json_pack("{s:I, s:I}", "taken", taken, "refused", refused);
}

/* ---- asking ---- */

json_t *keeper_ask(struct keeper *keeper, const char *what, const json_t *argument, int64_t now_unix_ms,
                   char ret_error[CACHE_ERROR_BYTES])
{
    if (strcmp(what, "cache.top") == 0) {
        return ask_top(keeper, argument, now_unix_ms, ret_error);
    }
    if (strcmp(what, "cache.get") == 0) {
        return ask_get(keeper, argument, now_unix_ms, ret_error);
    }
    if (strcmp(what, "cache.count") == 0) {
        return ask_count(keeper, argument, now_unix_ms, ret_error);
    }
    if (strcmp(what, "cache.explain") == 0) {
        return ask_explain(keeper, argument, ret_error);
    }
    if (strcmp(what, "cache.export") == 0) {
        return ask_export(keeper, argument, now_unix_ms, ret_error);
    }
    if (strcmp(what, "cache.import") == 0) {
        return ask_import(keeper, argument, now_unix_ms, ret_error);
    }
    if (strcmp(what, "cache.rebuild") == 0) {
        keeper_rebuild(keeper);
        return json_pack("{s:b}", "started", true);
    }
    (void)snprintf(ret_error, CACHE_ERROR_BYTES, "this worker does not know \"%.64s\"", what);
    return NULL;
}
