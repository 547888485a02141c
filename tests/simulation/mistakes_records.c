/* Mistakes about what is promised, stored, and read back. */
#include <errno.h>
#include <string.h>
#include "broker/core/dispatch.h"
#include "broker/core/history.h"
#include "broker/core/keys.h"
#include "broker/core/pause.h"
#include "broker/core/record.h"
#include "broker/core/result.h"
#include "broker/core/submit.h"
#include "broker/core/upstream.h"
#include "tests/simulation/mistakes.h"
#include "tests/simulation/mistakes_wrap.h"

/* ---- answers before what they promise ---- */

static uint64_t mistaken_batch(const struct effects *effects, enum effect_kind kind, uint64_t batch)
{
    const bool is_duplicates = kind == EFFECT_ACCEPTED && batch < effects_batch(effects);
    return (is_duplicates && mistake_is_on(MISTAKE_ACCEPTED_EARLY)) ||
                   (kind == EFFECT_RESULT && mistake_is_on(MISTAKE_RESULT_EARLY)) ||
                   (kind == EFFECT_ATTEMPT_CONCLUDED && mistake_is_on(MISTAKE_CONFIRMED_EARLY)) ||
                   (kind == EFFECT_CACHE_INVALIDATED &&
                    mistake_is_on(MISTAKE_INVALIDATION_ANSWERED_EARLY))
               ? 0
               : batch;
}

REPLACES(struct effect *, effects_add, struct effects *effects, enum effect_kind kind,
         uint64_t peer, uint64_t batch)
{
    static struct effect unsent;
    const bool is_unsent =
        (kind == EFFECT_ATTEMPT_CANCEL && mistake_is_on(MISTAKE_CANCEL_NOT_SENT)) ||
        (kind == EFFECT_CACHE_INVALIDATE && peer % 4 == 0 &&
         mistake_is_on(MISTAKE_INVALIDATION_NOT_TO_ALL)) ||
        (kind == EFFECT_CACHE_INVALIDATED && mistake_is_on(MISTAKE_INVALIDATION_UNANSWERED));
    if (is_unsent) {
        return &unsent;
    }
    return __real_effects_add(effects, kind, peer, mistaken_batch(effects, kind, batch));
}

REPLACES(void, submit_durable, struct core *core, const struct event *event)
{
    struct event changed = *event;
    changed.as.durable.batch += mistake_is_on(MISTAKE_DURABLE_OFF_BY_ONE);
    __real_submit_durable(core, &changed);
}

REPLACES(void, effects_forget_accepted, struct effects *effects, uint64_t first_batch)
{
    if (!mistake_is_on(MISTAKE_STORE_DOWN_ACCEPTS)) {
        __real_effects_forget_accepted(effects, first_batch);
    }
}

/* ---- records ---- */

REPLACES(void, core_delete, struct core *core, enum store_family family, const void *key,
         size_t key_bytes)
{
    const bool is_kept = (family == STORE_JOBS && mistake_is_on(MISTAKE_JOB_RECORD_KEPT)) ||
                         (family == STORE_LEASES && mistake_is_on(MISTAKE_LEASE_RECORD_KEPT)) ||
                         (family == STORE_RESULTS && mistake_is_on(MISTAKE_RESULT_RECORD_KEPT));
    if (!is_kept) {
        __real_core_delete(core, family, key, key_bytes);
    }
}

REPLACES(void, history_delete, struct core *core, const struct job *job)
{
    if (!mistake_is_on(MISTAKE_ATTEMPTS_KEPT)) {
        __real_history_delete(core, job);
    }
}

REPLACES(void, core_put_record, struct core *core, enum store_family family, const void *key,
         size_t key_bytes, const ProtobufCMessage *message)
{
    if (family != STORE_CONCLUDED || !mistake_is_on(MISTAKE_CONCLUSION_NOT_STORED)) {
        __real_core_put_record(core, family, key, key_bytes, message);
    }
}

