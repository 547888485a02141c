#include "worker/cache/keeper.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "worker/cache/decision.h"
#include "worker/cache/eviction.h"
#include "worker/cache/invalidations.h"
#include "worker/cache/keeper_state.h"
#include "worker/cache/likeness.h"
#include "worker/cache/sweep.h"
#include "worker/cache/text_embedder.h"
#include "worker/cache/wanted.h"

enum { CANDIDATES = 8 };

/* ---- opening ---- */

static int make_index(struct keeper *keeper)
{
    const struct near_index_options options = {
        .dimensions = keeper->options.embedder.dimensions,
        .entries_max = keeper->options.entries_max,
        .bytes_max = keeper->options.memory_bytes_max,
    };
    struct near_index *index = NULL;
    int r = keeper->options.is_near ? near_index_create(&options, &index) : 0;
    if (r == 0) { /* the old one stays without memory for another */
        near_index_destroy(&keeper->index);
        keeper->index = index;
    }
    return r;
}

int keeper_open(const struct keeper_options *options, struct keeper **ret_keeper,
                char ret_error[CACHE_ERROR_BYTES])
{
    CLEANUP(keeper_close) struct keeper *keeper = calloc(1, sizeof(*keeper));
    if (keeper == NULL) {
        return -ENOMEM;
    }
    keeper->options = *options;
    if (getrandom(&keeper->run, sizeof(keeper->run), 0) != (ssize_t)sizeof(keeper->run)) {
        return -EIO;
    }
    keeper->random = keeper->run;
    int r = invalidations_create(&keeper_nearness, &keeper->invalidations);
    r = r < 0 ? r : make_index(keeper);
    r = r < 0 ? r : cache_store_open(&options->store, &keeper->store, ret_error);
    if (r < 0) {
        return r;
    }
    sweep_begin(keeper, keeper->index != NULL);
    *ret_keeper = TAKE(keeper);
    return 0;
}

void keeper_close(struct keeper **keeper)
{
    struct keeper *old = TAKE(*keeper);
    if (old == NULL) {
        return;
    }
    char error[CACHE_ERROR_BYTES];
    if (old->store != NULL) {
        (void)!sweep_write_served(old, KEEPER_SERVED_MAX, error); /* statistics alone */
    }
    cache_store_close(&old->store);
    near_index_destroy(&old->index);
    wanted_destroy(&old->wanted);
    invalidations_destroy(&old->invalidations);
    free(old);
}

void keeper_rebuild(struct keeper *keeper, const uint8_t *scope)
{
    if (keeper->index == NULL || (scope == NULL && make_index(keeper) < 0)) {
        return;
    }
    const bool builds_all = scope == NULL || keeper->is_building;
    keeper->rebuilds_scope = !builds_all;
    if (!builds_all) {
        memcpy(keeper->scope, scope, CACHE_SCOPE_BYTES);
    }
    sweep_begin(keeper, true);
}

/* ---- removing ---- */

bool keeper_is_invalid(const struct keeper *keeper, const uint8_t *key,
                       const Record__CacheAbout *about)
{
    const uint64_t checked = about->run == keeper->run ? about->checked : 0;
    return invalidations_fit(keeper->invalidations, key, about,
                             checked > keeper->swept ? checked : keeper->swept);
}

bool keeper_may_compare(const struct keeper *keeper, uint64_t before)
{
    return invalidations_compared(keeper->invalidations) - before < KEEPER_COMPARISONS_MAX;
}

int keeper_remove(struct keeper *keeper, const uint8_t *key, char *ret_error)
{
    if (keeper->index != NULL) {
        near_index_remove(keeper->index, key);
    }
    return cache_store_remove(keeper->store, key, ret_error);
}

int keeper_remove_invalid(struct keeper *keeper, const uint8_t *key,
                          const Record__CacheAbout *about, char *ret_error)
{
    keeper->invalidated++;
    keeper->removed_entries++;
    keeper->removed_bytes += about->bytes;
    return keeper_remove(keeper, key, ret_error);
}

/* ---- lookups ---- */

static void take_entry(struct keeper *keeper, const struct cache_query *query,
                       struct cache_result *result, Record__CacheEntry *entry, int64_t now_unix_ms)
{
    result->entry = entry;
    result->is_stale = (int64_t)entry->about->expires_unix_ms <= now_unix_ms;
    result->age_ms = now_unix_ms - (int64_t)entry->about->filled_unix_ms;
    result->age_ms = result->age_ms > 0 ? result->age_ms : 0;
    if (!query->serves_nobody) {
        sweep_note_served(keeper, result->key, now_unix_ms);
    }
}

enum standing {
    STANDING_FRESH,
    STANDING_STALE, /* past its time */
    STANDING_OVER,  /* past all use */
    STANDING_INVALID
};

