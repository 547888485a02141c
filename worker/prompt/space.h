/*
 * space: white space and boilerplate that no answer hangs on, taken out of prose.
 *
 * What goes: blanks at the end of a line; all but one of several between two words; blank lines but
 * one of several; white space at the beginning and the end of the text; all but three signs of a
 * line drawn with more than eight of -, =, *, _, ~ or #; byte order marks and soft hyphens. What
 * stays: everything within spans (worker/prompt/spans.h), and what a line is indented by.
 * Done twice it changes nothing more: a text for which that would not hold is left as it is.
 */
#pragma once
#include <stddef.h>
#include "common/attributes.h"
#include "worker/bytes.h"

/*
 * Writes the text that is left into `out`, which is cleared first; it is never longer.
 * Errors: -EMSGSIZE, -ENOMEM of `out`.
 */
MUST_USE int space_tidy(const char *text, size_t bytes, struct bytes *out);
