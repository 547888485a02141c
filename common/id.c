#include "common/id.h"
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

enum {
    TIME_BYTES = 6,
    VERSION = 0x70, /* upper half of byte 6 */
    VARIANT = 0x80, /* upper two bits of byte 8 */
    DASHES = 4,
};

/* Half of the range: so many ids in a millisecond cannot run over its end. */
static const uint64_t COUNTER_START_MASK = (UINT64_C(1) << 61) - 1;
static const uint64_t TIME_MASK = (UINT64_C(1) << 48) - 1;

int id_source_init(struct id_source *source)
{
    struct id_source fresh = {0};
    const ssize_t n = getrandom(fresh.seed, sizeof(fresh.seed), 0);
    if (n < 0) {
        return -errno;
    }
    if ((size_t)n != sizeof(fresh.seed)) {
        return -EIO;
    }
    *source = fresh;
    return 0;
}

/* A new millisecond starts at a new random place, so sources that count in the same one do not
 * meet. */
static void start_millisecond(struct id_source *source, uint64_t unix_ms)
{
    const uint64_t input[] = {source->seed[0], source->seed[1], unix_ms};
    const XXH128_hash_t random = XXH3_128bits(input, sizeof(input));
    source->last_unix_ms = unix_ms;
    source->counter = random.low64 & COUNTER_START_MASK;
    source->prefix = (uint16_t)(random.high64 & 0x0fff);
}

struct id id_make(struct id_source *source, int64_t now_unix_ms)
{
    /* 1 at least: a fresh source has seen no millisecond, which it remembers as 0. */
    const uint64_t now = now_unix_ms > 0 ? (uint64_t)now_unix_ms & TIME_MASK : 1;
    if (now > source->last_unix_ms) {
        start_millisecond(source, now);
    } else {
        source->counter++; /* also when the clock went back: ids never do */
    }
    struct id id;
    for (unsigned i = 0; i < TIME_BYTES; i++) {
        id.bytes[i] = (uint8_t)(source->last_unix_ms >> (8 * (TIME_BYTES - 1 - i)));
    }
    id.bytes[6] = (uint8_t)(VERSION | (source->prefix >> 8));
    id.bytes[7] = (uint8_t)(source->prefix & 0xff);
    for (unsigned i = 0; i < 8; i++) {
        id.bytes[8 + i] = (uint8_t)(source->counter >> (8 * (7 - i)));
    }
    id.bytes[8] = (uint8_t)(VARIANT | (id.bytes[8] & 0x3f));
    return id;
}

int64_t id_unix_ms(const struct id *id)
{
    int64_t unix_ms = 0;
    for (unsigned i = 0; i < TIME_BYTES; i++) {
        unix_ms = unix_ms << 8 | id->bytes[i];
    }
    return unix_ms;
}

bool id_equal(const struct id *a, const struct id *b)
{
    return memcmp(a->bytes, b->bytes, ID_BYTES) == 0;
}

bool id_is_zero(const struct id *id)
{
    static const struct id zero;
    return id_equal(id, &zero);
}

uint64_t id_hash(const struct id *id, uint64_t seed)
{
    return XXH3_64bits_withSeed(id->bytes, ID_BYTES, seed);
}

static bool dash_follows(unsigned byte)
{
    return byte == 3 || byte == 5 || byte == 7 || byte == 9;
}

void id_format(const struct id *id, char ret_text[ID_TEXT_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    char *at = ret_text;
    for (unsigned i = 0; i < ID_BYTES; i++) {
        *at++ = digits[id->bytes[i] >> 4];
        *at++ = digits[id->bytes[i] & 0x0f];
        if (dash_follows(i)) {
            *at++ = '-';
        }
    }
    *at = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

int id_parse(const char *text, struct id *ret_id)
{
    const size_t length = strnlen(text, ID_TEXT_BYTES);
    const bool has_dashes = length == 2 * ID_BYTES + DASHES;
    if (!has_dashes && length != 2 * ID_BYTES) {
        return -EINVAL;
    }
    struct id id;
    const char *at = text;
    for (unsigned i = 0; i < ID_BYTES; i++) {
        const int high = hex_value(at[0]);
        const int low = hex_value(at[1]);
        if (high < 0 || low < 0) {
            return -EINVAL;
        }
        id.bytes[i] = (uint8_t)(high << 4 | low);
        at += 2;
        if (has_dashes && dash_follows(i) && *at++ != '-') {
            return -EINVAL;
        }
    }
    *ret_id = id;
    return 0;
}

int id_from_bytes(const void *data, size_t bytes, struct id *ret_id)
{
    if (bytes != ID_BYTES) {
        return -EINVAL;
    }
    struct id id;
    memcpy(id.bytes, data, ID_BYTES);
    if (id_is_zero(&id)) {
        return -EINVAL;
    }
    *ret_id = id;
    return 0;
}