static enum standing standing_of(const struct keeper *keeper, const uint8_t *key,
                                 const Record__CacheAbout *about, int64_t now_unix_ms)
{
    return keeper_is_invalid(keeper, key, about)                ? STANDING_INVALID
           : (int64_t)about->stale_until_unix_ms <= now_unix_ms ? STANDING_OVER
           : (int64_t)about->expires_unix_ms <= now_unix_ms     ? STANDING_STALE
                                                                : STANDING_FRESH;
}

/* What is of no use any more goes when it is met. */
static int drop_useless(struct keeper *keeper, const uint8_t *key, enum standing standing,
                        char *ret_error)
{
    if (standing != STANDING_OVER && standing != STANDING_INVALID) {
        return 0;
    }
    keeper->expired += standing == STANDING_OVER ? 1 : 0;
    keeper->invalidated += standing == STANDING_INVALID ? 1 : 0;
    return keeper_remove(keeper, key, ret_error);
}

/* It stays: it answers others. */
static bool is_cut_too_much(const struct cache_query *query, const Record__CacheAbout *about)
{
    const struct prompt_cut cut = {.history_tokens = about->cut_history_tokens,
                                   .passages_tokens = about->cut_passages_tokens};
    return !prompt_cut_suits(&cut, &query->prompt_cut);
}

/* The entry of this key, if it may be served. *ret_entry is NULL when not; *ret_why says why. */
static int usable(struct keeper *keeper, const uint8_t *key, const struct cache_query *query,
                  int64_t now_unix_ms, Record__CacheEntry **ret_entry, const char **ret_why,
                  char *ret_error)
{
    Record__CacheEntry *entry = NULL;
    *ret_entry = NULL;
    int r = cache_store_get(keeper->store, key, &entry, ret_error);
    if (r < 0 || entry == NULL) {
        return r;
    }
    const enum standing standing = standing_of(keeper, key, entry->about, now_unix_ms);
    const bool is_good =
        standing == STANDING_FRESH || (standing == STANDING_STALE && query->may_be_stale);
    if (is_good && !is_cut_too_much(query, entry->about)) {
        *ret_entry = entry;
        return 0;
    }
    *ret_why = standing == STANDING_INVALID ? "invalidated" : is_good ? "cut" : "stale";
    record__cache_entry__free_unpacked(entry, NULL);
    return drop_useless(keeper, key, standing, ret_error);
}

/* ---- near lookups ---- */

struct candidate {
    uint8_t key[CACHE_KEY_BYTES];
    double score;
};

/* By score, best first. Not the entry of the query's own key: that was found to be of no use. */
static size_t rank(const struct keeper *keeper, const struct cache_query *query,
                   const struct near_text *text, const struct near_hit *hits, size_t hits_length,
                   struct candidate ret_ranked[CANDIDATES])
{
    size_t length = 0;
    for (size_t i = 0; i < hits_length; i++) {
        struct likeness likeness;
        enum likeness_feature reason;
        likeness_of(&text->profile.profile, hits[i].profile, hits[i].cosine, &likeness);
        const double score = keeper_score(keeper, &likeness);
        if (memcmp(hits[i].key, query->key, CACHE_KEY_BYTES) == 0 ||
            (query->is_strict && decision_is_forbidden(&likeness, &reason))) {
            continue;
        }
        size_t at = length++;
        for (; at > 0 && ret_ranked[at - 1].score < score; at--) {
            ret_ranked[at] = ret_ranked[at - 1];
        }
        ret_ranked[at].score = score;
        memcpy(ret_ranked[at].key, hits[i].key, CACHE_KEY_BYTES);
    }
    return length;
}

/* Whether its answer is worth comparing with a fresh one: an old, an invalid or a cut one differs
 * for another reason. */
static int is_comparable(struct keeper *keeper, const uint8_t *key, const struct cache_query *query,
                         int64_t now_unix_ms, bool *ret_is_comparable, char *ret_error)
{
    Record__CacheAbout *about = NULL;
    *ret_is_comparable = false;
    int r = cache_store_get_about(keeper->store, key, &about, ret_error);
    if (r == 0 && about == NULL) { /* it was found damaged */
        near_index_remove(keeper->index, key);
    }
    if (r < 0 || about == NULL) {
        return r;
    }
    const enum standing standing = standing_of(keeper, key, about, now_unix_ms);
    *ret_is_comparable = standing == STANDING_FRESH && !is_cut_too_much(query, about);
    record__cache_about__free_unpacked(about, NULL);
    return drop_useless(keeper, key, standing, ret_error);
}

