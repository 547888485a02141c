#include "worker/cache/lexicon.h"

#include <stddef.h>

/* lexicon_details, lexicon_entries (sorted by hash), lexicon_starts (the first entry of each value
 * of the hash's highest LEXICON_START_BITS), LEXICON_VERSION */
#include "worker/cache/lexicon.inc"

uint16_t lexicon_find(uint32_t hash)
{
    const uint32_t slot = hash >> (32 - LEXICON_START_BITS);
    for (uint16_t i = lexicon_starts[slot]; i < lexicon_starts[slot + 1]; i++) {
        if (lexicon_entries[i].hash == hash) {
            return i;
        }
    }
    return LEXICON_NONE;
}

const struct lexicon_entry *lexicon_at(uint16_t index)
{
    return &lexicon_entries[index];
}

const struct lexicon_detail *lexicon_detail_at(uint16_t index)
{
    const uint16_t detail = index == LEXICON_NONE ? LEXICON_NONE : lexicon_entries[index].detail;
    return detail == LEXICON_NONE ? NULL : &lexicon_details[detail];
}

uint16_t lexicon_length(void)
{
    return (uint16_t)(sizeof(lexicon_entries) / sizeof(lexicon_entries[0]));
}

uint16_t lexicon_version(void)
{
    return LEXICON_VERSION;
}
