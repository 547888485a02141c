/*
 * trace: what happened in a run, as a hash always, as lines when somebody looks.
 *
 * A run is deterministic, so lines are not made the first time: a seed that fails is run again with
 * TRACE_TAIL.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { TRACE_LINES = 400, TRACE_LINE_BYTES = 160 };
enum trace_mode { TRACE_HASH, TRACE_TAIL, TRACE_PRINT };

struct trace {
    enum trace_mode mode;
    uint64_t hash;
    uint64_t length;
    char (*lines)[TRACE_LINE_BYTES]; /* TRACE_TAIL: a ring */
};

/* TRACE_TAIL is given up for TRACE_HASH when there is no memory for it. */
void trace_init(struct trace *trace, enum trace_mode mode);
void trace_finish(struct trace *trace);
/* `format` has exactly three PRIu64 conversions. */
void trace_add(struct trace *trace, int64_t now_ms, const char *format, uint64_t a, uint64_t b,
               uint64_t c);
void trace_print_tail(const struct trace *trace);
