#include "worker/cache/words.h"

#include <string.h>

enum { LATIN_FIRST = 0xC0, LATIN_END = 0x180, COMBINING_FIRST = 0x300, COMBINING_END = 0x370 };

/*
 * Canonical decompositions of U+00C0–U+017F (Unicode 15, UnicodeData.txt): the letter in lower case
 * ('.': there is none), and the combining mark as its distance from U+0300.
 */
static const char latin_letters[] =
    "aaaaaa.ceeeeiiii.nooooo..uuuuy..aaaaaa.ceeeeiiii.nooooo..uuuuy.y"
    "aaaaaaccccccccdd..eeeeeeeeeegggggggghh..iiiiiiii....jjkk.llllll."
    "...nnnnnn...oooooo..rrrrrrsssssssstttt..uuuuuuuuuuuuwwyyyzzzzzz.";
static const uint8_t latin_marks[] = {
    0,  1,  2,  3,  8,  10, 0,  39, 0,  1,  2,  8,  0, 1,  2,  8,  0,  3,  0,  1,  2,  3,  8,  0,
    0,  0,  1,  2,  8,  1,  0,  0,  0,  1,  2,  3,  8, 10, 0,  39, 0,  1,  2,  8,  0,  1,  2,  8,
    0,  3,  0,  1,  2,  3,  8,  0,  0,  0,  1,  2,  8, 1,  0,  8,  4,  4,  6,  6,  40, 40, 1,  1,
    2,  2,  7,  7,  12, 12, 12, 12, 0,  0,  4,  4,  6, 6,  7,  7,  40, 40, 12, 12, 2,  2,  6,  6,
    7,  7,  39, 39, 2,  2,  0,  0,  3,  3,  4,  4,  6, 6,  40, 40, 0,  0,  0,  0,  2,  2,  39, 39,
    0,  1,  1,  39, 39, 12, 12, 0,  0,  0,  0,  1,  1, 39, 39, 12, 12, 0,  0,  0,  4,  4,  6,  6,
    11, 11, 0,  0,  1,  1,  39, 39, 12, 12, 1,  1,  2, 2,  39, 39, 12, 12, 39, 39, 12, 12, 0,  0,
    3,  3,  4,  4,  6,  6,  10, 10, 11, 11, 40, 40, 2, 2,  2,  2,  8,  1,  1,  7,  7,  12, 12, 0,
};

/* A word while it is read: the letters, and a hash of those for which there is no room. */
struct letters {
    struct word *word;
    uint32_t overflow;
    bool is_ascii;
};

enum point_class { POINT_OTHER, POINT_LETTER, POINT_IDEOGRAPH, POINT_DIGIT, POINT_MARK };

struct point {
    uint32_t code;   /* lower case, decomposed */
    uint32_t accent; /* the combining mark after it; 0: none */
    size_t bytes;    /* in the text */
    enum point_class class;
    bool is_capital;
};

static bool is_digit(uint32_t c)
{
    return c - '0' < 10;
}

static bool is_space(uint32_t c)
{
    return c == ' ' || c - '\t' < 5;
}

static bool is_ascii_letter(uint32_t c)
{
    return (c | 0x20) - 'a' < 26;
}

/* ---- code points ---- */

/* 0 where no well-formed UTF-8 begins (Unicode 15, table 3-7). */
static size_t decode(const uint8_t *text, size_t bytes, uint32_t *ret_code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t lead = text[0];
    const size_t length = lead < 0x80   ? 1
                          : lead < 0xC2 ? 0
                          : lead < 0xE0 ? 2
                          : lead < 0xF0 ? 3
                          : lead < 0xF5 ? 4
                                        : 0;
    if (length == 0 || length > bytes) {
        return 0;
    }
    uint32_t code = length == 1 ? lead : lead & (0xFFU >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xC0) != 0x80) {
            return 0;
        }
        code = code << 6 | (text[i] & 0x3FU);
    }
    if (code < least[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
        return 0;
    }
    *ret_code = code;
    return length;
}

