#include "worker/cache/sweep.h"

#include <string.h>

#include "worker/cache/invalidations.h"
#include "worker/cache/keeper_state.h"

void sweep_begin(struct keeper *keeper, bool is_building)
{
    memset(keeper->cursor, 0, sizeof(keeper->cursor));
    keeper->is_building = keeper->is_seeking = is_building;
    keeper->has_skipped = false;
    keeper->sweeping = invalidations_latest(keeper->invalidations);
}

void sweep_is_spared(struct keeper *keeper)
{
    const uint64_t latest = invalidations_latest(keeper->invalidations);
    keeper->sweeping = keeper->sweeping + 1 == latest ? latest : keeper->sweeping;
    keeper->swept = keeper->swept + 1 == latest ? latest : keeper->swept;
}

static bool is_in_a_hurry(const struct keeper *keeper)
{
    return (keeper->is_building && keeper_has_room_for_wanted(keeper, SWEEP_STEP)) ||
           keeper->swept < invalidations_latest(keeper->invalidations);
}

/* ---- an entry ---- */

struct visit {
    struct keeper *keeper;
    uint64_t compared; /* by the invalidations when the step began */
    int64_t now_unix_ms;
    char *error;
    int r;
};

static bool needs_a_place(const struct keeper *keeper, const uint8_t *key, const Record__CacheAbout *about)
{
    if (!keeper->is_building) {
        return keeper->is_seeking && !keeper_has_vector(keeper, about);
    }
    const bool is_rebuilt = keeper->rebuilds_scope && about->scope.len == CACHE_SCOPE_BYTES &&
                            memcmp(about->scope.data, keeper->scope, CACHE_SCOPE_BYTES) == 0;
    return is_rebuilt || !near_index_has(keeper->index, key);
}

static bool look_at(void *context, const uint8_t key[CACHE_KEY_BYTES],
                    const Record__CacheAbout *about)
{
    struct visit *visit = context;
    struct keeper *keeper = visit->keeper;
    const bool is_invalid = keeper_is_invalid(keeper, key, about);
    const bool is_over = (int64_t)about->stale_until_unix_ms <= visit->now_unix_ms;
    if (is_invalid) {
        visit->r = keeper_remove_invalid(keeper, key, about, visit->error);
    } else if (is_over) {
        keeper->expired++;
        visit->r = keeper_remove(keeper, key, visit->error);
    } else if (needs_a_place(keeper, key, about)) {
        visit->r = keeper_index_again(keeper, key, about, visit->error);
    }
    return visit->r == 0 && keeper_may_compare(keeper, visit->compared);
}

/* ---- a step ---- */

/* While an embedder is slow, or down, a round may leave entries without a vector: then another one builds on. */
static void end_round(struct keeper *keeper, int64_t now_unix_ms)
{
    keeper->swept = keeper->sweeping;
    if (keeper->is_seeking) {
        keeper->seek_at_unix_ms = now_unix_ms + SWEEP_SEEK_MS;
    }
    keeper->rebuilds_scope = false; /* once is enough; what is wanting yet is found as such */
    sweep_begin(keeper, keeper->is_building && keeper->has_skipped);
    keeper->is_seeking = keeper->is_seeking || now_unix_ms >= keeper->seek_at_unix_ms;
}

static int scan(struct keeper *keeper, int64_t now_unix_ms, char *ret_error)
{
    struct visit visit = {.keeper = keeper,
                          .compared = invalidations_compared(keeper->invalidations),
                          .now_unix_ms = now_unix_ms,
                          .error = ret_error};
    bool is_end = false;
    int r = cache_store_scan(keeper->store, keeper->cursor, SWEEP_STEP, look_at, &visit,
                             keeper->cursor, &is_end, ret_error);
    r = r < 0 ? r : visit.r;
    if (r == 0 && is_end) {
        end_round(keeper, now_unix_ms);
    }
    return r;
}

int sweep_step(struct keeper *keeper, int64_t now_unix_ms, char *ret_error)
{
    int r = sweep_write_served(keeper, SWEEP_SERVED_STEP, ret_error);
    const bool is_due = is_in_a_hurry(keeper) || now_unix_ms >= keeper->sweep_at_unix_ms;
    if (r == 0 && is_due) {
        keeper->sweep_at_unix_ms = now_unix_ms + 1000 * SWEEP_STEP / SWEEP_CALM;
        r = scan(keeper, now_unix_ms, ret_error);
    }
    const bool has_more =
        (keeper->index != NULL && near_index_work(keeper->index)) || is_in_a_hurry(keeper);
    return r < 0                       ? r
           : has_more                  ? KEEPER_REST_AT_ONCE
           : keeper->served_length > 0 ? KEEPER_REST_AT_LEISURE
                                       : KEEPER_REST_NONE;
}

/* ---- hits ---- */

/* Keys are hashes that nobody can choose. */
static struct served *places_of(struct keeper *keeper, const uint8_t *key)
{
    uint32_t hash;
    memcpy(&hash, key, sizeof(hash));
    return &keeper->served[hash % (KEEPER_SERVED_MAX / KEEPER_SERVED_WAYS) * KEEPER_SERVED_WAYS];
}

void sweep_note_served(struct keeper *keeper, const uint8_t *key, int64_t now_unix_ms)
{
    struct served *places = places_of(keeper, key);
    struct served *mine = NULL;
    for (size_t i = 0; i < KEEPER_SERVED_WAYS; i++) {
        const bool is_free = places[i].hits == 0;
        if (!is_free && memcmp(places[i].key, key, CACHE_KEY_BYTES) == 0) {
            mine = &places[i];
            break;
        }
        mine = is_free ? &places[i] : mine;
    }
    if (mine == NULL) {
        return;
    }
    if (mine->hits == 0) {
        memcpy(mine->key, key, CACHE_KEY_BYTES);
        keeper->served_length++;
    }
    mine->hits++;
    mine->at_unix_ms = now_unix_ms;
}

static int write_one(struct keeper *keeper, const struct served *served, char *ret_error)
{
    Record__CacheAbout *about = NULL;
    int r = cache_store_get_about(keeper->store, served->key, &about, ret_error);
    if (r == 0 && about != NULL) {
        about->hits += served->hits;
        about->served_unix_ms = (uint64_t)served->at_unix_ms;
        r = cache_store_put_about(keeper->store, served->key, about, ret_error);
        record__cache_about__free_unpacked(about, NULL);
    }
    return r;
}

int sweep_write_served(struct keeper *keeper, size_t most, char *ret_error)
{
    int r = 0;
    while (r == 0 && most > 0 && keeper->served_length > 0) {
        struct served *served = &keeper->served[keeper->served_next];
        keeper->served_next = (keeper->served_next + 1) % KEEPER_SERVED_MAX;
        if (served->hits > 0) {
            r = write_one(keeper, served, ret_error);
            served->hits = 0;
            keeper->served_length--;
            most--;
        }
    }
    return r;
}
