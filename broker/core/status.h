/*
 * status: where a job stands, for whoever asks for it.
 */
#pragma once
#include "broker/core/state.h"

/* A status with this state and nothing else in it; valid until the next effect is added. */
struct effect *status_add(struct core *core, uint64_t peer, const struct id *job_id, Wire__JobState state);
/* Of a job that is pending. */
void status_send_pending(struct core *core, uint64_t peer, const struct job *job);
/* Sends where the job is, whatever that is. Jobs of others are unknown. */
void status_send(struct core *core, const struct client *client, const struct id *job_id);
