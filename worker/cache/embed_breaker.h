/*
 * embed_breaker: whether an embedder that fails is to be asked.
 *
 * It opens after EMBED_BREAKER_FAILURES_MAX failures in a row, or at once when the server names a
 * time to come back; then nothing is sent for EMBED_BREAKER_PAUSE_FIRST_MS, after which one request
 * probes. Each probe that fails doubles the pause, up to EMBED_BREAKER_PAUSE_MAX_MS; one that
 * succeeds closes it. Up to half of a pause is left out at random, so that workers do not come back
 * together. No clock, no I/O.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum {
    EMBED_BREAKER_FAILURES_MAX = 3,
    EMBED_BREAKER_PAUSE_FIRST_MS = 1000,
    EMBED_BREAKER_PAUSE_MAX_MS = 60000,
};

/* {0} is closed. */
struct embed_breaker {
    bool is_open;
    bool is_probing;   /* the one request that may be sent while open is under way */
    uint32_t failures; /* in a row */
    int64_t pause_ms;  /* the last one, with what was left out */
    int64_t open_until_ms;
};

/* Whether one more request may be sent. */
bool embed_breaker_allows(const struct embed_breaker *breaker, int64_t now_ms);
/* A request is sent. */
void embed_breaker_send(struct embed_breaker *breaker);
/* Returns whether this closed it. */
bool embed_breaker_succeed(struct embed_breaker *breaker);
/*
 * `retry_after_ms`: as the server said it, 0: it said nothing; `random`: from 0 to 1.
 * Returns whether this opened it, or kept it open.
 */
bool embed_breaker_fail(struct embed_breaker *breaker, int64_t now_ms, int64_t retry_after_ms,
                        double random);
