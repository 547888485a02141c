/* What is known of near hits: added up, numbered by epochs, told, kept, bounded. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "broker/core/cache_evidence.h"
#include "common/threshold.h"
#include "tests/unit/broker/core_world.h"

static struct world w;
static struct threshold_seed seed;

static void start(void)
{
    threshold_scale_even(-5, 5, &seed.scale);
    world_init(&w);
    world_start(&w);
    world_worker(&w, 100, "w0", 1);
    world_worker(&w, 101, "w1", 1);
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_cache_evidence, .init = start, .fini = stop);

static void send(const char *tenant, const char *embedder, const struct threshold_evidence *delta)
{
    static uint8_t counts[THRESHOLD_PACKED_BYTES_MAX], packed_seed[THRESHOLD_SEED_BYTES];
    threshold_pack_seed(&seed, packed_seed);
    const struct event event = {.kind = EVENT_CACHE_EVIDENCE,
                                .peer = 100,
                                .as.cache_evidence = {.tenant = tenant,
                                                      .tier = "standard",
                                                      .embedder = embedder,
                                                      .counts = counts,
                                                      .counts_bytes = threshold_pack(delta, counts),
                                                      .seed = packed_seed,
                                                      .seed_bytes = sizeof(packed_seed)}};
    world_turn(&w, &event);
}

/* That many lookups, in this epoch. */
static void count(const char *tenant, const char *embedder, uint64_t epoch, int lookups)
{
    struct threshold_evidence delta;
    threshold_init(&seed.scale, &delta);
    for (int i = 0; i < lookups; i++) {
        threshold_add_lookup(&delta, &seed.scale, epoch, 1.0, true);
    }
    send(tenant, embedder, &delta);
}

struct seen {
    const char *tenant, *embedder;
    size_t classes;
    uint64_t newest, lookups, reported;
};

static void see(void *context, const struct core_evidence_view *view)
{
    struct seen *seen = context;
    seen->classes++;
    if (strcmp(view->tenant, seen->tenant) != 0 || strcmp(view->embedder, seen->embedder) != 0) {
        return;
    }
    cr_assert_not_null(view->seed);
    seen->newest = view->sum->newest;
    for (size_t i = 0; i < THRESHOLD_EPOCHS; i++) {
        for (size_t bin = 0; bin < THRESHOLD_BINS; bin++) {
            seen->lookups += view->sum->epochs[i].bins[bin].seen;
            seen->reported += view->sum->epochs[i].bins[bin].reported;
        }
    }
}

static struct seen look(const char *tenant, const char *embedder)
{
    struct seen seen = {.tenant = tenant, .embedder = embedder};
    (void)core_visit_evidence(w.core, 0, SIZE_MAX, see, &seen);
    return seen;
}

Test(core_cache_evidence, deltas_add_up_and_every_worker_is_told_once_a_second)
{
    count("a", "e", 0, 3);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_EVIDENCE, NULL), 2);
    for (int i = 0; i < 9; i++) {
        count("a", "e", 0, 1);
        world_advance(&w, 100);
    }
    cr_assert_eq(look("a", "e").lookups, 12);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_EVIDENCE, NULL), 2);
    world_advance(&w, 100);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_EVIDENCE, NULL), 4);
    const struct world_effect *told = world_find(&w, EFFECT_CACHE_EVIDENCE, NULL, 101);
    struct blob *packed = told->effect.as.cache_evidence.packed;
    Wire__CacheEvidence *evidence =
        wire__cache_evidence__unpack(NULL, blob_bytes(packed), blob_data(packed));
    struct threshold_evidence sum;
    cr_assert_eq(threshold_unpack(evidence->counts.data, evidence->counts.len, &sum), 0);
    cr_assert_eq(sum.epochs[0].hits, 12);
    wire__cache_evidence__free_unpacked(evidence, NULL);
    world_advance(&w, 60000);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_EVIDENCE, NULL), 4); /* nothing has changed */
}

