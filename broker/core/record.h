/*
 * record: what is stored, as bytes: a version byte, then a message of proto/records.proto.
 *
 * A result is: version byte, length of the ResultRecord (4 bytes, big-endian), ResultRecord, payload. The readers take bytes
 * from a disk: anything may be in them, and what does not hold together is -EBADMSG. Keys are built here too.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/id.h"
#include "proto/records.pb-c.h"

enum {
    RECORD_VERSION = 1,
    RECORD_RESULT_HEAD_BYTES = 5,
    RECORD_TIME_KEY_BYTES = 8 + ID_BYTES,
    RECORD_MARK_KEY_BYTES = RECORD_TIME_KEY_BYTES + 1,
    RECORD_ATTEMPT_KEY_BYTES = ID_BYTES + 4,
    CHARGE_STATE_LAST = 3, /* of charge.h */
};

/* Room for record_write(). */
size_t record_bytes(const ProtobufCMessage *message);
void record_write(const ProtobufCMessage *message, uint8_t *ret_bytes);
/* The same for what stands before the payload of a result. */
size_t record_result_head_bytes(const Record__ResultRecord *result);
void record_write_result_head(const Record__ResultRecord *result, uint8_t *ret_bytes);

/*
 * Gives: the message, in memory of `allocator`; ids have their length, enums a known value, names are not empty.
 * Errors: -EBADMSG damaged, or of a later version; -ENOMEM is not told apart from damage by protobuf-c.
 */
MUST_USE int record_read_job(const void *data, size_t bytes, ProtobufCAllocator *allocator, Record__JobRecord **ret_job);
MUST_USE int record_read_lease(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                               Record__LeaseRecord **ret_lease);
MUST_USE int record_read_attempt(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                                 Record__AttemptRecord **ret_attempt);
MUST_USE int record_read_concluded(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                                   Record__ConcludedRecord **ret_concluded);
MUST_USE int record_read_pause(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                               Record__PauseRecord **ret_pause);
MUST_USE int record_read_upstream(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                                  Record__UpstreamRecord **ret_upstream);
MUST_USE int record_read_cache_log(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                                   Record__CacheLogRecord **ret_log);
MUST_USE int record_read_cache_invalidation(const void *data, size_t bytes,
                                            ProtobufCAllocator *allocator,
                                            Record__CacheInvalidationRecord **ret_invalidation);
MUST_USE int record_read_cache_evidence(const void *data, size_t bytes,
                                        ProtobufCAllocator *allocator,
                                        Record__CacheEvidenceRecord **ret_evidence);
MUST_USE int record_read_learning(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                                  Record__LearningRecord **ret_learning);
MUST_USE int record_read_ledger(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                                Record__LedgerRecord **ret_row);
MUST_USE int record_read_upkeep(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                                Record__UpkeepRecord **ret_row);
MUST_USE int record_read_budget(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                                Record__BudgetRecord **ret_budget);
MUST_USE int record_read_charge(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                                Record__ChargeRecord **ret_charge);
/* Gives besides: where the payload begins; its length is in the record and checked. */
MUST_USE int record_read_result(const void *data, size_t bytes, ProtobufCAllocator *allocator,
                                Record__ResultRecord **ret_result, size_t *ret_payload_offset);

/* Keys of `concluded` and `results`: time first, so that they expire by ranges. */
void record_write_time_key(int64_t unix_ms, const struct id *job_id, uint8_t ret_key[RECORD_TIME_KEY_BYTES]);
MUST_USE int record_read_time_key(const void *key, size_t key_bytes, int64_t *ret_unix_ms, struct id *ret_job_id);
/*
 * Marks beside a conclusion, in `concluded`: its key and one byte more, so that a scan meets them next and the same ranges
 * delete them. Its result was collected: 1, and the value is the version byte. Feedback was given on it: 2, and a byte
 * with the score follows.
 */
void record_write_collected_key(int64_t unix_ms, const struct id *job_id, uint8_t ret_key[RECORD_MARK_KEY_BYTES]);
void record_write_feedback_key(int64_t unix_ms, const struct id *job_id, uint8_t ret_key[RECORD_MARK_KEY_BYTES]);
bool record_key_is_feedback(const uint8_t key[RECORD_MARK_KEY_BYTES]);
/* `ordinal` counts the attempts that were kept, from 1. */
void record_write_attempt_key(const struct id *job_id, uint32_t ordinal, uint8_t ret_key[RECORD_ATTEMPT_KEY_BYTES]);
