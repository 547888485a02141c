/*
 * stream: the chunks of a running attempt: handed on to whoever streams, and kept for those who join late.
 *
 * Each waiter that streams has a cursor, so that it gets the chunks in order and without a gap, from the first one, as far as
 * its credit goes; what it could not take yet comes out of the log. The log is bounded, by itself and with all others; beyond a
 * bound it is dropped: who is up to date then goes on, who is not gets no more chunks of this attempt, only the result, which is
 * always whole. It goes when the attempt ends.
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

enum { STREAM_UNREAD_HEARTBEATS = 2 };

/* A chunk of the attempt that holds the lease. */
void stream_chunk(struct core *core, struct job *job, const struct event *event);
/* A waiter of this job streams from now on, or may get more chunks: it has what the log holds by the end of the turn. */
void stream_wanted(struct core *core, struct job *job);
/* Whether somebody who waits for this job streams. */
bool stream_is_wanted(const struct job *job);
/* The attempt ended: drops its log. */
void stream_end(struct core *core, struct lease *lease);
/* Sends what is lacking, and cancels what nobody reads. False: a bound was reached. */
bool stream_tick(struct core *core);
int64_t stream_next_deadline_ms(const struct core *core); /* INT64_MAX: none */
