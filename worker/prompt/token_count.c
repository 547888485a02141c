#include "worker/prompt/token_count.h"

#include <stdbool.h>
#include <utf8proc.h>

#include "common/attributes.h"
#include "worker/prompt/bpe.h"

/*
 * Thousandths of a token. Means over the even lines of 3,139 prompts (general questions,
 * mathematics, code, Latin script), cl100k_base and o200k_base alike.
 */
enum {
    WORD_LETTER_MORE = 350,  /* each letter beyond the table */
    SIGN_BEFORE_SHORT = 100, /* a sign glued to a word of four letters at most … */
    SIGN_BEFORE_LONG = 550,  /* … or of more */
    SIGNS_IN_ONE = 4,        /* so many signs are one token */
    SIGN_MORE = 300,
    SPACES_IN_ONE = 64,
    OTHER_SIGN = 1300, /* an emoji, a sign of mathematics */
};

static const uint16_t word_costs[] = {0,    1000, 1001, 1007, 1023, 1055, 1088, 1144,
                                      1185, 1224, 1303, 1373, 1481, 1631, 1700, 2300};

/* By the first character beyond ASCII. Between the two vocabularies, nearer to the newer one. */
static unsigned letter_cost(utf8proc_int32_t point)
{
    static const struct {
        utf8proc_int32_t below;
        unsigned cost;
    } scripts[] = {
        {0x370, 480},  /* Latin with marks */
        {0x400, 480},  /* Greek */
        {0x530, 300},  /* Cyrillic */
        {0x600, 480},  /* Armenian, Hebrew */
        {0x780, 470},  /* Arabic */
        {0x1E00, 500}, /* India, Thai, Georgian … */
        {0x2000, 480}, /* Latin of Vietnamese, Greek of old */
        {0xAC00, 750}, /* Chinese, Japanese */
        {0xD7B0, 600}, /* Korean */
    };
    for (size_t i = 0; i < ARRAY_LENGTH(scripts); i++) {
        if (point < scripts[i].below) {
            return scripts[i].cost;
        }
    }
    return 1000;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static uint64_t word_cost(size_t letters)
{
    const size_t last = ARRAY_LENGTH(word_costs) - 1;
    return letters <= last ? word_costs[letters]
                           : word_costs[last] + (uint64_t)(letters - last) * WORD_LETTER_MORE;
}

/* A piece with characters beyond ASCII. */
static uint64_t foreign_cost(const char *text, size_t bytes)
{
    uint64_t letters = 0;
    uint64_t signs = 0;
    unsigned cost = 0;
    for (size_t at = 0; at < bytes;) {
        utf8proc_int32_t point = 0;
        const utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                       (utf8proc_ssize_t)(bytes - at), &point);
        at += step > 0 ? (size_t)step : 1;
        const bool is_sign = (point >= 0x2000 && point < 0x2E80) || point >= 0x1F000 || step <= 0;
        signs += is_sign ? 1 : 0;
        letters += is_sign || point == ' ' ? 0 : 1;
        cost = point >= 0x80 && !is_sign && cost == 0 ? letter_cost(point) : cost;
    }
    const uint64_t sum = letters * cost + signs * OTHER_SIGN;
    return sum < 1000 ? 1000 : sum;
}

static uint64_t piece_cost(const char *text, size_t bytes)
{
    size_t letters = 0;
    size_t blanks = 0;
    size_t ascii = 0;
    for (size_t i = 0; i < bytes; i++) {
        letters += is_letter(text[i]) || (text[i] == '\'' && letters > 0) ? 1 : 0;
        blanks += is_blank(text[i]) ? 1 : 0;
        ascii += (unsigned char)text[i] < 0x80 ? 1 : 0;
    }
    if (ascii < bytes) {
        return foreign_cost(text, bytes);
    }
    if (blanks == bytes) {
        return 1000 * (uint64_t)(1 + bytes / SPACES_IN_ONE);
    }
    if (letters == 0) { /* digits, or signs */
        return bytes <= SIGNS_IN_ONE ? 1000 : 1000 + (uint64_t)(bytes - SIGNS_IN_ONE) * SIGN_MORE;
    }
    const bool has_sign = letters + blanks < bytes;
    const uint64_t more = !has_sign ? 0 : letters <= 4 ? SIGN_BEFORE_SHORT : SIGN_BEFORE_LONG;
    return word_cost(letters) + more;
}

/* So far ahead a piece is looked for. */
enum { LOOK_BYTES_MAX = 4096 };

uint64_t token_count_estimate(const char *text, size_t bytes)
{
    uint64_t thousandths = 0;
    for (size_t at = 0; at < bytes;) {
        const size_t ahead = bytes - at < LOOK_BYTES_MAX ? bytes - at : LOOK_BYTES_MAX;
        const size_t piece = bpe_splitter_next(BPE_O200K, text + at, ahead);
        thousandths += piece_cost(text + at, piece);
        at += piece;
    }
    return (thousandths + 500) / 1000;
}

uint64_t token_count(const struct bpe *bpe, const char *text, size_t bytes)
{
    return bpe == NULL || bytes > TOKEN_COUNT_EXACT_BYTES_MAX ? token_count_estimate(text, bytes)
                                                              : bpe_count(bpe, text, bytes);
}
