/*
 * status: where a job stands, for whoever asks for it: how many are ahead of it, when it may start, and why it waits.
 *
 * Asking costs the same however long the queue is: of a heap that is larger than POSITION_SCANNED_MAX a sample is counted.
 */
#pragma once
#include "broker/core/state.h"

enum {
    STATUS_WHY_BYTES = CORE_WHY_BYTES,
    POSITION_SCANNED_MAX = 16384, /* ready jobs of one tenant in one queue that are looked at one by one */
};

struct status_view {
    int64_t waits_ms;      /* until not_before, when backing off */
    uint64_t position;     /* READY: ready jobs of its tenant that go before it in its queue; exact up to POSITION_SCANNED_MAX */
    bool has_estimate;     /* of starts_in_ms */
    int64_t starts_in_ms;  /* 0: now */
    char why[STATUS_WHY_BYTES];
};

/* Of a job that is pending. */
void status_read(const struct core *core, const struct job *job, int64_t now_ms, struct status_view *ret_view);

/* A status with this state and nothing else in it; valid until the next effect is added. */
struct effect *status_add(struct core *core, uint64_t peer, const struct id *job_id, Wire__JobState state);
/* Of a job that is pending. */
void status_send_pending(struct core *core, uint64_t peer, const struct job *job);
/* Sends where the job is, whatever that is. Jobs of others are unknown. */
void status_send(struct core *core, const struct client *client, const struct id *job_id);
