/*
 * run: many jobs through a window: read a line, submit it, write its result, with memory bounded by the window.
 *
 * Every line of the input has exactly one result: what is no job is "invalid", what a broker refuses for now is submitted
 * again by the library (tiermq_options.retry_ms), and what has no answer when the run is given up is "pending".
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "client/cli/summary.h"
#include "client/tiermq.h"
#include "common/attributes.h"

enum { RUN_TIERS_MAX = SUMMARY_TIERS_MAX, RUN_INTERRUPT_MS = 3000, WAIT_TOLD_MS = 10000 };

struct run_options {
    int input_fd;         /* JSON lines; -1: the one job of `defaults` */
    FILE *output;         /* results as JSON lines; NULL: none are written */
    struct tiermq_job defaults; /* what lines leave out */
    const char *tiers[RUN_TIERS_MAX]; /* for lines without a tier, in turn; none: the default's */
    size_t tiers_length;
    size_t window;        /* jobs without an answer */
    uint64_t lines_max;   /* 0: all */
    int64_t connect_timeout_ms; /* no broker within so long: the run is given up; one that goes away later is waited for */
    int64_t timeout_ms;   /* for the whole run; 0: none */
    bool is_ordered;      /* results in the order of the input */
    bool no_wait;         /* a job is done with when it is accepted */
    bool leave_on_interrupt; /* what is pending then stays in the broker; else it is cancelled */
    bool with_body;
    bool has_progress;    /* a line on standard error that is written over */
    bool tells_waits;     /* a line on standard error at the first refusal that takes WAIT_TOLD_MS or more */
    uint64_t input_bytes; /* for the progress; 0: unknown */
    int interrupt_fd;     /* a signalfd */
    tiermq_answer_fn *on_answer; /* called beside writing the result, but not at RUN_UNREACHABLE; may be NULL */
    tiermq_chunk_fn *on_chunk;   /* may be NULL */
    void *context;
};

enum run_end { RUN_DONE, RUN_INTERRUPTED, RUN_TIMED_OUT, RUN_UNREACHABLE, RUN_FAILED };

/* Gives: *ret_summary, to be released with summary_finish(). RUN_FAILED: ret_error (300 bytes) says why. */
enum run_end run_jobs(struct tiermq *client, const struct run_options *options, struct summary *ret_summary,
                      char *ret_error);
