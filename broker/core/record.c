#include "broker/core/record.h"
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "broker/core/core.h"
#include "broker/core/job.h"
#include "proto/wire.pb-c.h"

enum { HASH_BYTES = 16, TRACE_BYTES = 24, MARK_COLLECTED = 1, MARK_FEEDBACK = 2 };

size_t record_bytes(const ProtobufCMessage *message)
{
    return 1 + protobuf_c_message_get_packed_size(message);
}

void record_write(const ProtobufCMessage *message, uint8_t *ret_bytes)
{
    ret_bytes[0] = RECORD_VERSION;
    (void)protobuf_c_message_pack(message, ret_bytes + 1);
}

size_t record_result_head_bytes(const Record__ResultRecord *result)
{
    return RECORD_RESULT_HEAD_BYTES + protobuf_c_message_get_packed_size(&result->base);
}

void record_write_result_head(const Record__ResultRecord *result, uint8_t *ret_bytes)
{
    ret_bytes[0] = RECORD_VERSION;
    const uint32_t length = htobe32(
        (uint32_t)protobuf_c_message_pack(&result->base, ret_bytes + RECORD_RESULT_HEAD_BYTES));
    memcpy(ret_bytes + 1, &length, sizeof(length));
}

/* protobuf-c takes the illegal field number 0 for an unknown field, and writes it so that it cannot
 * be read again. */
static bool has_field_zero(const ProtobufCMessage *message)
{
    for (unsigned i = 0; i < message->n_unknown_fields; i++) {
        if (message->unknown_fields[i].tag == 0) {
            return true;
        }
    }
    return false;
}

static void *unpack(const ProtobufCMessageDescriptor *descriptor, const void *data, size_t bytes,
                    ProtobufCAllocator *allocator)
{
    const uint8_t *record = data;
    if (bytes == 0 || record[0] != RECORD_VERSION) {
        return NULL;
    }
    ProtobufCMessage *message =
        protobuf_c_message_unpack(descriptor, allocator, bytes - 1, record + 1);
    if (message != NULL && has_field_zero(message)) {
        protobuf_c_message_free_unpacked(message, allocator);
        return NULL;
    }
    return message;
}

static bool is_empty_or(const ProtobufCBinaryData *field, size_t bytes)
{
    return field->len == 0 || field->len == bytes;
}

static bool job_holds(const Record__JobRecord *job)
{
    struct id id;
    return id_from_bytes(job->job_id.data, job->job_id.len, &id) == 0 && job->tenant[0] != '\0' &&
           job->tier[0] != '\0' && job->route[0] != '\0' && job->pool[0] != '\0' &&
           job->priority <= 9 && job->state <= WIRE__JOB_STATE__JOB_STATE_COLLECTED &&
           job->attempts_max <= UINT16_MAX && job->attempts <= UINT16_MAX &&
           job->lost_leases <= UINT16_MAX && job->sequence < UINT64_C(1) << 56 &&
           is_empty_or(&job->idempotency_hash, HASH_BYTES) &&
           is_empty_or(&job->canonical_key, HASH_BYTES) &&
           is_empty_or(&job->trace_parent, TRACE_BYTES) && job->history <= UINT16_MAX &&
           job->died_unix_ms >= 0 && job->submitted_unix_ms >= 0 && job->deadline_unix_ms >= 0 &&
           job->not_before_unix_ms >= 0 && job->complexity <= UINT8_MAX &&
           job->abilities <= UINT8_MAX && job->prefix <= JOB_PREFIXES;
}

int record_read_job(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                    Record__JobRecord **ret_job)
{
    Record__JobRecord *job = unpack(&record__job_record__descriptor, data, bytes, allocator);
    if (job == NULL || !job_holds(job)) {
        return -EBADMSG;
    }
    *ret_job = job;
    return 0;
}

int record_read_lease(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                      Record__LeaseRecord **ret_lease)
{
    Record__LeaseRecord *lease = unpack(&record__lease_record__descriptor, data, bytes, allocator);
    if (lease == NULL) {
        return -EBADMSG;
    }
    *ret_lease = lease;
    return 0;
}

