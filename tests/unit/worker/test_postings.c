#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "common/attributes.h"
#include "tests/unit/worker/dice.h"
#include "tests/unit/worker/scarce_memory.h"
#include "worker/cache/postings.h"

/* One bucket is in nearly every slot, so that there are arrays and chains; most are in few. */
enum { SLOTS = 6000, BUCKETS_OF_SLOT = 6, BUCKETS = 4000, SEEDS = 3, SWEEP = 100 };

struct model {
    bool is_live[SLOTS];
    uint32_t buckets[SLOTS][BUCKETS_OF_SLOT];
};
static struct model model;

static bool is_dead(const void *context, uint32_t slot)
{
    return !((const struct model *)context)->is_live[slot];
}

static uint32_t some_bucket(struct dice *dice, size_t i)
{
    /* Spread over all 24 bits, and different from one i to the next. */
    const uint32_t limit = i == 0 ? 2 : i == 1 ? 40 : BUCKETS;
    return ((uint32_t)i << 20) + dice_below(dice, limit) * 251;
}

static int add_slot(struct postings *postings, struct dice *dice, uint32_t slot)
{
    int failed = 0;
    model.is_live[slot] = true;
    for (size_t i = 0; i < BUCKETS_OF_SLOT; i++) {
        model.buckets[slot][i] = some_bucket(dice, i);
        const int r =
            postings_add(postings, model.buckets[slot][i], posting_of(slot, slot % 200 + 1));
        if (r == -ENOMEM) {
            model.buckets[slot][i] = UINT32_MAX;
            failed++;
        } else {
            cr_assert_eq(r, 0);
        }
    }
    return failed;
}

static void sweep_all(struct postings *postings)
{
    while (!postings_sweep(postings, SWEEP, is_dead, &model)) {
    }
}

/* Each live slot's postings are there once; and nothing else, if `only_live`. */
static void check_all(const struct postings *postings, bool only_live)
{
    static uint8_t seen[SLOTS][BUCKETS_OF_SLOT];
    uint64_t expected = 0;
    uint64_t found = 0;
    memset(seen, 0, sizeof(seen));
    for (size_t i = 0; i < BUCKETS_OF_SLOT; i++) {
        for (uint32_t b = 0; b < BUCKETS; b++) {
            struct posting_list list;
            const uint32_t *run;
            size_t length;
            (void)postings_find(postings, ((uint32_t)i << 20) + b * 251, &list);
            const uint32_t promised = list.length;
            uint32_t taken = 0;
            while (posting_list_take(postings->pool, &list, &run, &length)) {
                for (size_t at = 0; at < length; at++) {
                    const uint32_t slot = posting_slot(run[at]);
                    cr_assert_eq(posting_weight(run[at]), slot % 200 + 1);
                    seen[slot][i] += model.is_live[slot] &&
                                     model.buckets[slot][i] == ((uint32_t)i << 20) + b * 251;
                }
                taken += (uint32_t)length;
            }
            cr_assert_eq(taken, promised);
            found += taken;
        }
    }
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        for (size_t i = 0; i < BUCKETS_OF_SLOT; i++) {
            const bool is_there = model.is_live[slot] && model.buckets[slot][i] != UINT32_MAX;
            cr_assert_eq(seen[slot][i], is_there, "slot %u, bucket %zu", slot, i);
            expected += is_there;
        }
    }
    cr_assert_eq(found, postings->length);
    if (only_live) {
        cr_assert_eq(postings->length, expected);
    }
}

Test(postings, hold_what_is_live_and_a_sweep_drops_what_is_dead)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct dice dice = {.state = seed};
        struct block_pool pool;
        struct postings postings;
        memset(&model, 0, sizeof(model));
        block_pool_init(&pool);
        postings_init(&postings, &pool);
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            cr_assert_eq(add_slot(&postings, &dice, slot), 0);
        }
        check_all(&postings, true);
        for (size_t turn = 0; turn < 4; turn++) {
            for (uint32_t slot = 0; slot < SLOTS; slot++) {
                model.is_live[slot] &= dice_below(&dice, 10) < 7;
            }
            sweep_all(&postings);
            check_all(&postings, true);
            for (uint32_t slot = 0; slot < SLOTS; slot++) {
                if (!model.is_live[slot] && dice_below(&dice, 2) == 0) {
                    cr_assert_eq(add_slot(&postings, &dice, slot), 0);
                }
            }
            check_all(&postings, true);
        }
        memset(model.is_live, 0, sizeof(model.is_live));
        sweep_all(&postings);
        check_all(&postings, true);
        cr_assert_eq(postings.lists, 0);
        /* One segment is left of them all. */
        cr_assert_leq(pool.bytes_used, 2048);
        postings_finish(&postings);
        cr_assert_eq(pool.bytes_used, 0);
        block_pool_finish(&pool);
    }
}

Test(postings, a_slot_that_comes_during_a_sweep_stays)
{
    struct dice dice = {.state = 7};
    struct block_pool pool;
    struct postings postings;
    uint32_t added = SLOTS / 2;
    memset(&model, 0, sizeof(model));
    block_pool_init(&pool);
    postings_init(&postings, &pool);
    for (uint32_t slot = 0; slot < added; slot++) {
        cr_assert_eq(add_slot(&postings, &dice, slot), 0);
        model.is_live[slot] = slot % 3 == 0;
    }
    bool is_done = false;
    while (!is_done) {
        is_done = postings_sweep(&postings, SWEEP, is_dead, &model);
        if (added < SLOTS) {
            cr_assert_eq(add_slot(&postings, &dice, added++), 0);
        }
    }
    check_all(&postings, true);
    postings_finish(&postings);
    block_pool_finish(&pool);
}

/* All pages that are free: whatever needs one now needs memory. */
static void use_up(struct block_pool *pool)
{
    let_memory_be_scarce(0);
    while (block_pool_alloc(pool, BLOCK_BYTES_MAX) != 0) {
    }
    let_memory_be_plenty();
}

Test(postings, without_memory_a_posting_is_refused_and_the_others_stay)
{
    struct dice dice = {.state = 3};
    struct block_pool pool;
    struct postings postings;
    int refused = 0;
    memset(&model, 0, sizeof(model));
    block_pool_init(&pool);
    postings_init(&postings, &pool);
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        if (slot % 600 == 0) {
            use_up(&pool);
        }
        if (slot % 600 < 100) {
            let_memory_be_scarce(0);
        }
        refused += add_slot(&postings, &dice, slot);
        let_memory_be_plenty();
    }
    for (uint32_t slot = 0; slot < SLOTS; slot += 2) {
        model.is_live[slot] = false;
    }
    use_up(&pool);
    let_memory_be_scarce(0);
    sweep_all(&postings);
    let_memory_be_plenty();
    check_all(&postings, true);
    postings_finish(&postings);
    block_pool_finish(&pool);
    cr_assert_gt(refused, 0);
}
