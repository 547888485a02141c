/*
 * limits: what the headers of a provider's reply say of its rate limits, and when to come back.
 *
 * Understood are the names of OpenAI (x-ratelimit-…, also those of its many imitators), Anthropic
 * (anthropic-ratelimit-…), the IETF draft (ratelimit-…, draft-ietf-httpapi-ratelimit-headers), and
 * Retry-After (RFC 9110, 10.2.3: seconds or a date) with its finer retry-after-ms. Bytes from
 * outside: whatever cannot be read is left out. No I/O, no clock.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/wire.pb-c.h"

enum { LIMITS_WAIT_MS_MAX = 24 * 3600 * 1000 };

/* One limit, as far as it was said. */
struct limit {
    uint64_t most;     /* in a window; 0: not said */
    int64_t window_ms; /* 0: not said */
    bool has_left;
    uint64_t left;
    int64_t reset_ms;   /* until it is whole again; 0: not said */
    bool is_reset_fine; /* a duration with its units; dates and plain seconds are rounded */
};

enum limit_kind {
    LIMIT_REQUESTS,     /* x-ratelimit-*-requests and the like: a minute, unless its reset shows
                           otherwise */
    LIMIT_TOKENS,       /* likewise */
    LIMIT_INPUT_TOKENS, /* Anthropic's, where no common one is given */
    LIMIT_OUTPUT_TOKENS,
    LIMIT_ANY_REQUESTS, /* ratelimit-*: requests in a window of which only its policy tells the
                           length */
    LIMIT_KINDS,
};

struct limits {
    struct limit items[LIMIT_KINDS];
    int64_t retry_after_ms;    /* 0: not said */
    bool is_retry_after_exact; /* it came from retry-after-ms, which goes before Retry-After */
};

/* Nothing was said. */
void limits_init(struct limits *limits);

/*
 * One line of a reply's head, "Name: value", with or without its line end; a status line begins a
 * new head. `now_unix_ms` is what dates are compared with.
 */
void limits_take_line(struct limits *limits, const char *line, size_t bytes, int64_t now_unix_ms);

/*
 * What was said, as the broker is told. A limit that is not one of a minute (some providers use the
 * same names for a day's) is left out; what is left of it, and until when, stays. False: nothing.
 */
bool limits_summarise(const struct limits *limits, Wire__RateLimits *ret_limits);

/*
 * A duration as it stands at the start of `text`: "1s", "6m0s", "20ms", "1h2m3.5s", "15.002s".
 * *ret_ms is its sum, rounded up, at most LIMITS_WAIT_MS_MAX. False: none stands there.
 */
bool limits_read_duration(const char *text, int64_t *ret_ms);

/*
 * A wait in any form in which servers write it: a duration, a number (seconds; Unix seconds or
 * milliseconds when it is that large), a date of RFC 3339 or of HTTP. What is past is 0. False: not
 * understood.
 */
bool limits_read_wait(const char *text, int64_t now_unix_ms, int64_t *ret_ms);
