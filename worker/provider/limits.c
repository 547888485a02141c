/*
 * Sources: platform.openai.com/docs/guides/rate-limits, "Rate limits in headers";
 * docs.anthropic.com/en/api/rate-limits, "Response headers"; console.groq.com/docs/rate-limits,
 * whose x-ratelimit-limit-requests is a day's, which is why a limit has to fit its reset.
 *
 * OpenAI and Anthropic fill a bucket continually, and `reset` is the time until it is full. So the
 * time for the whole bucket follows from the part that is used: that tells a limit of a minute from
 * one of a day, where the reset is given finely enough. A server that counts in fixed windows may
 * look like the latter at a window's start; then its limit is learned later in the window.
 */
#include "worker/provider/limits.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/attributes.h"

enum { VALUE_BYTES_MAX = 128, MINUTE_MS = 60000, WINDOW_MS_MAX = 10 * MINUTE_MS };
static const double UNIX_MS_MIN = 1e11; /* 1973 in milliseconds, the year 5138 in seconds */
static const double UNIX_S_MIN = 1e9;
static const double COUNT_MAX = 1e15; /* a double holds it exactly */

/* ---- values ---- */

static int64_t wait_of(double ms)
{
    if (!(ms > 0)) {
        return 0;
    }
    return ms >= LIMITS_WAIT_MS_MAX ? LIMITS_WAIT_MS_MAX : (int64_t)ceil(ms);
}

/* The unit at `text` in milliseconds, and its length; 0: none. */
static double unit_ms(const char *text, size_t *ret_length)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"ms", 1},          {"us", 0.001},    {"\xC2\xB5s", 0.001}, {"ns", 1e-6},
                 {"h", 3600000},     {"m", 60000},     {"s", 1000},          {"d", 86400000},
                 {" seconds", 1000}, {" second", 1000}};
    for (size_t i = 0; i < ARRAY_LENGTH(units); i++) {
        const size_t length = strlen(units[i].name);
        if (strncmp(text, units[i].name, length) == 0) {
            *ret_length = length;
            return units[i].ms;
        }
    }
    return 0;
}

/* Digits with a fraction, and nothing else that strtod would take. */
static bool number_read(const char *text, char **ret_end, double *ret_number)
{
    const size_t length = strspn(text, "0123456789.");
    if (length == 0 || length > 24 || !isdigit((unsigned char)text[0])) {
        return false;
    }
    char copy[32];
    memcpy(copy, text, length);
    copy[length] = '\0';
    char *end;
    *ret_number = strtod(copy, &end);
    *ret_end = (char *)text + (end - copy);
    return true;
}

bool limits_read_duration(const char *text, int64_t *ret_ms)
{
    double sum_ms = 0;
    bool is_any = false;
    double number;
    char *end;
    while (number_read(text, &end, &number)) {
        size_t length = 0;
        const double unit = unit_ms(end, &length);
        if (!(unit > 0)) {
            break;
        }
        sum_ms += number * unit;
        is_any = true;
        text = end + length;
    }
    if (is_any) {
        *ret_ms = wait_of(sum_ms);
    }
    return is_any;
}

/* "2026-05-12T14:14:46Z", "…46.031+02:00" (RFC 3339, 5.6). */
static bool rfc3339_read(const char *text, double *ret_unix_ms)
{
    struct tm parts = {.tm_isdst = 0};
    char *end;
    double fraction = 0;
    int hours = 0;
    int minutes = 0;
    char sign = '+';
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
    if (rest == NULL) {
        return false;
    }
    if (*rest == '.') {
        fraction = strtod(rest, &end);
        rest = end;
    }
    if (*rest != 'Z' && *rest != 'z') {
        if (sscanf(rest, "%c%2d:%2d", &sign, &hours, &minutes) !=
                3 || /* NOLINT(cert-err34-c): two digits each */
            (sign != '+' && sign != '-')) {
            return false;
        }
    }
    const double offset_s = (sign == '-' ? -1.0 : 1.0) * (hours * 3600.0 + minutes * 60.0);
    *ret_unix_ms = ((double)timegm(&parts) + fraction - offset_s) * 1000.0;
    return true;
}

bool limits_read_wait(const char *text, int64_t now_unix_ms, int64_t *ret_ms)
{
    double number;
    char *end;
    if (limits_read_duration(text, ret_ms)) {
        return true;
    }
    double at_ms;
    if (rfc3339_read(text, &at_ms)) {
        *ret_ms = wait_of(at_ms - (double)now_unix_ms);
        return true;
    }
    if (number_read(text, &end, &number) && *end == '\0') {
        *ret_ms = number >= UNIX_MS_MIN  ? wait_of(number - (double)now_unix_ms)
                  : number >= UNIX_S_MIN ? wait_of(number * 1000.0 - (double)now_unix_ms)
                                         : wait_of(number * 1000.0);
        return true;
    }
    /* It takes many forms, but none without a name of a month. */
    const time_t date = isalpha((unsigned char)text[0]) ? curl_getdate(text, NULL) : -1;
    if (date < 0) {
        return false;
    }
    *ret_ms = wait_of((double)date * 1000.0 - (double)now_unix_ms);
    return true;
}

