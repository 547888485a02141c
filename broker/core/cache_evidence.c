#include "broker/core/cache_evidence.h"
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/cache_log.h"
#include "broker/core/client.h"
#include "broker/core/record.h"
#include "broker/core/worker.h"
#include "common/threshold.h"

enum {
    HASH_OFFSET = 5 + 1,
    KEY_BYTES = HASH_OFFSET + 8,
    KIND_EVIDENCE = 2,
    KEY_OF_ENTRY_BYTES = 16
};

struct class {
    struct table_link by_hash;
    struct list_link by_use, by_number;
    uint64_t hash, number;
    const char *tenant, *tier; /* their names' */
    bool has_seed;
    bool is_untold, is_unrecorded; /* it has changed since */
    bool has_record;
    int64_t told_ms, recorded_ms; /* tried, the last time */
    int64_t epoch_began_ms;
    struct blob *packed; /* wire.CacheEvidence as workers are told; NULL: to be made */
    struct threshold_seed seed;
    struct threshold_evidence sum;
    char embedder[];
};

uint64_t cache_evidence_hash(const struct table_link *link, uint64_t seed)
{
    return CONTAINER_OF(link, struct class, by_hash)->hash ^ seed;
}

/* The same after a restart: records are named by it. */
static uint64_t hash_of(const char *tenant, const char *tier, const char *embedder)
{
    uint64_t hash = XXH3_64bits(tenant, strlen(tenant));
    hash = XXH3_64bits_withSeed(tier, strlen(tier), hash);
    return XXH3_64bits_withSeed(embedder, strlen(embedder), hash);
}

static void write_key(uint64_t hash, uint8_t ret_key[KEY_BYTES])
{
    static const char prefix[] = {'c', 'a', 'c', 'h', 'e'};
    memcpy(ret_key, prefix, sizeof(prefix));
    ret_key[sizeof(prefix)] = KIND_EVIDENCE;
    const uint64_t number = htobe64(hash);
    memcpy(ret_key + HASH_OFFSET, &number, sizeof(number));
}

/* ---- classes ---- */

static struct class *find(const struct core *core, const char *tenant, const char *tier,
                          const char *embedder)
{
    const struct table *table = &core->evidence.classes;
    const uint64_t hash = hash_of(tenant, tier, embedder);
    struct table_link *link = table_first(table, hash ^ table->seed);
    for (; link != NULL; link = link->next) {
        struct class *class = CONTAINER_OF(link, struct class, by_hash);
        if (class->hash == hash && strcmp(class->tenant, tenant) == 0 &&
            strcmp(class->tier, tier) == 0 && strcmp(class->embedder, embedder) == 0) {
            return class;
        }
    }
    return NULL;
}

static void free_class(struct core *core, struct class *class)
{
    list_remove(&core->evidence.by_use, &class->by_use);
    list_remove(&core->evidence.by_number, &class->by_number);
    blob_unref(&class->packed);
    free(class);
}

static void forget_one(struct core *core)
{
    struct class *class = CONTAINER_OF(list_first(&core->evidence.by_use), struct class, by_use);
    if (class->has_record) {
        uint8_t key[KEY_BYTES];
        write_key(class->hash, key);
        core_delete(core, STORE_META, key, sizeof(key));
    }
    table_remove(&core->evidence.classes, &class->by_hash);
    free_class(core, class);
}

/* NULL: no memory. */
static struct class *make(struct core *core, const struct name *tenant, const struct name *tier,
                          const char *embedder, uint32_t scale)
{
    struct cache_evidence *evidence = &core->evidence;
    const size_t bytes = strlen(embedder) + 1;
    struct class *class = calloc(1, sizeof(*class) + bytes);
    if (class == NULL) {
        return NULL;
    }
    memcpy(class->embedder, embedder, bytes);
    class->tenant = tenant->text;
    class->tier = tier->text;
    class->hash = hash_of(tenant->text, tier->text, embedder);
    class->number = ++evidence->number;
    class->sum.scale = scale;
    class->told_ms = core->now_ms - EVIDENCE_TELL_MS;
    class->recorded_ms = class->epoch_began_ms = core->now_ms;
    table_insert(&evidence->classes, &class->by_hash);
    list_append(&evidence->by_use, &class->by_use);
    list_append(&evidence->by_number, &class->by_number);
    return class;
}

