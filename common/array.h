/* array: an array that grows, of a pointer, a length and a capacity which its owner keeps. */
#pragma once
#include <stddef.h>
#include "common/attributes.h"

/*
 * Makes room for `length` items of `item_bytes` each in the array whose items `*items` points to
 * (NULL: none yet; the address of any pointer to an object), and which has room for `*capacity`. It
 * grows to at least twice as many, and to at least `first` (not 0), so that adding one after the
 * other takes constant time each. New items are not initialised; pointers to old ones may be dead.
 * Gives:  what `*items` then points to, to be released with free().
 * Errors: -ENOMEM, also where their bytes are no size; nothing has changed then.
 */
MUST_USE int array_reserve(void *items, size_t *capacity, size_t length, size_t item_bytes,
                           size_t first);
