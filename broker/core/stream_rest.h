/*
 * stream_rest: chunks of an attempt that has answered, for a reader who had no credit for them by then.
 *
 * The answer is not kept waiting for its readers: it is concluded, the result says how many chunks there were (Result.chunks), and those that
 * the reader has not had are kept, as its log had them, until it gives credit or its connection is gone. At most RESTS_MAX, of half of what all
 * logs may have, and of one tenant no more than is left for others then: it alone has half of each. Beyond that no rest is kept, the result says so, and has it all.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "broker/core/state.h"

/* A chunk as a log has it. */
struct logged_chunk {
    struct blob *data; /* NULL: none */
    uint64_t end;      /* what the attempt's chunks count up to here, this one included */
    uint32_t flags;
};

/* What a chunk of so much data counts. */
uint64_t logged_chunk_cost(const struct blob *data);

/* Keeps chunks[waiter->chunk_next - first …] up to index `next` for this reader of the job, which has credit of its own. */
void stream_rest_keep(struct core *core, const struct job *job, const struct waiter *waiter,
                      const struct logged_chunk *chunks, uint32_t first, uint32_t next);
/* How many chunks that stream had in all; 0: nothing of it is kept for this reader. */
uint32_t stream_rest_chunks(const struct core *core, uint64_t peer, const struct id *job_id);
void stream_rest_credit(struct core *core, uint64_t peer, const struct id *job_id, uint32_t chunks);
/* Sends no more than `left` chunks to whoever has credit. Returns how many may still be sent. */
uint32_t stream_rest_tick(struct core *core, uint32_t left);
void stream_forget_reader(struct core *core, uint64_t peer);
void stream_rest_destroy_all(struct core *core);
/* The sum of two credits, which is never that of a reader who takes all. */
uint32_t chunks_left_with(uint32_t before, uint32_t more);
