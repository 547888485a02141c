#include "broker/core/cache_log.h"
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "broker/core/client.h"
#include "broker/core/record.h"
#include "broker/core/worker.h"

enum { HEAD_KEY_BYTES = 5 + 1, ENTRY_KEY_BYTES = 5 + 1 + 8, KIND_HEAD = 0, KIND_ENTRY = 1 };
enum { EFFECTS_AN_INVALIDATION = 8, REFUSED_MS = 1000, KEY_OF_ENTRY_BYTES = 16 };

struct entry {
    struct list_link link; /* cache_log.entries, oldest first */
    uint64_t sequence;
    uint64_t batch; /* durable with this one */
    int64_t at_unix_ms;
    const char *tenant; /* whose entries alone it is of, behind `packed`; "": any */
    size_t bytes;       /* of `packed` */
    uint8_t packed[];   /* wire.CacheInvalidation */
};

static void write_key(uint8_t kind, uint8_t *ret_key)
{
    static const char prefix[] = {'c', 'a', 'c', 'h', 'e'};
    memcpy(ret_key, prefix, sizeof(prefix));
    ret_key[sizeof(prefix)] = kind;
}

static void write_entry_key(uint64_t sequence, uint8_t ret_key[ENTRY_KEY_BYTES])
{
    write_key(KIND_ENTRY, ret_key);
    const uint64_t number = htobe64(sequence);
    memcpy(ret_key + HEAD_KEY_BYTES, &number, sizeof(number));
}

static void write_head(struct core *core)
{
    struct cache_log *log = &core->cache_log;
    uint8_t key[HEAD_KEY_BYTES];
    write_key(KIND_HEAD, key);
    Record__CacheLogRecord record = RECORD__CACHE_LOG_RECORD__INIT;
    record.epoch = (ProtobufCBinaryData){CACHE_EPOCH_BYTES, log->epoch};
    record.sequence = log->sequence;
    record.forgotten = log->forgotten;
    core_put_record(core, STORE_META, key, sizeof(key), &record.base);
}

/* ---- remembering ---- */

static struct entry *remember(struct cache_log *log, uint64_t sequence, int64_t at_unix_ms,
                              const Wire__CacheInvalidation *invalidation)
{
    const size_t bytes = wire__cache_invalidation__get_packed_size(invalidation);
    const char *tenant = invalidation->selector == NULL ? "" : invalidation->selector->tenant;
    const size_t tenant_bytes = strlen(tenant) + 1;
    struct entry *entry = malloc(sizeof(*entry) + bytes + tenant_bytes);
    if (entry == NULL) {
        return NULL;
    }
    *entry = (struct entry){.sequence = sequence, .at_unix_ms = at_unix_ms, .bytes = bytes};
    (void)wire__cache_invalidation__pack(invalidation, entry->packed);
    entry->tenant = memcpy(entry->packed + bytes, tenant, tenant_bytes);
    list_append(&log->entries, &entry->link);
    log->bytes += bytes;
    return entry;
}

static void forget(struct cache_log *log, struct entry *entry)
{
    log->forgotten = entry->sequence;
    log->bytes -= entry->bytes;
    list_remove(&log->entries, &entry->link);
    free(entry);
}

static void keep_bounds(struct core *core)
{
    struct cache_log *log = &core->cache_log;
    while (log->entries.length > CACHE_LOG_MAX ||
           (log->bytes > CACHE_LOG_BYTES_MAX && log->entries.length > 1)) {
        struct entry *oldest = CONTAINER_OF(list_first(&log->entries), struct entry, link);
        if (oldest->sequence > log->told) {
            return; /* not told yet: its turn comes with its batch */
        }
        uint8_t key[ENTRY_KEY_BYTES];
        write_entry_key(oldest->sequence, key);
        core_delete(core, STORE_META, key, sizeof(key));
        forget(log, oldest);
    }
}

static void make_epoch(struct core *core)
{
    for (size_t i = 0; i < CACHE_EPOCH_BYTES; i++) {
        core->cache_log.epoch[i] = (uint8_t)core_random_below(core, 256);
    }
}

/* Returns the batch with which it is durable; 0: no memory. */
static uint64_t record(struct core *core, const Wire__CacheSelector *selector, const char *reason)
{
    struct cache_log *log = &core->cache_log;
    if (log->sequence == 0) {
        make_epoch(core);
    }
    Wire__CacheInvalidation invalidation = WIRE__CACHE_INVALIDATION__INIT;
    invalidation.epoch = (ProtobufCBinaryData){CACHE_EPOCH_BYTES, log->epoch};
    invalidation.sequence = log->sequence + 1;
    invalidation.selector = (Wire__CacheSelector *)selector;
    invalidation.reason = (char *)reason;
    struct entry *entry = remember(log, invalidation.sequence, core->unix_ms, &invalidation);
    if (entry == NULL) {
        return 0;
    }
    log->sequence = invalidation.sequence;
    Record__CacheInvalidationRecord kept = RECORD__CACHE_INVALIDATION_RECORD__INIT;
    kept.at_unix_ms = core->unix_ms;
    kept.invalidation = (ProtobufCBinaryData){entry->bytes, entry->packed};
    uint8_t key[ENTRY_KEY_BYTES];
    write_entry_key(entry->sequence, key);
    core_put_record(core, STORE_META, key, sizeof(key), &kept.base);
    keep_bounds(core);
    write_head(core);
    entry->batch = effects_batch(core->effects);
    effects_set_urgent(core->effects);
    core_note(core, NOTE_CACHE_INVALIDATED, NULL, "cache", invalidation.reason,
              (int64_t)log->sequence);
    core_publish(core, WIRE__EVENT__KIND__EVENT_CACHE_INVALIDATED, "cache",
                 effects_format(core->effects, "%llu", (unsigned long long)log->sequence),
                 invalidation.reason);
    return entry->batch;
}

