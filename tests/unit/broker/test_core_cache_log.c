/* Invalidations of caches: numbered, kept, told once they are durable. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "broker/core/record.h"
#include "common/frame.h"
#include "tests/unit/broker/core_world.h"

static struct world w;

static void start(void)
{
    world_init(&w);
    world_start(&w);
}

static void stop(void)
{
    world_finish(&w);
}

TestSuite(core_cache_log, .init = start, .fini = stop);

static void invalidate(char *tag)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.tag = tag;
    struct event event = {.kind = EVENT_CACHE_INVALIDATE,
                          .as.cache_invalidate = {&selector, "prices changed"}};
    world_turn(&w, &event);
}

static void ask(uint64_t peer, uint64_t number, Wire__CacheSelector selector)
{
    struct event event = {.kind = EVENT_CACHE_INVALIDATE,
                          .peer = peer,
                          .as.cache_invalidate = {&selector, "prices changed", number}};
    world_turn(&w, &event);
}

/* What a client was answered; fails when it was not. */
static struct world_effect answered(uint64_t peer)
{
    const struct world_effect *found = world_find(&w, EFFECT_CACHE_INVALIDATED, NULL, peer);
    cr_assert_not_null(found);
    return *found;
}

/* Of whom the latest invalidation is. */
static void see_tenant(void *context, const struct core_invalidation_view *view)
{
    char *tenant = context;
    Wire__CacheInvalidation *invalidation =
        wire__cache_invalidation__unpack(NULL, view->bytes, view->packed);
    cr_assert_not_null(invalidation);
    (void)snprintf(tenant, 16, "%s", invalidation->selector->tenant);
    wire__cache_invalidation__free_unpacked(invalidation, NULL);
}

struct told {
    uint64_t first, last, count;
    size_t bytes;
};

static void see(void *context, const struct core_invalidation_view *view)
{
    struct told *told = context;
    told->first = told->count == 0 ? view->sequence : told->first;
    told->last = view->sequence;
    told->count++;
    told->bytes += view->bytes;
}

static struct told since(const uint8_t *epoch, uint64_t sequence, bool *ret_is_behind)
{
    struct told told = {0};
    *ret_is_behind = !core_visit_invalidations(w.core, epoch, sequence, see, &told);
    return told;
}

static void position(uint8_t epoch[CACHE_EPOCH_BYTES], uint64_t *ret_told)
{
    uint64_t sequence;
    core_cache_position(w.core, epoch, &sequence, ret_told);
}

Test(core_cache_log, every_worker_is_told_when_it_is_durable)
{
    world_worker(&w, 100, "a", 1);
    world_worker(&w, 101, "b", 1);
    w.withholds_durability = true;
    invalidate("prices");
    cr_assert_eq(world_count(&w, EFFECT_CACHE_INVALIDATE, NULL), 0);
    world_make_durable(&w);
    cr_assert_not_null(world_find(&w, EFFECT_CACHE_INVALIDATE, NULL, 100));
    cr_assert_not_null(world_find(&w, EFFECT_CACHE_INVALIDATE, NULL, 101));
    cr_assert_eq(world_count(&w, EFFECT_CACHE_INVALIDATE, NULL), 2);
}

Test(core_cache_log, who_was_away_is_told_what_it_missed)
{
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t told;
    bool is_behind;
    invalidate("a");
    position(epoch, &told);
    cr_assert_eq(told, 1);
    invalidate("b");
    invalidate("c");
    const struct told missed = since(epoch, 1, &is_behind);
    cr_assert(!is_behind);
    cr_assert_eq(missed.count, 2);
    cr_assert_eq(missed.first, 2);
    cr_assert_eq(since(epoch, 3, &is_behind).count, 0);
    cr_assert(!is_behind);
}

