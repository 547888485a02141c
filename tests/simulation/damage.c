#include "tests/simulation/damage.h"
#include <errno.h>
#include <string.h>
#include "broker/core/core.h"
#include "broker/core/record.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/memory.h"

enum { KEY_DAMAGES = 6, READ_DAMAGES = 6, COPY_BYTES_MAX = 4096, DAMAGES_AT_ONCE = 4 };

struct damaged {
    struct simulation *simulation;
    enum store_family family;
    const void *key;
    size_t key_bytes;
};

static void expect_refused(const struct damaged *damaged, const void *key, size_t key_bytes,
                           const void *value, size_t value_bytes)
{
    struct simulation *simulation = damaged->simulation;
    const int r = core_restore(simulation->broker.core, damaged->family, key, key_bytes, value,
                               value_bytes, sim_broker_now(simulation));
    simulation->tally.damaged++;
    simulation->broker.has_damage = true;
    if (r != -EBADMSG) {
        simulation_violate(simulation, "a damaged record of family %d is taken for good",
                           (int)damaged->family);
    }
}

static void write_and_expect(const struct damaged *damaged, const ProtobufCMessage *message)
{
    const size_t bytes = record_bytes(message);
    uint8_t *value = must(malloc(bytes));
    record_write(message, value);
    expect_refused(damaged, damaged->key, damaged->key_bytes, value, bytes);
    free(value);
}

static char none[] = "", gone[] = "gone";

static void damage_job(const struct damaged *damaged, const struct blob *value, uint64_t which)
{
    Record__JobRecord *good;
    if (record_read_job(blob_data(value), blob_bytes(value), NULL, &good) < 0) {
        return; /* the oracle has looked at it when it was written */
    }
    Record__JobRecord bad = *good;
    ProtobufCBinaryData *fields[] = {&bad.job_id, &bad.idempotency_hash, &bad.canonical_key,
                                     &bad.trace_parent};
    char **names[] = {&bad.tenant, &bad.tier, &bad.route, &bad.pool};
    int64_t *times[] = {&bad.submitted_unix_ms, &bad.deadline_unix_ms, &bad.not_before_unix_ms};
    if (which < 4) {
        *fields[which] = (ProtobufCBinaryData){5, (uint8_t *)"spoil"};
    } else if (which < 8) {
        *names[which - 4] = none;
    } else if (which < 11) {
        *times[which - 8] = -1;
    } else if (which == 11) {
        bad.priority = 10;
    } else if (which == 12) {
        bad.state = 99;
    } else if (which == 13) {
        bad.attempts = 1 << 16;
    } else if (which == 14) {
        bad.attempts_max = 1 << 16;
    } else if (which == 15) {
        bad.lost_leases = 1 << 16;
    } else if (which == 16) {
        bad.sequence = UINT64_C(1) << 56;
    } else if (which == 17) {
        bad.history = 1 << 16;
    } else if (which == 18) {
        bad.died_unix_ms = -1;
    } else if (which == 19) {
        bad.tier = gone; /* and it is there twice */
    } else if (which == 20) {
        bad.pool = gone;
    } /* else it is there twice */
    write_and_expect(damaged, &bad.base);
    record__job_record__free_unpacked(good, NULL);
}

static void damage_concluded(const struct damaged *damaged, const struct blob *value,
                             uint64_t which)
{
    Record__ConcludedRecord *good;
    if (damaged->key_bytes != RECORD_TIME_KEY_BYTES ||
        record_read_concluded(blob_data(value), blob_bytes(value), NULL, &good) < 0) {
        return;
    }
    Record__ConcludedRecord bad = *good;
    if (which % 5 == 0) {
        bad.tenant = none;
    } else if (which % 5 == 1) {
        bad.idempotency_hash = (ProtobufCBinaryData){5, (uint8_t *)"spoil"};
    } else if (which % 5 == 2) {
        bad.state = WIRE__JOB_STATE__JOB_STATE_LEASED;
    } else if (which % 5 == 3) {
        bad.state = WIRE__JOB_STATE__JOB_STATE_COLLECTED;
    } /* else it is there twice */
    write_and_expect(damaged, &bad.base);
    record__concluded_record__free_unpacked(good, NULL);
}

