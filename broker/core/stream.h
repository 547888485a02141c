/*
 * stream: the chunks of a running attempt: handed on to whoever streams, and kept for those who join late.
 *
 * Each waiter that streams has a cursor, so that it gets the chunks in order and without a gap, from the first one, as far as
 * its credit goes; what it could not take yet comes out of the log. The log is bounded, by itself and with all others. At its bound, chunks that
 * every reader has had are dropped, and then those that one of them has had; who lacks one of these, or joins later, gets no more chunks of
 * this attempt, only the result, which is always whole. When the bound cannot be kept so, all of the log goes. What is left of it
 * when the attempt has answered is stream_rest's; otherwise it ends with the attempt.
 *
 * The worker may send as much as the log may have beyond what the furthest reader was sent (StreamAllowance), so readers without credit
 * hold the provider, and nothing is lost to them. Where a reader is not held, or somebody waits for the result alone, nobody holds it.
 *
 * On a tier in memory a job that was asked for as a stream, whose stream has begun, and for which nobody waits any more is cancelled
 * ("abandoned"), since its client is what would keep it: STREAM_UNREAD_HEARTBEATS after that was noticed, so that a client whose connection broke may come back. On durable tiers
 * it goes on: its result is kept for whoever asks.
 *
 * Followers of the job stream with it (flight.h). Their chunks name their own job and an attempt number of their own, taken for each of the
 * leader's attempts, so that a client cannot mistake one attempt for another when its job is promoted.
 */
#pragma once
#include <stdbool.h>
#include "broker/core/state.h"

struct lease;

struct outcome;

enum {
    STREAM_UNREAD_HEARTBEATS = 2,
    STREAM_LOGS_BYTES_MAX = 64 << 20, /* of all streams */
};

/* What a worker may send of a stream before it is allowed more; 0: all. */
uint64_t stream_allowance(const struct core *core);

/* A chunk of the attempt that holds the lease. */
void stream_chunk(struct core *core, struct job *job, const struct event *event);
/* A waiter of this job streams from now on, or may get more chunks: it has what the log holds by the end of the turn. */
void stream_wanted(struct core *core, struct job *job);
/* Whether a worker that runs this job is to send chunks: for itself, or for those that follow it. */
bool stream_is_asked_for(const struct core *core, const struct job *job);
/* Whether somebody who waits for this job streams. */
bool stream_is_wanted(const struct job *job);
/* The job of a leased attempt is concluded: what its readers had no credit for is kept for them, if that attempt is its answer. */
void stream_conclude(struct core *core, const struct job *job, const struct outcome *outcome);
/* Its worker has sent all that it may, and waits for the readers: how long it takes says nothing about the provider. */
bool stream_is_held(const struct lease *lease);
/* How many of all streams are. Looks at each of them. */
size_t stream_count_held(const struct core *core);
/*
 * The worker of this lease has come back, and has sent so many chunks of it; 0: it has not said. It goes by what it was told before, as far as
 * that has reached it, or by nothing.
 */
void stream_handed_over(struct core *core, struct lease *lease, uint32_t chunks);
/* The attempt ended: drops its log. */
void stream_end(struct core *core, struct lease *lease);
/* Sends what is lacking, and cancels what nobody reads. False: a bound was reached. */
bool stream_tick(struct core *core);
int64_t stream_next_deadline_ms(const struct core *core); /* INT64_MAX: none */