Test(core_cache_evidence, epoch_ends_when_it_is_full_and_old_enough)
{
    count("a", "e", 0, THRESHOLD_EPOCH_LOOKUPS);
    world_advance(&w, EVIDENCE_EPOCH_MIN_MS - 1);
    cr_assert_eq(look("a", "e").newest, 0);
    world_advance(&w, 1);
    cr_assert_eq(look("a", "e").newest, 1);
    world_advance(&w, 10 * EVIDENCE_EPOCH_MIN_MS);
    world_worker(&w, 100, "w0", 1); /* it was silent */
    count("a", "e", 1, THRESHOLD_EPOCH_LOOKUPS - 1);
    cr_assert_eq(look("a", "e").newest, 1); /* not full */
    count("a", "e", 1, 1);
    cr_assert_eq(look("a", "e").newest, 2);
}

Test(core_cache_evidence, what_cannot_be_added_is_refused_and_counted)
{
    count("a", "e", 0, 1);
    world_advance(&w, 1000);
    world_forget_log(&w);
    count("a", "e", 1, 1); /* an epoch that was not announced */
    cr_assert_eq(look("a", "e").newest, 0);
    cr_assert_eq(core_evidence_refused(w.core), 1);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_EVIDENCE, NULL), 2); /* what holds is told again */
    struct threshold_scale other;
    struct threshold_evidence delta;
    threshold_scale_even(0, 1, &other);
    threshold_init(&other, &delta);
    threshold_add_lookup(&delta, &other, 0, 1.0, true);
    send("a", "e", &delta);
    cr_assert_eq(core_evidence_refused(w.core), 2);
    count("stranger", "e", 0, 1);
    cr_assert_eq(core_evidence_refused(w.core), 3);
    const struct event garbage = {
        .kind = EVENT_CACHE_EVIDENCE,
        .peer = 100,
        .as.cache_evidence = {"a", "standard", "e", (const uint8_t *)"\xff\xff", 2}};
    world_turn(&w, &garbage);
    cr_assert_eq(core_evidence_refused(w.core), 4);
    cr_assert_eq(look("a", "e").lookups, 1);
    cr_assert_eq(look("a", "e").classes, 1);
}

Test(core_cache_evidence, sums_are_recorded_lazily_and_outlive_a_restart)
{
    count("a", "e", 0, 5);
    cr_assert_eq(world_records(&w, STORE_META), 0);
    world_advance(&w, EVIDENCE_RECORD_MS);
    cr_assert_eq(world_records(&w, STORE_META), 1);
    count("a", "e", 0, 2); /* not recorded yet: lost */
    world_restart(&w);
    cr_assert_eq(look("a", "e").lookups, 5);
    cr_assert_eq(w.restore_errors, 0);
}

Test(core_cache_evidence, drain_records_at_once)
{
    count("a", "e", 0, 5);
    world_turn(&w, &(struct event){.kind = EVENT_DRAIN});
    count("a", "e", 0, 2);
    world_restart(&w);
    cr_assert_eq(look("a", "e").lookups, 7);
}

Test(core_cache_evidence, damaged_record_is_dropped_and_counted)
{
    count("a", "e", 0, 5);
    count("b", "e", 0, 6);
    world_advance(&w, EVIDENCE_RECORD_MS);
    w.records[0].value[w.records[0].value_bytes / 2] ^= 0xff;
    w.records[0].key[8] ^= 1;
    world_restart(&w);
    cr_assert_eq(w.restore_errors, 1);
    cr_assert_eq(look("a", "e").classes, 1);
    world_tick(&w);
    cr_assert_not_null(world_find(&w, EFFECT_NOTE, NULL, 0));
}