/* The first that may be served; else the first that is fresh, for a comparison. */
static int choose(struct keeper *keeper, const struct cache_query *query, int64_t now_unix_ms,
                  const struct candidate *ranked, size_t length, struct cache_result *result,
                  char *ret_error)
{
    int r = 0;
    for (size_t i = 0; r == 0 && !result->has_candidate && i < length; i++) {
        const uint8_t *key = ranked[i].key;
        Record__CacheEntry *entry = NULL;
        if (ranked[i].score >= query->threshold) {
            r = usable(keeper, key, query, now_unix_ms, &entry, &result->why, ret_error);
            result->has_candidate = entry != NULL;
        } else {
            r = is_comparable(keeper, key, query, now_unix_ms, &result->has_candidate, ret_error);
            result->why = !result->has_candidate        ? result->why
                          : isfinite(query->threshold) ? "unsure"
                                                       : "closed";
        }
        if (result->has_candidate) {
            result->score = ranked[i].score;
            memcpy(result->key, key, CACHE_KEY_BYTES);
        }
        if (entry != NULL) {
            result->answer = CACHE_ANSWER_NEAR_HIT;
            take_entry(keeper, query, result, entry, now_unix_ms);
        }
    }
    return r;
}

/* False: it cannot be compared. */
static bool read_query(struct keeper *keeper, const struct cache_query *query, struct near_text *ret_text)
{
    if (!keeper_read_text(keeper, query->text, ret_text)) {
        return false;
    }
    if (keeper_vectors_are_brought(keeper) && query->vector != NULL) {
        ret_text->has_dense = true;
        memcpy(ret_text->dense, query->vector, keeper->options.embedder.dimensions);
    }
    return true;
}

static int lookup_near(struct keeper *keeper, const struct cache_query *query, int64_t now_unix_ms,
                       struct cache_result *result, char *ret_error)
{
    struct near_text text;
    struct near_hit hits[CANDIDATES];
    size_t length = 0;
    if (!read_query(keeper, query, &text)) {
        result->why = "long";
        return 0;
    }
    int r = near_index_best(keeper->index, query->scope, &text, CANDIDATES, hits, &length);
    if (r < 0) {
        return r;
    }
    struct candidate ranked[CANDIDATES];
    length = rank(keeper, query, &text, hits, length, ranked);
    return choose(keeper, query, now_unix_ms, ranked, length, result, ret_error);
}

int keeper_lookup(struct keeper *keeper, const struct cache_query *query, int64_t now_unix_ms,
                  struct cache_result *ret_result, char ret_error[CACHE_ERROR_BYTES])
{
    struct cache_result result = {.answer = CACHE_ANSWER_MISS, .why = "unknown"};
    Record__CacheEntry *entry = NULL;
    memcpy(result.key, query->key, CACHE_KEY_BYTES);
    int r = query->is_near_only
                ? 0
                : usable(keeper, query->key, query, now_unix_ms, &entry, &result.why, ret_error);
    if (r == 0 && entry != NULL) {
        result.answer = CACHE_ANSWER_HIT;
        take_entry(keeper, query, &result, entry, now_unix_ms);
    } else if (r == 0 && query->may_be_near && keeper->index != NULL &&
               (query->vector != NULL || !keeper_vectors_are_brought(keeper))) {
        r = lookup_near(keeper, query, now_unix_ms, &result, ret_error);
    }
    *ret_result = result;
    return r;
}

int keeper_get_fresh(struct keeper *keeper, const uint8_t key[CACHE_KEY_BYTES], int64_t now_unix_ms,
                     Record__CacheEntry **ret_entry, char ret_error[CACHE_ERROR_BYTES])
{
    /* Whether it may be compared was asked when it was found. */
    const struct cache_query query = {
        .prompt_cut = {.history_tokens = 1, .passages_tokens = 1}, /* however much was cut */
    };
    const char *why;
    return usable(keeper, key, &query, now_unix_ms, ret_entry, &why, ret_error);
}

int keeper_deny_near(struct keeper *keeper, const uint8_t key[CACHE_KEY_BYTES], char ret_error[CACHE_ERROR_BYTES])
{
    Record__CacheAbout *about = NULL;
    if (keeper->index != NULL) {
        near_index_remove(keeper->index, key);
    }
    int r = cache_store_get_about(keeper->store, key, &about, ret_error);
    if (r < 0 || about == NULL) {
        return r;
    }
    about->is_denied = true;
    r = cache_store_put_about(keeper->store, key, about, ret_error);
    record__cache_about__free_unpacked(about, NULL);
    return r;
}

/* ---- fills ---- */

bool keeper_is_overtaken(const struct keeper *keeper, const uint8_t key[CACHE_KEY_BYTES],
                         const Record__CacheAbout *about, uint64_t born)
{
    return born < invalidations_forgotten(keeper->invalidations) ||
           invalidations_fit(keeper->invalidations, key, about, born);
}

