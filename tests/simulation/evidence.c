#include "tests/simulation/evidence.h"
#include <inttypes.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/core.h"
#include "broker/core/record.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/memory.h"
#include "tests/simulation/network.h"

enum {
    KEY_BYTES = 6 + 8, /* of a record of a which */
    LOOKUPS_MAX = 120,
    LABELED = 300, /* permille of lookups */
};

static const char *const embedders[EMBEDDERS] = {"builtin/1", "builtin/2"};

/* Each embedder has scores of its own. */
static struct threshold_seed seed_of(uint32_t which)
{
    struct threshold_seed seed = {.weight = 10};
    threshold_scale_even(-4 - (double)(which % EMBEDDERS), 4, &seed.scale);
    return seed;
}

static const char *tenant_of(const struct simulation *simulation, uint32_t which)
{
    return simulation->scenario.tenants[which / (SCENARIO_TIERS * EMBEDDERS)].name;
}

static const char *tier_of(const struct simulation *simulation, uint32_t which)
{
    return simulation->scenario.tiers[which / EMBEDDERS % SCENARIO_TIERS].name;
}

/* EVIDENCE_CLASSES: none of them. */
static uint32_t class_of(const struct simulation *simulation, const char *tenant, const char *tier,
                         const char *embedder)
{
    uint32_t which = 0;
    while (which < EVIDENCE_CLASSES && (strcmp(tenant_of(simulation, which), tenant) != 0 ||
                                        strcmp(tier_of(simulation, which), tier) != 0 ||
                                        strcmp(embedders[which % EMBEDDERS], embedder) != 0)) {
        which++;
    }
    return which;
}

/* Of a class beyond the last one the tenant or the tier is unknown. */
void evidence_fill(const struct simulation *simulation, const struct message *message,
                   struct evidence_words *ret_words)
{
    const uint32_t which = (uint32_t)message->number % EVIDENCE_CLASSES;
    const bool is_known = (uint32_t)message->number < EVIDENCE_CLASSES;
    *ret_words = (struct evidence_words){
        .tenant = is_known || which % 2 == 0 ? tenant_of(simulation, which) : "nobody",
        .tier = is_known || which % 2 == 1 ? tier_of(simulation, which) : "none",
        .embedder = embedders[which % EMBEDDERS],
    };
    if (message->second != 0) {
        const struct threshold_seed seed = seed_of(which);
        threshold_pack_seed(&seed, ret_words->seed);
        ret_words->seed_bytes = THRESHOLD_SEED_BYTES - (message->second == 2);
    }
    memset(ret_words->key, (int)message->digest, sizeof(ret_words->key));
}

struct blob *evidence_delta(struct simulation *simulation, uint32_t which, uint64_t epoch,
                            bool is_of_another_scale)
{
    static uint8_t bytes[THRESHOLD_PACKED_BYTES_MAX];
    struct dice *dice = &simulation->dice;
    const struct threshold_seed seed = seed_of(is_of_another_scale ? which + 1 : which);
    struct threshold_evidence *delta = must(malloc(sizeof(*delta)));
    threshold_init(&seed.scale, delta);
    threshold_advance(delta, epoch);
    for (uint64_t i = dice_below(dice, LOOKUPS_MAX) + 1; i > 0; i--) {
        const double score = (double)dice_between(dice, -50, 40) / 10;
        threshold_add_lookup(delta, &seed.scale, epoch, score, dice_hit(dice, 500));
        if (dice_hit(dice, LABELED)) {
            threshold_add(delta, &seed.scale, epoch, score,
                          dice_hit(dice, 500) ? THRESHOLD_MISS : THRESHOLD_AUDIT,
                          dice_hit(dice, 900), 100);
        }
    }
    struct blob *packed;
    if (blob_create(bytes, threshold_pack(delta, bytes), &packed) < 0) {
        (void)must(NULL);
    }
    free(delta);
    return packed;
}

struct blob *evidence_spoilt(void)
{
    struct blob *spoilt;
    if (blob_create("spoilt", 6, &spoilt) < 0) {
        (void)must(NULL);
    }
    return spoilt;
}

/* ---- what the core has ---- */

struct look {
    const struct simulation *simulation;
    uint32_t which;
    const struct threshold_evidence *sum; /* NULL: nothing */
    bool has_seed;
};

static void look_at(void *context, const struct core_evidence_view *view)
{
    struct look *look = context;
    if (class_of(look->simulation, view->tenant, view->tier, view->embedder) == look->which) {
        look->sum = view->sum;
        look->has_seed = view->seed != NULL;
    }
}

