#include "broker/text.h"
#include <stdint.h>
#include <string.h>

/*
 * The bytes of the character at `text`; 0: not UTF-8 (also overlong forms, surrogates, beyond
 * U+10FFFF). Never reads past the NUL, which is no continuation byte.
 */
static size_t character_bytes(const uint8_t *text)
{
    if (text[0] < 0x80) {
        return 1;
    }
    const size_t n = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
    if (text[0] < 0xc2 || text[0] > 0xf4) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    const bool is_overlong =
        (text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xf0 && text[1] < 0x90);
    const bool is_no_character =
        (text[0] == 0xed && text[1] > 0x9f) || (text[0] == 0xf4 && text[1] > 0x8f);
    return is_overlong || is_no_character ? 0 : n;
}

bool text_is_utf8(const char *text)
{
    const uint8_t *byte = (const uint8_t *)text;
    while (*byte != '\0') {
        const size_t n = character_bytes(byte);
        if (n == 0) {
            return false;
        }
        byte += n;
    }
    return true;
}

bool text_is_good(const char *text, size_t bytes_max)
{
    return strnlen(text, bytes_max + 1) <= bytes_max && text_is_utf8(text);
}

void text_clean(char *text, size_t bytes_max)
{
    size_t at = 0;
    while (text[at] != '\0') {
        size_t n = character_bytes((const uint8_t *)text + at);
        if (n == 0) {
            text[at] = '?';
            n = 1;
        }
        if (at + n > bytes_max) {
            text[at] = '\0';
            return;
        }
        at += n;
    }
}
