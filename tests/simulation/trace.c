#include "tests/simulation/trace.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void trace_init(struct trace *trace, enum trace_mode mode)
{
    *trace = (struct trace){.mode = mode};
    if (mode == TRACE_TAIL) {
        trace->lines = calloc(TRACE_LINES, sizeof(*trace->lines));
        trace->mode = trace->lines == NULL ? TRACE_HASH : TRACE_TAIL;
    }
}

void trace_finish(struct trace *trace)
{
    free(trace->lines);
    trace->lines = NULL;
}

static void write_line(char *line, int64_t now_ms, const char *format, const uint64_t numbers[3])
{
    const int head = snprintf(line, TRACE_LINE_BYTES, "%9" PRId64 "  ", now_ms);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)snprintf(line + head, TRACE_LINE_BYTES - (size_t)head, format, numbers[0], numbers[1],
                   numbers[2]);
#pragma GCC diagnostic pop
}

void trace_add(struct trace *trace, int64_t now_ms, const char *format, uint64_t a, uint64_t b,
               uint64_t c)
{
    const uint64_t numbers[] = {a, b, c};
    const uint64_t hashed[] = {
        trace->hash, (uint64_t)now_ms, XXH3_64bits(format, strlen(format)), a, b, c};
    trace->hash = XXH3_64bits(hashed, sizeof(hashed));
    if (trace->mode == TRACE_TAIL) {
        write_line(trace->lines[trace->length % TRACE_LINES], now_ms, format, numbers);
    } else if (trace->mode == TRACE_PRINT) {
        char line[TRACE_LINE_BYTES];
        write_line(line, now_ms, format, numbers);
        puts(line);
    }
    trace->length++;
}

void trace_print_tail(const struct trace *trace)
{
    if (trace->lines == NULL) {
        return;
    }
    const uint64_t first = trace->length > TRACE_LINES ? trace->length - TRACE_LINES : 0;
    for (uint64_t i = first; i < trace->length; i++) {
        puts(trace->lines[i % TRACE_LINES]);
    }
}