static struct look look_up(const struct simulation *simulation, uint32_t which)
{
    struct look look = {.simulation = simulation, .which = which};
    (void)core_visit_evidence(simulation->broker.core, 0, SIZE_MAX, look_at, &look);
    return look;
}

static void set_sum(struct watched_class *watched, const struct threshold_evidence *sum)
{
    if (watched->sum == NULL) {
        watched->sum = must(malloc(sizeof(*sum)));
    }
    *watched->sum = *sum;
}

/* As bytes, as all that leaves the core has it. */
static uint64_t digest_of(const struct threshold_evidence *sum)
{
    static uint8_t bytes[THRESHOLD_PACKED_BYTES_MAX];
    return XXH3_64bits(bytes, threshold_pack(sum, bytes));
}

static bool equals(const struct threshold_evidence *a, const struct threshold_evidence *b)
{
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): soon said when they are; else the digest tells */
    return memcmp(a, b, sizeof(*a)) == 0 || digest_of(a) == digest_of(b);
}

/* An epoch may have ended since it was looked at. */
static void follow(struct simulation *simulation, uint32_t which)
{
    struct watched_class *watched = &simulation->evidence.classes[which];
    const struct look look = look_up(simulation, which);
    if ((look.sum == NULL) != (watched->sum == NULL)) {
        simulation_violate(simulation, "of class %u of evidence there is %s", which,
                           look.sum == NULL ? "nothing any more" : "something from nowhere");
        return;
    }
    if (look.sum == NULL) {
        return;
    }
    if (look.sum->newest == watched->sum->newest + 1 && threshold_epoch_is_full(watched->sum)) {
        threshold_advance(watched->sum, look.sum->newest);
    }
    if (!equals(look.sum, watched->sum)) {
        simulation_violate(simulation, "the sum of class %u of evidence is not that of its deltas",
                           which);
    }
    watched->digest = digest_of(watched->sum);
    watched->has_seed = look.has_seed;
}

/* ---- the step ---- */

struct worker_look {
    uint64_t peer;
    bool is_known;
};

static void is_it_this_one(void *context, const struct core_worker_view *view)
{
    struct worker_look *look = context;
    look->is_known |= view->peer == look->peer;
}

static bool is_worker_known(const struct simulation *simulation, uint64_t peer)
{
    struct worker_look look = {.peer = peer};
    core_visit_workers(simulation->broker.core, sim_broker_now(simulation), is_it_this_one, &look);
    return look.is_known;
}

/* One that is not is told so in this step. */
static bool is_client_known(const struct simulation *simulation, const struct message *message)
{
    struct effects *effects = simulation->broker.effects;
    bool is_known = true;
    for (size_t i = simulation->broker.examined; i < effects_length(effects); i++) {
        const struct effect *effect = effects_at(effects, i);
        is_known &= effect->kind != EFFECT_CLIENT_ERROR || effect->peer != message->peer;
    }
    return is_known;
}

static bool is_of_evidence(const struct message *message)
{
    return (message->event == EVENT_CACHE_EVIDENCE || message->event == EVENT_CACHE_FEEDBACK) &&
           (uint32_t)message->number < EVIDENCE_CLASSES;
}

void evidence_before_step(struct simulation *simulation, const struct message *message)
{
    if (is_of_evidence(message)) {
        follow(simulation, (uint32_t)message->number);
    }
}

/* Its tenant is not configured for now. */
static bool is_left_out(const struct simulation *simulation, uint32_t which)
{
    return simulation->scenario.lacks_tenant && which < SCENARIO_TIERS * EMBEDDERS;
}

static void add_delta(struct simulation *simulation, const struct message *message)
{
    const uint32_t which = (uint32_t)message->number;
    struct watched_class *watched = &simulation->evidence.classes[which];
    const struct look look = look_up(simulation, which);
    struct threshold_evidence *delta = must(malloc(sizeof(*delta)));
    const bool is_readable =
        threshold_unpack(blob_data(message->payload), blob_bytes(message->payload), delta) == 0;
    if (is_readable && watched->sum == NULL && look.sum != NULL) {
        watched->sum = must(calloc(1, sizeof(*watched->sum)));
        watched->sum->scale = delta->scale;
    }
    const bool is_there = !is_left_out(simulation, which);
    if (is_readable && is_there && watched->sum != NULL && delta->newest <= watched->sum->newest) {
        (void)!threshold_merge(watched->sum, delta);
    }
    free(delta);
    simulation->tally.deltas++;
}