int record_read_attempt(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                        Record__AttemptRecord **ret_attempt)
{
    Record__AttemptRecord *attempt =
        unpack(&record__attempt_record__descriptor, data, bytes, allocator);
    if (attempt == NULL) {
        return -EBADMSG;
    }
    *ret_attempt = attempt;
    return 0;
}

int record_read_concluded(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                          Record__ConcludedRecord **ret_concluded)
{
    Record__ConcludedRecord *concluded =
        unpack(&record__concluded_record__descriptor, data, bytes, allocator);
    if (concluded == NULL || concluded->tenant[0] == '\0' ||
        !is_empty_or(&concluded->idempotency_hash, HASH_BYTES) ||
        concluded->state < WIRE__JOB_STATE__JOB_STATE_SUCCEEDED ||
        concluded->state > WIRE__JOB_STATE__JOB_STATE_EXPIRED || concluded->cache > UINT8_MAX ||
        concluded->complexity > UINT8_MAX) {
        return -EBADMSG;
    }
    *ret_concluded = concluded;
    return 0;
}

int record_read_pause(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                      Record__PauseRecord **ret_pause)
{
    Record__PauseRecord *pause = unpack(&record__pause_record__descriptor, data, bytes, allocator);
    if (pause == NULL || pause->subject[0] == '\0') {
        return -EBADMSG;
    }
    *ret_pause = pause;
    return 0;
}

int record_read_upstream(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                         Record__UpstreamRecord **ret_upstream)
{
    Record__UpstreamRecord *upstream =
        unpack(&record__upstream_record__descriptor, data, bytes, allocator);
    if (upstream == NULL || upstream->provider[0] == '\0' || upstream->model[0] == '\0' ||
        upstream->open_until_unix_ms < 0 || upstream->limited_until_unix_ms < 0) {
        return -EBADMSG;
    }
    *ret_upstream = upstream;
    return 0;
}

int record_read_result(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                       Record__ResultRecord **ret_result, size_t *ret_payload_offset)
{
    const uint8_t *record = data;
    if (bytes < RECORD_RESULT_HEAD_BYTES || record[0] != RECORD_VERSION) {
        return -EBADMSG;
    }
    uint32_t length;
    memcpy(&length, record + 1, sizeof(length));
    length = be32toh(length);
    if (length > bytes - RECORD_RESULT_HEAD_BYTES) {
        return -EBADMSG;
    }
    Record__ResultRecord *result =
        record__result_record__unpack(allocator, length, record + RECORD_RESULT_HEAD_BYTES);
    if (result == NULL || result->payload_bytes != bytes - RECORD_RESULT_HEAD_BYTES - length) {
        return -EBADMSG;
    }
    *ret_result = result;
    *ret_payload_offset = RECORD_RESULT_HEAD_BYTES + length;
    return 0;
}

void record_write_time_key(int64_t unix_ms, const struct id *job_id,
                           uint8_t ret_key[RECORD_TIME_KEY_BYTES])
{
    const uint64_t time = htobe64((uint64_t)unix_ms);
    memcpy(ret_key, &time, sizeof(time));
    memcpy(ret_key + sizeof(time), job_id->bytes, ID_BYTES);
}

void record_write_collected_key(int64_t unix_ms, const struct id *job_id,
                                uint8_t ret_key[RECORD_MARK_KEY_BYTES])
{
    record_write_time_key(unix_ms, job_id, ret_key);
    ret_key[RECORD_TIME_KEY_BYTES] = MARK_COLLECTED;
}

void record_write_feedback_key(int64_t unix_ms, const struct id *job_id,
                               uint8_t ret_key[RECORD_MARK_KEY_BYTES])
{
    record_write_time_key(unix_ms, job_id, ret_key);
    ret_key[RECORD_TIME_KEY_BYTES] = MARK_FEEDBACK;
}

bool record_key_is_feedback(const uint8_t key[RECORD_MARK_KEY_BYTES])
{
    return key[RECORD_TIME_KEY_BYTES] == MARK_FEEDBACK;
}

