#include "worker/forward.h"

#include <errno.h>

#include "common/clock.h"
#include "common/frame.h"
#include "common/loop.h"
#include "worker/attempt.h"
#include "worker/broker_link.h"
#include "worker/provider/provider.h"
#include "worker/telemetry.h"

void forward_begin(struct attempt *attempt, struct telemetry *telemetry)
{
    attempt->telemetry = telemetry;
    attempt->token_ns = clock_monotonic_ns();
    attempt->has_token = false;
}

static void measure(struct attempt *attempt)
{
    const int64_t now_ns = clock_monotonic_ns();
    const double seconds = (double)(now_ns - attempt->token_ns) / 1e9;
    if (attempt->has_token) {
        telemetry_next_token(attempt->telemetry, attempt, seconds);
    } else {
        telemetry_first_token(attempt->telemetry, attempt, seconds);
    }
    attempt->has_token = true;
    attempt->token_ns = now_ns;
}

/* A gap ends the stream for whoever reads it, so that what would follow need not be sent. */
static void give_up(struct attempt *attempt)
{
    telemetry_chunk_dropped(attempt->telemetry);
    attempt->is_stream_given_up = true;
    bytes_clear(&attempt->chunks);
}

static void timer_set(struct attempt *attempt, int64_t at_ms)
{
    attempt->is_chunk_timer_set = true;
    loop_timer_set(attempt->timer, at_ms);
}

/* Errors: as broker_link_send_chunk(); what waits stays. */
static int send_waiting(struct attempt *attempt, bool is_last)
{
    int r = broker_link_send_chunk(attempt->broker, attempt, attempt->chunks_sent, is_last,
                                   attempt->chunks.data, attempt->chunks.length);
    if (r == 0) {
        attempt->chunks_sent++;
        attempt->chunk_bytes_sent += FRAME_CHUNK_COST + attempt->chunks.length;
        attempt->chunk_sent_ms = clock_monotonic_ms();
        bytes_clear(&attempt->chunks);
    }
    return r;
}

static void hold(struct attempt *attempt)
{
    if (attempt->held_ms == 0) {
        attempt->held_ms = clock_monotonic_ms();
        if (attempt->call != NULL) {
            provider_hold(attempt->call);
        }
    }
}

static bool is_allowed(const struct attempt *attempt)
{
    return attempt->needs_no_allowance || attempt->chunk_bytes_max == 0 ||
           attempt->chunk_bytes_sent < attempt->chunk_bytes_max;
}

/*
 * For half of what its provider's timeout leaves the call: it would be a failure then, which is
 * none of the provider's, and the answer be paid for once more.
 */
static void wait_for_allowance(struct attempt *attempt)
{
    const int64_t now_ms = clock_monotonic_ms();
    attempt->waits_for_allowance = true;
    hold(attempt);
    if (attempt->call != NULL) {
        timer_set(attempt, now_ms + (provider_call_ends_ms(attempt->call) - now_ms) / 2);
    }
}

static bool has_been_held_too_long(const struct attempt *attempt)
{
    return attempt->held_ms != 0 && clock_monotonic_ms() - attempt->held_ms >= FORWARD_HOLD_MS;
}

/* Sends what has been gathered, or holds the provider. */
static void send_or_hold(struct attempt *attempt)
{
    loop_timer_stop(attempt->timer);
    attempt->is_chunk_timer_set = false;
    if (!is_allowed(attempt)) {
        wait_for_allowance(attempt);
        return;
    }
    const int r = send_waiting(attempt, false);
    if (r == -EAGAIN && !has_been_held_too_long(attempt)) {
        hold(attempt);
        timer_set(attempt, clock_monotonic_ms() + FORWARD_GATHER_MS);
    } else if (r < 0) {
        give_up(attempt);
    }
}

static bool may_go(const struct attempt *attempt)
{
    return attempt->chunks_sent == 0 || attempt->chunks.length >= FORWARD_BYTES_MAX ||
           clock_monotonic_ms() - attempt->chunk_sent_ms >= FORWARD_GATHER_MS;
}

void forward_piece(struct attempt *attempt, const void *data, size_t bytes)
{
    measure(attempt);
    if (attempt->is_stream_given_up) {
        return;
    }
    attempt->chunks.bytes_max =
        SIZE_MAX / 2; /* each piece is bounded by the provider, their number by the bound below */
    if (bytes_append(&attempt->chunks, data, bytes) < 0) {
        give_up(attempt);
    } else if (attempt->held_ms != 0) {
        return; /* the timer tries again, or the broker's word */
    } else if (may_go(attempt)) {
        send_or_hold(attempt);
    } else if (!attempt->is_chunk_timer_set) {
        timer_set(attempt, attempt->chunk_sent_ms + FORWARD_GATHER_MS);
    }
}

/* Readers are waited for no more; if at all, it is the broker from here on. */
static void end_wait(struct attempt *attempt)
{
    attempt->waits_for_allowance = false;
    attempt->held_ms = clock_monotonic_ms();
}

void forward_due(struct attempt *attempt)
{
    if (attempt->waits_for_allowance) {
        attempt->needs_no_allowance = true;
        end_wait(attempt);
    }
    send_or_hold(attempt);
    const bool goes_on = !attempt->is_chunk_timer_set && !attempt->waits_for_allowance;
    if (attempt->held_ms != 0 && goes_on) {
        attempt->held_ms = 0;
        attempt->token_ns = clock_monotonic_ns(); /* how long it was held says nothing of it */
        provider_go_on(attempt->call);
    }
}

void forward_allow(struct attempt *attempt, uint64_t bytes_max)
{
    attempt->chunk_bytes_max = bytes_max;
    if (attempt->waits_for_allowance && attempt->call != NULL && is_allowed(attempt)) {
        end_wait(attempt);
        forward_due(attempt);
    }
}

bool forward_end(struct attempt *attempt)
{
    loop_timer_stop(attempt->timer);
    if (!attempt->has_token || attempt->is_stream_given_up) {
        return true;
    }
    if (attempt->waits_for_allowance) {
        attempt->waits_for_allowance = false;
        attempt->held_ms = 0;
    }
    const int r = send_waiting(attempt, true);
    if (r == -EAGAIN && !has_been_held_too_long(attempt)) {
        hold(attempt);
        timer_set(attempt, clock_monotonic_ms() + FORWARD_GATHER_MS);
        return false;
    }
    if (r < 0) {
        give_up(attempt);
    }
    return true;
}
