#include "broker/core/concluded.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAMES (UINT64_C(0xFFFFFFFF))

_Static_assert(sizeof(struct concluded_entry) == 44, "a million of them are there");

static struct concluded_entry *make_chunk(void)
{
    return malloc(CONCLUDED_CHUNK_LENGTH * sizeof(struct concluded_entry));
}

/*
 * Two buckets an id or more, taken at once: the kernel gives the pages as they are touched. Most
 * look-ups are for ids that are not in it, and then find an empty bucket instead of a stranger
 * somewhere in memory. A chain is in order of age, latest first, so the oldest entry is the last of
 * its chain. Chains name an entry by its number modulo NAMES, plus one, so that 0, which fresh
 * pages hold, is the end.
 */
int concluded_init(struct concluded *concluded, uint64_t ids_max, uint64_t seed)
{
    assert(ids_max > 0);
    assert(ids_max < UINT32_MAX / 2);
    size_t buckets_length = CONCLUDED_CHUNK_LENGTH;
    while (buckets_length < ids_max * 2) {
        buckets_length *= 2;
    }
    const size_t chunks_length = ids_max / CONCLUDED_CHUNK_LENGTH + 2;
    *concluded = (struct concluded){
        .chunks = calloc(chunks_length, sizeof(struct concluded_entry *)),
        .chunks_length = chunks_length,
        .spare = make_chunk(),
        .buckets = calloc(buckets_length, sizeof(uint32_t)),
        .bucket_mask = buckets_length - 1,
        .seed = seed,
        .ids_max = ids_max,
    };
    if (concluded->chunks == NULL || concluded->buckets == NULL || concluded->spare == NULL) {
        concluded_finish(concluded);
        return -ENOMEM;
    }
    return 0;
}

void concluded_finish(struct concluded *concluded)
{
    for (size_t i = 0; concluded->chunks != NULL && i < concluded->chunks_length; i++) {
        free(concluded->chunks[i]);
    }
    free(concluded->chunks);
    free(concluded->spare);
    free(concluded->buckets);
    *concluded = (struct concluded){0};
}

size_t concluded_length(const struct concluded *concluded)
{
    return (size_t)(concluded->end - concluded->first);
}

static struct concluded_entry **chunk_of(const struct concluded *concluded, uint64_t number)
{
    return &concluded->chunks[(number / CONCLUDED_CHUNK_LENGTH) % concluded->chunks_length];
}

static struct concluded_entry *entry_at(const struct concluded *concluded, uint64_t number)
{
    return &(*chunk_of(concluded, number))[number % CONCLUDED_CHUNK_LENGTH];
}

/* Never 0, whatever the number. */
static uint32_t chain_name(uint64_t number)
{
    return (uint32_t)(number % NAMES) + 1;
}

/* The entry that a chain names, NULL at its end. */
static struct concluded_entry *chained(const struct concluded *concluded, uint32_t name)
{
    if (name == 0) {
        return NULL;
    }
    const uint64_t age = (concluded->end % NAMES + NAMES - (name - 1)) % NAMES; /* 1: the latest */
    return entry_at(concluded, concluded->end - age);
}

static uint32_t *bucket_of(const struct concluded *concluded, const struct id *job_id)
{
    return &concluded->buckets[id_hash(job_id, concluded->seed) & concluded->bucket_mask];
}

struct concluded_entry *concluded_find(const struct concluded *concluded, const struct id *job_id)
{
    struct concluded_entry *entry = chained(concluded, *bucket_of(concluded, job_id));
    while (entry != NULL && !id_equal(&entry->id, job_id)) {
        entry = chained(concluded, entry->next);
    }
    return entry;
}

bool concluded_is_full(const struct concluded *concluded)
{
    return concluded_length(concluded) >= concluded->ids_max;
}

static void raise_horizon(struct concluded *concluded, int64_t unix_ms)
{
    if (unix_ms > concluded->horizon_unix_ms) {
        concluded->horizon_unix_ms = unix_ms;
    }
}

