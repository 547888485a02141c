/*
 * lexicon: what is known beforehand of a word: how much it says, and what it does in a question.
 *
 * Made at build time by lexicon_build.c of two texts: lexicon.txt (by hand: function words,
 * opposites, units …) and lexicon_weights.txt (tools/cache-fit: how rare each common word is).
 * A look-up is about one slot of a table.
 */
#pragma once
#include <stdint.h>

enum lexicon_kind {
    LEXICON_CONTENT,
    LEXICON_FUNCTION,
    LEXICON_FILLER,   /* politeness: as if it were not there */
    LEXICON_JOINER,   /* what stands on its sides may change places */
    LEXICON_QUESTION, /* who, what, when … */
    LEXICON_NEGATION,
    LEXICON_NUMBER,
};

enum {
    LEXICON_NONE = 0xFFFF,
    LEXICON_GROUPS_MAX = 4,
    LEXICON_WEIGHT_UNKNOWN = 255,
    LEXICON_SIDE_OF_CHOICE = 0x80, /* in a side: words of one side are the same word */
};

/* A word belongs to one side of a group; one side excludes the others. */
struct lexicon_membership {
    uint8_t group;
    uint8_t side;
};

struct lexicon_detail {
    uint32_t canonical_hash; /* words with the same one are the same word */
    uint8_t role;            /* what it makes of the next word; 0: nothing */
    uint8_t is_wrapper;      /* it may introduce a question: "quick question: …" */
    uint8_t is_asking;       /* it asks for yes or no where a sentence begins */
    uint8_t groups_length;
    struct lexicon_membership groups[LEXICON_GROUPS_MAX];
};

struct lexicon_entry {
    uint32_t hash;
    uint8_t weight;  /* inverse document frequency: 255 is said once in a thousand texts or less */
    uint8_t kind;    /* enum lexicon_kind */
    uint16_t detail; /* LEXICON_NONE: it has only a weight */
};

/* By the hash of words.h. LEXICON_NONE: unknown. */
uint16_t lexicon_find(uint32_t hash);
/* The entry of an index from lexicon_find(). */
const struct lexicon_entry *lexicon_at(uint16_t index);
/* NULL: it has none, or the index is unknown. */
const struct lexicon_detail *lexicon_detail_at(uint16_t index);
/* Indices are below it. */
uint16_t lexicon_length(void);
/* Changes with every change of the two texts: indices of another version mean nothing. */
uint16_t lexicon_version(void);
