/*
 * rates: the rate limits of the simulated provider: requests and tokens a minute, for each API key.
 *
 * Token buckets, filled continually, as OpenAI and Anthropic describe theirs. A bucket holds what
 * comes in burst_s seconds; a request that is larger than a full bucket passes when the bucket is
 * full, and the debt has to be filled up. What is refused uses nothing.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/attributes.h"

enum { RATES_KEYS_MAX = 256 };

struct rate_options {
    double requests_per_min, tokens_per_min; /* 0: no limit */
    double burst_s;
    bool without_headers; /* replies say nothing of the limits (a 429 still says when to come back)
                           */
};

/* One limit after a request, as the headers give it. */
struct rate_state {
    double per_min;   /* 0: no limit */
    int64_t left;     /* whole requests or tokens */
    int64_t reset_ms; /* until the bucket is full */
};

struct rate_verdict {
    bool is_refused;
    const char *what; /* refused: "requests" or "tokens" */
    int64_t wait_ms;  /* refused: until this request would pass */
    struct rate_state requests, tokens;
};

struct bucket {
    double level;
    int64_t filled_ms; /* monotonic */
};

struct rates {
    struct rate_options options;
    struct {
        uint64_t hash; /* of the API key; 0 in the first: none was given, or the table is full */
        struct bucket requests, tokens;
    } keys[RATES_KEYS_MAX];
    size_t length;
};

/* All buckets are full. */
void rates_init(struct rates *rates, const struct rate_options *options, int64_t now_ms);
/* May this request pass? `key` NULL: none was given. */
struct rate_verdict rates_take(struct rates *rates, const char *key, uint64_t tokens,
                               int64_t now_ms);
/*
 * {"requests_per_min", "tokens_per_min", "burst_s", "headers"}: what is left out stays. Fills all
 * buckets. Errors: -EINVAL (ret_error, at least 200 bytes, names the field); nothing is changed.
 */
MUST_USE int rates_read(struct rates *rates, const json_t *object, int64_t now_ms, char *ret_error);
json_t *rates_describe(const struct rates *rates); /* NULL: out of memory */
