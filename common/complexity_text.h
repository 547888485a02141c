/*
 * complexity_text: counts what complexity.c makes its features of, in one pass over a text.
 *
 * A text may be read in pieces, each with its place in the whole; no word goes on from one piece to
 * the next. UTF-8, but any bytes do. No memory is taken. Some nanoseconds a byte.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/complexity_lexicon.h"

enum { COMPLEXITY_LONG_WORD_LETTERS = 9 };

struct complexity_counts {
    uint32_t words, long_words, numbers;
    uint32_t operators;  /* of arithmetic, and LaTeX commands */
    uint32_t code;       /* symbols that programs have and prose seldom has */
    uint32_t list_items; /* lines that begin with "- ", "* ", "1. " or "1) " */
    uint32_t choices;    /* lines "A. …", "B. …" in order, at least two */
    uint32_t question_marks;
    uint32_t latin, foreign; /* letters; each of another script is one */
    uint32_t classes[CLASSES];
    size_t choices_at; /* where the last list of choices begins; SIZE_MAX: there is none */

    /* Within the reading. */
    char choice_due; /* the letter that would go on with a list; 0: none was begun */
    size_t choice_a_at;
};

void complexity_counts_init(struct complexity_counts *counts);

/* `place`: of the piece's first byte in the whole text. */
void complexity_counts_add(struct complexity_counts *counts, const char *text, size_t bytes,
                           size_t place);
