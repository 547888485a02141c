#include "worker/cache/characters.h"

#include <utf8proc.h>

size_t character_read(const char *text, size_t bytes, int32_t *ret_character)
{
    const unsigned char first = (unsigned char)text[0];
    if (first < 0x80) {
        *ret_character = first;
        return 1;
    }
    const utf8proc_ssize_t length =
        utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)bytes, ret_character);
    if (length <= 0) {
        *ret_character = CHARACTER_REPLACEMENT;
        return 1;
    }
    return (size_t)length;
}

int character_append(struct bytes *out, int32_t character)
{
    utf8proc_uint8_t encoded[4];
    if (character < 0x80) {
        const char byte = (char)character;
        return bytes_append(out, &byte, 1);
    }
    const utf8proc_ssize_t length = utf8proc_encode_char(character, encoded);
    return bytes_append(out, encoded, (size_t)length);
}

static bool is_ascii_letter(int32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_ascii_digit(int32_t c)
{
    return c >= '0' && c <= '9';
}

bool character_is_blank(int32_t c)
{
    if (c < 0x80) {
        return c == ' ' || (c >= '\t' && c <= '\r');
    }
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool character_is_punctuation(int32_t c)
{
    if (c < 0x80) {
        return c > ' ' && c < 0x7f && !is_ascii_letter(c) && !is_ascii_digit(c);
    }
    const utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool character_is_letter(int32_t c)
{
    if (c < 0x80) {
        return is_ascii_letter(c);
    }
    const utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool character_is_number(int32_t c)
{
    if (c < 0x80) {
        return is_ascii_digit(c);
    }
    const utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool character_is_word(int32_t c)
{
    if (c < 0x80) {
        return is_ascii_letter(c) || is_ascii_digit(c) || c == '_';
    }
    const utf8proc_category_t category = utf8proc_category(c);
    return character_is_letter(c) || character_is_mark(c) || category == UTF8PROC_CATEGORY_ND ||
           category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_PC;
}

bool character_is_control(int32_t c)
{
    if (c < 0x80) {
        return (c < ' ' || c == 0x7f) && c != '\t' && c != '\n' && c != '\r';
    }
    const utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_CN || category == UTF8PROC_CATEGORY_CC ||
           category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CS ||
           category == UTF8PROC_CATEGORY_CO;
}

bool character_is_mark(int32_t c)
{
    if (c < 0x80) {
        return false;
    }
    const utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool character_is_nonspacing(int32_t c)
{
    return c >= 0x80 && utf8proc_category(c) == UTF8PROC_CATEGORY_MN;
}

bool character_is_ideograph(int32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

int32_t character_lower(int32_t c)
{
    if (c < 0x80) {
        return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
    }
    return utf8proc_tolower(c);
}
