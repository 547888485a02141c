/*
 * forward: the stream of an attempt on its way from the provider to the broker.
 *
 * A piece goes at once unless another one went within FORWARD_GATHER_MS; those that come meanwhile
 * go together when that is over. So a stream of any rate is no more than that many messages through
 * the broker, and a slow one, as most are, is not delayed at all. The last piece is marked.
 *
 * When the broker takes nothing, or allows no more since nobody reads the stream (StreamAllowance),
 * the provider is held: what waits here stays below
 * FORWARD_BYTES_MAX and what one read of the connection brings. A hold that lasts longer than
 * FORWARD_HOLD_MS, which is the broker's doing and no fault of the provider, gives the stream up:
 * the call goes on, nothing more is forwarded, and its client has the whole answer as the result.
 * For its readers it is held until they go on, but no longer than half of what its provider's
 * timeout leaves: then the answer is read to its end, and they get what the broker keeps of it. The
 * job's deadline, or its cancellation, ends it before.
 * What is left when the answer is whole goes beyond the allowance: no answer waits for its readers.
 *
 * Measures the time to the first token and that between tokens, without that for which the provider
 * was held. Uses the attempt's timer.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

struct attempt;
struct telemetry;

enum { FORWARD_GATHER_MS = 5, FORWARD_BYTES_MAX = 16384, FORWARD_HOLD_MS = 10000 };

/* The call begins now. */
void forward_begin(struct attempt *attempt, struct telemetry *telemetry);
/* A piece came, within the provider's on_chunk. */
void forward_piece(struct attempt *attempt, const void *data, size_t bytes);
/* The timer is due. The call may end within. */
void forward_due(struct attempt *attempt);
/* The broker allows so many bytes in all; 0: any number. The call may end within. */
void forward_allow(struct attempt *attempt, uint64_t bytes_max);
/*
 * The answer is whole and the call over. False: the end cannot be sent yet; the timer is set, to
 * call it again.
 */
MUST_USE bool forward_end(struct attempt *attempt);