static void fold_latin(struct point *point)
{
    const uint32_t c = point->code;
    const char letter = latin_letters[c - LATIN_FIRST];
    /* Capitals come first in each pair, which begins with an odd number from U+0139 to U+0148 and
     * from U+0179. */
    const bool is_odd_pair = (c >= 0x139 && c <= 0x148) || c >= 0x179;
    point->is_capital = c < 0xE0 ? c != 0xDF : c >= 0x100 && (c & 1) == (is_odd_pair ? 1 : 0);
    if (letter != '.') {
        point->code = (uint8_t)letter;
        point->accent = COMBINING_FIRST + latin_marks[c - LATIN_FIRST];
    } else if (c == 0x130) {
        point->code = 'i';
    } else if (point->is_capital) {
        point->code = c < 0xE0 ? c + 0x20 : c + 1;
    }
}

static void fold_greek_or_cyrillic(struct point *point)
{
    const uint32_t c = point->code;
    if ((c >= 0x391 && c <= 0x3A9) || (c >= 0x410 && c <= 0x42F)) {
        point->code = c + 0x20;
    } else if (c >= 0x400 && c <= 0x40F) {
        point->code = c + 0x50;
    }
    point->is_capital = point->code != c;
    /* й, ё, ї */
    if (point->code == 0x439) {
        point->code = 0x438;
        point->accent = 0x306;
    } else if (point->code == 0x451 || point->code == 0x457) {
        point->code = point->code == 0x451 ? 0x435 : 0x456;
        point->accent = 0x308;
    } else if (point->code == 0x3C2) {
        point->code = 0x3C3; /* final sigma */
    }
}

static enum point_class classify(uint32_t c)
{
    if (c >= COMBINING_FIRST && c < COMBINING_END) {
        return POINT_MARK;
    }
    if ((c >= 0x3040 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x9FFF) ||
        (c >= 0xF900 && c <= 0xFAFF) || c >= 0x1F000) {
        return POINT_IDEOGRAPH; /* and emoji */
    }
    const bool is_punctuation = (c < 0xC0 && c != 0xAA && c != 0xB5 && c != 0xBA) || c == 0xD7 ||
                                c == 0xF7 || (c >= 0x2000 && c <= 0x2BFF) ||
                                (c >= 0x3000 && c <= 0x303F) || (c >= 0xE000 && c <= 0xF8FF) ||
                                (c >= 0xFE00 && c <= 0xFEFF) || c >= 0xFFF0;
    return is_punctuation ? POINT_OTHER : POINT_LETTER;
}

static void classify_ascii(struct point *point)
{
    const uint32_t c = point->code;
    if (is_ascii_letter(c)) {
        point->class = POINT_LETTER;
        point->is_capital = (c & 0x20) == 0;
        point->code = c | 0x20;
    } else {
        point->class = is_digit(c) ? POINT_DIGIT : POINT_OTHER;
    }
}

/* What stands at `at`, of which there is at least a byte. */
static struct point point_at(const struct words *words, size_t at)
{
    struct point point = {.code = words->text[at], .bytes = 1, .class = POINT_OTHER};
    if (point.code < 0x80) {
        classify_ascii(&point);
        return point;
    }
    const size_t bytes = decode(words->text + at, words->bytes - at, &point.code);
    if (bytes == 0) {
        point.code = ' ';
        return point;
    }
    point.bytes = bytes;
    if (point.code >= 0xFF01 && point.code <= 0xFF5E) {
        point.code -= 0xFEE0;
        classify_ascii(&point);
        return point;
    }
    point.class = classify(point.code);
    if (point.code >= LATIN_FIRST && point.code < LATIN_END && point.class == POINT_LETTER) {
        fold_latin(&point);
    } else if (point.code >= 0x370 && point.code < 0x530) {
        fold_greek_or_cyrillic(&point);
    }
    return point;
}

static uint32_t byte_at(const struct words *words, size_t at)
{
    return at < words->bytes ? words->text[at] : 0;
}

static bool is_digit_at(const struct words *words, size_t at)
{
    return is_digit(byte_at(words, at));
}

/* ---- letters ---- */

static uint32_t mix(uint32_t hash, uint32_t byte)
{
    return (hash ^ byte) * 0x01000193U; /* FNV-1a */
}

static void put_byte(struct letters *letters, uint32_t byte)
{
    struct word *word = letters->word;
    if (word->bytes < WORD_BYTES_MAX) {
        word->text[word->bytes++] = (char)byte;
    } else {
        letters->overflow = mix(letters->overflow, byte);
    }
}

