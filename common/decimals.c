#include "common/decimals.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

const char *decimals_format(uint64_t number, unsigned decimals, char ret_text[DECIMALS_BYTES])
{
    assert(decimals <= DECIMALS_MAX);
    uint64_t one = 1;
    for (unsigned i = 0; i < decimals; i++) {
        one *= 10;
    }
    const uint64_t whole = number / one;
    uint64_t part = number % one;
    for (; decimals > 0 && part % 10 == 0; decimals--) {
        part /= 10;
    }
    if (decimals == 0) {
        (void)snprintf(ret_text, DECIMALS_BYTES, "%" PRIu64, whole);
    } else {
        (void)snprintf(ret_text, DECIMALS_BYTES, "%" PRIu64 ".%0*" PRIu64, whole, (int)decimals,
                       part);
    }
    return ret_text;
}