Test(core_cache_log, all_that_is_kept_fits_into_a_welcome)
{
    enum { INVALIDATIONS = 700, TEXT_BYTES = 8000 };
    char text[TEXT_BYTES + 1];
    memset(text, 'x', TEXT_BYTES);
    text[TEXT_BYTES] = '\0';
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.near_text = text;
    selector.near_cosine_min = 0.9;
    struct event event = {.kind = EVENT_CACHE_INVALIDATE,
                          .as.cache_invalidate = {&selector, "prices changed"}};
    for (size_t i = 0; i < INVALIDATIONS; i++) {
        world_turn(&w, &event);
    }
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t latest, at = 0;
    bool is_behind = true;
    struct told missed = {0};
    position(epoch, &latest);
    cr_assert_eq(latest, INVALIDATIONS);
    while (is_behind && at < latest) {
        missed = since(epoch, at++, &is_behind);
    }
    cr_assert_gt(missed.count, 100);
    cr_assert_lt(missed.bytes, FRAME_ENVELOPE_BYTES_MAX / 4 * 3, "%zu bytes", missed.bytes);
}

Test(core_cache_log, what_is_not_durable_is_not_told_to_who_comes)
{
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t told;
    bool is_behind;
    w.withholds_durability = true;
    invalidate("a");
    position(epoch, &told);
    cr_assert_eq(told, 0);
    cr_assert_eq(since(epoch, 0, &is_behind).count, 0);
    world_make_durable(&w);
    cr_assert_eq(since(epoch, 0, &is_behind).count, 1);
}

Test(core_cache_log, numbers_and_epoch_outlive_a_restart)
{
    uint8_t epoch[CACHE_EPOCH_BYTES], later[CACHE_EPOCH_BYTES];
    uint64_t told;
    bool is_behind;
    invalidate("a");
    invalidate("b");
    position(epoch, &told);
    w.seed++;
    world_restart(&w);
    position(later, &told);
    cr_assert_arr_eq(epoch, later, CACHE_EPOCH_BYTES);
    cr_assert_eq(told, 2);
    cr_assert_eq(since(epoch, 1, &is_behind).count, 1);
    invalidate("c");
    cr_assert_eq(since(epoch, 1, &is_behind).last, 3);
}

Test(core_cache_log, one_of_another_store_is_behind)
{
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t told;
    bool is_behind;
    invalidate("a");
    position(epoch, &told);
    (void)since(epoch, 2, &is_behind);
    cr_assert(is_behind, "it knows more than there is");
    epoch[0] ^= 1;
    (void)since(epoch, 1, &is_behind);
    cr_assert(is_behind);
    cr_assert_eq(since(NULL, 0, &is_behind).count, 1);
    cr_assert(!is_behind);
}

Test(core_cache_log, log_is_bounded_and_says_who_is_behind)
{
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t told;
    bool is_behind;
    for (int i = 0; i < CACHE_LOG_MAX + 10; i++) {
        invalidate("a");
    }
    position(epoch, &told);
    (void)since(epoch, 9, &is_behind);
    cr_assert(is_behind);
    cr_assert_eq(since(epoch, 10, &is_behind).count, CACHE_LOG_MAX);
    cr_assert(!is_behind);
    cr_assert_eq(world_records(&w, STORE_META), CACHE_LOG_MAX + 1);
    world_restart(&w);
    cr_assert_eq(since(epoch, 10, &is_behind).count, CACHE_LOG_MAX);
    cr_assert_eq(w.restore_errors, 0);
}

Test(core_cache_log, lost_record_makes_those_before_it_behind)
{
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t told;
    bool is_behind;
    invalidate("a");
    invalidate("b");
    invalidate("c");
    position(epoch, &told);
    for (size_t i = 0; i < w.records_length; i++) {
        struct world_record *record = &w.records[i];
        if (record->family == STORE_META && record->key_bytes == 14 && record->key[13] == 2) {
            record->value[0] = 0xFF;
        }
    }
    world_restart(&w);
    (void)since(epoch, 1, &is_behind);
    cr_assert(is_behind);
    cr_assert_eq(since(epoch, 2, &is_behind).last, 3);
    cr_assert(!is_behind);
}

