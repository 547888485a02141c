/* What operators ask of the keeper: as JSON in and out. See docs/cache.md, "Commands". */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/ask_json.h"
#include "worker/cache/decision.h"
#include "worker/cache/keeper_state.h"
#include "worker/cache/keeper_walk.h"
#include "worker/cache/likeness.h"

enum {
    PAGE_LENGTH = 50, /* of an export */
    PAGE_LENGTH_MAX = 200,
    PAGE_SEEN_MAX = 512,    /* entries that are looked at, whether or not they are shown */
    PAGE_BYTES = 512 << 10, /* beyond, the page ends */
    /* An entry alone, so that its page is an answer: worker/cache_mail.h, CACHE_MAIL_BYTES_MAX. */
    PAGE_ENTRY_BYTES_MAX = (1 << 20) - 1024,
    REFUSALS_MAX = 100, /* of an import, that are told of one by one */
};
/* Of what is imported. */
static const double AGE_MS_MAX = 100 * 365.25 * 86400e3, COUNT_MAX = 1e12, USD_MAX = 1e6;

/* ---- entries ---- */

/* `about`: as it is now; the entry's own is from when it was filled. */
static json_t *whole_object(const uint8_t *key, const Record__CacheEntry *entry,
                            const Record__CacheAbout *about, int64_t now_unix_ms)
{
    json_t *object = ask_entry_object(key, about, now_unix_ms);
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

static int ask_get(struct keeper *keeper, const json_t *argument, int64_t now_unix_ms,
                   json_t **ret_answer, char *ret_error)
{
    uint8_t key[CACHE_KEY_BYTES];
    if (ask_read_hex(ask_text_at(argument, "key"), CACHE_KEY_BYTES, key) < 0) {
        return ask_wrong(ret_error, "key must be 32 hexadecimal digits");
    }
    int r = get_object(keeper, key, now_unix_ms, ret_answer, ret_error);
    return r == 0 && *ret_answer == NULL ? ask_wrong(ret_error, "there is no such entry here") : r;
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

static bool read_prompt(struct keeper *keeper, const json_t *argument, const char *name,
                        struct near_text *ret_text, char *ret_error)
{
    const char *text = ask_text_at(argument, name);
    if (text != NULL && keeper_read_text(keeper, text, ret_text)) {
        return true;
    }
    (void)snprintf(ret_error, CACHE_ERROR_BYTES,
                   "%s: cannot be compared; write a text of 1 to 128 words, some of which the "
                   "embedder knows",
                   name);
    return false;
}

static int ask_explain(struct keeper *keeper, const json_t *argument, json_t **ret_answer,
                       char *ret_error)
{
    struct near_text a, b;
    struct likeness likeness;
    enum likeness_feature reason;
    if (!read_prompt(keeper, argument, "a", &a, ret_error) ||
        !read_prompt(keeper, argument, "b", &b, ret_error)) {
        return -EINVAL;
    }
    const double cosine = cosine_of(keeper, argument, &a, &b);
    likeness_of(&a.profile.profile, &b.profile.profile, cosine, &likeness);
    const double score = keeper_score(keeper, &likeness);
    const bool is_forbidden = decision_is_forbidden(&likeness, &reason);
    const json_t *threshold = json_object_get(argument, "threshold");
    const bool is_strict = json_is_true(json_object_get(argument, "strict"));
    const char *verdict = !keeper->options.is_near                 ? "off"
                          : is_forbidden && is_strict              ? "forbidden"
                          : !json_is_number(threshold)             ? "closed"
                          : score < json_number_value(threshold) ? "unsure"
                                                                   : "near";
    json_t *answer = json_pack("{s:o, s:f, s:f, s:s, s:s?}", "features", features_of(&likeness), "cosine",
                               cosine, "score", score, "verdict", verdict, "forbidden",
                               is_forbidden ? likeness_feature_name(reason) : NULL);
    (void)json_object_set_new(answer, "threshold",
                              json_is_number(threshold) ? json_deep_copy(threshold) : json_null());
    *ret_answer = answer;
    return 0;
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

static bool note_key(void *context, const uint8_t key[CACHE_KEY_BYTES],
                     const Record__CacheAbout *about)
{
    (void)about;
    struct found *found = context;
    found->is_found = true;
    memcpy(found->key, key, CACHE_KEY_BYTES);
    return true;
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

static int ask_export(struct keeper *keeper, const json_t *argument, int64_t now_unix_ms,
                      json_t **ret_answer, char *ret_error)
{
    struct page page = {.is_end = false};
    const size_t limit = ask_limit_of(argument, PAGE_LENGTH, PAGE_LENGTH_MAX);
    char hex[2 * CACHE_KEY_BYTES + 1];
    const char *begin = ask_text_at(argument, "from");
    if (begin != NULL && ask_read_hex(begin, CACHE_KEY_BYTES, page.from) < 0) {
        return ask_wrong(ret_error, "from must be 32 hexadecimal digits");
    }
    page.entries = json_array();
    const uint64_t compared = invalidations_compared(keeper->invalidations);
    int r = 0;
    for (size_t seen = 0;
         r == 0 && !page.is_end && seen < PAGE_SEEN_MAX && json_array_size(page.entries) < limit &&
         keeper_may_compare(keeper, compared);
         seen++) {
        r = turn_to_next(keeper, &page, now_unix_ms, ret_error);
    }
    if (r < 0) {
        json_decref(page.entries);
        return r;
    }
    ask_write_hex(page.from, CACHE_KEY_BYTES, hex);
    *ret_answer = json_pack("{s:o, s:s?, s:I}", "entries", page.entries, "next",
                            page.is_end ? NULL : hex, "left_out", page.left_out);
    return 0;
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

/* NULL: they are as they can be; else the name of one that is not. */
static const char *import_numbers(const json_t *object, int64_t now_unix_ms,
                                  Record__CacheEntry *entry)
{
    Record__CacheAbout *about = entry->about;
    const double age_ms_max = AGE_MS_MAX < (double)now_unix_ms ? AGE_MS_MAX : (double)now_unix_ms;
    uint64_t age_ms = 0, left_ms = 0;
    double cost_usd;
    const struct {
        const char *name;
        double most;
        uint64_t *count;
    } counts[] = {{"age_ms", age_ms_max, &age_ms},
                  {"expires_in_ms", AGE_MS_MAX, &left_ms},
                  {"run_ms", AGE_MS_MAX, &about->run_ms},
                  {"hits", COUNT_MAX, &about->hits},
                  {"cut_history_tokens", COUNT_MAX, &about->cut_history_tokens},
                  {"cut_passages_tokens", COUNT_MAX, &about->cut_passages_tokens},
                  {"input_tokens", COUNT_MAX, &entry->input_tokens},
                  {"cached_input_tokens", COUNT_MAX, &entry->cached_input_tokens},
                  {"output_tokens", COUNT_MAX, &entry->output_tokens},
                  {"reasoning_tokens", COUNT_MAX, &entry->reasoning_tokens}};
    for (size_t i = 0; i < ARRAY_LENGTH(counts); i++) {
        if (ask_count_at(object, counts[i].name, counts[i].most, counts[i].count) < 0) {
            return counts[i].name;
        }
    }
    if (ask_number_at(object, "cost_usd", USD_MAX, &cost_usd) < 0) {
        return "cost_usd";
    }
    about->filled_unix_ms = (uint64_t)now_unix_ms - age_ms;
    about->expires_unix_ms = about->stale_until_unix_ms = (uint64_t)now_unix_ms + left_ms;
    about->cost_nanousd = (uint64_t)(cost_usd / ASK_NANOUSD + 0.5);
    return left_ms == 0 ? "expires_in_ms" : NULL;
}

static void import_names(const json_t *object, Record__CacheEntry *entry)
{
    Record__CacheAbout *about = entry->about;
    entry->provider = or_empty(ask_text_at(object, "provider"));
    about->tenant = or_empty(ask_text_at(object, "tenant"));
    about->cache_namespace = or_empty(ask_text_at(object, "namespace"));
    about->route = or_empty(ask_text_at(object, "route"));
    about->tier = or_empty(ask_text_at(object, "tier"));
    about->model = or_empty(ask_text_at(object, "model"));
    about->template_version = or_empty(ask_text_at(object, "template_version"));
    about->text = or_empty(ask_text_at(object, "text"));
    about->is_denied = json_is_true(json_object_get(object, "denied"));
}

/* An answer as a provider gives it: with choices, the data of embeddings, or a response's output. */
static bool is_answer(const char *body)
{
    json_t *answer = json_loads(body, 0, NULL);
    const bool has_content = json_array_size(json_object_get(answer, "choices")) > 0 ||
                             json_array_size(json_object_get(answer, "data")) > 0 ||
                             json_array_size(json_object_get(answer, "output")) > 0;
    json_decref(answer);
    return has_content;
}

/* One that was left out would let its text go anywhere. */
static bool has_good_labels(const json_t *object)
{
    const json_t *labels = json_object_get(object, "residency");
    size_t i;
    const json_t *label;
    json_array_foreach (labels, i, label) {
        if (!json_is_string(label)) {
            return false;
        }
    }
    return labels == NULL || json_is_array(labels);
}

/* An entry, and the bytes that it points to. */
struct imported {
    uint8_t key[CACHE_KEY_BYTES], scope[CACHE_SCOPE_BYTES];
    Record__CacheAbout about;
    Record__CacheEntry entry;
};

/* Errors: -EINVAL it lacks something, or is not as it can be, which ret_why says. */
static int read_import(const json_t *object, int64_t now_unix_ms, struct imported *imported,
                       char *ret_why)
{
    const char *body = ask_text_at(object, "body");
    const char *scope = ask_text_at(object, "scope");
    const bool has_scope = scope != NULL && scope[0] != '\0';
    record__cache_about__init(&imported->about);
    record__cache_entry__init(&imported->entry);
    imported->entry.about = &imported->about;
    const char *number = import_numbers(object, now_unix_ms, &imported->entry);
    if (ask_read_hex(ask_text_at(object, "key"), CACHE_KEY_BYTES, imported->key) < 0) {
        return ask_wrong(ret_why, "key must be 32 hexadecimal digits");
    }
    if (has_scope && ask_read_hex(scope, CACHE_SCOPE_BYTES, imported->scope) < 0) {
        return ask_wrong(ret_why, "scope must be 32 hexadecimal digits");
    }
    if (ask_text_at(object, "tenant") == NULL) {
        return ask_wrong(ret_why, "tenant must be a text");
    }
    if (body == NULL || !is_answer(body)) {
        return ask_wrong(ret_why, "body must be an answer of a provider, with choices or data");
    }
    if (!has_good_labels(object)) {
        return ask_wrong(ret_why, "residency must be a list of labels");
    }
    if (number != NULL) {
        (void)snprintf(ret_why, CACHE_ERROR_BYTES, "%s must be a number within its bounds", number);
        return -EINVAL;
    }
    import_names(object, &imported->entry);
    imported->entry.body = (ProtobufCBinaryData){strlen(body), (uint8_t *)body};
    imported->about.scope =
        (ProtobufCBinaryData){has_scope ? CACHE_SCOPE_BYTES : 0, imported->scope};
    return 0;
}

/* Errors: -EINVAL it is refused, which ret_error says; -ENOMEM; of the store. */
static int import_one(struct keeper *keeper, const json_t *object, int64_t now_unix_ms,
                      char *ret_error)
{
    struct imported imported;
    Record__CacheAbout *about = &imported.about;
    int r = read_import(object, now_unix_ms, &imported, ret_error);
    if (r < 0) {
        return r;
    }
    about->tags = texts_of(json_object_get(object, "tags"), &about->n_tags);
    about->documents = texts_of(json_object_get(object, "documents"), &about->n_documents);
    about->residency = texts_of(json_object_get(object, "residency"), &about->n_residency);
    r = about->tags == NULL || about->documents == NULL || about->residency == NULL
            ? -ENOMEM
            : keeper_fill(keeper, imported.key, &imported.entry, NULL, false, keeper_latest(keeper),
                          now_unix_ms, ret_error);
    free(about->tags);
    free(about->documents);
    free(about->residency);
    return r;
}

static int ask_import(struct keeper *keeper, const json_t *argument, int64_t now_unix_ms,
                      json_t **ret_answer, char *ret_error)
{
    const json_t *entries = json_object_get(argument, "entries");
    json_int_t taken = 0, refused = 0;
    if (!json_is_array(entries)) {
        return ask_wrong(ret_error, "entries must be a list, as an export has it");
    }
    json_t *refusals = json_array();
    int r = 0;
    for (size_t i = 0; i < json_array_size(entries) && (r == 0 || r == -EINVAL); i++) {
        r = import_one(keeper, json_array_get(entries, i), now_unix_ms, ret_error);
        taken += r == 0;
        refused += r == -EINVAL;
        if (r == -EINVAL && refused <= REFUSALS_MAX) {
            (void)json_array_append_new(
                refusals, json_pack("{s:I, s:s}", "entry", (json_int_t)i, "why", ret_error));
        }
    }
    if (r < 0 && r != -EINVAL) {
        json_decref(refusals);
        return r;
    }
    ret_error[0] = '\0';
    *ret_answer =
        json_pack("{s:I, s:I, s:o}", "taken", taken, "refused", refused, "refusals", refusals);
    return 0;
}

/* ---- asking ---- */

static int ask_rebuild(struct keeper *keeper, const json_t *argument, json_t **ret_answer,
                       char *ret_error)
{
    uint8_t scope[CACHE_SCOPE_BYTES];
    const char *text = ask_text_at(argument, "scope");
    if (text != NULL && ask_read_hex(text, CACHE_SCOPE_BYTES, scope) < 0) {
        return ask_wrong(ret_error, "scope must be 32 hexadecimal digits");
    }
    keeper_rebuild(keeper, text == NULL ? NULL : scope);
    *ret_answer = json_pack("{s:b}", "started", true);
    return 0;
}

static int begin(struct keeper *keeper, const char *what, const json_t *argument,
                 int64_t now_unix_ms, json_t **ret_answer, struct keeper_walk **ret_walk,
                 char *ret_error)
{
    if (strcmp(what, "cache.top") == 0) {
        return keeper_walk_top(argument, ret_walk, ret_error);
    }
    if (strcmp(what, "cache.count") == 0) {
        return keeper_walk_count(argument, now_unix_ms, ret_walk, ret_error);
    }
    if (strcmp(what, "cache.get") == 0) {
        return ask_get(keeper, argument, now_unix_ms, ret_answer, ret_error);
    }
    if (strcmp(what, "cache.explain") == 0) {
        return ask_explain(keeper, argument, ret_answer, ret_error);
    }
    if (strcmp(what, "cache.export") == 0) {
        return ask_export(keeper, argument, now_unix_ms, ret_answer, ret_error);
    }
    if (strcmp(what, "cache.import") == 0) {
        return ask_import(keeper, argument, now_unix_ms, ret_answer, ret_error);
    }
    if (strcmp(what, "cache.rebuild") == 0) {
        return ask_rebuild(keeper, argument, ret_answer, ret_error);
    }
    (void)snprintf(ret_error, CACHE_ERROR_BYTES, "this worker does not know \"%.64s\"", what);
    return -EINVAL;
}

int keeper_ask(struct keeper *keeper, const char *what, const json_t *argument, int64_t now_unix_ms,
               json_t **ret_answer, struct keeper_walk **ret_walk,
               char ret_error[CACHE_ERROR_BYTES])
{
    *ret_answer = NULL;
    *ret_walk = NULL;
    int r = begin(keeper, what, argument, now_unix_ms, ret_answer, ret_walk, ret_error);
    return r == 0 && *ret_answer == NULL && *ret_walk == NULL ? -ENOMEM : r;
}