static void add_feedback(struct simulation *simulation, const struct message *message)
{
    const uint32_t which = (uint32_t)message->number;
    struct watched_class *watched = &simulation->evidence.classes[which];
    const struct threshold_seed seed = seed_of(which);
    if (watched->sum != NULL && watched->has_seed) {
        threshold_add(watched->sum, &seed.scale, watched->sum->newest,
                      (double)message->total / 1000, THRESHOLD_FEEDBACK, message->flag, 0);
    }
}

static bool may_count(const struct simulation *simulation, const struct message *message)
{
    return message->event == EVENT_CACHE_EVIDENCE
               ? is_worker_known(simulation, message->peer)
               : !simulation->invalidations.has_dropped && is_client_known(simulation, message);
}

void evidence_after_step(struct simulation *simulation, const struct message *message)
{
    if (!is_of_evidence(message)) {
        return;
    }
    if (may_count(simulation, message) && message->event == EVENT_CACHE_EVIDENCE) {
        add_delta(simulation, message);
    } else if (may_count(simulation, message)) {
        add_feedback(simulation, message);
    }
    follow(simulation, (uint32_t)message->number);
}

/* ---- what leaves the core ---- */

/* The class of it; EVIDENCE_CLASSES: none. */
static uint32_t read_packed(const struct simulation *simulation, const uint8_t *packed,
                            size_t bytes, uint64_t *ret_digest, uint64_t *ret_newest,
                            bool *ret_has_seed, struct threshold_evidence *ret_sum)
{
    Wire__CacheEvidence *evidence = wire__cache_evidence__unpack(NULL, bytes, packed);
    uint32_t which = EVIDENCE_CLASSES;
    if (evidence != NULL &&
        threshold_unpack(evidence->counts.data, evidence->counts.len, ret_sum) == 0) {
        which = class_of(simulation, evidence->tenant, evidence->tier, evidence->embedder);
        *ret_digest = XXH3_64bits(evidence->counts.data, evidence->counts.len);
        *ret_newest = ret_sum->newest;
        *ret_has_seed = evidence->seed.len > 0;
    }
    if (evidence != NULL) {
        wire__cache_evidence__free_unpacked(evidence, NULL);
    }
    return which;
}

/* One that was read lately is not read again: each goes to all workers. */
static const struct told_sum *read_told(struct simulation *simulation, const struct blob *packed)
{
    const uint64_t bytes_digest = XXH3_64bits(blob_data(packed), blob_bytes(packed));
    struct told_sum *told = &simulation->evidence.told[bytes_digest % EVIDENCE_TOLD];
    if (told->bytes_digest != bytes_digest) {
        bool has_seed;
        struct threshold_evidence *sum = must(malloc(sizeof(*sum)));
        told->bytes_digest = bytes_digest;
        told->which = read_packed(simulation, blob_data(packed), blob_bytes(packed), &told->digest,
                                  &told->newest, &has_seed, sum);
        free(sum);
    }
    return told;
}

static void see_told(struct simulation *simulation, const struct effect *effect)
{
    const struct told_sum *told = read_told(simulation, effect->as.cache_evidence.packed);
    simulation->tally.sums++;
    if (told->which == EVIDENCE_CLASSES) {
        simulation_violate(simulation, "a worker is told evidence of nothing");
        return;
    }
    const struct watched_class *watched = &simulation->evidence.classes[told->which];
    if (told->digest != watched->digest) { /* its epoch has ended, perhaps */
        follow(simulation, told->which);
    }
    if (told->digest != watched->digest) {
        simulation_violate(simulation, "a worker is told what is not the sum of class %u",
                           told->which);
    }
}

static bool is_class_key(enum store_family family, const uint8_t *key, size_t key_bytes)
{
    return family == STORE_META && key_bytes == KEY_BYTES && memcmp(key, "cache\2", 6) == 0;
}

static uint32_t read_record(struct simulation *simulation, const struct blob *value,
                            bool *ret_has_seed, struct threshold_evidence *ret_sum)
{
    Record__CacheEvidenceRecord *record;
    uint64_t digest, newest;
    if (record_read_cache_evidence(blob_data(value), blob_bytes(value), NULL, &record) < 0) {
        simulation_violate(simulation, "the record of evidence cannot be read");
        return EVIDENCE_CLASSES;
    }
    const uint32_t which = read_packed(simulation, record->evidence.data, record->evidence.len,
                                       &digest, &newest, ret_has_seed, ret_sum);
    record__cache_evidence_record__free_unpacked(record, NULL);
    return which;
}