static bool count_read(const char *text, uint64_t *ret_count)
{
    char *end;
    double number;
    if (!number_read(text, &end, &number) || number > COUNT_MAX) {
        return false;
    }
    *ret_count = (uint64_t)number;
    return true;
}

/* ---- headers ---- */

enum part { PART_MOST, PART_LEFT, PART_RESET };

static const struct {
    const char *name;
    enum limit_kind kind;
    enum part part;
} headers[] = {
    {"x-ratelimit-limit-requests", LIMIT_REQUESTS, PART_MOST},
    {"x-ratelimit-remaining-requests", LIMIT_REQUESTS, PART_LEFT},
    {"x-ratelimit-reset-requests", LIMIT_REQUESTS, PART_RESET},
    {"x-ratelimit-limit-tokens", LIMIT_TOKENS, PART_MOST},
    {"x-ratelimit-remaining-tokens", LIMIT_TOKENS, PART_LEFT},
    {"x-ratelimit-reset-tokens", LIMIT_TOKENS, PART_RESET},
    {"anthropic-ratelimit-requests-limit", LIMIT_REQUESTS, PART_MOST},
    {"anthropic-ratelimit-requests-remaining", LIMIT_REQUESTS, PART_LEFT},
    {"anthropic-ratelimit-requests-reset", LIMIT_REQUESTS, PART_RESET},
    {"anthropic-ratelimit-tokens-limit", LIMIT_TOKENS, PART_MOST},
    {"anthropic-ratelimit-tokens-remaining", LIMIT_TOKENS, PART_LEFT},
    {"anthropic-ratelimit-tokens-reset", LIMIT_TOKENS, PART_RESET},
    {"anthropic-ratelimit-input-tokens-limit", LIMIT_INPUT_TOKENS, PART_MOST},
    {"anthropic-ratelimit-input-tokens-remaining", LIMIT_INPUT_TOKENS, PART_LEFT},
    {"anthropic-ratelimit-input-tokens-reset", LIMIT_INPUT_TOKENS, PART_RESET},
    {"anthropic-ratelimit-output-tokens-limit", LIMIT_OUTPUT_TOKENS, PART_MOST},
    {"anthropic-ratelimit-output-tokens-remaining", LIMIT_OUTPUT_TOKENS, PART_LEFT},
    {"anthropic-ratelimit-output-tokens-reset", LIMIT_OUTPUT_TOKENS, PART_RESET},
    {"ratelimit-limit", LIMIT_ANY_REQUESTS, PART_MOST},
    {"ratelimit-remaining", LIMIT_ANY_REQUESTS, PART_LEFT},
    {"ratelimit-reset", LIMIT_ANY_REQUESTS, PART_RESET},
    {"x-ratelimit-limit", LIMIT_ANY_REQUESTS, PART_MOST},
    {"x-ratelimit-remaining", LIMIT_ANY_REQUESTS, PART_LEFT},
    {"x-ratelimit-reset", LIMIT_ANY_REQUESTS, PART_RESET},
};

void limits_init(struct limits *limits)
{
    *limits = (struct limits){.retry_after_ms = 0};
}

/* "100, 100;w=60" or, as older drafts and some servers have it, "100, 100;window=60": the first. */
static int64_t window_ms(const char *value)
{
    const char *policy = strchr(value, ';');
    double seconds;
    char *end;
    if (policy == NULL || (strncmp(policy, ";w=", 3) != 0 && strncmp(policy, ";window=", 8) != 0)) {
        return 0;
    }
    return number_read(strchr(policy, '=') + 1, &end, &seconds) ? wait_of(seconds * 1000.0) : 0;
}

static void take_part(struct limit *limit, enum part part, const char *value, int64_t now_unix_ms)
{
    switch (part) {
    case PART_MOST:
        if (count_read(value, &limit->most)) {
            limit->window_ms = window_ms(value);
        }
        break;
    case PART_LEFT:
        limit->has_left = count_read(value, &limit->left) || limit->has_left;
        break;
    case PART_RESET:
        limit->is_reset_fine = limits_read_duration(value, &limit->reset_ms);
        (void)limits_read_wait(value, now_unix_ms, &limit->reset_ms);
        break;
    }
}