/* ---- who asks ---- */

struct refusal {
    const char *why; /* NULL: it is not refused */
    int64_t retry_after_ms;
};

static void answer(struct core *core, const struct event *event, uint64_t batch, uint64_t sequence,
                   const struct refusal *refusal)
{
    const uint64_t number = event->as.cache_invalidate.number;
    if (event->peer == 0 || number == 0) {
        return;
    }
    struct effect *effect =
        effects_add(core->effects, EFFECT_CACHE_INVALIDATED, event->peer, batch);
    effect->as.cache_invalidated.number = number;
    effect->as.cache_invalidated.sequence = sequence;
    effect->as.cache_invalidated.error = refusal->why;
    effect->as.cache_invalidated.retry_after_ms = refusal->retry_after_ms;
}

static const struct refusal OUT_OF_MEMORY = {"the broker is out of memory; try again later",
                                             REFUSED_MS};

/* The throttle is asked last, since asking takes from it. */
static struct refusal complaint(struct core *core, struct tenant *tenant,
                                const Wire__CacheSelector *selector)
{
    const struct cache_log *log = &core->cache_log;
    if (selector->tenant[0] != '\0' && strcmp(selector->tenant, tenant->name->text) != 0) {
        return (struct refusal){
            .why = "selector.tenant is another tenant than this connection's; leave it out"};
    }
    if (log->sequence - log->told >= CACHE_LOG_UNTOLD_MAX) {
        return (struct refusal){"too many invalidations wait for the disk; try again later",
                                REFUSED_MS};
    }
    if (!effects_reserve(core->effects, EFFECTS_AN_INVALIDATION)) {
        return OUT_OF_MEMORY;
    }
    const int64_t wait_ms =
        throttle_take(&tenant->invalidations, CACHE_LOG_EACH_MS, CACHE_LOG_BURST, core->now_ms);
    struct refusal refusal = {.why = NULL};
    if (wait_ms > 0) {
        refusal.why =
            "too many invalidations of this tenant: 10 a second in the long run; one with a "
            "tag takes many entries";
        refusal.retry_after_ms = wait_ms;
    }
    return refusal;
}

/* A client's reach ends at its tenant. */
static void invalidate_for_client(struct core *core, const struct event *event)
{
    const struct client *client = client_expect(core, event->peer);
    if (client == NULL) {
        return;
    }
    const struct refusal refusal =
        complaint(core, client->tenant, event->as.cache_invalidate.selector);
    if (refusal.why != NULL) {
        core->cache_log.refused++;
        answer(core, event, 0, 0, &refusal);
        return;
    }
    Wire__CacheSelector selector = *event->as.cache_invalidate.selector;
    selector.tenant = (char *)client->tenant->name->text;
    const uint64_t batch = record(core, &selector, event->as.cache_invalidate.reason);
    if (batch == 0) {
        answer(core, event, 0, 0, &OUT_OF_MEMORY);
    } else {
        answer(core, event, batch, core->cache_log.sequence, &refusal);
    }
}

bool cache_log_invalidate_entry(struct core *core, const struct tenant *tenant, const uint8_t *key,
                                const char *reason)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.tenant = (char *)tenant->name->text;
    selector.key = (ProtobufCBinaryData){KEY_OF_ENTRY_BYTES, (uint8_t *)key};
    return effects_reserve(core->effects, EFFECTS_AN_INVALIDATION) &&
           record(core, &selector, reason) != 0;
}

void cache_log_invalidate(struct core *core, const struct event *event)
{
    if (event->peer != 0) {
        invalidate_for_client(core, event);
    } else {
        (void)record(core, event->as.cache_invalidate.selector, event->as.cache_invalidate.reason);
    }
}

/* ---- telling ---- */

/*
 * A tenant whose name is unknown has no jobs, and nobody else's are outdated by it. Looked for now
 * and not when it was asked for, since jobs of one that came in between may be dispatched already.
 */
static void outdate(struct core *core, const struct entry *entry)
{
    if (entry->tenant[0] == '\0') {
        core->cache_log.told_for_all = entry->sequence;
        return;
    }
    const struct name *name = names_find(&core->tenants, entry->tenant);
    if (name != NULL) {
        core->tenant[name->index]->invalidated = entry->sequence;
    }
}