static void damage_pause(const struct damaged *damaged, uint64_t which)
{
    Record__PauseRecord bad = RECORD__PAUSE_RECORD__INIT;
    bad.subject = which % 3 == 0 ? none : (char *)(uintptr_t) "spoil";
    bad.reason = none;
    bad.subject_kind = which % 3 == 1 ? PAUSE_WORKER + 1 : PAUSE_ROUTE;
    bad.mode = which % 3 == 2 ? PAUSE_DRAIN + 1 : PAUSE_HOLD;
    const struct damaged as = {damaged->simulation, STORE_META, "pause/spoil", 11};
    write_and_expect(&as, &bad.base);
    expect_refused(&as, as.key, as.key_bytes, "spoil", 5);
}

static void damage_upstream(const struct damaged *damaged, uint64_t which)
{
    Record__UpstreamRecord bad = RECORD__UPSTREAM_RECORD__INIT;
    bad.provider = which % 4 == 0 ? none : (char *)(uintptr_t) "spoil";
    bad.model = which % 4 == 1 ? none : (char *)(uintptr_t) "spoil";
    bad.error_code = none;
    bad.open_until_unix_ms = which % 4 == 2 ? -1 : 0;
    bad.limited_until_unix_ms = which % 4 == 3 ? -1 : 0;
    const struct damaged as = {damaged->simulation, STORE_META, "upstream/spoil", 14};
    write_and_expect(&as, &bad.base);
    expect_refused(&as, as.key, as.key_bytes, "spoil", 5);
}

static void damage_horizon(const struct damaged *damaged, uint64_t which)
{
    uint8_t value[9] = {RECORD_VERSION, 0x80};
    value[0] = which % 3 == 0 ? 0 : RECORD_VERSION;
    expect_refused(&(struct damaged){damaged->simulation, STORE_META, NULL, 0}, "horizon", 7, value,
                   which % 3 == 1 ? sizeof(value) - 1 : sizeof(value));
}

/* Under a key of another class or of no length, with counts that are none, or no record at all. */
static void damage_evidence(const struct damaged *damaged, uint64_t which)
{
    uint8_t packed[64];
    Wire__CacheEvidence evidence = WIRE__CACHE_EVIDENCE__INIT;
    evidence.tenant = evidence.tier = evidence.embedder = gone;
    Record__CacheEvidenceRecord bad = RECORD__CACHE_EVIDENCE_RECORD__INIT;
    bad.evidence =
        which % 3 == 0
            ? (ProtobufCBinaryData){5, (uint8_t *)"spoil"}
            : (ProtobufCBinaryData){wire__cache_evidence__pack(&evidence, packed), packed};
    const struct damaged as = {damaged->simulation, STORE_META, "cache\2spoiled!",
                               which % 3 == 1 ? 13 : 14};
    write_and_expect(&as, &bad.base);
    expect_refused(&as, as.key, as.key_bytes, "spoil", 5);
}

/* Of no number, so that none is missed for it. */
static void damage_invalidations(const struct damaged *damaged)
{
    static const char head[6] = "cache", entry[14] = "cache\1";
    Record__CacheInvalidationRecord bad = RECORD__CACHE_INVALIDATION_RECORD__INIT;
    bad.invalidation = (ProtobufCBinaryData){5, (uint8_t *)"spoil"};
    const struct damaged as = {damaged->simulation, STORE_META, entry, sizeof(entry)};
    expect_refused(&as, head, sizeof(head), "spoil", 5);
    expect_refused(&as, entry, sizeof(entry), "spoil", 5);
    write_and_expect(&as, &bad.base);
}

/* It is there twice; or with counts that are none. */
static void damage_sum(const struct damaged *damaged, const struct blob *value, uint64_t which)
{
    Record__CacheEvidenceRecord *good;
    uint8_t packed[COPY_BYTES_MAX];
    if (which % 2 == 0 ||
        record_read_cache_evidence(blob_data(value), blob_bytes(value), NULL, &good) < 0) {
        expect_refused(damaged, damaged->key, damaged->key_bytes, blob_data(value),
                       blob_bytes(value));
        return;
    }
    Wire__CacheEvidence *evidence =
        wire__cache_evidence__unpack(NULL, good->evidence.len, good->evidence.data);
    if (evidence != NULL) {
        Wire__CacheEvidence bad = *evidence;
        bad.counts = (ProtobufCBinaryData){5, (uint8_t *)"spoil"};
        Record__CacheEvidenceRecord record = RECORD__CACHE_EVIDENCE_RECORD__INIT;
        record.evidence = (ProtobufCBinaryData){wire__cache_evidence__pack(&bad, packed), packed};
        write_and_expect(damaged, &record.base);
        wire__cache_evidence__free_unpacked(evidence, NULL);
    }
    record__cache_evidence_record__free_unpacked(good, NULL);
}

