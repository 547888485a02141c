/*
 * profile: what the decision and the built-in embedder need of a text, read from it once.
 *
 * Its words in order, each with what the lexicon knows of it and with its letters. A few hundred
 * bytes in one piece, kept in memory and on disk as it is (little endian, as everywhere here).
 * Politeness ("please", "hi") and introductions ("quick question: …") are left out. Negations are
 * words like not, never, without; question words who, what, when …
 *
 * Pure; no allocation; about 1.4 µs for 50 bytes.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "worker/cache/lexicon.h"
#include "worker/cache/words.h"

enum {
    PROFILE_WORDS_MAX = 128, /* a longer text is compared with nothing */
    PROFILE_FORMAT = 1,      /* raise it with every change here or in words.c */
};

enum profile_kind {
    PROFILE_CONTENT,
    PROFILE_FUNCTION,
    PROFILE_JOINER,
    PROFILE_QUESTION,
    PROFILE_NEGATION,
    PROFILE_NUMBER,
    PROFILE_SYMBOL,
};

struct profile_word {
    uint32_t hash;    /* equal for equal words: "two" has that of "2" */
    uint16_t entry;   /* of the lexicon, or LEXICON_NONE */
    uint16_t text_at; /* its letters in profile_text() */
    uint8_t text_bytes;
    uint8_t kind;  /* enum profile_kind */
    uint8_t role;  /* of the preposition before it; 0: none */
    uint8_t marks; /* enum word_mark: WORD_CAPITAL and WORD_QUOTED */
};

struct profile {
    uint16_t version; /* profile_version() when it was made */
    uint16_t bytes;   /* of all */
    uint16_t length;  /* of words */
    uint16_t text_bytes;
    struct profile_word words[]; /* and then the letters */
};

enum {
    PROFILE_TEXT_BYTES_MAX = PROFILE_WORDS_MAX * WORD_BYTES_MAX,
    PROFILE_BYTES_MAX = sizeof(struct profile) + PROFILE_WORDS_MAX * sizeof(struct profile_word) +
                        PROFILE_TEXT_BYTES_MAX,
};

/* Room for any profile; the first profile.bytes of it are the blob to keep. */
union profile_buffer {
    struct profile profile;
    uint8_t bytes[PROFILE_BYTES_MAX];
};

/*
 * Returns the number of words. 0: the text has none; PROFILE_WORDS_MAX + 1: it has more; in both
 * cases *ret_buffer is not to be used.
 */
size_t profile_make(const char *text, size_t bytes, union profile_buffer *ret_buffer);

/* Of a word: see lexicon_entry. */
uint8_t profile_word_weight(const struct profile_word *word);

const char *profile_text(const struct profile *profile);

/* Of this code and its lexicon: only profiles of the same one are compared. */
uint16_t profile_version(void);

/* For a blob from a disk, aligned to 4: that it is whole, and of this version. */
bool profile_is_valid(const void *blob, size_t bytes);