static void touch(struct core *core, struct class *class)
{
    list_remove(&core->evidence.by_use, &class->by_use);
    list_append(&core->evidence.by_use, &class->by_use);
}

/* ---- when ---- */

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t record_at_ms(const struct core *core, const struct class *class)
{
    return core->is_draining && !core->store_is_down ? core->now_ms
                                                     : class->recorded_ms + EVIDENCE_RECORD_MS;
}

static void plan(struct core *core, const struct class *class)
{
    int64_t *due_ms = &core->evidence.due_ms;
    if (class->is_untold) {
        *due_ms = sooner(*due_ms, class->told_ms + EVIDENCE_TELL_MS);
    }
    if (class->is_unrecorded) {
        *due_ms = sooner(*due_ms, record_at_ms(core, class));
    }
    if (threshold_epoch_is_full(&class->sum)) {
        *due_ms = sooner(*due_ms, class->epoch_began_ms + EVIDENCE_EPOCH_MIN_MS);
    }
}

static void changed(struct core *core, struct class *class)
{
    blob_unref(&class->packed);
    class->packed = NULL;
    class->is_untold = class->is_unrecorded = true;
    plan(core, class);
}

static void end_epoch(struct core *core, struct class *class)
{
    if (threshold_epoch_is_full(&class->sum) &&
        core->now_ms - class->epoch_began_ms >= EVIDENCE_EPOCH_MIN_MS) {
        threshold_advance(&class->sum, class->sum.newest + 1);
        class->epoch_began_ms = core->now_ms;
        changed(core, class);
    }
}

/* ---- as bytes ---- */

/* `seed`: THRESHOLD_SEED_BYTES, or NULL: without. Returns NULL without memory. */
static uint8_t *pack(const struct class *class, uint8_t *seed, size_t *ret_bytes)
{
    uint8_t *counts = malloc(THRESHOLD_PACKED_BYTES_MAX);
    if (counts == NULL) {
        return NULL;
    }
    Wire__CacheEvidence evidence = WIRE__CACHE_EVIDENCE__INIT;
    evidence.tenant = (char *)class->tenant;
    evidence.tier = (char *)class->tier;
    evidence.embedder = (char *)class->embedder;
    evidence.counts = (ProtobufCBinaryData){threshold_pack(&class->sum, counts), counts};
    evidence.seed = (ProtobufCBinaryData){seed == NULL ? 0 : THRESHOLD_SEED_BYTES, seed};
    *ret_bytes = wire__cache_evidence__get_packed_size(&evidence);
    uint8_t *packed = malloc(*ret_bytes);
    if (packed != NULL) {
        (void)wire__cache_evidence__pack(&evidence, packed);
    }
    free(counts);
    return packed;
}

/* Workers have their own seed. False: no memory. */
static bool make_packed(struct class *class)
{
    size_t bytes = 0;
    uint8_t *packed = class->packed == NULL ? pack(class, NULL, &bytes) : NULL;
    if (packed != NULL && blob_create(packed, bytes, &class->packed) < 0) {
        class->packed = NULL;
    }
    free(packed);
    return class->packed != NULL;
}

static struct blob *make_record(const struct class *class)
{
    uint8_t seed[THRESHOLD_SEED_BYTES];
    if (class->has_seed) {
        threshold_pack_seed(&class->seed, seed);
    }
    size_t bytes = 0;
    uint8_t *packed = pack(class, class->has_seed ? seed : NULL, &bytes);
    Record__CacheEvidenceRecord record = RECORD__CACHE_EVIDENCE_RECORD__INIT;
    record.evidence = (ProtobufCBinaryData){bytes, packed};
    const size_t record_length = record_bytes(&record.base);
    uint8_t *value = packed == NULL ? NULL : malloc(record_length);
    struct blob *blob = NULL;
    if (value != NULL) {
        record_write(&record.base, value);
        blob = blob_create(value, record_length, &blob) < 0 ? NULL : blob;
    }
    free(value);
    free(packed);
    return blob;
}

/* ---- telling and recording ---- */

/* There is room for the effect. */
static void tell_one(struct core *core, const struct class *class, uint64_t peer)
{
    effects_add(core->effects, EFFECT_CACHE_EVIDENCE, peer, 0)->as.cache_evidence.packed =
        blob_ref(class->packed);
}

