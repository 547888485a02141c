#include "worker/prompt/bpe_splitter.h"

#include <stdint.h>
#include <string.h>
#include <utf8proc.h>

/* What the patterns tell apart. A character has one or more of these. */
enum {
    UPPER = 1 << 0,   /* Lu, Lt, Lm, Lo, M */
    LOWER = 1 << 1,   /* Ll, Lm, Lo, M */
    LETTER = 1 << 2,  /* L */
    NUMBER = 1 << 3,  /* N */
    SPACE = 1 << 4,   /* White_Space */
    NEWLINE = 1 << 5, /* \r, \n; a space as well */
};

struct reader {
    const char *text;
    size_t bytes;
};

static unsigned class_of_space(utf8proc_int32_t c)
{
    const bool is_space = (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 ||
                          c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
                          c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
    return (is_space ? (unsigned)SPACE : 0U) | (c == '\n' || c == '\r' ? (unsigned)NEWLINE : 0U);
}

static unsigned class_of(utf8proc_int32_t c)
{
    const utf8proc_category_t category = utf8proc_category(c);
    if (category == UTF8PROC_CATEGORY_LL) {
        return LETTER | LOWER;
    }
    if (category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LT) {
        return LETTER | UPPER;
    }
    if (category == UTF8PROC_CATEGORY_LM || category == UTF8PROC_CATEGORY_LO) {
        return LETTER | UPPER | LOWER;
    }
    if (category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
        category == UTF8PROC_CATEGORY_ME) {
        return UPPER | LOWER;
    }
    if (category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
        category == UTF8PROC_CATEGORY_NO) {
        return NUMBER;
    }
    return class_of_space(c);
}

/* The class of the character at `at` and where the next one begins; 0 for both at the end. */
static unsigned look(const struct reader *reader, size_t at, size_t *ret_next)
{
    if (at >= reader->bytes) {
        *ret_next = at;
        return 0;
    }
    const unsigned char c = (unsigned char)reader->text[at];
    *ret_next = at + 1;
    if (c < 0x80) {
        const bool is_small = c >= 'a' && c <= 'z';
        const bool is_large = c >= 'A' && c <= 'Z';
        return is_small               ? (unsigned)(LETTER | LOWER)
               : is_large             ? (unsigned)(LETTER | UPPER)
               : c >= '0' && c <= '9' ? (unsigned)NUMBER
                                      : class_of_space(c);
    }
    utf8proc_int32_t point;
    const utf8proc_ssize_t length =
        utf8proc_iterate((const utf8proc_uint8_t *)reader->text + at,
                         (utf8proc_ssize_t)(reader->bytes - at), &point);
    if (length <= 0) {
        return 0;
    }
    *ret_next = at + (size_t)length;
    return class_of(point);
}

static bool is_other(const struct reader *reader, size_t at)
{
    size_t next;
    return at < reader->bytes && (look(reader, at, &next) & (LETTER | NUMBER | SPACE)) == 0;
}

/* Past the characters of any of these classes, `most` of them at most. */
static size_t skip(const struct reader *reader, size_t at, unsigned classes, size_t most)
{
    size_t next;
    for (size_t i = 0; i < most && (look(reader, at, &next) & classes) != 0; i++) {
        at = next;
    }
    return at;
}

/* Past 's, 't, 're, 've, 'm, 'll, 'd at `at`; `at` when there is none. */
static size_t skip_ending(const struct reader *reader, size_t at, bool is_any_case)
{
    static const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    const size_t left = reader->bytes - at;
    if (left < 2 || reader->text[at] != '\'') {
        return at;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(endings); i++) {
        const size_t length = strlen(endings[i]);
        bool is_same = left > length;
        for (size_t j = 0; is_same && j < length; j++) {
            const char c = reader->text[at + 1 + j];
            is_same = c == endings[i][j] || (is_any_case && c == endings[i][j] - 'a' + 'A');
        }
        if (is_same) {
            return at + 1 + length;
        }
    }
    return at;
}

/* [UPPER]*[LOWER]+ from `at`: where it ends, 0 when it does not match. */
static size_t match_lower(const struct reader *reader, size_t at)
{
    size_t next;
    size_t end = at;
    size_t shared_end = 0; /* behind the last that is of both classes */
    unsigned class;
    while (((class = look(reader, end, &next)) & UPPER) != 0) {
        end = next;
        shared_end = (class & LOWER) != 0 ? next : shared_end;
    }
    const size_t lower_end = skip(reader, end, LOWER, SIZE_MAX);
    return lower_end > end ? lower_end : shared_end;
}

/* [UPPER]+[LOWER]* */
static size_t match_upper(const struct reader *reader, size_t at)
{
    const size_t end = skip(reader, at, UPPER, SIZE_MAX);
    return end == at ? 0 : skip(reader, end, LOWER, SIZE_MAX);
}

/* The word of o200k_base, with one sign before it and an ending behind. */
static size_t match_cased_word(const struct reader *reader, size_t behind_sign)
{
    size_t end = behind_sign > 0 ? match_lower(reader, behind_sign) : 0;
    end = end > 0 ? end : match_lower(reader, 0);
    end = end > 0 || behind_sign == 0 ? end : match_upper(reader, behind_sign);
    end = end > 0 ? end : match_upper(reader, 0);
    return end > 0 ? skip_ending(reader, end, true) : 0;
}

static size_t match_letters(const struct reader *reader, size_t behind_sign)
{
    const size_t end = skip(reader, behind_sign, LETTER, SIZE_MAX);
    return end > behind_sign ? end : 0;
}

/* Behind the one sign that a word may have before it; 0: it has none. */
static size_t sign_of(enum bpe_pattern pattern, const struct reader *reader)
{
    size_t next;
    const unsigned class = look(reader, 0, &next);
    if (pattern == BPE_GPT2) {
        return reader->text[0] == ' ' ? 1 : 0;
    }
    return (class & (LETTER | NUMBER | NEWLINE)) == 0 ? next : 0;
}

static size_t match_word(enum bpe_pattern pattern, const struct reader *reader)
{
    const size_t behind_sign = sign_of(pattern, reader);
    if (pattern == BPE_O200K) {
        return match_cased_word(reader, behind_sign);
    }
    const size_t ending = skip_ending(reader, 0, pattern != BPE_GPT2);
    return ending > 0 ? ending : match_letters(reader, behind_sign);
}

static size_t match_number(enum bpe_pattern pattern, const struct reader *reader)
{
    const bool is_gpt2 = pattern == BPE_GPT2;
    const size_t from = is_gpt2 && reader->text[0] == ' ' ? 1 : 0;
    const size_t most = is_gpt2 ? SIZE_MAX : pattern == BPE_QWEN ? 1 : 3;
    const size_t end = skip(reader, from, NUMBER, most);
    return end > from ? end : 0;
}

static size_t match_signs(enum bpe_pattern pattern, const struct reader *reader)
{
    const size_t from = reader->text[0] == ' ' ? 1 : 0;
    size_t end = from;
    while (is_other(reader, end)) {
        (void)look(reader, end, &end);
    }
    if (end == from) {
        return 0;
    }
    while (pattern != BPE_GPT2 && end < reader->bytes &&
           (reader->text[end] == '\n' || reader->text[end] == '\r' ||
            (pattern == BPE_O200K && reader->text[end] == '/'))) {
        end++;
    }
    return end;
}

/* Up to the last newline of the white space; else all of it but what belongs to the next word. */
static size_t match_space(enum bpe_pattern pattern, const struct reader *reader)
{
    size_t end = 0;
    size_t last = 0; /* where its last character begins */
    size_t behind_newline = 0;
    size_t next;
    unsigned class;
    while (((class = look(reader, end, &next)) & SPACE) != 0) {
        last = end;
        end = next;
        behind_newline = (class & NEWLINE) != 0 ? next : behind_newline;
    }
    if (behind_newline > 0 && pattern != BPE_GPT2) {
        return behind_newline;
    }
    return end == reader->bytes || last == 0 ? end : last;
}

size_t bpe_splitter_next(enum bpe_pattern pattern, const char *text, size_t bytes)
{
    const struct reader reader = {.text = text, .bytes = bytes};
    size_t end = match_word(pattern, &reader);
    end = end > 0 ? end : match_number(pattern, &reader);
    end = end > 0 ? end : match_signs(pattern, &reader);
    end = end > 0 ? end : match_space(pattern, &reader);
    if (end == 0) {
        (void)look(&reader, 0, &end);
    }
    return end;
}

bool bpe_pattern_parse(const char *text, enum bpe_pattern *ret_pattern)
{
    static const struct {
        const char *text;
        enum bpe_pattern pattern;
    } known[] = {
        {"'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
         BPE_GPT2},
        {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
         BPE_GPT2},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
         "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         BPE_CL100K},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
         "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         BPE_QWEN},
        {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
         "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"
         "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| "
         "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         BPE_O200K},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++) {
        if (strcmp(text, known[i].text) == 0) {
            *ret_pattern = known[i].pattern;
            return true;
        }
    }
    return false;
}
