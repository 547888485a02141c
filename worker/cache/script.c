#include "worker/cache/script.h"

#include <stdint.h>
#include <string.h>
#include <utf8proc.h>

#include "common/attributes.h"

enum script {
    LATIN, /* the first of those that have as many letters */
    GREEK,
    CYRILLIC,
    ARMENIAN,
    HEBREW,
    ARABIC,
    DEVANAGARI,
    BENGALI,
    GURMUKHI,
    GUJARATI,
    TAMIL,
    TELUGU,
    KANNADA,
    MALAYALAM,
    THAI,
    GEORGIAN,
    ETHIOPIC,
    HANGUL,
    KANA,
    HAN,
    SCRIPTS,
};

static const char *const names[SCRIPTS] = {
    "latin",    "greek",    "cyrillic", "armenian", "hebrew",  "arabic",    "devanagari", "bengali", "gurmukhi", "gujarati",
    "tamil",    "telugu",   "kannada",  "malayalam", "thai",   "georgian",  "ethiopic",   "hangul",  "kana",     "han"};

/* In the order of code points. */
static const struct {
    int32_t first, last;
    enum script script;
} ranges[] = {
    {0x41, 0x5a, LATIN},         {0x61, 0x7a, LATIN},         {0xc0, 0x24f, LATIN},        {0x370, 0x3ff, GREEK},
    {0x400, 0x52f, CYRILLIC},    {0x531, 0x58f, ARMENIAN},    {0x591, 0x5f4, HEBREW},      {0x600, 0x6ff, ARABIC},
    {0x750, 0x77f, ARABIC},      {0x8a0, 0x8ff, ARABIC},      {0x900, 0x97f, DEVANAGARI},  {0x980, 0x9ff, BENGALI},
    {0xa00, 0xa7f, GURMUKHI},    {0xa80, 0xaff, GUJARATI},    {0xb80, 0xbff, TAMIL},       {0xc00, 0xc7f, TELUGU},
    {0xc80, 0xcff, KANNADA},     {0xd00, 0xd7f, MALAYALAM},   {0xe00, 0xe7f, THAI},        {0x10a0, 0x10ff, GEORGIAN},
    {0x1100, 0x11ff, HANGUL},    {0x1200, 0x139f, ETHIOPIC},  {0x1e00, 0x1eff, LATIN},     {0x1f00, 0x1fff, GREEK},
    {0x3041, 0x30ff, KANA},      {0x3130, 0x318f, HANGUL},    {0x3400, 0x4dbf, HAN},       {0x4e00, 0x9fff, HAN},
    {0xac00, 0xd7a3, HANGUL},    {0xf900, 0xfaff, HAN},       {0xfb50, 0xfdff, ARABIC},    {0xfe70, 0xfefc, ARABIC},
    {0xff66, 0xff9d, KANA},      {0x20000, 0x323af, HAN},
};

static void count(int32_t letter, size_t counts[SCRIPTS])
{
    for (size_t i = 0; i < ARRAY_LENGTH(ranges) && ranges[i].first <= letter; i++) {
        if (letter <= ranges[i].last) {
            counts[ranges[i].script]++;
        }
    }
}

const char *script_of(const char *text)
{
    size_t counts[SCRIPTS] = {0};
    const utf8proc_uint8_t *at = (const utf8proc_uint8_t *)text;
    utf8proc_ssize_t left = (utf8proc_ssize_t)strlen(text);
    while (left > 0) {
        utf8proc_int32_t letter;
        const utf8proc_ssize_t bytes = utf8proc_iterate(at, left, &letter);
        if (bytes > 0) {
            count(letter, counts);
        }
        at += bytes > 0 ? bytes : 1;
        left -= bytes > 0 ? bytes : 1;
    }
    if (counts[KANA] > 0) { /* Japanese writes most of its words with both */
        counts[KANA] += counts[HAN];
    }
    size_t most = LATIN;
    for (size_t i = 0; i < SCRIPTS; i++) {
        most = counts[i] > counts[most] ? i : most;
    }
    return names[most];
}