static void put_code(struct letters *letters, uint32_t code)
{
    if (code < 0x80) {
        put_byte(letters, code);
        return;
    }
    letters->is_ascii = false;
    if (code < 0x800) {
        put_byte(letters, 0xC0 | code >> 6);
    } else {
        if (code < 0x10000) {
            put_byte(letters, 0xE0 | code >> 12);
        } else {
            put_byte(letters, 0xF0 | code >> 18);
            put_byte(letters, 0x80 | (code >> 12 & 0x3F));
        }
        put_byte(letters, 0x80 | (code >> 6 & 0x3F));
    }
    put_byte(letters, 0x80 | (code & 0x3F));
}

static void put_point(struct letters *letters, const struct point *point)
{
    put_code(letters, point->code);
    if (point->accent != 0) {
        put_code(letters, point->accent);
    }
}

/* ---- stems ---- */

static bool ends_with(const struct word *word, const char *end, size_t bytes)
{
    return word->bytes > bytes && memcmp(word->text + word->bytes - bytes, end, bytes) == 0;
}

static bool is_vowel(char c)
{
    return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u' || c == 'y';
}

static bool has_vowel(const struct word *word, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (is_vowel(word->text[i])) {
            return true;
        }
    }
    return false;
}

/* "cities", "boxes", "dogs"; but "this", "bus", "class", "news". After Harman's S-stemmer (1991).
 */
static void cut_plural(struct word *word)
{
    if (word->bytes < 4 || word->text[word->bytes - 1] != 's' ||
        (word->bytes == 4 && memcmp(word->text, "news", 4) == 0)) {
        return;
    }
    if (word->bytes > 4 && ends_with(word, "ies", 3)) {
        word->bytes -= 2;
        word->text[word->bytes - 1] = 'y';
    } else if (ends_with(word, "ches", 4) || ends_with(word, "shes", 4) ||
               ends_with(word, "sses", 4) || ends_with(word, "xes", 3) ||
               ends_with(word, "zes", 3)) {
        word->bytes -= 2;
    } else if (!ends_with(word, "ss", 2) && !ends_with(word, "us", 2) &&
               !ends_with(word, "is", 2)) {
        word->bytes -= 1;
    }
}

/* "stopped", "stopping" to "stop", but "called" to "call". */
static void cut_doubled(struct word *word)
{
    const char last = word->text[word->bytes - 1];
    if (word->bytes > 3 && last == word->text[word->bytes - 2] && !is_vowel(last) && last != 'l' &&
        last != 's' && last != 'z') {
        word->bytes--;
    }
}

static void cut_verb(struct word *word)
{
    const size_t cut = ends_with(word, "ing", 3)                                ? 3
                       : ends_with(word, "ed", 2) && !ends_with(word, "eed", 3) ? 2
                                                                                : 0;
    if (cut > 0 && (size_t)word->bytes >= cut + 3 && has_vowel(word, word->bytes - cut)) {
        word->bytes = (uint8_t)(word->bytes - cut);
        cut_doubled(word);
    }
    if (word->bytes > 3 && word->text[word->bytes - 1] == 'e') {
        word->bytes--; /* so that "make" meets "making" */
    }
}

static void finish_word(struct word *word, uint32_t overflow)
{
    uint32_t hash = mix(0x811C9DC5U, word->form);
    for (size_t i = 0; i < word->bytes; i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): put_byte() wrote as many */
        hash = mix(hash, (uint8_t)word->text[i]);
    }
    hash ^= overflow;
    hash ^= hash >> 16; /* fmix32 of MurmurHash3: FNV leaves the high bits of short words weak */
    hash *= 0x85EBCA6BU;
    hash ^= hash >> 13;
    hash *= 0xC2B2AE35U;
    word->hash = hash ^ hash >> 16;
}

static void finish_letters(struct letters *letters)
{
    if (letters->is_ascii && letters->overflow == 0) {
        cut_plural(letters->word);
        cut_verb(letters->word);
    }
    finish_word(letters->word, letters->overflow);
}

/* ---- words ---- */

static bool is_apostrophe(uint32_t code)
{
    return code == '\'' || code == 0x2019 || code == 0x2018 || code == 0x02BC;
}

/* Bytes of the contraction's end at `at` ("'s", "'re"), which says nothing; 0: there is none. */
static size_t contraction(const struct words *words, size_t at)
{
    static const char *const ends[] = {"s", "re", "ll", "ve", "m", "d"};
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        const size_t bytes = strlen(ends[i]);
        size_t same = 0;
        while (same < bytes && (byte_at(words, at + same) | 0x20) == (uint8_t)ends[i][same]) {
            same++;
        }
        if (same == bytes &&
            (at + bytes == words->bytes || point_at(words, at + bytes).class != POINT_LETTER)) {
            return bytes;
        }
    }
    return 0;
}