/* Returns how many were told. Without memory it is tried again later. */
static size_t tell(struct core *core, struct class *class)
{
    class->told_ms = core->now_ms;
    if (!effects_reserve(core->effects, core->workers_heard.length) || !make_packed(class)) {
        return 0;
    }
    class->is_untold = false;
    list_for_each (&core->workers_heard, link) {
        tell_one(core, class, CONTAINER_OF(link, struct worker, heard_link)->peer);
    }
    return core->workers_heard.length;
}

static void record(struct core *core, struct class *class)
{
    class->recorded_ms = core->now_ms;
    if (core->store_is_down || !effects_reserve(core->effects, 1)) {
        return;
    }
    struct blob *value = make_record(class);
    if (value == NULL) {
        return;
    }
    uint8_t key[KEY_BYTES];
    write_key(class->hash, key);
    core_put(core, STORE_META, key, sizeof(key), "", 0, value);
    blob_unref(&value);
    class->is_unrecorded = false;
    class->has_record = true;
}

/* Classes that this worker has not been told of. False: no memory for more in this turn. */
static bool catch_up(struct core *core, struct worker *worker)
{
    size_t told = 0;
    if (!effects_reserve(core->effects, EVIDENCE_WELCOME_MAX)) {
        return false;
    }
    list_for_each (&core->evidence.by_number, link) {
        struct class *class = CONTAINER_OF(link, struct class, by_number);
        if (class->number <= worker->evidence_told) {
            continue;
        }
        if (class->number > worker->evidence_until || !make_packed(class)) {
            break; /* told to all when it changed; or no memory: it will change again */
        }
        tell_one(core, class, worker->peer);
        worker->evidence_told = class->number;
        if (++told == EVIDENCE_WELCOME_MAX) {
            return true;
        }
    }
    worker->evidence_told = worker->evidence_until;
    core->evidence.behind--;
    return true;
}

/* False: there is more for the next turn. */
static bool tick_newcomers(struct core *core)
{
    size_t told = 0;
    if (core->evidence.behind == 0) {
        return true;
    }
    list_for_each (&core->workers_heard, link) {
        struct worker *worker = CONTAINER_OF(link, struct worker, heard_link);
        if (worker->evidence_told >= worker->evidence_until) {
            continue;
        }
        if (!catch_up(core, worker)) {
            core->evidence.due_ms = sooner(core->evidence.due_ms, core->now_ms + EVIDENCE_TELL_MS);
            return true;
        }
        told += EVIDENCE_WELCOME_MAX;
        if (told >= EVIDENCE_TELLINGS_A_TICK) {
            break;
        }
    }
    return core->evidence.behind == 0;
}

void cache_evidence_welcome(struct core *core, struct worker *worker)
{
    struct cache_evidence *evidence = &core->evidence;
    bool has_all = evidence->by_use.length <= EVIDENCE_WELCOME_MAX &&
                   effects_reserve(core->effects, EVIDENCE_WELCOME_MAX);
    struct list_link *link = evidence->by_use.head.previous;
    for (size_t i = 0; i < EVIDENCE_WELCOME_MAX && link != &evidence->by_use.head; i++) {
        struct class *class = CONTAINER_OF(link, struct class, by_use);
        if (!effects_reserve(core->effects, 1) || !make_packed(class)) {
            has_all = false;
            break;
        }
        tell_one(core, class, worker->peer);
        link = link->previous;
    }
    worker->evidence_told = 0;
    worker->evidence_until = has_all ? 0 : evidence->number;
    evidence->behind += worker->evidence_told < worker->evidence_until;
}

void cache_evidence_leave(struct core *core, struct worker *worker)
{
    core->evidence.behind -= worker->evidence_told < worker->evidence_until;
    worker->evidence_told = worker->evidence_until;
}

/* Returns how many were told. */
static size_t serve(struct core *core, struct class *class)
{
    size_t told = 0;
    end_epoch(core, class);
    if (class->is_untold && core->now_ms - class->told_ms >= EVIDENCE_TELL_MS) {
        told = tell(core, class);
    }
    if (class->is_unrecorded && core->now_ms >= record_at_ms(core, class)) {
        record(core, class);
    }
    return told;
}

bool cache_evidence_tick(struct core *core)
{
    struct cache_evidence *evidence = &core->evidence;
    const bool is_done = tick_newcomers(core);
    if (core->now_ms < evidence->due_ms) {
        return is_done;
    }
    evidence->due_ms = evidence->behind > 0 ? core->now_ms + EVIDENCE_TELL_MS : INT64_MAX;
    size_t told = 0;
    list_for_each (&evidence->by_use, link) {
        struct class *class = CONTAINER_OF(link, struct class, by_use);
        if (told >= EVIDENCE_TELLINGS_A_TICK) {
            evidence->due_ms = core->now_ms;
            return false;
        }
        told += serve(core, class);
        plan(core, class);
    }
    return is_done;
}

