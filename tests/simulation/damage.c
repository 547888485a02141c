#include "tests/simulation/damage.h"
#include <errno.h>
#include <string.h>
#include "broker/core/core.h"
#include "broker/core/record.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/memory.h"

enum { KEY_DAMAGES = 3 };

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

static char none[] = "";

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
}

static void damage_horizon(const struct damaged *damaged, uint64_t which)
{
    uint8_t value[9] = {RECORD_VERSION, 0x80};
    value[0] = which % 3 == 0 ? 0 : RECORD_VERSION;
    expect_refused(&(struct damaged){damaged->simulation, STORE_META, NULL, 0}, "horizon", 7, value,
                   which % 3 == 1 ? sizeof(value) - 1 : sizeof(value));
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

void damage_restore(struct simulation *simulation, enum store_family family, const void *key,
                    size_t key_bytes, const struct blob *value)
{
    const struct damaged damaged = {simulation, family, key, key_bytes};
    const uint64_t which = dice_next(&simulation->dice) >> 8;
    if (which % 2 == 0 && family != STORE_META && key_bytes != RECORD_COLLECTED_KEY_BYTES) {
        damage_bytes(&damaged, value, which / 2);
    } else if (family == STORE_JOBS) {
        damage_job(&damaged, value, which % 18);
    } else if (family == STORE_CONCLUDED) {
        damage_concluded(&damaged, value, which);
    } else if (family == STORE_META && which % KEY_DAMAGES == 0) {
        damage_pause(&damaged, which / KEY_DAMAGES);
    } else if (family == STORE_META && which % KEY_DAMAGES == 1) {
        damage_upstream(&damaged, which / KEY_DAMAGES);
    } else if (family == STORE_META) {
        damage_horizon(&damaged, which / KEY_DAMAGES);
    }
}