int record_read_time_key(const void *key, size_t key_bytes, int64_t *ret_unix_ms,
                         struct id *ret_job_id)
{
    uint64_t time;
    if (key_bytes != RECORD_TIME_KEY_BYTES) {
        return -EBADMSG;
    }
    memcpy(&time, key, sizeof(time));
    time = be64toh(time);
    struct id id;
    if (time > INT64_MAX || id_from_bytes((const uint8_t *)key + sizeof(time), ID_BYTES, &id) < 0) {
        return -EBADMSG;
    }
    *ret_unix_ms = (int64_t)time;
    *ret_job_id = id;
    return 0;
}

void record_write_attempt_key(const struct id *job_id, uint32_t ordinal,
                              uint8_t ret_key[RECORD_ATTEMPT_KEY_BYTES])
{
    const uint32_t number = htobe32(ordinal);
    memcpy(ret_key, job_id->bytes, ID_BYTES);
    memcpy(ret_key + ID_BYTES, &number, sizeof(number));
}

int record_read_cache_log(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                          Record__CacheLogRecord **ret_log)
{
    Record__CacheLogRecord *log =
        unpack(&record__cache_log_record__descriptor, data, bytes, allocator);
    if (log == NULL || log->epoch.len != CACHE_EPOCH_BYTES || log->forgotten > log->sequence ||
        log->sequence == UINT64_MAX) {
        return -EBADMSG;
    }
    *ret_log = log;
    return 0;
}

int record_read_cache_invalidation(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                                   Record__CacheInvalidationRecord **ret_invalidation)
{
    Record__CacheInvalidationRecord *invalidation =
        unpack(&record__cache_invalidation_record__descriptor, data, bytes, allocator);
    if (invalidation == NULL || invalidation->at_unix_ms < 0) {
        return -EBADMSG;
    }
    *ret_invalidation = invalidation;
    return 0;
}

int record_read_cache_evidence(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                               Record__CacheEvidenceRecord **ret_evidence)
{
    Record__CacheEvidenceRecord *evidence =
        unpack(&record__cache_evidence_record__descriptor, data, bytes, allocator);
    if (evidence == NULL || evidence->evidence.len == 0) {
        return -EBADMSG;
    }
    *ret_evidence = evidence;
    return 0;
}

int record_read_learning(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                         Record__LearningRecord **ret_learning)
{
    Record__LearningRecord *learning =
        unpack(&record__learning_record__descriptor, data, bytes, allocator);
    if (learning == NULL || learning->tenant[0] == '\0' || learning->task[0] == '\0' ||
        learning->model[0] == '\0') {
        return -EBADMSG;
    }
    *ret_learning = learning;
    return 0;
}

int record_read_ledger(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                       Record__LedgerRecord **ret_row)
{
    Record__LedgerRecord *row = unpack(&record__ledger_record__descriptor, data, bytes, allocator);
    if (row == NULL || row->day > INT32_MAX) {
        return -EBADMSG;
    }
    *ret_row = row;
    return 0;
}

int record_read_upkeep(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                       Record__UpkeepRecord **ret_row)
{
    Record__UpkeepRecord *row = unpack(&record__upkeep_record__descriptor, data, bytes, allocator);
    if (row == NULL || row->day > INT32_MAX) {
        return -EBADMSG;
    }
    *ret_row = row;
    return 0;
}

int record_read_budget(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                       Record__BudgetRecord **ret_budget)
{
    Record__BudgetRecord *budget =
        unpack(&record__budget_record__descriptor, data, bytes, allocator);
    if (budget == NULL || budget->day > INT32_MAX - 1 || budget->month > INT16_MAX) {
        return -EBADMSG;
    }
    *ret_budget = budget;
    return 0;
}

int record_read_charge(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                       Record__ChargeRecord **ret_charge)
{
    Record__ChargeRecord *charge =
        unpack(&record__charge_record__descriptor, data, bytes, allocator);
    if (charge == NULL || charge->state > CHARGE_STATE_LAST || charge->day > INT32_MAX) {
        return -EBADMSG;
    }
    *ret_charge = charge;
    return 0;
}