void cache_evidence_drain(struct core *core)
{
    list_for_each (&core->evidence.by_use, link) {
        struct class *class = CONTAINER_OF(link, struct class, by_use);
        if (class->is_unrecorded) {
            record(core, class);
        }
    }
}

/* ---- events ---- */

/* NULL: not configured, or no memory. */
static struct class *class_for(struct core *core, const struct event *event, uint32_t scale)
{
    const struct name *tenant = names_find(&core->tenants, event->as.cache_evidence.tenant);
    const struct name *tier = names_find(&core->tiers, event->as.cache_evidence.tier);
    const char *embedder = event->as.cache_evidence.embedder;
    if (tenant == NULL || !tenant->is_configured || tier == NULL || !tier->is_configured) {
        return NULL;
    }
    struct class *class = find(core, tenant->text, tier->text, embedder);
    if (class != NULL) {
        touch(core, class);
        return class;
    }
    if (core->evidence.by_use.length >= EVIDENCE_CLASSES_MAX) {
        if (!effects_reserve(core->effects, 1)) {
            return NULL;
        }
        forget_one(core);
    }
    return make(core, tenant, tier, embedder, scale);
}

static void take_seed(struct class *class, const uint8_t *bytes, size_t length)
{
    struct threshold_seed seed;
    if (length > 0 && threshold_unpack_seed(bytes, length, &seed) == 0 &&
        threshold_scale_fingerprint(&seed.scale) == class->sum.scale) {
        class->seed = seed;
        class->has_seed = true;
    }
}

/* A worker that claims what was not announced heard of another store, or broker: it is told again.
 */
static bool merge(struct class *class, const struct threshold_evidence *delta)
{
    return delta->newest <= class->sum.newest && threshold_merge(&class->sum, delta) == 0;
}

void cache_evidence_take(struct core *core, const struct event *event)
{
    struct threshold_evidence delta;
    struct class *class = NULL;
    if (worker_find(core, event->peer) == NULL) {
        return;
    }
    if (threshold_unpack(event->as.cache_evidence.counts, event->as.cache_evidence.counts_bytes,
                         &delta) == 0) {
        class = class_for(core, event, delta.scale);
    }
    if (class == NULL) {
        core->evidence.refused++;
        return;
    }
    take_seed(class, event->as.cache_evidence.seed, event->as.cache_evidence.seed_bytes);
    if (merge(class, &delta)) {
        end_epoch(core, class);
    } else {
        core->evidence.refused++;
    }
    changed(core, class);
}

struct feedback_seen {
    uint64_t hash;
    int64_t at_ms;
};

/* Whether the tenant has said so a short time ago. Without memory it has not. */
static bool was_said(struct core *core, const char *tenant, const struct event *event)
{
    struct cache_evidence *evidence = &core->evidence;
    if (evidence->seen == NULL) {
        evidence->seen = calloc(FEEDBACK_SEEN, sizeof(*evidence->seen));
    }
    if (evidence->seen == NULL) {
        return false;
    }
    const uint64_t of_tenant = XXH3_64bits(tenant, strlen(tenant));
    const uint64_t hash =
        XXH3_64bits_withSeed(event->as.cache_feedback.key, KEY_OF_ENTRY_BYTES, of_tenant);
    struct feedback_seen *seen = &evidence->seen[hash % FEEDBACK_SEEN];
    if (seen->hash == hash && core->now_ms - seen->at_ms < FEEDBACK_SEEN_MS) {
        return true;
    }
    *seen = (struct feedback_seen){.hash = hash, .at_ms = core->now_ms};
    return false;
}

static void count_feedback(struct core *core, const struct client *client,
                           const struct event *event)
{
    struct class *class = find(core, client->tenant->name->text, event->as.cache_feedback.tier,
                               event->as.cache_feedback.embedder);
    if (class == NULL || !class->has_seed) {
        core->evidence.feedback.unclassed++;
        return; /* nobody has said what the bins are */
    }
    core->evidence.feedback.wrong++;
    threshold_add(&class->sum, &class->seed.scale, class->sum.newest,
                  event->as.cache_feedback.score, THRESHOLD_FEEDBACK, false, 0);
    touch(core, class);
    changed(core, class);
}

