#include "worker/cache/eviction.h"

#include <math.h>
#include <string.h>

#include "worker/cache/keeper_state.h"

static const double NANOUSD_A_SECOND = 10000.0; /* a second of waiting is worth a thousandth of a cent */

double eviction_worth(const Record__CacheAbout *about, int64_t now_unix_ms)
{
    const uint64_t used_ms = about->served_unix_ms > about->filled_unix_ms ? about->served_unix_ms
                                                                           : about->filled_unix_ms;
    const double idle_ms = (double)now_unix_ms - (double)used_ms;
    const double saved =
        (double)about->cost_nanousd + NANOUSD_A_SECOND * (double)about->run_ms / 1000.0 + 1.0;
    const double bytes = about->bytes > 0 ? (double)about->bytes : 1.0;
    return saved * (1.0 + (double)about->hits) / bytes *
           exp2(-(idle_ms > 0 ? idle_ms : 0) / EVICTION_HALF_LIFE_MS);
}

/* The least of the sample. */
struct sample {
    int64_t now_unix_ms;
    bool has_one;
    double worth;
    uint8_t key[CACHE_KEY_BYTES];
};

static bool look_at(void *context, const uint8_t key[CACHE_KEY_BYTES],
                    const Record__CacheAbout *about)
{
    struct sample *sample = context;
    const double worth = eviction_worth(about, sample->now_unix_ms);
    if (!sample->has_one || worth < sample->worth) {
        sample->has_one = true;
        sample->worth = worth;
        memcpy(sample->key, key, CACHE_KEY_BYTES);
    }
    return true;
}

/* splitmix64 */
static uint64_t random_next(struct keeper *keeper)
{
    uint64_t z = keeper->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* Neighbours by key are as random as any: a few places, a few entries at each. */
static int take_sample(struct keeper *keeper, struct sample *sample, char *ret_error)
{
    enum { PLACES = 4 };
    int r = 0;
    for (size_t i = 0; r == 0 && i < PLACES; i++) {
        uint8_t from[CACHE_KEY_BYTES] = {0}, next[CACHE_KEY_BYTES];
        bool is_end;
        const uint64_t place = i + 1 < PLACES || sample->has_one ? random_next(keeper) : 0;
        memcpy(from, &place, sizeof(place));
        r = cache_store_scan(keeper->store, from, EVICTION_SAMPLE / PLACES, look_at, sample, next,
                             &is_end, ret_error);
    }
    return r;
}

static bool is_over(const struct keeper *keeper)
{
    struct keeper_stats stats;
    keeper_read_stats(keeper, &stats);
    return stats.store.entries > keeper->options.entries_max ||
           stats.store.bytes > keeper->options.bytes_max ||
           stats.memory_bytes > keeper->options.memory_bytes_max;
}

int eviction_keep_bounds(struct keeper *keeper, int64_t now_unix_ms, char *ret_error)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < EVICTIONS_A_FILL_MAX && is_over(keeper); i++) {
        struct sample sample = {.now_unix_ms = now_unix_ms};
        r = take_sample(keeper, &sample, ret_error);
        if (r == 0 && sample.has_one) {
            r = keeper_remove(keeper, sample.key, ret_error);
            keeper->evictions++;
        }
    }
    return r;
}