/* False: it is none of these, or of a tenant that is not there, of which nothing is read. */
static bool damage_cache(const struct damaged *damaged, const struct blob *value, uint64_t which)
{
    static const char entry[14] = "cache\1";
    const char *key = damaged->key;
    const bool is_of_cache = damaged->family == STORE_META && damaged->key_bytes == sizeof(entry) &&
                             memcmp(key, entry, 5) == 0;
    if (is_of_cache && key[5] == 1) { /* another one's number */
        expect_refused(damaged, entry, sizeof(entry), blob_data(value), blob_bytes(value));
    } else if (is_of_cache && key[5] == 2 && !damaged->simulation->scenario.lacks_tenant) {
        damage_sum(damaged, value, which);
    } else {
        return false;
    }
    return true;
}

static void expect_ignored(const struct damaged *damaged, const void *key, size_t key_bytes,
                           const void *value, size_t value_bytes)
{
    if (core_restore(damaged->simulation->broker.core, damaged->family, key, key_bytes, value,
                     value_bytes, sim_broker_now(damaged->simulation)) != 0) {
        simulation_violate(damaged->simulation,
                           "a record of family %d is refused that says nothing",
                           (int)damaged->family);
    }
}

/* What is not the core's is nothing to it. */
static void read_foreign(const struct damaged *damaged, uint64_t which)
{
    static const char *const keys[] = {"x", "pausa", "upstreem", "horizan", "anything else"};
    const char *key = keys[which % (sizeof(keys) / sizeof(keys[0]))];
    expect_ignored(damaged, key, strlen(key), "spoil", 5);
}

/* A mark of a job that nobody knows, or of no time that there is. */
static void damage_mark(const struct damaged *damaged, const struct blob *value, uint64_t which)
{
    uint8_t key[RECORD_MARK_KEY_BYTES];
    memcpy(key, damaged->key, sizeof(key));
    if (which % 2 == 0) {
        key[0] = 0xff;
        expect_refused(damaged, key, sizeof(key), blob_data(value), blob_bytes(value));
    } else {
        memset(key + sizeof(key) - 5, 0xff, 4);
        expect_ignored(damaged, key, sizeof(key), blob_data(value), blob_bytes(value));
    }
}

/* A lease twice, or of a job that is gone. */
static void repeat_lease(const struct damaged *damaged, const struct blob *value, uint64_t which)
{
    uint8_t key[ID_BYTES];
    memcpy(key, damaged->key, sizeof(key));
    if (which % 2 == 0) {
        memset(key + sizeof(key) - 4, 0xff, 4);
    }
    expect_ignored(damaged, key, sizeof(key), blob_data(value), blob_bytes(value));
}

/* A later version may add fields; it is there twice all the same. */
static void add_field(const struct damaged *damaged, const struct blob *value)
{
    static const uint8_t field[] = {0xc0, 0x3e, 1}; /* 1000 */
    const size_t bytes = blob_bytes(value);
    uint8_t *longer = must(malloc(bytes + sizeof(field)));
    memcpy(longer, blob_data(value), bytes);
    memcpy(longer + bytes, field, sizeof(field));
    expect_refused(damaged, damaged->key, damaged->key_bytes, longer, bytes + sizeof(field));
    free(longer);
}

/* Cut short to nothing, of a later version, with a field that cannot be, or under a spoilt key. */
static void damage_bytes(const struct damaged *damaged, const struct blob *value, uint64_t which)
{
    static const uint8_t other_version[] = {RECORD_VERSION + 1, 0};
    static const uint8_t field_zero[] = {RECORD_VERSION, 0, 0};
    static const uint8_t half_field[] = {RECORD_VERSION, 0x0a, 0x10, 0};
    if (which % 5 == 0) {
        expect_refused(damaged, damaged->key, damaged->key_bytes, "", 0);
    } else if (which % 5 == 1) {
        expect_refused(damaged, damaged->key, damaged->key_bytes, other_version,
                       sizeof(other_version));
    } else if (which % 5 == 2) {
        expect_refused(damaged, damaged->key, damaged->key_bytes, field_zero, sizeof(field_zero));
    } else if (which % 5 == 3) {
        expect_refused(damaged, damaged->key, damaged->key_bytes, half_field, sizeof(half_field));
    } else if (damaged->family == STORE_CONCLUDED || damaged->family == STORE_LEASES) {
        uint8_t key[STORE_KEY_BYTES_MAX] = {0};
        /* Of a lease any other id is one of a job that is gone. */
        memset(key, which % 2 == 0 && damaged->family == STORE_CONCLUDED ? 0xff : 0, sizeof(key));
        expect_refused(damaged, key,
                       which % 3 == 0 ? damaged->key_bytes : damaged->key_bytes - 2 * (which % 3),
                       blob_data(value), blob_bytes(value));
    }
}

