/*
 * characters: UTF-8 one character at a time, and what kind each is, for tokenisers that were made
 * with Unicode's categories.
 *
 * ASCII is decided here, the rest by utf8proc's tables (Unicode 15).
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/bytes.h"

enum { CHARACTER_REPLACEMENT = 0xfffd };

/* The character at `text`, and its bytes (at least 1). A byte that begins none: U+FFFD. */
size_t character_read(const char *text, size_t bytes, int32_t *ret_character);
/* Errors: -EMSGSIZE, -ENOMEM. */
MUST_USE int character_append(struct bytes *out, int32_t character);

bool character_is_blank(int32_t character);       /* White_Space */
bool character_is_punctuation(int32_t character); /* ASCII's, and category P */
bool character_is_letter(int32_t character);      /* L */
bool character_is_number(int32_t character);      /* N */
bool character_is_word(int32_t character);        /* \w: L, M, Nd, Nl, Pc */
bool character_is_control(int32_t character);     /* C, but not tab and the ends of lines */
bool character_is_mark(int32_t character);        /* M */
bool character_is_nonspacing(int32_t character);  /* Mn */
bool character_is_ideograph(int32_t character);   /* the blocks that BERT puts blanks around */
int32_t character_lower(int32_t character);
