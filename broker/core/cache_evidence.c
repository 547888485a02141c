#include "broker/core/cache_evidence.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/record.h"
#include "broker/core/worker.h"
#include "common/threshold.h"

enum { KEY_BYTES = 5 + 1 + 16, KIND_EVIDENCE = 2 };

struct evidence_class {
    struct list_link link; /* core.evidence.classes: the latest news last */
    char *tenant, *tier, *embedder;
    struct threshold_evidence sum;
    int64_t epoch_began_ms;
    bool is_told, is_recorded;
};

/* ---- classes ---- */

static struct evidence_class *find(const struct core *core, const char *tenant, const char *tier,
                                   const char *embedder)
{
    list_for_each (&core->evidence.classes, link) {
        struct evidence_class *class = CONTAINER_OF(link, struct evidence_class, link);
        if (strcmp(class->tier, tier) == 0 && strcmp(class->tenant, tenant) == 0 &&
            strcmp(class->embedder, embedder) == 0) {
            return class;
        }
    }
    return NULL;
}

static void free_class(struct evidence_class *class)
{
    free(class->tenant);
    free(class->tier);
    free(class->embedder);
    free(class);
}

static void write_key(const struct evidence_class *class, uint8_t ret_key[KEY_BYTES])
{
    const uint64_t tenant = XXH3_64bits(class->tenant, strlen(class->tenant));
    const uint64_t tier = XXH3_64bits_withSeed(class->tier, strlen(class->tier), tenant);
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(
        &hash, XXH3_128bits_withSeed(class->embedder, strlen(class->embedder), tier));
    memcpy(ret_key, "cache", 5);
    ret_key[5] = KIND_EVIDENCE;
    memcpy(ret_key + 6, hash.digest, sizeof(hash.digest));
}

static void forget_oldest(struct core *core)
{
    struct evidence_class *class =
        CONTAINER_OF(list_first(&core->evidence.classes), struct evidence_class, link);
    if (core->effects != NULL) {
        uint8_t key[KEY_BYTES];
        write_key(class, key);
        core_delete(core, STORE_META, key, sizeof(key));
    }
    list_remove(&core->evidence.classes, &class->link);
    free_class(class);
}

/* NULL: no memory. */
static struct evidence_class *make(struct core *core, const char *tenant, const char *tier,
                                   const char *embedder, const struct threshold_evidence *first)
{
    struct evidence_class *class = calloc(1, sizeof(*class));
    if (class == NULL) {
        return NULL;
    }
    class->tenant = strdup(tenant);
    class->tier = strdup(tier);
    class->embedder = strdup(embedder);
    if (class->tenant == NULL || class->tier == NULL || class->embedder == NULL) {
        free_class(class);
        return NULL;
    }
    class->sum = *first;
    class->epoch_began_ms = core->now_ms;
    class->is_told = class->is_recorded = true;
    list_append(&core->evidence.classes, &class->link);
    if (core->evidence.classes.length > EVIDENCE_CLASSES_MAX) {
        forget_oldest(core);
    }
    return class;
}

/* ---- adding ---- */

static bool is_configured(const struct core *core, const struct event *event)
{
    const struct name *tenant = names_find(&core->tenants, event->as.cache_evidence.tenant);
    const struct name *tier = names_find(&core->tiers, event->as.cache_evidence.tier);
    return tenant != NULL && tenant->is_configured && tier != NULL && tier->is_configured;
}

static void turn_the_epoch(struct core *core, struct evidence_class *class)
{
    if (threshold_epoch_is_full(&class->sum) &&
        core->now_ms - class->epoch_began_ms >= EVIDENCE_EPOCH_MS) {
        threshold_advance(&class->sum, class->sum.newest + 1);
        class->epoch_began_ms = core->now_ms;
    }
}

static bool merge(struct core *core, const struct event *event, const struct threshold_evidence *delta)
{
    const char *tenant = event->as.cache_evidence.tenant, *tier = event->as.cache_evidence.tier;
    const char *embedder = event->as.cache_evidence.embedder;
    struct evidence_class *class = find(core, tenant, tier, embedder);
    if (class == NULL) {
        class = make(core, tenant, tier, embedder, delta);
        if (class == NULL) {
            return false;
        }
    } else if (delta->newest > class->sum.newest || threshold_merge(&class->sum, delta) < 0) {
        return false;
    }
    list_remove(&core->evidence.classes, &class->link);
    list_append(&core->evidence.classes, &class->link);
    class->is_told = class->is_recorded = false;
    core->evidence.is_told = core->evidence.is_recorded = false;
    turn_the_epoch(core, class);
    return true;
}

void cache_evidence_add(struct core *core, const struct event *event)
{
    if (worker_heard(core, event->peer) == NULL) {
        return;
    }
    struct threshold_evidence *delta = malloc(sizeof(*delta));
    const bool is_taken =
        delta != NULL && is_configured(core, event) &&
        threshold_unpack(event->as.cache_evidence.counts, event->as.cache_evidence.bytes, delta) == 0 &&
        merge(core, event, delta);
    core->evidence.refused += is_taken ? 0 : 1;
    free(delta);
}

/* ---- telling ---- */

/* As it travels, and as it is kept. NULL: no memory. */
static uint8_t *pack(struct core *core, const struct evidence_class *class, size_t *ret_bytes)
{
    uint8_t *counts = malloc(THRESHOLD_PACKED_BYTES_MAX);
    if (counts == NULL) {
        return NULL;
    }
    Wire__CacheEvidence evidence = WIRE__CACHE_EVIDENCE__INIT;
    evidence.tenant = class->tenant;
    evidence.tier = class->tier;
    evidence.embedder = class->embedder;
    evidence.counts = (ProtobufCBinaryData){threshold_pack(&class->sum, counts), counts};
    *ret_bytes = wire__cache_evidence__get_packed_size(&evidence);
    uint8_t *packed = effects_alloc(core->effects, *ret_bytes);
    (void)wire__cache_evidence__pack(&evidence, packed);
    free(counts);
    return packed;
}

