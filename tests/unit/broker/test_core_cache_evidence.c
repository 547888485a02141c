/* What workers count of near hits: added, told, kept. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "broker/core/cache_evidence.h"
#include "common/threshold.h"
#include "tests/unit/broker/core_world.h"

static struct world w;
static struct threshold_scale scale;

static void start(void)
{
    world_init(&w);
    world_start(&w);
    world_worker(&w, 100, "a", 1);
    world_worker(&w, 101, "b", 1);
    threshold_scale_even(-4, 4, &scale);
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_cache_evidence, .init = start, .fini = stop);

static void send(const char *tenant, const char *tier, uint64_t epoch, unsigned labels)
{
    struct threshold_evidence *delta = malloc(sizeof(*delta));
    uint8_t *packed = malloc(THRESHOLD_PACKED_BYTES_MAX);
    threshold_init(&scale, delta);
    threshold_advance(delta, epoch);
    for (unsigned i = 0; i < labels; i++) {
        threshold_add_lookup(delta, &scale, epoch, 1.0, false);
        threshold_add(delta, &scale, epoch, 1.0, THRESHOLD_MISS, true, 0);
    }
    struct event event = {.kind = EVENT_CACHE_EVIDENCE,
                          .peer = 100,
                          .as.cache_evidence = {tenant, tier, "builtin/1", packed, threshold_pack(delta, packed)}};
    world_turn(&w, &event);
    free(packed);
    free(delta);
}

/* Labels that the latest sum told to this worker holds, and its epoch. */
static uint64_t told(uint64_t peer, uint64_t *ret_epoch)
{
    const struct world_effect *found = world_find(&w, EFFECT_CACHE_EVIDENCE, NULL, peer);
    cr_assert_not_null(found, "nothing was told");
    *ret_epoch = w.evidence_epoch;
    return w.evidence_labels;
}

Test(core_cache_evidence, deltas_add_up_and_every_worker_hears_the_sum_once_a_second)
{
    uint64_t epoch;
    world_advance(&w, EVIDENCE_TELL_MS);
    send("a", "standard", 0, 3);
    cr_assert_eq(told(101, &epoch), 3);
    world_forget_log(&w);
    send("a", "standard", 0, 4);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_EVIDENCE, NULL), 0, "not twice in a second");
    world_advance(&w, EVIDENCE_TELL_MS);
    cr_assert_eq(told(100, &epoch), 7);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_EVIDENCE, NULL), 2, "one for each worker");
}

Test(core_cache_evidence, what_is_not_configured_or_not_announced_is_refused)
{
    world_advance(&w, EVIDENCE_TELL_MS);
    send("nobody", "standard", 0, 3);
    send("a", "premium", 0, 3);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_EVIDENCE, NULL), 0);
    send("a", "standard", 0, 3);
    send("a", "standard", 7, 50);
    world_advance(&w, EVIDENCE_TELL_MS);
    uint64_t epoch;
    cr_assert_eq(told(101, &epoch), 3);
}

Test(core_cache_evidence, sums_outlive_a_restart_and_greet_who_comes)
{
    uint64_t epoch;
    send("a", "standard", 0, 5);
    world_advance(&w, EVIDENCE_RECORD_MS);
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 0);
    world_forget_log(&w);
    world_worker(&w, 200, "c", 1);
    cr_assert_eq(told(200, &epoch), 5);
}

Test(core_cache_evidence, epoch_ends_when_it_is_full_and_has_lasted)
{
    uint64_t epoch;
    send("a", "standard", 0, THRESHOLD_EPOCH_LOOKUPS);
    world_advance(&w, EVIDENCE_TELL_MS);
    (void)told(101, &epoch);
    cr_assert_eq(epoch, 0, "it has not lasted");
    world_advance(&w, EVIDENCE_EPOCH_MS);
    world_worker(&w, 100, "a", 1);
    send("a", "standard", 0, 1);
    world_advance(&w, EVIDENCE_TELL_MS);
    (void)told(100, &epoch);
    cr_assert_eq(epoch, 1);
}

Test(core_cache_evidence, classes_are_bounded)
{
    for (int i = 0; i < 3; i++) {
        send("a", "standard", 0, 1);
        send("b", "standard", 0, 1);
    }
    world_advance(&w, EVIDENCE_RECORD_MS);
    cr_assert_eq(world_records(&w, STORE_META), 2);
}