Test(core_cache_evidence, least_recently_used_class_is_forgotten_with_its_record)
{
    char name[16];
    for (int i = 0; i < EVIDENCE_CLASSES_MAX; i++) {
        (void)snprintf(name, sizeof(name), "e%d", i);
        count("a", name, 0, 1);
    }
    world_advance(&w, EVIDENCE_RECORD_MS);
    cr_assert_eq(world_records(&w, STORE_META), EVIDENCE_CLASSES_MAX);
    count("a", "e0", 0, 1); /* used again */
    count("a", "late", 0, 1);
    cr_assert_eq(look("a", "e0").classes, EVIDENCE_CLASSES_MAX);
    cr_assert_eq(look("a", "e0").lookups, 2);
    cr_assert_eq(look("a", "late").lookups, 1);
    cr_assert_eq(look("a", "e1").lookups, 0);
    cr_assert_eq(world_records(&w, STORE_META), EVIDENCE_CLASSES_MAX - 1);
}

/* Of the classes e0, e1 …, those that this worker was told of. */
static size_t told_of(uint64_t peer, size_t classes)
{
    bool *is_told = calloc(classes, sizeof(*is_told));
    size_t told = 0;
    for (size_t i = 0; i < w.log_length; i++) {
        const struct effect *effect = &w.log[i].effect;
        if (effect->kind != EFFECT_CACHE_EVIDENCE || effect->peer != peer) {
            continue;
        }
        struct blob *packed = effect->as.cache_evidence.packed;
        Wire__CacheEvidence *evidence =
            wire__cache_evidence__unpack(NULL, blob_bytes(packed), blob_data(packed));
        const size_t number = (size_t)strtoul(evidence->embedder + 1, NULL, 10);
        told += !is_told[number];
        is_told[number] = true;
        wire__cache_evidence__free_unpacked(evidence, NULL);
    }
    free(is_told);
    return told;
}

Test(core_cache_evidence, worker_that_comes_is_told_all_the_first_with_its_welcome)
{
    enum { CLASSES = 200 };
    char name[16];
    for (int i = 0; i < CLASSES; i++) {
        (void)snprintf(name, sizeof(name), "e%d", i);
        count("a", name, 0, 1);
    }
    world_advance(&w, 1000);
    world_forget_log(&w);
    world_turn(&w, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = 102,
                                   .as.worker_hello = {.name = "w2", .slots = 1}});
    cr_assert_geq(told_of(102, CLASSES), EVIDENCE_WELCOME_MAX);
    for (int i = 0; i < CLASSES / EVIDENCE_WELCOME_MAX + 1; i++) {
        world_tick(&w);
    }
    cr_assert_eq(told_of(102, CLASSES), CLASSES);
    cr_assert_eq(told_of(101, CLASSES), 0);
    cr_assert_gt(core_next_deadline_ms(w.core), w.now.now_ms); /* nothing is left to do */
}

static void give_feedback_of(uint64_t peer, bool is_right)
{
    static const uint8_t key[16] = {1, 2, 3};
    const struct event event = {
        .kind = EVENT_CACHE_FEEDBACK,
        .peer = peer,
        .as.cache_feedback = {
            .tier = "standard", .embedder = "e", .score = 1.0, .key = key, .is_right = is_right}};
    world_turn(&w, &event);
}

static void give_feedback(bool is_right)
{
    give_feedback_of(1, is_right);
}

Test(core_cache_evidence, wrong_by_a_users_word_counts_and_is_invalidated)
{
    world_client(&w, 1, "a");
    count("a", "e", 0, 1);
    count("b", "e", 0, 1);
    give_feedback(true);
    cr_assert_eq(look("a", "e").reported, 0);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_INVALIDATE, NULL), 0);
    give_feedback(false);
    cr_assert_eq(look("a", "e").reported, 1);
    cr_assert_eq(look("b", "e").reported, 0);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_INVALIDATE, NULL), 2);
}

Test(core_cache_evidence, what_is_said_again_and_again_counts_once)
{
    world_client(&w, 1, "a");
    count("a", "e", 0, 1);
    for (int i = 0; i < 5; i++) {
        give_feedback(false);
    }
    cr_assert_eq(look("a", "e").reported, 1);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_INVALIDATE, NULL), 10,
                 "each, to two workers: it may have been filled again");
    cr_assert_eq(core_near_feedback(w.core)->dropped, 4);
    world_advance(&w, 60000); /* it may have been filled again, wrongly again */
    give_feedback(false);
    cr_assert_eq(look("a", "e").reported, 2);
}

