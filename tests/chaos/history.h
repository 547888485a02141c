/*
 * history: what one load client did and saw, one JSON object a line, appended before the deed: a
 * client that is killed between two instructions leaves a true history behind.
 *
 * Each line has at_ms (CLOCK_MONOTONIC, the same for all processes of a machine) and event;
 * check.py knows the rest.
 */
#pragma once
#include <jansson.h>
#include "common/attributes.h"

struct history;

/* Opens for appending; a last line that a kill cut off is ended first. Errors: errno of open(2). */
MUST_USE int history_open(const char *path, struct history **ret_history);
void history_close(struct history **history);

/*
 * Appends `event` with one write(2) and ends the process if that fails: without a history its run
 * proves nothing. Takes: event, which json_pack() gave; NULL (out of memory) ends the process, too.
 */
void history_append(struct history *history, json_t *event);

typedef void history_fn(void *context, const json_t *event);
/* Calls `visit` for each line that can be read, oldest first. A file that is not there has none. */
void history_read(const char *path, history_fn *visit, void *context);