static void damage_one(const struct damaged *damaged, const struct blob *value, uint64_t which)
{
    const enum store_family family = damaged->family;
    const bool is_mark =
        family == STORE_CONCLUDED && damaged->key_bytes == RECORD_MARK_KEY_BYTES;
    if (is_mark) {
        damage_mark(damaged, value, which);
    } else if (which % 3 == 0 && damage_cache(damaged, value, which / 3)) {
        return;
    } else if (which % 2 == 0 && family != STORE_META) {
        damage_bytes(damaged, value, which / 2);
    } else if (family == STORE_JOBS && which % 3 == 0) {
        add_field(damaged, value);
    } else if (family == STORE_JOBS) {
        damage_job(damaged, value, which % 22);
    } else if (family == STORE_LEASES) {
        repeat_lease(damaged, value, which / 2);
    } else if (family == STORE_CONCLUDED) {
        damage_concluded(damaged, value, which);
    } else if (family == STORE_META && which % KEY_DAMAGES == 0) {
        damage_pause(damaged, which / KEY_DAMAGES);
    } else if (family == STORE_META && which % KEY_DAMAGES == 1) {
        damage_upstream(damaged, which / KEY_DAMAGES);
    } else if (family == STORE_META && which % KEY_DAMAGES == 2) {
        read_foreign(damaged, which / KEY_DAMAGES);
    } else if (family == STORE_META && which % KEY_DAMAGES == 4) {
        damage_invalidations(damaged);
    } else if (family == STORE_META && which % KEY_DAMAGES == 3) {
        damage_evidence(damaged, which / KEY_DAMAGES);
    } else if (family == STORE_META) {
        damage_horizon(damaged, which / KEY_DAMAGES);
    }
}

void damage_restore(struct simulation *simulation, enum store_family family, const void *key,
                    size_t key_bytes, const struct blob *value)
{
    const struct damaged damaged = {simulation, family, key, key_bytes};
    for (int i = 0; i < DAMAGES_AT_ONCE; i++) {
        damage_one(&damaged, value, dice_next(&simulation->dice) >> 8);
    }
}

static bool names_a_job(const struct effect *effect, struct id *ret_id)
{
    int64_t unix_ms;
    if (effect->as.load.family == STORE_PAYLOADS) {
        memcpy(ret_id->bytes, effect->as.load.key, ID_BYTES);
        return true;
    }
    return record_read_time_key(effect->as.load.key, effect->as.load.key_bytes, &unix_ms, ret_id) ==
           0;
}

/* Of a payload only its length tells. */
static size_t spoil(enum store_family family, uint64_t which, uint8_t *value, size_t bytes)
{
    if (family == STORE_PAYLOADS || which == 1) {
        return bytes - 1;
    }
    if (which == 2) {
        return RECORD_RESULT_HEAD_BYTES - 1;
    }
    if (which == 3) {
        value[0]++; /* its version */
    } else if (which == 4) {
        value[1] = 0xff; /* the length of its head */
    } else {
        value[RECORD_RESULT_HEAD_BYTES] = 0xff; /* its first tag */
    }
    return bytes;
}

void damage_load(struct simulation *simulation, const struct effect *effect,
                 struct message *message)
{
    struct id id = {0};
    const uint32_t index = names_a_job(effect, &id) ? simulation_job_of(simulation, &id) : NO_JOB;
    const size_t bytes = blob_bytes(message->payload);
    uint8_t value[COPY_BYTES_MAX];
    if (index == NO_JOB || bytes > sizeof(value)) {
        return;
    }
    const enum store_family family = effect->as.load.family;
    const uint64_t which = dice_below(&simulation->dice, READ_DAMAGES);
    memcpy(value, blob_data(message->payload), bytes);
    blob_unref(&message->payload);
    if (which == 0) {
        message->number = -EBADMSG;
    } else if (blob_create(value, spoil(family, which, value, bytes), &message->payload) < 0) {
        (void)must(NULL);
    }
    simulation->tally.damaged++;
    simulation->broker.has_damage = true;
    simulation->jobs[index].has_spoilt_payload |= family == STORE_PAYLOADS;
    simulation->jobs[index].result_is_gone |= family == STORE_RESULTS;
}