/* "C++" and "C#" are not "C". */
static void take_language_mark(struct words *words, struct letters *letters)
{
    if (byte_at(words, words->at) == '+' && byte_at(words, words->at + 1) == '+') {
        put_code(letters, '+');
        put_code(letters, '+');
        words->at += 2;
    } else if (byte_at(words, words->at) == '#') {
        put_code(letters, '#');
        words->at++;
    }
}

static void take_letters(struct words *words, struct word *word)
{
    struct letters letters = {.word = word, .is_ascii = true};
    while (words->at < words->bytes) {
        const struct point point = point_at(words, words->at);
        if (point.class == POINT_LETTER || point.class == POINT_MARK) {
            put_point(&letters, &point);
            words->at += point.bytes;
        } else if (is_apostrophe(point.code) && words->at + point.bytes < words->bytes &&
                   point_at(words, words->at + point.bytes).class == POINT_LETTER) {
            words->at += point.bytes;
            words->at += contraction(words, words->at);
        } else {
            break;
        }
    }
    take_language_mark(words, &letters);
    finish_letters(&letters);
}

static void take_ideograph(struct words *words, struct word *word)
{
    struct letters letters = {.word = word, .is_ascii = false};
    const struct point point = point_at(words, words->at);
    put_point(&letters, &point);
    words->at += point.bytes;
    finish_word(word, 0);
}

/* "1,000": a comma and exactly three digits. */
static bool is_thousands(const struct words *words, size_t at)
{
    return byte_at(words, at) == ',' && is_digit_at(words, at + 1) && is_digit_at(words, at + 2) &&
           is_digit_at(words, at + 3) && !is_digit_at(words, at + 4);
}

static void take_ordinal(struct words *words)
{
    const uint32_t a = byte_at(words, words->at) | 0x20;
    const uint32_t b = byte_at(words, words->at + 1) | 0x20;
    const bool is_ordinal = (a == 's' && b == 't') || (a == 'n' && b == 'd') ||
                            (a == 'r' && b == 'd') || (a == 't' && b == 'h');
    if (is_ordinal && !is_ascii_letter(byte_at(words, words->at + 2))) {
        words->at += 2;
    }
}

/* "10.00" and "7:00" are 10 and 7; one zero more or less may be a version. */
static void cut_zeros(struct word *word)
{
    if (ends_with(word, ".00", 3) || ends_with(word, ":00", 3)) {
        const size_t bytes = word->bytes - 3U;
        if (memchr(word->text, '.', bytes) == NULL && memchr(word->text, ':', bytes) == NULL) {
            word->bytes = (uint8_t)bytes;
        }
    }
}

static void take_number(struct words *words, struct word *word)
{
    struct letters letters = {.word = word, .is_ascii = true};
    if (byte_at(words, words->at) == '-') {
        put_byte(&letters, '-');
        words->at++;
    }
    while (byte_at(words, words->at) == '0' && is_digit_at(words, words->at + 1)) {
        words->at++;
    }
    while (words->at < words->bytes) {
        const struct point point = point_at(words, words->at);
        if (point.class == POINT_DIGIT) {
            put_byte(&letters, point.code);
            words->at += point.bytes;
        } else if (is_thousands(words, words->at)) {
            words->at++;
        } else if ((point.code == '.' || point.code == ':') && is_digit_at(words, words->at + 1)) {
            put_byte(&letters, point.code);
            words->at++;
        } else {
            break;
        }
    }
    take_ordinal(words);
    cut_zeros(word);
    finish_word(word, letters.overflow);
}

/* ---- what stands between words ---- */

static bool is_quotation_mark(uint32_t code)
{
    return code == '"' || code == '`' || code == 0x201C || code == 0x201D || code == 0xAB ||
           code == 0xBB;
}

static uint32_t closing(uint32_t opening)
{
    return opening == 0x201C ? 0x201D : opening == 0xAB ? 0xBB : opening;
}

/* A single quote opens before a letter and after a space; one that closes it must follow. */
static bool opens_single(const struct words *words, size_t at)
{
    if (words->text[at] != '\'' ||
        (at > 0 && !is_space(words->text[at - 1]) && words->text[at - 1] != '(')) {
        return false;
    }
    return at + 1 < words->bytes &&
           memchr(words->text + at + 1, '\'', words->bytes - at - 1) != NULL;
}

