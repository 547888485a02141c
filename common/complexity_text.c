/*
 * Each byte is looked at about once: a table says what kind it is, and the kinds that begin
 * something longer (a word, a number, a line) read on from there.
 */
#include "common/complexity_text.h"
#include <ctype.h>
#include <stdbool.h>

/* complexity_entries (sorted by hash), complexity_starts */
#include "common/complexity_lexicon.inc"

enum kind {
    KIND_OTHER,
    KIND_SPACE,
    KIND_LINE,
    KIND_LETTER, /* ASCII, and what begins a Latin letter */
    KIND_DIGIT,
    KIND_OPERATOR,
    KIND_SYMBOL, /* of code */
    KIND_BOTH,   /* an operator of arithmetic and of code */
    KIND_QUESTION,
    KIND_FOREIGN, /* begins a letter of another script */
    KIND_MARK,    /* begins U+2000 to U+2FFF: punctuation and mathematical symbols */
};

/* Bytes within a character (0x80 to 0xbf) and emoji are KIND_OTHER. */
static const uint8_t kinds[256] = {
    [' '] = KIND_SPACE,
    ['\t'] = KIND_SPACE,
    ['-'] = KIND_SPACE,
    ['\n'] = KIND_LINE,
    ['a' ... 'z'] = KIND_LETTER,
    ['A' ... 'Z'] = KIND_LETTER,
    [0xc3 ... 0xc9] = KIND_LETTER,
    ['0' ... '9'] = KIND_DIGIT,
    ['+'] = KIND_OPERATOR,
    ['*'] = KIND_OPERATOR,
    ['/'] = KIND_OPERATOR,
    ['^'] = KIND_OPERATOR,
    ['%'] = KIND_OPERATOR,
    ['$'] = KIND_OPERATOR,
    ['\\'] = KIND_OPERATOR,
    ['='] = KIND_BOTH,
    ['<'] = KIND_BOTH,
    ['>'] = KIND_BOTH,
    ['{'] = KIND_SYMBOL,
    ['}'] = KIND_SYMBOL,
    ['['] = KIND_SYMBOL,
    [']'] = KIND_SYMBOL,
    [';'] = KIND_SYMBOL,
    ['_'] = KIND_SYMBOL,
    ['|'] = KIND_SYMBOL,
    ['&'] = KIND_SYMBOL,
    ['#'] = KIND_SYMBOL,
    ['`'] = KIND_SYMBOL,
    ['~'] = KIND_SYMBOL,
    ['?'] = KIND_QUESTION,
    [0xca ... 0xe1] = KIND_FOREIGN,
    [0xe2] = KIND_MARK,
    [0xe3 ... 0xef] = KIND_FOREIGN,
};

/* One piece, and how far it is read. */
struct piece {
    const uint8_t *text;
    size_t bytes, at;
    uint32_t before; /* hash of the word just before; 0: none that begins a phrase */
};

static uint8_t peek(const struct piece *piece, size_t ahead)
{
    return ahead < piece->bytes - piece->at ? piece->text[piece->at + ahead] : 0;
}

/* ---- words ---- */

static uint32_t find(uint32_t hash)
{
    const uint32_t slot = hash >> (32 - COMPLEXITY_START_BITS);
    for (size_t i = complexity_starts[slot]; i < complexity_starts[slot + 1]; i++) {
        if (complexity_entries[i].hash == hash) {
            return complexity_entries[i].classes;
        }
    }
    return 0;
}

static void count_classes(struct complexity_counts *counts, uint32_t classes)
{
    classes &= (1u << CLASSES) - 1;
    while (classes != 0) {
        counts->classes[__builtin_ctz(classes)]++;
        classes &= classes - 1;
    }
}

/* `singular`: the hash without a last s, which is looked for when the word itself is not known. */
static void count_word(struct complexity_counts *counts, struct piece *piece, uint32_t hash,
                       uint32_t singular)
{
    uint32_t word = complexity_hash_end(hash);
    uint32_t classes = find(word);
    if (classes == 0 && singular != 0) {
        word = complexity_hash_end(singular);
        classes = find(word);
    }
    if (piece->before != 0) {
        count_classes(counts, find(complexity_hash_pair(piece->before, word)));
    }
    count_classes(counts, classes);
    piece->before = (classes & 1u << CLASS_BEGINS_PHRASE) != 0 ? word : 0;
}

static bool is_within_word(uint8_t byte)
{
    return kinds[byte] == KIND_LETTER || (byte & 0xc0) == 0x80;
}

