/*
 * complexity_lexicon: classes of words that complexity.c counts; from complexity_lexicon.txt.
 *
 * Words are lower case and known by their hash alone. A foreign text may hold words made to have
 * another's hash: it then counts as that word, and no harm is done.
 */
#pragma once
#include <stdint.h>

enum complexity_class {
    CLASS_STEPS,
    CLASS_CONSTRAINTS,
    CLASS_QUESTION,
    CLASS_EXTRACTION,
    CLASS_SHORT_ANSWER,
    CLASS_NEGATION,
    CLASS_RELATIONS,
    CLASS_MATHS,
    CLASS_SCIENCE,
    CLASS_LAW,
    CLASS_MEDICINE,
    CLASS_HUMANITIES,
    CLASS_BUSINESS,
    CLASS_COMPUTING,
    CLASSES,
    CLASS_BEGINS_PHRASE = CLASSES, /* some two words that begin with this one are in a class */
};

struct complexity_entry {
    uint32_t hash;
    uint32_t classes; /* bits */
};

enum { COMPLEXITY_START_BITS = 10, COMPLEXITY_HASH_BEGIN = 0x811c9dc5 };

/* FNV-1a, of one byte more. */
static inline uint32_t complexity_hash_add(uint32_t hash, uint8_t byte)
{
    return (hash ^ byte) * 0x01000193u;
}

/* The hash of a word whose bytes were added: its high bits, which choose the slot, are well mixed.
 */
static inline uint32_t complexity_hash_end(uint32_t hash)
{
    hash = (hash ^ hash >> 15) * 0x2c1b3c6du;
    return (hash ^ hash >> 13) * 0x297a2d39u;
}

static inline uint32_t complexity_hash_pair(uint32_t first, uint32_t second)
{
    return complexity_hash_end(first * 31 + second);
}
