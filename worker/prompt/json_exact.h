/*
 * json_exact: whether JSON that is parsed and written again says the same to the last digit.
 * Numbers with a fraction or an exponent do not: 0.7 becomes 0.69999999999999996.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>

/* Deeper than JSON_EXACT_DEPTH_MAX: it does not. */
enum { JSON_EXACT_DEPTH_MAX = 64 };
bool json_is_exact(const json_t *value);
