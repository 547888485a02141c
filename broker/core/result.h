/*
 * result: what is kept of concluded jobs: the id for the deduplication window, the result for result_ttl.
 *
 * Results of durable tiers are on disk only and loaded when asked for; those of tiers in memory are kept packed. Both are
 * bounded in bytes, oldest first, and dropped when collected. What expires is deleted by ranges of time.
 */
#pragma once
#include "broker/core/conclude.h"
#include "broker/core/state.h"

struct kept_result {
    struct table_link by_id;
    struct list_link by_age;
    struct id job_id;
    int64_t kept_ms;
    struct blob *payload; /* NULL: none */
    size_t packed_bytes;
    uint8_t packed[];     /* wire.Result */
};

uint64_t result_hash(const struct table_link *link, uint64_t seed);
/* Remembers the id of a job that is being concluded and keeps its result, unless it is to be discarded. */
void result_keep(struct core *core, const struct job *job, const struct effect_result *result);

/*
 * Takes the conclusion of a dead letter back, with its result and their records: the job lives again. Its idempotency key goes on
 * referring to it. `at_unix_ms` is when that was; 0: not known.
 */
void result_withdraw(struct core *core, const struct job *job, int64_t at_unix_ms);
/* It was not run, and may be submitted again. Such are noted together: overload.h. */
bool result_is_shed(const struct effect_result *result);
/* Lets a job that was shed be submitted again under the same id: nothing remains of its conclusion. */
void result_reopen(struct core *core, struct concluded_entry *entry);
/* Lets another job have its idempotency key; what became of it can still be asked for. */
void result_release_key(struct core *core, struct concluded_entry *entry);
/*
 * The batch that an answer about a concluded job has to wait for, since it promises that the conclusion, and
 * even the acceptance, is kept. 0 for a job in memory: nothing is.
 */
uint64_t result_promised_batch(const struct core *core, const struct id *job_id);

/* Sends the outcome of a job that is not pending: its Result, or COLLECTED; JobStatus when the id is unknown. */
void result_send(struct core *core, const struct client *client, const struct id *job_id);

/* Events. */
void result_wait(struct core *core, const struct event *event);
void result_collected(struct core *core, const struct event *event);
void result_loaded(struct core *core, const struct load *load, int error, struct blob *value);

/* Forgets what is too old and deletes its records; at most TIMERS_PER_TICK of each. */
void result_tick(struct core *core);
int64_t result_next_deadline_ms(const struct core *core);
void result_destroy_all(struct core *core);
/* Makes room for one more id. */
void result_make_room(struct core *core);
void result_forget_oldest(struct core *core);

/* At most once a second of each. */
enum bound { BOUND_RESULTS, BOUND_DEAD_LETTERS, BOUND_IDS };
void result_note_bound(struct core *core, enum bound bound);