struct concluded_entry *concluded_add(struct concluded *concluded, const struct id *job_id,
                                      int64_t unix_ms)
{
    assert(!concluded_is_full(concluded));
    struct concluded_entry **chunk = chunk_of(concluded, concluded->end);
    if (*chunk == NULL) {
        *chunk = concluded->spare != NULL ? TAKE(concluded->spare) : make_chunk();
    }
    if (concluded->spare == NULL) {
        concluded->spare = make_chunk();
    }
    if (*chunk == NULL) {
        raise_horizon(concluded, unix_ms);
        return NULL;
    }
    uint32_t *bucket = bucket_of(concluded, job_id);
    struct concluded_entry *entry = entry_at(concluded, concluded->end);
    *entry = (struct concluded_entry){.id = *job_id, .at = (uint32_t)unix_ms, .next = *bucket};
    *bucket = chain_name(concluded->end);
    concluded->end++;
    concluded->last_unix_ms = unix_ms;
    return entry;
}

struct concluded_entry *concluded_oldest(const struct concluded *concluded)
{
    return concluded->first == concluded->end ? NULL : entry_at(concluded, concluded->first);
}

/* Takes an entry out of its chain; of the oldest there is nothing behind it. */
static void unchain(struct concluded *concluded, const struct concluded_entry *gone)
{
    uint32_t *at = bucket_of(concluded, &gone->id);
    struct concluded_entry *entry = chained(concluded, *at);
    while (entry != gone) {
        assert(entry != NULL);
        at = &entry->next;
        entry = chained(concluded, *at);
    }
    *at = gone->next;
}

/* A withdrawn entry is in no chain any more. */
static bool is_withdrawn(const struct concluded_entry *entry)
{
    return entry->state == CONCLUDED_WITHDRAWN;
}

void concluded_withdraw(struct concluded *concluded, struct concluded_entry *entry)
{
    concluded_drop_disk_result(concluded, entry);
    unchain(concluded, entry);
    concluded_set_state(entry, CONCLUDED_WITHDRAWN, false);
    entry->flags &= (uint8_t) ~(CONCLUDED_HAS_KEY | CONCLUDED_RESULT_IN_MEMORY);
}

void concluded_forget_oldest(struct concluded *concluded)
{
    struct concluded_entry *oldest = concluded_oldest(concluded);
    concluded_drop_disk_result(concluded, oldest);
    raise_horizon(concluded, concluded_unix_ms(concluded, oldest));
    if (is_withdrawn(oldest)) {
        oldest->next = 0;
    } else {
        unchain(concluded, oldest);
    }
    const uint64_t number = concluded->first++;
    if (concluded->results_from < concluded->first) {
        concluded->results_from = concluded->first;
    }
    if (number / CONCLUDED_CHUNK_LENGTH != concluded->first / CONCLUDED_CHUNK_LENGTH) {
        struct concluded_entry **chunk = chunk_of(concluded, number);
        free(*chunk);
        *chunk = NULL;
    }
}

int64_t concluded_unix_ms(const struct concluded *concluded, const struct concluded_entry *entry)
{
    return concluded->last_unix_ms - (int64_t)((uint32_t)concluded->last_unix_ms - entry->at);
}

void concluded_drop_disk_result(struct concluded *concluded, struct concluded_entry *entry)
{
    if ((entry->flags & CONCLUDED_RESULT_ON_DISK) == 0) {
        return;
    }
    concluded->results_disk_bytes -= entry->result_bytes;
    concluded->results_on_disk--;
    entry->result_bytes = 0;
    entry->flags &= (uint8_t)~CONCLUDED_RESULT_ON_DISK;
}

void concluded_keep_disk_result(struct concluded *concluded, struct concluded_entry *entry,
                                uint32_t bytes)
{
    entry->flags |= CONCLUDED_RESULT_ON_DISK;
    entry->result_bytes = bytes;
    concluded->results_disk_bytes += bytes;
    concluded->results_on_disk++;
}

struct concluded_entry *concluded_results_oldest(const struct concluded *concluded)
{
    return concluded->results_from == concluded->end ? NULL
                                                     : entry_at(concluded, concluded->results_from);
}