/* Retry-After, in the forms of RFC 9110; and the two that say milliseconds. */
static void take_retry_after(struct limits *limits, const char *name, const char *value,
                             int64_t now_unix_ms)
{
    int64_t wait_ms = 0;
    double ms;
    char *end;
    if (strcasecmp(name, "retry-after-ms") == 0 || strcasecmp(name, "x-ms-retry-after-ms") == 0) {
        if (number_read(value, &end, &ms) && *end == '\0' && wait_of(ms) > 0) {
            limits->retry_after_ms = wait_of(ms);
            limits->is_retry_after_exact = true;
        }
    } else if (strcasecmp(name, "retry-after") == 0 && !limits->is_retry_after_exact &&
               limits_read_wait(value, now_unix_ms, &wait_ms)) {
        limits->retry_after_ms = wait_ms;
    }
}

static void take_header(struct limits *limits, const char *name, const char *value,
                        int64_t now_unix_ms)
{
    for (size_t i = 0; i < ARRAY_LENGTH(headers); i++) {
        if (strcasecmp(name, headers[i].name) == 0) {
            take_part(&limits->items[headers[i].kind], headers[i].part, value, now_unix_ms);
            return;
        }
    }
    take_retry_after(limits, name, value, now_unix_ms);
}

void limits_take_line(struct limits *limits, const char *line, size_t bytes, int64_t now_unix_ms)
{
    char copy[VALUE_BYTES_MAX];
    if (bytes >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        limits_init(limits);
        return;
    }
    while (bytes > 0 && strchr("\r\n\t ", line[bytes - 1]) != NULL && line[bytes - 1] != '\0') {
        bytes--;
    }
    if (bytes >= sizeof(copy)) {
        return;
    }
    memcpy(copy, line, bytes);
    copy[bytes] = '\0';
    char *colon = strchr(copy, ':');
    if (colon != NULL) {
        *colon = '\0';
        const char *value = colon + 1;
        take_header(limits, copy, value + strspn(value, " \t"), now_unix_ms);
    }
}

/* ---- summary ---- */

/* Of a limit of a minute by name; 0: not said, or its reset shows another window. */
static uint64_t per_minute(const struct limit *limit)
{
    const uint64_t used =
        limit->has_left && limit->left < limit->most ? limit->most - limit->left : 0;
    if (limit->is_reset_fine && used > 0 &&
        (double)limit->most * (double)limit->reset_ms / (double)used > WINDOW_MS_MAX) {
        return 0;
    }
    return limit->most;
}

static uint64_t per_minute_of_window(const struct limit *limit)
{
    if (limit->window_ms <= 0 || limit->window_ms > WINDOW_MS_MAX) {
        return 0;
    }
    const double per_minute = (double)limit->most * MINUTE_MS / (double)limit->window_ms;
    return per_minute < COUNT_MAX ? (uint64_t)per_minute : (uint64_t)COUNT_MAX;
}

static bool is_said(const struct limit *limit)
{
    return limit->most > 0 || limit->has_left;
}

static void set_requests(const struct limits *limits, Wire__RateLimits *out)
{
    const bool is_named = is_said(&limits->items[LIMIT_REQUESTS]);
    const struct limit *limit = &limits->items[is_named ? LIMIT_REQUESTS : LIMIT_ANY_REQUESTS];
    out->requests_per_min = is_named ? per_minute(limit) : per_minute_of_window(limit);
    out->has_requests_left = limit->has_left;
    out->requests_left = limit->left;
    out->requests_reset_ms = (uint64_t)limit->reset_ms;
}

/* Output that is used up holds whatever is left of the others. */
static void set_tokens(const struct limits *limits, Wire__RateLimits *out)
{
    const struct limit *output = &limits->items[LIMIT_OUTPUT_TOKENS];
    const bool is_common = is_said(&limits->items[LIMIT_TOKENS]);
    const struct limit *limit = &limits->items[is_common ? LIMIT_TOKENS : LIMIT_INPUT_TOKENS];
    out->tokens_per_min = per_minute(limit);
    if (output->has_left && output->left == 0) {
        limit = output;
    }
    out->has_tokens_left = limit->has_left;
    out->tokens_left = limit->left;
    out->tokens_reset_ms = (uint64_t)limit->reset_ms;
}

bool limits_summarise(const struct limits *limits, Wire__RateLimits *ret_limits)
{
    Wire__RateLimits out = WIRE__RATE_LIMITS__INIT;
    set_requests(limits, &out);
    set_tokens(limits, &out);
    *ret_limits = out;
    return out.requests_per_min > 0 || out.tokens_per_min > 0 || out.has_requests_left ||
           out.has_tokens_left;
}
