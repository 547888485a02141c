#include "tests/modelsim/rates.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static const double RATE_MAX = 1e12;

static double capacity(double per_min, double burst_s)
{
    const double most = per_min / 60 * burst_s;
    return most > 1 ? most : 1;
}

void rates_init(struct rates *rates, const struct rate_options *options, int64_t now_ms)
{
    rates->options = *options;
    rates->length = 1;
    rates->keys[0].hash = 0;
    rates->keys[0].requests = (struct bucket){.level = INFINITY, .filled_ms = now_ms};
    rates->keys[0].tokens = rates->keys[0].requests;
}

/* The index of the key's buckets; those without a key share the first. */
static size_t find(struct rates *rates, const char *key, int64_t now_ms)
{
    const uint64_t hash = key == NULL ? 0 : XXH3_64bits(key, strlen(key)) | 1;
    size_t i = 0;
    while (i < rates->length && rates->keys[i].hash != hash) {
        i++;
    }
    if (i == RATES_KEYS_MAX) {
        return 0;
    }
    if (i == rates->length) {
        rates->length++;
        rates->keys[i].hash = hash;
        rates->keys[i].requests = (struct bucket){.level = INFINITY, .filled_ms = now_ms};
        rates->keys[i].tokens = rates->keys[i].requests;
    }
    return i;
}

static void fill(struct bucket *bucket, double per_min, double most, int64_t now_ms)
{
    const double passed_ms = (double)(now_ms - bucket->filled_ms);
    bucket->level = fmin(most, bucket->level + passed_ms * per_min / 60000);
    bucket->filled_ms = now_ms;
}

/* How long until `cost` passes; 0: now. */
static int64_t wait_for(const struct bucket *bucket, double per_min, double most, double cost)
{
    const double missing = fmin(cost, most) - bucket->level;
    return missing <= 1e-9 ? 0 : (int64_t)ceil(missing * 60000 / per_min);
}

static struct rate_state state_of(const struct bucket *bucket, double per_min, double most)
{
    return (struct rate_state){
        .per_min = per_min,
        .left = bucket->level > 0 ? (int64_t)floor(bucket->level + 1e-9) : 0,
        .reset_ms = (int64_t)ceil((most - bucket->level) * 60000 / per_min),
    };
}

struct rate_verdict rates_take(struct rates *rates, const char *key, uint64_t tokens,
                               int64_t now_ms)
{
    const struct rate_options *options = &rates->options;
    const size_t i = find(rates, key, now_ms);
    const struct {
        struct bucket *bucket;
        double per_min, cost;
        const char *what;
    } limits[] = {
        {&rates->keys[i].requests, options->requests_per_min, 1, "requests"},
        {&rates->keys[i].tokens, options->tokens_per_min, (double)tokens, "tokens"},
    };
    struct rate_verdict verdict = {.is_refused = false};
    struct rate_state *const states[] = {&verdict.requests, &verdict.tokens};
    for (size_t k = 0; k < ARRAY_LENGTH(limits); k++) {
        const double most = capacity(limits[k].per_min, options->burst_s);
        fill(limits[k].bucket, limits[k].per_min, most, now_ms);
        const int64_t wait_ms =
            limits[k].per_min > 0
                ? wait_for(limits[k].bucket, limits[k].per_min, most, limits[k].cost)
                : 0;
        if (wait_ms > verdict.wait_ms) {
            verdict.is_refused = true;
            verdict.what = limits[k].what;
            verdict.wait_ms = wait_ms;
        }
    }
    for (size_t k = 0; k < ARRAY_LENGTH(limits); k++) {
        if (limits[k].per_min > 0) {
            limits[k].bucket->level -= verdict.is_refused ? 0 : limits[k].cost;
            *states[k] = state_of(limits[k].bucket, limits[k].per_min,
                                  capacity(limits[k].per_min, options->burst_s));
        }
    }
    return verdict;
}

/* Errors: -EINVAL. */
static int read_rate(const json_t *object, const char *name, double *rate, char *ret_error)
{
    const json_t *value = json_object_get(object, name);
    if (value == NULL) {
        return 0;
    }
    if (!json_is_number(value) ||
        !(json_number_value(value) >= 0 && json_number_value(value) <= RATE_MAX)) {
        snprintf(ret_error, 200, "%s must be a number from 0 to %g", name, RATE_MAX);
        return -EINVAL;
    }
    *rate = json_number_value(value);
    return 0;
}

static int check_names(const json_t *object, char *ret_error)
{
    static const char *const known[] = {"requests_per_min", "tokens_per_min", "burst_s", "headers"};
    const char *name;
    json_t *value;
    if (!json_is_object(object)) {
        snprintf(ret_error, 200, "limits must be an object such as {\"requests_per_min\":600}");
        return -EINVAL;
    }
    json_object_foreach ((json_t *)(uintptr_t)object, name, value) {
        size_t i = 0;
        while (i < ARRAY_LENGTH(known) && strcmp(name, known[i]) != 0) {
            i++;
        }
        if (i == ARRAY_LENGTH(known)) {
            snprintf(ret_error, 200, "unknown field \"%.40s\"", name);
            return -EINVAL;
        }
    }
    return 0;
}

int rates_read(struct rates *rates, const json_t *object, int64_t now_ms, char *ret_error)
{
    struct rate_options options = rates->options;
    const json_t *headers = json_object_get(object, "headers");
    int r = check_names(object, ret_error);
    r = r < 0 ? r : read_rate(object, "requests_per_min", &options.requests_per_min, ret_error);
    r = r < 0 ? r : read_rate(object, "tokens_per_min", &options.tokens_per_min, ret_error);
    r = r < 0 ? r : read_rate(object, "burst_s", &options.burst_s, ret_error);
    if (r == 0 && headers != NULL && !json_is_boolean(headers)) {
        snprintf(ret_error, 200, "headers must be true or false");
        r = -EINVAL;
    }
    if (r < 0) {
        return r;
    }
    options.without_headers = headers == NULL ? options.without_headers : json_is_false(headers);
    rates_init(rates, &options, now_ms);
    return 0;
}

json_t *rates_describe(const struct rates *rates)
{
    const struct rate_options *options = &rates->options;
    return json_pack("{s:f, s:f, s:f, s:b}", "requests_per_min", options->requests_per_min,
                     "tokens_per_min", options->tokens_per_min, "burst_s", options->burst_s,
                     "headers", !options->without_headers);
}
