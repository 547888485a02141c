/*
 * Whole graphemes of fewer than six bytes are looked up first, then their characters one by one;
 * and of the entries that a look-up meets the shortest counts. Strange, but it is what the models
 * were trained with.
 */
#include "worker/cache/charsmap.h"

#include <errno.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "worker/cache/characters.h"

enum { CHARSMAP_BYTES_MAX = 16 << 20, GRAPHEME_BYTES_MAX = 5 };

struct charsmap {
    uint8_t *data; /* owned: all of it */
    const uint8_t *units;
    size_t units_length;
    const char *texts;
    size_t texts_bytes;
};

static uint32_t read_u32(const uint8_t *data)
{
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 |
           (uint32_t)data[3] << 24;
}

static bool is_utf8(const char *text, size_t bytes)
{
    int32_t character;
    for (size_t at = 0; at < bytes;) {
        const size_t length = character_read(text + at, bytes - at, &character);
        if (character == CHARACTER_REPLACEMENT && length == 1) {
            return false;
        }
        at += length;
    }
    return true;
}

int charsmap_read(const char *base64, struct charsmap **ret_map, char ret_error[REFUSAL_BYTES])
{
    const size_t length = strlen(base64);
    size_t bytes = 0;
    if (length > CHARSMAP_BYTES_MAX) {
        return refusal_write(ret_error, "precompiled_charsmap is larger than %d bytes",
                             CHARSMAP_BYTES_MAX);
    }
    CLEANUP(charsmap_destroy) struct charsmap *map = calloc(1, sizeof(*map));
    if (map == NULL || (map->data = malloc(length + 1)) == NULL) {
        return -ENOMEM;
    }
    if (sodium_base642bin(map->data, length + 1, base64, length, NULL, &bytes, NULL,
                          sodium_base64_VARIANT_ORIGINAL) < 0 ||
        bytes < 4) {
        return refusal_write(ret_error, "precompiled_charsmap is no base64");
    }
    const size_t trie_bytes = read_u32(map->data);
    if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > bytes - 4) {
        return refusal_write(ret_error, "precompiled_charsmap has a trie that cannot be");
    }
    map->units = map->data + 4;
    map->units_length = trie_bytes / 4;
    map->texts = (const char *)map->data + 4 + trie_bytes;
    map->texts_bytes = bytes - 4 - trie_bytes;
    if (!is_utf8(map->texts, map->texts_bytes)) {
        return refusal_write(ret_error, "precompiled_charsmap has texts that are no UTF-8");
    }
    *ret_map = TAKE(map);
    return 0;
}

void charsmap_destroy(struct charsmap **map)
{
    struct charsmap *old = TAKE(*map);
    if (old == NULL) {
        return;
    }
    free(old->data);
    free(old);
}

/* ---- the double array ---- */

static size_t unit_offset(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1U << 9)) >> 6);
}

static bool map_unit(const struct charsmap *map, size_t index, uint32_t *ret_unit)
{
    if (index >= map->units_length) {
        return false;
    }
    *ret_unit = read_u32(map->units + 4 * index);
    return true;
}

/* What stands for `text`; NULL: itself. */
static const char *map_find(const struct charsmap *map, const char *text, size_t bytes,
                            size_t *ret_bytes)
{
    uint32_t unit;
    size_t at = 0;
    if (!map_unit(map, at, &unit)) {
        return NULL;
    }
    at ^= unit_offset(unit);
    for (size_t i = 0; i < bytes && text[i] != '\0'; i++) {
        const uint8_t byte = (uint8_t)text[i];
        at ^= byte;
        if (!map_unit(map, at, &unit) || (unit & (1U << 31 | 0xffU)) != byte) {
            return NULL;
        }
        at ^= unit_offset(unit);
        if ((unit >> 8 & 1U) != 0) {
            if (!map_unit(map, at, &unit) || (unit & INT32_MAX) >= map->texts_bytes) {
                return NULL;
            }
            const char *found = map->texts + (unit & INT32_MAX);
            if (((uint8_t)*found & 0xc0U) == 0x80U) {
                return NULL; /* into the middle of a character */
            }
            *ret_bytes = strnlen(found, map->texts_bytes - (unit & INT32_MAX));
            return found;
        }
    }
    return NULL;
}

/* False: nothing stands for it, and nothing was appended. */
static bool map_append(const struct charsmap *map, const char *text, size_t bytes,
                       struct bytes *out, int *r)
{
    size_t found_bytes = 0;
    const char *found = map_find(map, text, bytes, &found_bytes);
    if (found == NULL) {
        return false;
    }
    *r = bytes_append(out, found, found_bytes);
    return true;
}

static int append_characters(const struct charsmap *map, const char *text, size_t bytes,
                             struct bytes *out)
{
    int r = 0;
    for (size_t at = 0; at < bytes && r == 0;) {
        int32_t character;
        const size_t length = character_read(text + at, bytes - at, &character);
        if (!map_append(map, text + at, length, out, &r)) {
            r = bytes_append(out, text + at, length);
        }
        at += length;
    }
    return r;
}

static size_t grapheme_bytes(const char *text, size_t bytes)
{
    utf8proc_int32_t state = 0;
    int32_t before;
    int32_t character;
    size_t at = character_read(text, bytes, &before);
    while (at < bytes) {
        const size_t length = character_read(text + at, bytes - at, &character);
        if (utf8proc_grapheme_break_stateful(before, character, &state)) {
            break;
        }
        before = character;
        at += length;
    }
    return at;
}

int charsmap_apply(const struct charsmap *map, const char *text, size_t bytes, struct bytes *out)
{
    int r = 0;
    for (size_t at = 0; at < bytes && r == 0;) {
        const size_t length = grapheme_bytes(text + at, bytes - at);
        if (length > GRAPHEME_BYTES_MAX || !map_append(map, text + at, length, out, &r)) {
            r = append_characters(map, text + at, length, out);
        }
        at += length;
    }
    return r;
}
