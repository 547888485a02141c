/*
 * breaker: whether calls to an upstream (a model at a provider) are worth making.
 *
 *   closed ──too many failures──▶ open ──its time is over──▶ half open ──a probe succeeds──▶ closed
 *                                  ▲                             │
 *                                  └──────── the probe fails ────┘   for twice as long, up to open_max
 *
 * It opens on failures in a row, or on a share of failures, or of slow calls, in a sliding window with a minimum of
 * calls (as resilience4j and Envoy's outlier detection have it). Half open, one probe is under way at a time. Pure.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/config.h"

enum { BREAKER_SLICES = 10 };

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

enum breaker_sample { SAMPLE_SUCCESS, SAMPLE_SLOW, SAMPLE_FAILURE };

struct breaker {
    enum breaker_state state;
    struct {
        int64_t number; /* of the slice, since time 0 */
        uint32_t calls, failures, slow;
    } slices[BREAKER_SLICES];
    uint32_t failures_in_a_row;
    uint32_t opened_in_a_row; /* without having closed: the exponent */
    int64_t open_until_ms;    /* OPEN: then it may be probed */
    uint32_t probe;           /* number of the latest probe; 0: there was none */
    bool is_probing;          /* HALF_OPEN: it is under way … */
    int64_t probe_until_ms;   /* … and is given up then */
};

/* The share of the calls in the window that failed, 0 to 1; few calls count for less. */
double breaker_failing(const struct breaker *breaker, const struct config_breaker *config, int64_t now_ms);
/* OPEN becomes HALF_OPEN when its time is over; a probe that is not heard of is given up. */
void breaker_tick(struct breaker *breaker, int64_t now_ms);
/* Until when no call may be made; now or earlier: one may, when it is half open as a probe. */
int64_t breaker_closed_until_ms(const struct breaker *breaker);
/* A probe goes out. Returns its number, which is never 0. */
uint32_t breaker_probe(struct breaker *breaker, const struct config_breaker *config, int64_t now_ms);
/* The probe made no call, so that it says nothing: another may go, unless one has gone since. */
void breaker_forget_probe(struct breaker *breaker, uint32_t probe);
/* Whether this is the probe that is under way. */
bool breaker_awaits_probe(const struct breaker *breaker, uint32_t probe);

/*
 * What a call came to. Of others than the probe only what was called while closed counts. `jitter` (0 to 1) spreads
 * the time it stays open. Returns true when the state changed.
 */
bool breaker_report(struct breaker *breaker, const struct config_breaker *config, enum breaker_sample sample,
                    bool is_probe, double jitter, int64_t now_ms);
/* One that is not closed lets a probe through at once, whatever became of the last one. */
void breaker_probe_now(struct breaker *breaker, int64_t now_ms);
/* As a record has it. */
void breaker_restore(struct breaker *breaker, uint32_t opened_in_a_row, int64_t open_until_ms);