static void tell(struct core *core, uint64_t peer, const uint8_t *packed, size_t bytes)
{
    struct effect *effect = effects_add(core->effects, EFFECT_CACHE_EVIDENCE, peer, 0);
    effect->as.cache_evidence.packed = packed;
    effect->as.cache_evidence.bytes = bytes;
}

void cache_evidence_tell_all(struct core *core, uint64_t peer)
{
    size_t told = 0;
    const struct list_link *head = &core->evidence.classes.head;
    for (struct list_link *link = head->previous; link != head && told < EVIDENCE_TOLD_MAX;
         link = link->previous, told++) {
        size_t bytes;
        const uint8_t *packed = pack(core, CONTAINER_OF(link, struct evidence_class, link), &bytes);
        if (packed != NULL) {
            tell(core, peer, packed, bytes);
        }
    }
}

static void tell_changes(struct core *core)
{
    size_t told = 0;
    core->evidence.is_told = true;
    list_for_each (&core->evidence.classes, link) {
        struct evidence_class *class = CONTAINER_OF(link, struct evidence_class, link);
        size_t bytes;
        if (class->is_told) {
            continue;
        }
        if (told++ == EVIDENCE_TOLD_MAX) {
            core->evidence.is_told = false; /* the others next time */
            break;
        }
        const uint8_t *packed = pack(core, class, &bytes);
        class->is_told = true;
        list_for_each (&core->workers_heard, at) {
            if (packed != NULL) {
                tell(core, CONTAINER_OF(at, struct worker, heard_link)->peer, packed, bytes);
            }
        }
    }
    core->evidence.told_ms = core->now_ms;
}

/* ---- records ---- */

static void record(struct core *core, struct evidence_class *class)
{
    uint8_t key[KEY_BYTES];
    size_t bytes;
    uint8_t *packed = pack(core, class, &bytes);
    if (packed == NULL) {
        return;
    }
    Record__CacheEvidenceRecord message = RECORD__CACHE_EVIDENCE_RECORD__INIT;
    message.evidence = (ProtobufCBinaryData){bytes, packed};
    write_key(class, key);
    core_put_record(core, STORE_META, key, sizeof(key), &message.base);
    class->is_recorded = true;
}

static void record_changes(struct core *core)
{
    size_t recorded = 0;
    core->evidence.is_recorded = true;
    list_for_each (&core->evidence.classes, link) {
        struct evidence_class *class = CONTAINER_OF(link, struct evidence_class, link);
        if (!class->is_recorded && recorded++ == EVIDENCE_TOLD_MAX) {
            core->evidence.is_recorded = false;
            break;
        }
        if (!class->is_recorded) {
            record(core, class);
        }
    }
    core->evidence.recorded_ms = core->now_ms;
}

void cache_evidence_tick(struct core *core)
{
    struct evidence *evidence = &core->evidence;
    if (!evidence->is_told && core->now_ms - evidence->told_ms >= EVIDENCE_TELL_MS) {
        tell_changes(core);
    }
    if (!evidence->is_recorded && !core->store_is_down &&
        (core->is_draining || core->now_ms - evidence->recorded_ms >= EVIDENCE_RECORD_MS)) {
        record_changes(core);
    }
}

int64_t cache_evidence_next_deadline_ms(const struct core *core)
{
    const struct evidence *evidence = &core->evidence;
    const int64_t tell_ms = evidence->is_told ? INT64_MAX : evidence->told_ms + EVIDENCE_TELL_MS;
    const int64_t record_ms = evidence->is_recorded || core->store_is_down
                                  ? INT64_MAX
                                  : evidence->recorded_ms + EVIDENCE_RECORD_MS;
    return tell_ms < record_ms ? tell_ms : record_ms;
}

int cache_evidence_restore(struct core *core, const void *value, size_t value_bytes)
{
    Record__CacheEvidenceRecord *message;
    ProtobufCAllocator *allocator = arena_protobuf_allocator(core->arena);
    int r = record_read_cache_evidence(value, value_bytes, allocator, &message);
    if (r < 0) {
        return r;
    }
    const Wire__CacheEvidence *evidence =
        wire__cache_evidence__unpack(allocator, message->evidence.len, message->evidence.data);
    struct threshold_evidence *sum = malloc(sizeof(*sum));
    r = sum == NULL ? -ENOMEM : evidence == NULL ? -EBADMSG : 0;
    r = r < 0 ? r : threshold_unpack(evidence->counts.data, evidence->counts.len, sum);
    if (r == 0 && find(core, evidence->tenant, evidence->tier, evidence->embedder) != NULL) {
        r = -EBADMSG;
    }
    if (r == 0 && make(core, evidence->tenant, evidence->tier, evidence->embedder, sum) == NULL) {
        r = -ENOMEM;
    }
    free(sum);
    return r;
}

void cache_evidence_init(struct core *core)
{
    list_init(&core->evidence.classes);
    core->evidence.is_told = core->evidence.is_recorded = true;
}

void cache_evidence_destroy(struct core *core)
{
    struct list_link *link;
    while ((link = list_first(&core->evidence.classes)) != NULL) {
        list_remove(&core->evidence.classes, link);
        free_class(CONTAINER_OF(link, struct evidence_class, link));
    }
}