static void take_quotation_mark(struct words *words, uint32_t code)
{
    if (words->quote != 0) {
        words->quote = code == words->quote ? 0 : words->quote;
    } else if (code == '\'' ? opens_single(words, words->at) : is_quotation_mark(code)) {
        words->quote = closing(code);
    }
}

/* - and / only between spaces and after a number, as in "5 - 3"; else they join words. */
static bool is_operator(const struct words *words, uint32_t code)
{
    if (code == '+' || code == '*' || code == '<' || code == '>' || code == '=' || code == '^' ||
        code == '|' || code == 0xD7 || code == 0xF7) {
        return true;
    }
    const bool may_be = code == '-' || code == '/' || code == 0x2212;
    return may_be && words->has_last && words->last_form == WORD_NUMBER && words->at > 0 &&
           is_space(words->text[words->at - 1]) && words->at + 1 < words->bytes;
}

static const char *unit_of(uint32_t code)
{
    switch (code) {
    case '$':
        return "usd";
    case '%':
        return "percent";
    case 0xA3:
        return "gbp";
    case 0xA5:
        return "yen";
    case 0x20AC:
        return "euro";
    case 0x20B9:
        return "inr";
    default:
        return NULL;
    }
}

static void take_text(struct words *words, const struct point *point, const char *text,
                      struct word *word)
{
    for (const char *c = text; *c != '\0'; c++) {
        word->text[word->bytes++] = *c;
    }
    words->at += point->bytes;
    finish_word(word, 0);
}

static bool is_negative_number(const struct words *words, size_t at)
{
    return words->text[at] == '-' && is_digit_at(words, at + 1) &&
           (at == 0 || is_space(words->text[at - 1]) || words->text[at - 1] == '(');
}

static void note_pause(struct words *words, uint32_t code)
{
    if (code == '.' || code == '!' || code == '?' || code == ':' || code == '\n' ||
        code == 0x3002) {
        words->is_start = true;
        words->pending |= WORD_PAUSE;
        words->pending |= code == ':' ? WORD_COLON : 0;
    } else if (code == ',' || code == ';' || code == '(' || code == ')') {
        words->pending |= WORD_PAUSE;
    }
}

/* Whether a word began at words->at; then it is taken, else one code point is passed. */
static bool take(struct words *words, struct word *word)
{
    const struct point point = point_at(words, words->at);
    const char *unit = unit_of(point.code);
    if (point.class == POINT_LETTER) {
        word->marks |= point.is_capital && !words->is_start ? WORD_CAPITAL : 0;
        take_letters(words, word);
    } else if (point.class == POINT_IDEOGRAPH) {
        take_ideograph(words, word);
    } else if (point.class == POINT_DIGIT || is_negative_number(words, words->at)) {
        word->form = WORD_NUMBER;
        take_number(words, word);
    } else if (unit != NULL) {
        take_text(words, &point, unit, word);
    } else if (is_operator(words, point.code)) {
        const uint32_t code = point.code == 0xD7     ? '*'
                              : point.code == 0xF7   ? '/'
                              : point.code == 0x2212 ? '-'
                                                     : point.code;
        word->form = WORD_SYMBOL;
        take_text(words, &point, (const char[]){(char)code, '\0'}, word);
    } else {
        take_quotation_mark(words, point.code);
        note_pause(words, point.code);
        words->at += point.bytes;
        return false;
    }
    return true;
}

void words_init(struct words *words, const char *text, size_t bytes)
{
    *words = (struct words){.text = (const uint8_t *)text, .bytes = bytes, .is_start = true};
}

bool words_next(struct words *words, struct word *ret_word)
{
    while (words->at < words->bytes) {
        ret_word->form = WORD_LETTERS;
        ret_word->bytes = 0;
        ret_word->marks = (uint8_t)(words->pending | (words->quote != 0 ? WORD_QUOTED : 0));
        if (take(words, ret_word)) {
            words->pending = 0;
            words->is_start = false;
            words->has_last = true;
            words->last_form = ret_word->form;
            return true;
        }
    }
    return false;
}

uint32_t words_hash(const char *word)
{
    struct words words;
    struct word first;
    words_init(&words, word, strlen(word));
    return words_next(&words, &first) ? first.hash : 0;
}