REPLACES(void, result_keep, struct core *core, const struct job *job,
         const struct effect_result *result)
{
    __real_result_keep(core, job, result);
    struct concluded_entry *entry = concluded_find(&core->concluded, &job->id);
    if (mistake_is_on(MISTAKE_CONCLUSION_FORGOTTEN) && entry != NULL) {
        concluded_withdraw(&core->concluded, entry);
    }
    if (mistake_is_on(MISTAKE_KEY_FORGOTTEN)) {
        key_forget(core, &job->id);
    }
}

REPLACES(void, result_withdraw, struct core *core, const struct job *job, int64_t at_unix_ms)
{
    if (!mistake_is_on(MISTAKE_REQUEUE_KEEPS_CONCLUSION)) {
        __real_result_withdraw(core, job, at_unix_ms);
    }
}

REPLACES(void, dispatch_loaded, struct core *core, const struct event *event)
{
    struct event changed = *event;
    if (mistake_is_on(MISTAKE_READ_ERROR_IS_FINAL) && event->as.loaded.result < 0) {
        changed.as.loaded.result = -ENOENT;
    }
    __real_dispatch_loaded(core, &changed);
}

/* ---- restart ---- */

static void forget_of_job(Record__JobRecord *job)
{
    if (mistake_is_on(MISTAKE_RESTART_MAKER)) {
        job->flags &= ~(uint32_t)JOB_OF_WORKER;
    }
    if (mistake_is_on(MISTAKE_RESTART_DEADLINE)) {
        job->deadline_unix_ms = 0;
    }
    if (mistake_is_on(MISTAKE_RESTART_DELAY)) {
        job->not_before_unix_ms = 0;
    }
    if (mistake_is_on(MISTAKE_RESTART_KEY)) {
        job->idempotency_hash.len = 0;
    }
    if (mistake_is_on(MISTAKE_RESTART_ATTEMPT)) {
        job->attempt_last = 0;
    }
    if (mistake_is_on(MISTAKE_RESTART_RESIDENCY) && job->residency[0] != '\0') {
        job->residency[0] = '\0';
    }
    if (mistake_is_on(MISTAKE_RESTART_ABILITIES)) {
        job->abilities = 0;
    }
    if (mistake_is_on(MISTAKE_RESTART_FAILURES)) {
        job->attempts = 0;
    }
}

REPLACES(int, record_read_job, const void *data, size_t bytes, ProtobufCAllocator *allocator,
         Record__JobRecord **ret_job)
{
    int r = __real_record_read_job(data, bytes, allocator, ret_job);
    if (r == 0) {
        forget_of_job(*ret_job);
    }
    return r;
}

REPLACES(int, record_read_concluded, const void *data, size_t bytes, ProtobufCAllocator *allocator,
         Record__ConcludedRecord **ret_concluded)
{
    int r = __real_record_read_concluded(data, bytes, allocator, ret_concluded);
    if (r == 0 && mistake_is_on(MISTAKE_RESTART_CONCLUDED_KEY)) {
        (*ret_concluded)->idempotency_hash.len = 0;
    }
    return r;
}

REPLACES(int, record_read_lease, const void *data, size_t bytes, ProtobufCAllocator *allocator,
         Record__LeaseRecord **ret_lease)
{
    return mistake_is_on(MISTAKE_RESTART_LEASE)
               ? -EBADMSG
               : __real_record_read_lease(data, bytes, allocator, ret_lease);
}

REPLACES(int, pause_restore, struct core *core, const void *value, size_t value_bytes)
{
    return mistake_is_on(MISTAKE_RESTART_PAUSE) ? 0
                                                : __real_pause_restore(core, value, value_bytes);
}

REPLACES(int, upstream_restore, struct core *core, const void *value, size_t value_bytes)
{
    return mistake_is_on(MISTAKE_RESTART_UPSTREAM)
               ? 0
               : __real_upstream_restore(core, value, value_bytes);
}
