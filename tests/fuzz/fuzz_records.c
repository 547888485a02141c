/* What a disk gives back: the first byte chooses the kind of record, the rest is the record. */
#include "broker/core/record.h"
#include "common/arena.h"
#include "tests/fuzz/fuzz.h"

enum { ARENA_BYTES_MAX = 8 << 20, KINDS = 8 };

static void read_result(const uint8_t *data, size_t bytes, ProtobufCAllocator *allocator)
{
    Record__ResultRecord *result;
    size_t offset;
    if (record_read_result(data, bytes, allocator, &result, &offset) == 0) {
        must_hold(offset <= bytes && bytes - offset == result->payload_bytes);
    }
}

static void read_job(const uint8_t *data, size_t bytes, ProtobufCAllocator *allocator)
{
    Record__JobRecord *job, *again;
    if (record_read_job(data, bytes, allocator, &job) < 0) {
        return;
    }
    must_hold(job->job_id.len == ID_BYTES);
    const size_t written_bytes = record_bytes(&job->base);
    uint8_t *written = malloc(written_bytes);
    must_hold(written != NULL);
    record_write(&job->base, written);
    must_hold(record_read_job(written, written_bytes, allocator, &again) == 0);
    free(written);
}

/* It stays in a ring: what was read can be written and read again. */
static void read_attempt(const uint8_t *data, size_t bytes, ProtobufCAllocator *allocator)
{
    Record__AttemptRecord *attempt, *again;
    if (record_read_attempt(data, bytes, allocator, &attempt) < 0) {
        return;
    }
    const size_t written_bytes = record_bytes(&attempt->base);
    uint8_t *written = malloc(written_bytes);
    must_hold(written != NULL);
    record_write(&attempt->base, written);
    must_hold(record_read_attempt(written, written_bytes, allocator, &again) == 0);
    free(written);
}

static void read_time_key(const uint8_t *data, size_t bytes)
{
    int64_t unix_ms;
    struct id id;
    uint8_t again[RECORD_TIME_KEY_BYTES];
    if (record_read_time_key(data, bytes, &unix_ms, &id) == 0) {
        record_write_time_key(unix_ms, &id, again);
        for (size_t i = 0; i < sizeof(again); i++) {
            must_hold(again[i] == data[i]);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct arena *arena;
    Record__LeaseRecord *lease;
    Record__ConcludedRecord *concluded;
    Record__PauseRecord *pause;
    Record__UpstreamRecord *upstream;
    if (bytes == 0 || arena_create(ARENA_BYTES_MAX, &arena) < 0) {
        return 0;
    }
    ProtobufCAllocator *allocator = arena_protobuf_allocator(arena);
    const uint8_t *record = data + 1;
    const size_t record_length = bytes - 1;
    switch (data[0] % KINDS) {
    case 0:
        read_job(record, record_length, allocator);
        break;
    case 1:
        (void)!record_read_lease(record, record_length, allocator, &lease);
        break;
    case 2:
        read_attempt(record, record_length, allocator);
        break;
    case 3:
        (void)!record_read_concluded(record, record_length, allocator, &concluded);
        break;
    case 4:
        (void)!record_read_pause(record, record_length, allocator, &pause);
        break;
    case 5:
        read_result(record, record_length, allocator);
        break;
    case 6:
        read_time_key(record, record_length);
        break;
    default:
        (void)!record_read_upstream(record, record_length, allocator, &upstream);
        break;
    }
    arena_destroy(&arena);
    return 0;
}