void cache_evidence_feedback(struct core *core, const struct event *event)
{
    const struct client *client = client_expect(core, event->peer);
    if (client == NULL) {
        return;
    }
    if (event->as.cache_feedback.is_right) {
        core->evidence.feedback.right++;
        return;
    }
    const bool is_heard =
        throttle_take(&client->tenant->near_feedback, NEAR_FEEDBACK_EACH_MS, NEAR_FEEDBACK_BURST,
                      core->now_ms) == 0 &&
        cache_log_invalidate_entry(core, client->tenant, event->as.cache_feedback.key,
                                   "a client said it was wrong");
    if (is_heard && !was_said(core, client->tenant->name->text, event)) {
        count_feedback(core, client, event);
    } else { /* what was said before is invalidated all the same */
        core->evidence.feedback.dropped++;
    }
}

/* ---- what operators see ---- */

size_t core_visit_evidence(const struct core *core, size_t skip, size_t limit,
                           void (*visit)(void *context, const struct core_evidence_view *view),
                           void *context)
{
    const struct list *list = &core->evidence.by_use;
    const struct list_link *link = list->head.previous;
    for (size_t i = 0; i < skip && link != &list->head; i++) {
        link = link->previous;
    }
    for (size_t i = 0; i < limit && link != &list->head; i++) {
        const struct class *class = CONTAINER_OF(link, struct class, by_use);
        visit(context, &(struct core_evidence_view){.tenant = class->tenant,
                                                    .tier = class->tier,
                                                    .embedder = class->embedder,
                                                    .sum = &class->sum,
                                                    .seed = class->has_seed ? &class->seed : NULL});
        link = link->previous;
    }
    return list->length;
}

const struct core_near_feedback *core_near_feedback(const struct core *core)
{
    return &core->evidence.feedback;
}

uint64_t core_evidence_refused(const struct core *core)
{
    return core->evidence.refused;
}

/* ---- records ---- */

static int restore_class(struct core *core, const Wire__CacheEvidence *evidence, uint64_t hash)
{
    struct threshold_evidence sum;
    if (hash_of(evidence->tenant, evidence->tier, evidence->embedder) != hash ||
        threshold_unpack(evidence->counts.data, evidence->counts.len, &sum) < 0 ||
        find(core, evidence->tenant, evidence->tier, evidence->embedder) != NULL) {
        return -EBADMSG;
    }
    const struct name *tenant = names_find(&core->tenants, evidence->tenant);
    const struct name *tier = names_find(&core->tiers, evidence->tier);
    if (tenant == NULL || !tenant->is_configured || tier == NULL ||
        core->evidence.by_use.length >= EVIDENCE_CLASSES_MAX) {
        return 0;
    }
    struct class *class = make(core, tenant, tier, evidence->embedder, sum.scale);
    if (class == NULL) {
        return -ENOMEM;
    }
    class->sum = sum;
    class->has_record = true;
    take_seed(class, evidence->seed.data, evidence->seed.len);
    plan(core, class); /* its epoch may be full */
    return 0;
}

int cache_evidence_restore(struct core *core, const uint8_t *key, size_t key_bytes,
                           const void *value, size_t value_bytes)
{
    ProtobufCAllocator *allocator = arena_protobuf_allocator(core->arena);
    Record__CacheEvidenceRecord *record;
    uint64_t hash;
    if (key_bytes != KEY_BYTES ||
        record_read_cache_evidence(value, value_bytes, allocator, &record) < 0) {
        return -EBADMSG;
    }
    memcpy(&hash, key + HASH_OFFSET, sizeof(hash));
    const Wire__CacheEvidence *evidence =
        wire__cache_evidence__unpack(allocator, record->evidence.len, record->evidence.data);
    return evidence == NULL ? -EBADMSG : restore_class(core, evidence, be64toh(hash));
}

void cache_evidence_init(struct core *core)
{
    list_init(&core->evidence.by_use);
    list_init(&core->evidence.by_number);
    core->evidence.due_ms = INT64_MAX;
}

void cache_evidence_destroy(struct core *core)
{
    struct list_link *link;
    while ((link = list_first(&core->evidence.by_use)) != NULL) {
        free_class(core, CONTAINER_OF(link, struct class, by_use));
    }
    free(core->evidence.seen);
    core->evidence.seen = NULL;
}
