/*
 * spans: the parts of a text that an optimiser must leave as they are, byte for byte.
 *
 * Code (between fences, between backticks, and any block of lines that looks like code), tables,
 * JSON and whatever else stands between matching braces or brackets, quotations, numbers with what
 * is glued to them, addresses, tags. In doubt a part is protected: that costs a saving, the other
 * mistake an answer. Spans do not overlap and are in order. O(bytes).
 *
 * In doubt are straight quotation marks and backticks that do not stand as those do that open and
 * close, in turn: all behind one is kept, to its paragraph's end, and of a quotation to a closing
 * mark within SPANS_QUOTE_BYTES_MAX behind that. Other quotations that are longer go to the last
 * mark of their paragraph that may close them, or, of marks that only open, to its end.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/attributes.h"

enum { SPANS_QUOTE_BYTES_MAX = 512 };

enum span_kind { SPAN_CODE, SPAN_DATA, SPAN_QUOTE, SPAN_NUMBER, SPAN_ADDRESS, SPAN_TAG };

struct span {
    size_t from, to;
    enum span_kind kind;
};

/* {.items = NULL} is an empty one. */
struct spans {
    struct span *items;
    size_t length, capacity;
};
void spans_finish(struct spans *spans);

/* Replaces what `spans` holds. Errors: -ENOMEM. */
MUST_USE int spans_find(const char *text, size_t bytes, struct spans *spans);

/*
 * The first fenced code whose first line begins at `at` or behind it: from its first line to behind
 * the fence that closes it, or to the text's end. False: there is none.
 */
bool spans_next_fence(const char *text, size_t bytes, size_t at, size_t *ret_from, size_t *ret_to);

/* Whether code or data (JSON, a table) has a byte in [from, to). O(log of the spans, and those in
 * it). */
bool spans_has_code(const struct spans *spans, size_t from, size_t to);
