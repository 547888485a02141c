/* decimals: a whole number of thousandths or billionths as a person writes it, 0.05, without zeros at its end. */
#pragma once
#include <stdint.h>

enum { DECIMALS_MAX = 19, DECIMALS_BYTES = 48 };

/* number / 10^decimals, of 0 to DECIMALS_MAX decimals. Returns ret_text. */
const char *decimals_format(uint64_t number, unsigned decimals, char ret_text[DECIMALS_BYTES]);