static void tell(struct core *core, const struct entry *entry)
{
    outdate(core, entry);
    uint8_t *packed = effects_alloc(core->effects, entry->bytes);
    memcpy(packed, entry->packed, entry->bytes);
    list_for_each (&core->workers_heard, link) {
        const struct worker *worker = CONTAINER_OF(link, struct worker, heard_link);
        struct effect *effect =
            effects_add(core->effects, EFFECT_CACHE_INVALIDATE, worker->peer, 0);
        effect->as.cache_invalidate.packed = packed;
        effect->as.cache_invalidate.bytes = entry->bytes;
    }
}

void cache_log_durable(struct core *core)
{
    struct cache_log *log = &core->cache_log;
    if (log->told == log->sequence) {
        return;
    }
    list_for_each (&log->entries, link) {
        const struct entry *entry = CONTAINER_OF(link, struct entry, link);
        if (entry->sequence > log->told && entry->batch <= core->batch_durable) {
            log->told = entry->sequence;
            tell(core, entry);
        }
    }
}

uint64_t cache_log_told(const struct core *core, const struct tenant *tenant)
{
    const uint64_t for_all = core->cache_log.told_for_all;
    return tenant->invalidated > for_all ? tenant->invalidated : for_all;
}

bool core_visit_invalidations(const struct core *core, const uint8_t *epoch, uint64_t sequence,
                              void (*visit)(void *context,
                                            const struct core_invalidation_view *view),
                              void *context)
{
    const struct cache_log *log = &core->cache_log;
    if ((sequence > 0 && memcmp(epoch, log->epoch, CACHE_EPOCH_BYTES) != 0) ||
        sequence > log->told || sequence < log->forgotten) {
        return false;
    }
    list_for_each (&log->entries, link) {
        const struct entry *entry = CONTAINER_OF(link, struct entry, link);
        if (entry->sequence > sequence && entry->sequence <= log->told) {
            visit(context, &(struct core_invalidation_view){.sequence = entry->sequence,
                                                            .at_unix_ms = entry->at_unix_ms,
                                                            .packed = entry->packed,
                                                            .bytes = entry->bytes});
        }
    }
    return true;
}

void core_cache_position(const struct core *core, uint8_t ret_epoch[CACHE_EPOCH_BYTES],
                         uint64_t *ret_sequence, uint64_t *ret_told)
{
    memcpy(ret_epoch, core->cache_log.epoch, CACHE_EPOCH_BYTES);
    *ret_sequence = core->cache_log.sequence;
    *ret_told = core->cache_log.told;
}

uint64_t core_invalidations_refused(const struct core *core)
{
    return core->cache_log.refused;
}

/* ---- records ---- */

int cache_log_restore(struct core *core, const void *value, size_t value_bytes)
{
    struct cache_log *log = &core->cache_log;
    Record__CacheLogRecord *record;
    int r =
        record_read_cache_log(value, value_bytes, arena_protobuf_allocator(core->arena), &record);
    if (r < 0) {
        return r;
    }
    memcpy(log->epoch, record->epoch.data, CACHE_EPOCH_BYTES);
    log->sequence = log->told = log->told_for_all = record->sequence;
    log->forgotten = record->forgotten;
    return 0;
}

/* One that is missing, or out of order, cannot be told: who has not heard of it is behind. */
int cache_log_restore_entry(struct core *core, const void *value, size_t value_bytes,
                            uint64_t sequence)
{
    struct cache_log *log = &core->cache_log;
    Record__CacheInvalidationRecord *record;
    ProtobufCAllocator *allocator = arena_protobuf_allocator(core->arena);
    int r = record_read_cache_invalidation(value, value_bytes, allocator, &record);
    if (r < 0) {
        log->forgotten = sequence > log->forgotten ? sequence : log->forgotten;
        return r;
    }
    const Wire__CacheInvalidation *invalidation = wire__cache_invalidation__unpack(
        allocator, record->invalidation.len, record->invalidation.data);
    if (invalidation == NULL || invalidation->sequence != sequence || sequence > log->sequence) {
        log->forgotten = sequence > log->forgotten ? sequence : log->forgotten;
        return -EBADMSG;
    }
    return remember(log, sequence, record->at_unix_ms, invalidation) == NULL ? -ENOMEM : 0;
}

void cache_log_restored(struct core *core)
{
    struct cache_log *log = &core->cache_log;
    uint64_t last = log->forgotten;
    list_for_each (&log->entries, link) {
        const struct entry *entry = CONTAINER_OF(link, struct entry, link);
        log->forgotten = entry->sequence == last + 1 ? log->forgotten : entry->sequence - 1;
        last = entry->sequence;
    }
    log->forgotten = last == log->sequence ? log->forgotten : log->sequence;
}

void cache_log_init(struct core *core)
{
    struct cache_log *log = &core->cache_log;
    list_init(&log->entries);
}

void cache_log_destroy(struct core *core)
{
    struct list_link *link;
    while ((link = list_first(&core->cache_log.entries)) != NULL) {
        forget(&core->cache_log, CONTAINER_OF(link, struct entry, link));
    }
}
