/* Mistakes about invalidations, evidence, and jobs that workers make. */
#include "broker/core/cache_evidence.h"
#include "broker/core/cache_log.h"
#include "broker/core/record.h"
#include "broker/core/worker.h"
#include "tests/simulation/mistakes.h"
#include "tests/simulation/mistakes_wrap.h"

/* ---- invalidations ---- */

REPLACES(void, cache_log_durable, struct core *core)
{
    const uint64_t durable = core->batch_durable;
    if (mistake_is_on(MISTAKE_INVALIDATION_TOLD_EARLY)) {
        core->batch_durable = UINT64_MAX;
    }
    if (mistake_is_on(MISTAKE_INVALIDATION_SKIPPED) &&
        core->cache_log.sequence > core->cache_log.told + 1) {
        core->cache_log.told++;
    }
    __real_cache_log_durable(core);
    core->batch_durable = durable;
}

REPLACES(void, cache_log_invalidate, struct core *core, const struct event *event)
{
    struct event changed = *event;
    Wire__CacheSelector selector = *event->as.cache_invalidate.selector;
    changed.as.cache_invalidate.selector = &selector;
    if (mistake_is_on(MISTAKE_INVALIDATION_CROSSES) && selector.tenant[0] != '\0') {
        changed.peer = 0;
    }
    if (mistake_is_on(MISTAKE_INVALIDATION_LOSES_TAG)) {
        selector.tag = (char *)(uintptr_t) "";
    }
    __real_cache_log_invalidate(core, &changed);
}

REPLACES(int, cache_log_restore, struct core *core, const void *value, size_t value_bytes)
{
    const int r = __real_cache_log_restore(core, value, value_bytes);
    if (mistake_is_on(MISTAKE_RESTART_RENUMBERS)) {
        core->cache_log.sequence = core->cache_log.told = 0;
    }
    return r;
}

REPLACES(int, cache_log_restore_entry, struct core *core, const void *value, size_t value_bytes,
         uint64_t sequence)
{
    const bool is_lost = mistake_is_on(MISTAKE_RESTART_FORGETS_MISSED) && sequence % 8 == 1;
    return is_lost ? 0 : __real_cache_log_restore_entry(core, value, value_bytes, sequence);
}

REPLACES(void, cache_log_restored, struct core *core)
{
    if (!mistake_is_on(MISTAKE_RESTART_FORGETS_MISSED)) {
        __real_cache_log_restored(core);
    }
}

/* ---- flights ---- */

REPLACES(uint64_t, cache_log_told, const struct core *core, const struct tenant *tenant)
{
    return mistake_is_on(MISTAKE_OUTDATED_LEADS) ? 0 : __real_cache_log_told(core, tenant);
}

/* ---- evidence ---- */

REPLACES(void, cache_evidence_take, struct core *core, const struct event *event)
{
    struct event changed = *event;
    if (mistake_is_on(MISTAKE_EVIDENCE_OF_ANOTHER_TENANT)) {
        changed.as.cache_evidence.tenant = core->tenant[0]->name->text;
    }
    __real_cache_evidence_take(core, &changed);
    if (mistake_is_on(MISTAKE_EVIDENCE_TWICE)) {
        __real_cache_evidence_take(core, &changed);
    }
}

REPLACES(void, cache_evidence_drain, struct core *core)
{
    if (!mistake_is_on(MISTAKE_EVIDENCE_LOST_AT_DRAIN)) {
        __real_cache_evidence_drain(core);
    }
}

REPLACES(int, cache_evidence_restore, struct core *core, const uint8_t *key, size_t key_bytes,
         const void *value, size_t value_bytes)
{
    return mistake_is_on(MISTAKE_RESTART_EVIDENCE)
               ? 0
               : __real_cache_evidence_restore(core, key, key_bytes, value, value_bytes);
}

REPLACES(void, cache_evidence_welcome, struct core *core, struct worker *worker)
{
    if (!mistake_is_on(MISTAKE_EVIDENCE_NOT_IN_WELCOME)) {
        __real_cache_evidence_welcome(core, worker);
    }
}

REPLACES(void, cache_evidence_feedback, struct core *core, const struct event *event)
{
    struct event changed = *event;
    changed.as.cache_feedback.is_right |= mistake_is_on(MISTAKE_FEEDBACK_KEEPS_ENTRY);
    __real_cache_evidence_feedback(core, &changed);
}
