/*
 * id: 128-bit time-ordered ids, made by clients (UUID version 7, RFC 9562).
 *
 * Bytes 0–5 are Unix milliseconds, big-endian, so ids sort by time; the rest is a per-process
 * random stream that is monotonic within a millisecond. Text form: 36 characters, lower case, as a
 * UUID.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum { ID_BYTES = 16, ID_TEXT_BYTES = 37 /* with the NUL */ };

struct id {
    uint8_t bytes[ID_BYTES];
};

/* State of a source of ids; one for each thread. Seeded by id_source_init() from the kernel's
 * entropy. */
struct id_source {
    uint64_t seed[2];
    uint64_t last_unix_ms;
    uint64_t counter; /* lower 62 bits of the last id's random part */
    uint16_t prefix;  /* its upper 12 bits: the same within a millisecond */
};

/* After a fork the child needs a source of its own. Errors: -errno of getrandom, -EIO. */
MUST_USE int id_source_init(struct id_source *source);
struct id id_make(struct id_source *source, int64_t now_unix_ms);

int64_t id_unix_ms(const struct id *id);
bool id_equal(const struct id *a, const struct id *b);
bool id_is_zero(const struct id *id);
/* For hash tables only; ids come from outside, so `seed` must be secret and random in production.
 */
uint64_t id_hash(const struct id *id, uint64_t seed);
void id_format(const struct id *id, char ret_text[ID_TEXT_BYTES]);
/* Accepts the UUID form and 32 hex digits, in either case. Errors: -EINVAL. */
MUST_USE int id_parse(const char *text, struct id *ret_id);
/* From wire bytes. Errors: -EINVAL the length is not 16, or all bytes are zero. */
MUST_USE int id_from_bytes(const void *data, size_t bytes, struct id *ret_id);
