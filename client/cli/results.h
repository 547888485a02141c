/*
 * results: where the outcome of each line goes, as one JSON line, in order of arrival or of input.
 *
 * Ordered by input, a result waits for those before it in a ring of `window` places: so results_has_room() must hold
 * before a line is read. Memory is bounded by the window, whatever the length of the input.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "common/attributes.h"

struct results {
    FILE *out; /* not owned */
    bool is_ordered;
    char **ring;       /* owned; of `window` texts that wait for their turn */
    size_t window;
    uint64_t next;     /* the sequence number that is written next, from 0 */
    uint64_t reserved; /* sequence numbers given out */
};

/* `window` matters only when ordered. Errors: -ENOMEM. */
MUST_USE int results_init(struct results *results, FILE *out, bool is_ordered, size_t window);
bool results_has_room(const struct results *results);
/* The place of the next line. There is room. */
uint64_t results_reserve(struct results *results);
/* Takes: `text`, a line without its end. Errors: -errno of writing. */
MUST_USE int results_write(struct results *results, uint64_t place, char *text);
void results_finish(struct results *results);