Test(core_cache_log, client_is_answered_when_it_is_durable)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.tag = "prices";
    world_client(&w, 1, "a");
    w.withholds_durability = true;
    ask(1, 7, selector);
    cr_assert_null(world_find(&w, EFFECT_CACHE_INVALIDATED, NULL, 1));
    world_make_durable(&w);
    const struct effect effect = answered(1).effect;
    cr_assert_eq(effect.as.cache_invalidated.number, 7);
    cr_assert_eq(effect.as.cache_invalidated.sequence, 1);
    cr_assert_null(effect.as.cache_invalidated.error);
}

Test(core_cache_log, client_reaches_its_own_tenant_alone)
{
    char tenant[16] = "";
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.tag = "prices";
    world_client(&w, 1, "b");
    ask(1, 1, selector);
    cr_assert(core_visit_invalidations(w.core, NULL, 0, see_tenant, tenant));
    cr_assert_str_eq(tenant, "b");
    selector.tenant = "a";
    ask(1, 2, selector);
    const struct world_effect refused = answered(1);
    cr_assert_eq(refused.effect.as.cache_invalidated.number, 2);
    cr_assert_eq(refused.effect.as.cache_invalidated.sequence, 0);
    cr_assert_not_null(strstr(refused.text, "tenant"));
    selector.tenant = "b";
    ask(1, 3, selector);
    cr_assert_eq(answered(1).effect.as.cache_invalidated.sequence, 2);
}

Test(core_cache_log, stranger_is_asked_for_hello_and_changes_nothing)
{
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t told;
    ask(1, 1, (Wire__CacheSelector)WIRE__CACHE_SELECTOR__INIT);
    cr_assert_not_null(world_find(&w, EFFECT_CLIENT_ERROR, NULL, 1));
    position(epoch, &told);
    cr_assert_eq(told, 0);
}

Test(core_cache_log, nobody_is_answered_who_gave_no_number)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t told;
    selector.tag = "prices";
    world_client(&w, 1, "a");
    ask(1, 0, selector);
    cr_assert_null(world_find(&w, EFFECT_CACHE_INVALIDATED, NULL, 1));
    position(epoch, &told);
    cr_assert_eq(told, 1);
}

Test(core_cache_log, flood_of_one_tenant_is_put_off_and_no_other)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.tag = "prices";
    world_client(&w, 1, "a");
    world_client(&w, 2, "b");
    for (int i = 0; i < CACHE_LOG_BURST; i++) {
        ask(1, 0, selector);
    }
    ask(1, 9, selector);
    cr_assert_eq(answered(1).effect.as.cache_invalidated.sequence, 0);
    cr_assert_not_null(strstr(answered(1).text, "too many"));
    cr_assert_eq(answered(1).effect.as.cache_invalidated.retry_after_ms, CACHE_LOG_EACH_MS);
    cr_assert_eq(core_invalidations_refused(w.core), 1);
    ask(2, 3, selector);
    cr_assert_gt(answered(2).effect.as.cache_invalidated.sequence, CACHE_LOG_BURST);
    world_advance(&w, CACHE_LOG_EACH_MS);
    ask(1, 10, selector);
    cr_assert_gt(answered(1).effect.as.cache_invalidated.sequence, CACHE_LOG_BURST);
}

Test(core_cache_log, clients_wait_while_the_disk_lags_and_operators_do_not)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t sequence, told;
    selector.tag = "prices";
    world_client(&w, 1, "a");
    w.withholds_durability = true;
    for (int i = 0; i < CACHE_LOG_UNTOLD_MAX; i++) {
        ask(1, 0, selector);
        world_advance(&w, CACHE_LOG_EACH_MS);
    }
    ask(1, 9, selector);
    cr_assert_not_null(strstr(answered(1).text, "too many"));
    invalidate("prices");
    core_cache_position(w.core, epoch, &sequence, &told);
    cr_assert_eq(sequence, CACHE_LOG_UNTOLD_MAX + 1);
    cr_assert_eq(told, 0);
}
