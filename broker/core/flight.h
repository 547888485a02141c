/*
 * flight: identical jobs, of which one runs for all.
 *
 * Identical are jobs of one flow (tenant, tier, pool, route) with the same canonical key, which must be like in what binds the choice of
 * their model: residency label and abilities. (The complexity does not: it is a matter of taste.) Not across tiers: those differ in the
 * choice of models, in urgency and in durability. The first to become READY leads; those that would become READY while it is pending
 * become FOLLOWING instead. A follower is a job in full, with record, payload, waiters and deadline of its own. That it follows is recorded nowhere:
 * after a restart whoever becomes READY first leads.
 *
 * When the leader succeeds, or an attempt of it ends it as a dead letter, the followers end alike: a bounded number in the same turn and
 * batch, the others in later turns, on a durable tier one batch after the other. A crash in between loses their share of the answer and
 * nothing else: they are still pending on disk and run, the first of them for the others again. When the leader ends in another way (cancelled,
 * expired, shed, lost with its workers), that says nothing about the others: the best follower (priority, then age) leads from there on.
 *
 * An answer may be made from what has been invalidated since its attempt was dispatched (cache_log.h). So a leader that is outdated
 * in this way keeps its followers, and whoever comes after workers were told begins a flight of its own. A follower that ran before and lost
 * its lease may be outdated as well: it does not come to lead others, and runs by itself when its leader ends without an answer. And once workers
 * were told of any, an answer of another attempt than the one that holds the leader concludes the leader alone; the best follower leads from there on.
 *
 * An answer from a prompt that was cut (common/prompt_cut.h) is for those whose tier allows that when it arrives: after a change of the
 * configuration it concludes the leader alone, and the best follower leads from there on. What was streamed until then was not held back.
 *
 * Costs: a link in each job; the flight itself exists only while somebody follows, and takes 16 bytes and a little for each.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/state.h"

struct outcome;

uint64_t flight_key_hash(const struct table_link *link, uint64_t seed);    /* of core.leaders */
uint64_t flight_leader_hash(const struct table_link *link, uint64_t seed); /* of core.flights */

/* The job may be dispatched from now on: to READY, or to FOLLOWING. */
void flight_enter(struct core *core, struct job *job);
/* The job was leased without that, after a restart: it leads, unless an identical one does. */
void flight_lead(struct core *core, struct job *job);
/* For job_move(): in and out of FOLLOWING; at.flight is set. */
void flight_push(struct core *core, struct job *job);
void flight_remove(struct core *core, struct job *job);
/* The best of its own priority and those of its followers. */
uint32_t flight_priority(const struct core *core, const struct job *job);

/* A pending job is being concluded, and has its lease still: what becomes of those that follow it. */
void flight_conclude(struct core *core, struct job *job, const struct outcome *outcome);
/*
 * A worker came back with an attempt of it, of which nobody knows when it began: also one whose lease was lost may be of before a restart,
 * under the number of a later one. Its followers, who may have come after an invalidation, run without it.
 */
void flight_hand_on(struct core *core, struct job *job);
/* The job's key is not that of its payload: it is identical to none, and whoever follows it runs by itself. */
void flight_split(struct core *core, struct job *job);
/* Goes on with flights that end. False: a bound was reached. */
bool flight_tick(struct core *core);

/* The leader of a job that is FOLLOWING; NULL: its flight ends. */
const struct job *flight_leader(const struct job *job);
size_t flight_followers(const struct core *core, const struct job *job);

/* The followers of the job that get its chunks; NULL: none. */
struct list *flight_streaming(const struct core *core, const struct job *job);
/* A job that is FOLLOWING gets the leader's chunks from now on, unless FLIGHT_STREAMS_MAX others do. */
void flight_stream(struct job *job);
/* The first chunk of an attempt of the job: its followers count it as one of theirs. */
void flight_begin_stream(const struct core *core, const struct job *job);

void flight_destroy_all(struct core *core);
