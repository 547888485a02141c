/*
 * words: the words of a text in order, in a form in which spelling variants meet.
 *
 * UTF-8, lower case, canonically decomposed for the Latin letters (so composed and decomposed
 * accents meet, and accents still count); Greek and Cyrillic without case; full-width forms as
 * ASCII; each Chinese or Japanese character a word of its own. Digits and letters are never one
 * word: "10km" is 10 and km. Numbers are plain: "1,000", "007", "10.00" and "7th" are 1000, 7, 10
 * and 7; "3.10" stays what it is. English plurals and -ing, -ed and a last e are cut off. "what's"
 * is what, "don't" is dont. Operators are words when they may be arithmetic.
 *
 * Invalid UTF-8 separates words. Pure; no allocation.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WORD_BYTES_MAX = 24 /* letters beyond count in the hash alone */ };

enum word_form {
    WORD_LETTERS,
    WORD_NUMBER, /* digits, and . : - within */
    WORD_SYMBOL, /* one operator */
};

enum word_mark {
    WORD_CAPITAL = 1, /* begins with a capital where no sentence begins */
    WORD_QUOTED = 2,  /* between quotation marks or backticks */
    WORD_PAUSE = 4,   /* punctuation stands before it */
    WORD_COLON = 8,   /* a colon stands before it */
};

struct word {
    uint32_t hash;             /* of the whole stem and its form; well mixed */
    uint8_t form;              /* enum word_form */
    uint8_t marks;             /* enum word_mark */
    uint8_t bytes;             /* of text */
    char text[WORD_BYTES_MAX]; /* the stem, not terminated */
};

/* Where the reading stands. Refers to the text. */
struct words {
    const uint8_t *text;
    size_t bytes;
    size_t at;
    bool is_start;   /* of a sentence */
    uint32_t quote;  /* the mark that closes the open quotation; 0: none is open */
    uint8_t pending; /* marks of the next word */
    uint8_t last_form;
    bool has_last;
};

void words_init(struct words *words, const char *text, size_t bytes);

/* False: there is no further word, and *ret_word is not to be used. */
bool words_next(struct words *words, struct word *ret_word);

/* The hash of a word as it stands in a list of such: of its stem. For tables made at build time. */
uint32_t words_hash(const char *word);
