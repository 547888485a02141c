#include "broker/core/history.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "broker/core/record.h"

/* Taken off a count that has no room to grow: whole turns of the ring, so that places stay. */
enum { COUNT_FOLD = HISTORY_LATEST * 2000 };

_Static_assert((int)HISTORY_MAX == (int)CORE_HISTORY_MAX, "operators see all of it");
_Static_assert((int)RECORD_ATTEMPT_KEY_BYTES == (int)CORE_HISTORY_KEY_BYTES,
               "and are told its keys");

struct entry {
    size_t bytes;
    uint8_t packed[]; /* as it would be stored */
};

struct history {
    struct table_link by_job;
    struct list_link by_age; /* the one that was touched last is last */
    struct id job_id;
    size_t bytes;
    struct entry *entries[HISTORY_MAX]; /* by ordinal, from 1; NULL: none, or forgotten */
};

/* ---- ordinals ---- */

/* Of the entry that was added as the `number`th, from 1. */
static uint32_t ordinal_of(uint32_t number)
{
    return number <= HISTORY_FIRST
               ? number
               : HISTORY_FIRST + 1 + (number - HISTORY_FIRST - 1) % HISTORY_LATEST;
}

uint32_t history_kept(uint32_t added)
{
    return added < HISTORY_MAX ? added : HISTORY_MAX;
}

uint32_t history_ordinal(uint32_t added, uint32_t position)
{
    const bool is_first = position < HISTORY_FIRST;
    return ordinal_of(is_first || added <= HISTORY_MAX ? position + 1
                                                       : added - HISTORY_MAX + position + 1);
}

/* ---- in memory ---- */

uint64_t history_hash(const struct table_link *link, uint64_t seed)
{
    return id_hash(&CONTAINER_OF((struct table_link *)link, struct history, by_job)->job_id, seed);
}

static struct history *find(const struct core *core, const struct id *job_id)
{
    struct table_link *link = table_first(&core->histories, id_hash(job_id, core->histories.seed));
    for (; link != NULL; link = link->next) {
        struct history *history = CONTAINER_OF(link, struct history, by_job);
        if (id_equal(&history->job_id, job_id)) {
            return history;
        }
    }
    return NULL;
}

static void free_history(struct history *history)
{
    for (size_t i = 0; i < HISTORY_MAX; i++) {
        free(history->entries[i]);
    }
    free(history);
}

static void drop(struct core *core, struct history *history)
{
    core->histories_bytes -= history->bytes;
    table_remove(&core->histories, &history->by_job);
    list_remove(&core->histories_by_age, &history->by_age);
    free_history(history);
}

static struct history *oldest(const struct core *core)
{
    struct list_link *link = list_first(&core->histories_by_age);
    return link == NULL ? NULL : CONTAINER_OF(link, struct history, by_age);
}

static struct history *find_or_make(struct core *core, const struct id *job_id)
{
    struct history *history = find(core, job_id);
    if (history != NULL) {
        list_remove(&core->histories_by_age, &history->by_age);
        list_append(&core->histories_by_age, &history->by_age);
        return history;
    }
    history = calloc(1, sizeof(*history));
    if (history == NULL) {
        return NULL;
    }
    history->job_id = *job_id;
    history->bytes = sizeof(*history);
    core->histories_bytes += history->bytes;
    table_insert(&core->histories, &history->by_job);
    list_append(&core->histories_by_age, &history->by_age);
    return history;
}

static void put_entry(struct core *core, struct history *history, uint32_t ordinal,
                      struct entry *entry)
{
    struct entry **at = &history->entries[ordinal - 1];
    const size_t before = *at == NULL ? 0 : sizeof(**at) + (*at)->bytes;
    const size_t after = sizeof(*entry) + entry->bytes;
    history->bytes += after - before;
    core->histories_bytes += after - before;
    free(*at);
    *at = entry;
}

/* Without memory the entry is missing: as if it had been forgotten. */
static void keep(struct core *core, const struct job *job, uint32_t ordinal,
                 const Record__AttemptRecord *record)
{
    const size_t bytes = record_bytes(&record->base);
    struct entry *entry = malloc(sizeof(*entry) + bytes);
    struct history *history = entry == NULL ? NULL : find_or_make(core, &job->id);
    if (history == NULL) {
        free(entry);
        return;
    }
    entry->bytes = bytes;
    record_write(&record->base, entry->packed);
    put_entry(core, history, ordinal, entry);
    const uint64_t bytes_max = core->limits.results_memory_bytes_max / HISTORY_MEMORY_SHARE;
    while (core->histories_bytes > bytes_max && oldest(core) != history) {
        drop(core, oldest(core));
    }
}

/* ---- for the modules ---- */

void history_add(struct core *core, struct job *job, const Record__AttemptRecord *record)
{
    const uint32_t number = job->history + 1u;
    const uint32_t ordinal = ordinal_of(number);
    job->history = (uint16_t)(number <= UINT16_MAX ? number : number - COUNT_FOLD);
    if ((job->flags & JOB_DURABLE) == 0) {
        keep(core, job, ordinal, record);
        return;
    }
    uint8_t key[RECORD_ATTEMPT_KEY_BYTES];
    record_write_attempt_key(&job->id, ordinal, key);
    core_put_record(core, STORE_ATTEMPTS, key, sizeof(key), &record->base);
}

void history_delete(struct core *core, const struct job *job)
{
    for (uint32_t ordinal = 1; ordinal <= history_kept(job->history); ordinal++) {
        uint8_t key[RECORD_ATTEMPT_KEY_BYTES];
        record_write_attempt_key(&job->id, ordinal, key);
        core_delete(core, STORE_ATTEMPTS, key, sizeof(key));
    }
}

void history_forget(struct core *core, const struct job *job)
{
    const bool may_have = job->history > 0 && (job->flags & JOB_DURABLE) == 0;
    struct history *history = may_have ? find(core, &job->id) : NULL;
    if (history != NULL) {
        drop(core, history);
    }
}

void history_destroy_all(struct core *core)
{
    struct history *history;
    while ((history = oldest(core)) != NULL) {
        list_remove(&core->histories_by_age, &history->by_age);
        free_history(history);
    }
}

/* ---- for operators ---- */

int core_view_history(const struct core *core, const struct id *job_id,
                      struct core_history_view *ret_view)
{
    const struct job *job = job_find(core, job_id);
    if (job == NULL) {
        return -ENOENT;
    }
    *ret_view = (struct core_history_view){
        .kept = history_kept(job->history),
        .omitted = job->history - history_kept(job->history),
        .is_on_disk = (job->flags & JOB_DURABLE) != 0,
    };
    const struct history *history = ret_view->is_on_disk ? NULL : find(core, job_id);
    for (uint32_t i = 0; i < ret_view->kept; i++) {
        const uint32_t ordinal = history_ordinal(job->history, i);
        struct core_history_entry *to = &ret_view->entries[i];
        record_write_attempt_key(job_id, ordinal, to->key);
        const struct entry *entry = history == NULL ? NULL : history->entries[ordinal - 1];
        to->packed = entry == NULL ? NULL : entry->packed;
        to->packed_bytes = entry == NULL ? 0 : entry->bytes;
    }
    return 0;
}