Test(core_cache_evidence, right_ones_take_nothing_from_wrong_ones)
{
    world_client(&w, 1, "a");
    for (int i = 0; i < 500; i++) {
        give_feedback(true);
    }
    give_feedback(false);
    cr_assert_eq(core_near_feedback(w.core)->dropped, 0);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_INVALIDATE, NULL), 2);
}

Test(core_cache_evidence, flood_of_invalidations_keeps_no_wrong_entry)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.tag = "prices";
    const struct event event = {
        .kind = EVENT_CACHE_INVALIDATE, .peer = 1, .as.cache_invalidate = {&selector, "", 0}};
    world_client(&w, 1, "a");
    for (int i = 0; i < CACHE_LOG_BURST + 1; i++) {
        world_turn(&w, &event);
    }
    const size_t before = world_count(&w, EFFECT_CACHE_INVALIDATE, NULL);
    give_feedback(false);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_INVALIDATE, NULL), before + 2);
}

Test(core_cache_evidence, flood_of_feedback_of_one_tenant_is_dropped)
{
    world_client(&w, 1, "a");
    world_client(&w, 2, "b");
    uint8_t key[16] = {0};
    struct event event = {.kind = EVENT_CACHE_FEEDBACK,
                          .peer = 1,
                          .as.cache_feedback = {.tier = "standard", .embedder = "e", .key = key}};
    for (int i = 0; i < 500; i++) {
        key[0] = (uint8_t)i;
        key[1] = (uint8_t)(i >> 8);
        world_turn(&w, &event);
    }
    cr_assert_eq(core_near_feedback(w.core)->dropped, 300);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_INVALIDATE, NULL), 400);
    event.peer = 2;
    world_turn(&w, &event);
    cr_assert_eq(core_near_feedback(w.core)->dropped, 300, "another tenant is heard");
}

Test(core_cache_evidence, feedback_on_an_unknown_class_still_invalidates)
{
    world_client(&w, 1, "a");
    give_feedback(false);
    cr_assert_eq(look("a", "e").classes, 0);
    cr_assert_eq(world_count(&w, EFFECT_CACHE_INVALIDATE, NULL), 2);
}

Test(core_cache_evidence, feedback_is_counted_by_its_outcome)
{
    world_client(&w, 1, "a");
    world_client(&w, 2, "b");
    count("a", "e", 0, 1);
    give_feedback_of(2, false);
    give_feedback(true);
    give_feedback(false);
    give_feedback(false);
    const struct core_near_feedback *feedback = core_near_feedback(w.core);
    cr_assert_eq(feedback->unclassed, 1);
    cr_assert_eq(feedback->right, 1);
    cr_assert_eq(feedback->wrong, 1);
    cr_assert_eq(feedback->dropped, 1);
}

Test(core_cache_evidence, seed_is_read_as_it_was_written_and_what_is_none_is_refused)
{
    uint8_t bytes[THRESHOLD_SEED_BYTES];
    struct threshold_seed read;
    seed.right[3] = 70000;
    seed.weight = 12.5;
    threshold_pack_seed(&seed, bytes);
    cr_assert_eq(threshold_unpack_seed(bytes, sizeof(bytes), &read), 0);
    cr_assert_eq(memcmp(&read.scale, &seed.scale, sizeof(seed.scale)), 0);
    cr_assert_eq(read.right[3], 70000);
    cr_assert_float_eq(read.weight, 12.5, 0);
    cr_assert_lt(threshold_unpack_seed(bytes, sizeof(bytes) - 1, &read), 0);
    seed.scale.edges[5] = NAN;
    threshold_pack_seed(&seed, bytes);
    cr_assert_lt(threshold_unpack_seed(bytes, sizeof(bytes), &read), 0);
}