int keeper_fill(struct keeper *keeper, const uint8_t key[CACHE_KEY_BYTES], Record__CacheEntry *entry,
                const int8_t *vector, bool vector_follows, uint64_t born, int64_t now_unix_ms,
                char ret_error[CACHE_ERROR_BYTES])
{
    if (keeper_is_overtaken(keeper, key, entry->about, born)) {
        keeper->dropped_fills++;
        return 0;
    }
    entry->about->run = keeper->run;
    entry->about->checked = invalidations_latest(keeper->invalidations);
    int r = cache_store_put(keeper->store, key, entry, ret_error);
    if (r < 0) {
        return r;
    }
    if (keeper->index != NULL) {
        near_index_remove(keeper->index, key);
    }
    r = vector == NULL && vector_follows ? 0 : keeper_index_filled(keeper, key, entry->about, vector, ret_error);
    return r < 0 ? r : eviction_keep_bounds(keeper, now_unix_ms, ret_error);
}

int keeper_step(struct keeper *keeper, int64_t now_unix_ms, char ret_error[CACHE_ERROR_BYTES])
{
    return sweep_step(keeper, now_unix_ms, ret_error);
}

/* ---- invalidations ---- */

/* Now, rather than by a sweep. */
static int remove_named(struct keeper *keeper, const uint8_t *key)
{
    char error[CACHE_ERROR_BYTES];
    Record__CacheAbout *about = NULL;
    int r = cache_store_get_about(keeper->store, key, &about, error);
    if (r == 0 && about != NULL && keeper_is_invalid(keeper, key, about)) {
        r = keeper_remove_invalid(keeper, key, about, error);
    }
    if (about != NULL) {
        record__cache_about__free_unpacked(about, NULL);
    }
    return r;
}

/* Without memory too much is invalid; when the store fails a sweep finds that out. */
void keeper_invalidate(struct keeper *keeper, const Wire__CacheSelector *selector, int64_t now_unix_ms)
{
    int r = invalidations_add(keeper->invalidations, selector, keeper->swept, now_unix_ms);
    const bool is_named = selector != NULL && selector->key.len == CACHE_KEY_BYTES;
    if (r == 0 && is_named && remove_named(keeper, selector->key.data) == 0) {
        sweep_is_spared(keeper);
    }
}

void keeper_count_from(struct keeper *keeper, uint64_t number)
{
    invalidations_count_from(keeper->invalidations, number);
    keeper->swept = keeper->sweeping = number;
}

uint64_t keeper_latest(const struct keeper *keeper)
{
    return invalidations_latest(keeper->invalidations);
}

uint64_t keeper_swept(const struct keeper *keeper)
{
    return keeper->swept;
}

void keeper_take_removed(struct keeper *keeper, uint64_t *ret_entries, uint64_t *ret_bytes)
{
    *ret_entries = keeper->removed_entries;
    *ret_bytes = keeper->removed_bytes;
    keeper->removed_entries = keeper->removed_bytes = 0;
}

void keeper_forget_invalidations(struct keeper *keeper, uint64_t number)
{
    invalidations_forget(keeper->invalidations, number < keeper->swept ? number : keeper->swept);
}

int keeper_get_position(struct keeper *keeper, const char *endpoint,
                        uint8_t ret_epoch[CACHE_EPOCH_BYTES], uint64_t *ret_sequence,
                        char ret_error[CACHE_ERROR_BYTES])
{
    return cache_store_get_position(keeper->store, endpoint, ret_epoch, ret_sequence, ret_error);
}

int keeper_put_position(struct keeper *keeper, const char *endpoint,
                        const uint8_t epoch[CACHE_EPOCH_BYTES], uint64_t sequence,
                        char ret_error[CACHE_ERROR_BYTES])
{
    return cache_store_put_position(keeper->store, endpoint, epoch, sequence, ret_error);
}

void keeper_read_stats(const struct keeper *keeper, struct keeper_stats *ret_stats)
{
    *ret_stats = (struct keeper_stats){
        .is_building = keeper->is_building,
        .wanted = keeper->wanted_out + (keeper->wanted == NULL ? 0 : keeper->wanted->length),
        .evictions = keeper->evictions,
        .expired = keeper->expired,
        .invalidated = keeper->invalidated,
        .dropped_fills = keeper->dropped_fills,
        .without_vector = keeper->without_vector,
    };
    cache_store_read_stats(keeper->store, &ret_stats->store);
    if (keeper->index != NULL) {
        struct near_index_stats stats;
        near_index_read_stats(keeper->index, &stats);
        ret_stats->indexed = stats.entries;
        ret_stats->memory_bytes = stats.bytes;
        ret_stats->searches_cut = stats.searches_cut;
    }
    if (keeper->options.embedder.immediate != NULL) {
        struct text_embedder_stats stats;
        text_embedder_read_stats(keeper->options.embedder.immediate, &stats);
        ret_stats->texts = stats.texts;
    }
}
