/* history: what became of a job's attempts, as the broker's admin HTTP tells it, for people. */
#pragma once
#include <jansson.h>

/* Of an object with `history` and `history_omitted`; prints nothing when there was no attempt without an answer. */
void history_print(const json_t *job);
/* "2026-01-31 14:05:06" in UTC. `ret_text` has HISTORY_TIME_TEXT bytes. */
enum { HISTORY_TIME_TEXT = 32 };
void history_format_time(json_int_t unix_ms, char *ret_text);
