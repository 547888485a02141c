/*
 * body: JSON text of which a part is taken or replaced, every other byte as it was sent.
 *
 * A parse and a dump would rewrite numbers (0.7 becomes 0.69999999999999996), so members are copied
 * as text. The body must have been checked to be a JSON object before (common/canonical.h).
 */
#pragma once
#include <stdbool.h>
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

/* A part of somebody else's text: a value, with the blanks behind it. */
struct body_slice {
    const char *data;
    size_t bytes;
};

/*
 * The value of the top-level member `name`, the first of that name; one within which the text ends
 * is given as far as it goes. Borrows from `body`. Errors: -ENOENT there is none, or it is no object.
 */
MUST_USE int body_find(const void *body, size_t bytes, const char *name,
                       struct body_slice *ret_value);
/*
 * The elements of an array; an array that is cut gives those that are whole. `*ret_is_whole`: it
 * was not. Errors: -EINVAL no array; -E2BIG it has more than `elements_max`.
 */
MUST_USE int body_list(const struct body_slice *array, struct body_slice *ret_elements,
                       size_t elements_max, size_t *ret_length, bool *ret_is_whole);
