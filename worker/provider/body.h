/*
 * body: a request's JSON with a few of its top-level members replaced, every other byte as the
 * client sent it.
 *
 * A parse and a dump would rewrite numbers (0.7 becomes 0.69999999999999996), so members are copied
 * as text. The body must have been checked to be a JSON object before (common/canonical.h).
 */
#pragma once
#include <stddef.h>
#include "common/attributes.h"
#include "worker/bytes.h"

/* `value` is JSON text that takes the member's place; NULL leaves the member out. */
struct body_member {
    const char *name;
    const char *value;
};

/*
 * Writes the object `body` into `out`, its members named in `members` left out, those with a value
 * appended.
 * Errors: -EINVAL not an object; -EMSGSIZE, -ENOMEM of `out`.
 */
MUST_USE int body_rewrite(const void *body, size_t bytes, const struct body_member *members,
                          size_t members_length, struct bytes *out);