static void see_recorded(struct simulation *simulation, const struct effect *effect)
{
    bool has_seed;
    struct threshold_evidence *sum = must(malloc(sizeof(*sum)));
    const uint32_t which = read_record(simulation, effect->as.put.blob, &has_seed, sum);
    if (which < EVIDENCE_CLASSES) {
        follow(simulation, which);
        const struct watched_class *watched = &simulation->evidence.classes[which];
        if (watched->sum == NULL || !equals(watched->sum, sum) || has_seed != watched->has_seed) {
            simulation_violate(simulation, "what is recorded of class %u is not its sum", which);
        }
    }
    free(sum);
}

void evidence_see_effect(struct simulation *simulation, const struct effect *effect)
{
    if (effect->kind == EFFECT_CACHE_EVIDENCE) {
        see_told(simulation, effect);
    } else if (effect->kind == EFFECT_PUT &&
               is_class_key(effect->as.put.family, effect->as.put.key, effect->as.put.key_bytes)) {
        see_recorded(simulation, effect);
    }
}

void evidence_see_durable(struct simulation *simulation, const struct storage_change *change)
{
    if (change->kind != STORAGE_PUT ||
        !is_class_key(change->family, change->key, change->key_bytes)) {
        return;
    }
    bool has_seed;
    struct threshold_evidence *sum = must(malloc(sizeof(*sum)));
    const uint32_t which = read_record(simulation, change->value, &has_seed, sum);
    if (which < EVIDENCE_CLASSES) {
        struct watched_class *watched = &simulation->evidence.classes[which];
        free(watched->durable);
        watched->durable = TAKE(sum);
        watched->has_durable_seed = has_seed;
    }
    free(sum);
}

void evidence_fill_release(struct simulation *simulation, const struct effect *effect,
                           struct message *message)
{
    const struct told_sum *told = read_told(simulation, effect->as.cache_evidence.packed);
    message->number = (int)told->which;
    message->digest = told->digest;
    message->total = told->newest;
}

void evidence_see_release(struct simulation *simulation, const struct message *message)
{
    if (message->effect == EFFECT_CACHE_EVIDENCE && message->number < EVIDENCE_CLASSES) {
        network_link(simulation, message->peer)->evidence_digest[message->number] = message->digest;
    }
}

/* ---- ends and beginnings ---- */

void evidence_see_shutdown(struct simulation *simulation)
{
    for (uint32_t i = 0; i < EVIDENCE_CLASSES; i++) {
        const struct watched_class *watched = &simulation->evidence.classes[i];
        if (watched->sum == NULL) {
            continue;
        }
        follow(simulation, i);
        if (watched->durable == NULL || !equals(watched->sum, watched->durable)) {
            simulation_violate(simulation, "the broker shuts down, and class %u is not recorded",
                               i);
        }
    }
}

void evidence_restart(struct simulation *simulation)
{
    for (uint32_t i = 0; i < EVIDENCE_CLASSES; i++) {
        struct watched_class *watched = &simulation->evidence.classes[i];
        if (watched->durable == NULL || is_left_out(simulation, i)) {
            free(TAKE(watched->sum));
        } else {
            set_sum(watched, watched->durable);
            watched->has_seed = watched->has_durable_seed;
        }
        follow(simulation, i);
    }
}

static void check_worker_at_end(struct simulation *simulation, const struct sim_worker *worker)
{
    if (worker->peer == 0 || !worker->is_welcome || !is_worker_known(simulation, worker->peer)) {
        return;
    }
    const struct link *link = network_link(simulation, worker->peer);
    for (uint32_t i = 0; i < EVIDENCE_CLASSES; i++) {
        const struct watched_class *watched = &simulation->evidence.classes[i];
        if (watched->sum != NULL && link->evidence_digest[i] != watched->digest) {
            simulation_violate(simulation, "%s does not know the sum of class %u in the end",
                               worker->name, i);
        }
    }
}

void evidence_check_end(struct simulation *simulation)
{
    for (uint32_t i = 0; i < EVIDENCE_CLASSES; i++) {
        follow(simulation, i);
    }
    for (uint32_t i = 0; i < simulation->scenario.options.workers; i++) {
        check_worker_at_end(simulation, &simulation->workers[i]);
    }
}

void evidence_finish(struct simulation *simulation)
{
    for (uint32_t i = 0; i < EVIDENCE_CLASSES; i++) {
        free(simulation->evidence.classes[i].sum);
        free(simulation->evidence.classes[i].durable);
    }
}
