/*
 * selector: which entries of the caches somebody from outside means, checked before anything is done to them.
 */
#pragma once
#include <stdbool.h>
#include "common/attributes.h"
#include "proto/wire.pb-c.h"

enum {
    SELECTOR_KEY_BYTES = 16,
    SELECTOR_TEXT_BYTES_MAX = 8192,
    SELECTOR_REASON_BYTES_MAX = 256,
    SELECTOR_WHY_BYTES = 256
};
#define SELECTOR_AGE_MS_MAX (INT64_C(1) << 40)

/* How near is near, for who names a text alone. */
#define SELECTOR_NEAR_PRESET 0.8

/* Whether it names anything; if not, it means every entry. */
bool selector_is_restricted(const Wire__CacheSelector *selector);
/* False: it or the reason cannot be taken; ret_why names the field, its value and what to write. */
MUST_USE bool selector_check(const Wire__CacheSelector *selector, const char *reason,
                             char ret_why[SELECTOR_WHY_BYTES]);
