/*
 * concluded: the ids of concluded jobs, remembered for the deduplication window, oldest first.
 *
 * A ring in chunks with a hash index over it: 44 bytes an id and 8 to 16 of index, no allocation for each. When ids_max are
 * there the oldest is forgotten, so the window shrinks. horizon_unix_ms is when the latest forgotten one was
 * concluded: an id whose own time is not later may be one of the forgotten.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/id.h"

enum concluded_flag {
    CONCLUDED_DURABLE = 1,
    CONCLUDED_RESULT_ON_DISK = 2,
    CONCLUDED_RESULT_IN_MEMORY = 4,
    CONCLUDED_HAS_KEY = 8,
    CONCLUDED_TIER_SHIFT = 4, /* the upper half: the tier's index */
};

struct concluded_entry {
    struct id id;
    uint32_t at;           /* low bits of the Unix milliseconds */
    uint32_t result_bytes; /* on disk */
    uint32_t next;         /* in the chain of its bucket: low bits of the number */
    uint32_t attempt;      /* whose answer was its success; 0: none */
    uint16_t tenant;
    uint8_t state : 7;     /* wire.JobState, or CONCLUDED_WITHDRAWN */
    uint8_t is_shed : 1;   /* never run: may be submitted again */
    uint8_t flags;
    /* What feedback on its answer counts for. */
    uint16_t route, model; /* indexes of core.routes and core.models, and 1; 0: not known */
    uint8_t task;          /* as struct job has it */
    uint8_t complexity;    /* as struct job_needs has it */
    uint8_t cache;         /* wire.CacheStatus */
    uint8_t score;         /* the feedback's: feedback.h; 0: none was given */
};

enum { CONCLUDED_CHUNK_LENGTH = 4096, CONCLUDED_WITHDRAWN = 127 };

struct concluded {
    struct concluded_entry **chunks;
    size_t chunks_length;
    struct concluded_entry *spare; /* the next chunk, taken ahead; NULL: there was no memory for it yet */
    uint32_t *buckets;
    size_t bucket_mask;
    uint64_t seed;
    uint64_t ids_max;
    uint64_t first, end;     /* numbers of the oldest and one beyond the latest */
    uint64_t results_from;   /* no entry before has a result */
    uint64_t results_disk_bytes;
    uint64_t results_on_disk;
    int64_t last_unix_ms;
    int64_t horizon_unix_ms; /* 0: none was forgotten */
};

MUST_USE int concluded_init(struct concluded *concluded, uint64_t ids_max, uint64_t seed); /* Errors: -ENOMEM */
void concluded_finish(struct concluded *concluded);
size_t concluded_length(const struct concluded *concluded);
struct concluded_entry *concluded_find(const struct concluded *concluded, const struct id *job_id);
/*
 * Adds an id that is not in it, or was shed; the caller has made room (concluded_is_full()). `unix_ms` never falls. Memory is taken
 * ahead, since what is concluded is under way. NULL: there was none for CONCLUDED_CHUNK_LENGTH ids on end; the id is then as good as
 * forgotten, and the horizon says so.
 */
struct concluded_entry *concluded_add(struct concluded *concluded, const struct id *job_id, int64_t unix_ms);
bool concluded_is_full(const struct concluded *concluded);
struct concluded_entry *concluded_oldest(const struct concluded *concluded); /* NULL: empty */
void concluded_forget_oldest(struct concluded *concluded);
/* The id is as if it had not been concluded, and may be added again; its place in the ring is forgotten in its turn. */
void concluded_withdraw(struct concluded *concluded, struct concluded_entry *entry);
int64_t concluded_unix_ms(const struct concluded *concluded, const struct concluded_entry *entry);

/* Marks the result on disk as gone and gives its bytes free. */
void concluded_drop_disk_result(struct concluded *concluded, struct concluded_entry *entry);
void concluded_keep_disk_result(struct concluded *concluded, struct concluded_entry *entry, uint32_t bytes);
/* The oldest entry from results_from on; NULL at the end. */
struct concluded_entry *concluded_results_oldest(const struct concluded *concluded);
static inline void concluded_set_state(struct concluded_entry *entry, uint8_t state, bool is_shed)
{
    entry->state = state & 0x7fu;
    entry->is_shed = is_shed;
}
static inline uint8_t concluded_tier(const struct concluded_entry *entry)
{
    return entry->flags >> CONCLUDED_TIER_SHIFT;
}