/* "don't" is dont. */
static void read_word(struct complexity_counts *counts, struct piece *piece)
{
    uint32_t hash = COMPLEXITY_HASH_BEGIN;
    uint32_t before_last = 0;
    uint8_t last = 0;
    uint32_t letters = 0;
    for (; piece->at < piece->bytes; piece->at++) {
        const uint8_t byte = piece->text[piece->at];
        if (is_within_word(byte)) {
            last = byte < 0x80 ? byte | 0x20 : byte;
            before_last = hash;
            hash = complexity_hash_add(hash, last);
            letters += (byte & 0xc0) != 0x80;
        } else if (byte != '\'' || kinds[peek(piece, 1)] != KIND_LETTER) {
            break;
        }
    }
    counts->words++;
    counts->latin += letters;
    counts->long_words += letters >= COMPLEXITY_LONG_WORD_LETTERS;
    count_word(counts, piece, hash, last == 's' && letters > 3 ? before_last : 0);
}

/* "1,000.50" is one number. */
static void read_number(struct complexity_counts *counts, struct piece *piece)
{
    do {
        piece->at++;
    } while (
        kinds[peek(piece, 0)] == KIND_DIGIT ||
        ((peek(piece, 0) == '.' || peek(piece, 0) == ',') && kinds[peek(piece, 1)] == KIND_DIGIT));
    counts->numbers++;
    piece->before = 0;
}

/* ---- lines ---- */

static bool ends_label(uint8_t byte, uint8_t next)
{
    return (byte == '.' || byte == ')' || byte == ':') && (next == ' ' || next == '\t');
}

/* A list that begins with another letter, or leaves one out, is none. */
static void count_choice(struct complexity_counts *counts, uint8_t letter, size_t place)
{
    const char upper = (char)toupper(letter);
    if (upper == 'A') {
        counts->choice_a_at = place;
        counts->choice_due = 'B';
    } else if (upper == counts->choice_due) {
        counts->choices += upper == 'B' ? 2 : 1;
        counts->choices_at = counts->choice_a_at;
        counts->choice_due++;
    }
}

/* What stands where a line begins; nothing is read yet. */
static void look_at_line(struct complexity_counts *counts, const struct piece *piece, size_t place)
{
    size_t skip = 0;
    while (skip < 8 && peek(piece, skip) == ' ') {
        skip++;
    }
    const uint8_t first = peek(piece, skip);
    const uint8_t second = peek(piece, skip + 1);
    if (((first == '-' || first == '*') && second == ' ') ||
        (kinds[first] == KIND_DIGIT && ends_label(second, peek(piece, skip + 2)))) {
        counts->list_items++;
    } else if (first == '(' && second < 0x80 && isalpha(second) &&
               ends_label(peek(piece, skip + 2), peek(piece, skip + 3))) {
        count_choice(counts, second, place);
    } else if (first < 0x80 && isalpha(first) && ends_label(second, peek(piece, skip + 2))) {
        count_choice(counts, first, place);
    }
}

/* U+2200 to U+22FF, ∑ and ≤ and their like. */
static bool is_mathematical(const struct piece *piece)
{
    return peek(piece, 1) == 0x88 || peek(piece, 1) == 0x89 || peek(piece, 1) == 0x8a ||
           peek(piece, 1) == 0x8b;
}

static void read_symbol(struct complexity_counts *counts, struct piece *piece, enum kind kind)
{
    counts->operators +=
        kind == KIND_OPERATOR || kind == KIND_BOTH || (kind == KIND_MARK && is_mathematical(piece));
    counts->code += kind == KIND_SYMBOL || kind == KIND_BOTH;
    counts->question_marks += kind == KIND_QUESTION;
    counts->foreign += kind == KIND_FOREIGN;
    piece->before = kind == KIND_SPACE ? piece->before : 0;
    piece->at++;
}

void complexity_counts_init(struct complexity_counts *counts)
{
    *counts = (struct complexity_counts){.choices_at = SIZE_MAX};
}

void complexity_counts_add(struct complexity_counts *counts, const char *text, size_t bytes,
                           size_t place)
{
    struct piece piece = {.text = (const uint8_t *)text, .bytes = bytes};
    look_at_line(counts, &piece, place);
    while (piece.at < bytes) {
        const enum kind kind = (enum kind)kinds[piece.text[piece.at]];
        if (kind == KIND_LETTER) {
            read_word(counts, &piece);
        } else if (kind == KIND_DIGIT) {
            read_number(counts, &piece);
        } else {
            read_symbol(counts, &piece, kind);
            if (kind == KIND_LINE) {
                look_at_line(counts, &piece, place + piece.at);
            }
        }
    }
}
