/*
 * The head of a provider's reply, line by line as libcurl hands it over; and each line as a wait,
 * in the forms that bodies have it in. The first eight bytes are the time.
 */
#include <stdlib.h>
#include <string.h>
#include "tests/fuzz/fuzz.h"
#include "worker/provider/limits.h"

static void check_wait(const char *line, size_t bytes, int64_t now_unix_ms)
{
    int64_t wait_ms = 0;
    char *text = strndup(line, bytes);
    if (text != NULL && limits_read_wait(text, now_unix_ms, &wait_ms)) {
        must_hold(wait_ms >= 0 && wait_ms <= LIMITS_WAIT_MS_MAX);
    }
    if (text != NULL && limits_read_duration(text, &wait_ms)) {
        must_hold(wait_ms >= 0 && wait_ms <= LIMITS_WAIT_MS_MAX);
    }
    free(text);
}

static void check_summary(const struct limits *limits)
{
    Wire__RateLimits said;
    const bool is_said = limits_summarise(limits, &said);
    must_hold(limits->retry_after_ms >= 0 && limits->retry_after_ms <= LIMITS_WAIT_MS_MAX);
    must_hold(said.requests_reset_ms <= LIMITS_WAIT_MS_MAX);
    must_hold(said.tokens_reset_ms <= LIMITS_WAIT_MS_MAX);
    must_hold(is_said || (said.requests_per_min == 0 && said.tokens_per_min == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    int64_t now_unix_ms = 0;
    struct limits limits;
    if (bytes < sizeof(now_unix_ms)) {
        return 0;
    }
    memcpy(&now_unix_ms, data, sizeof(now_unix_ms));
    now_unix_ms &= INT64_C(0x3FFFFFFFFFF); /* to the year 2109 */
    const char *at = (const char *)data + sizeof(now_unix_ms);
    const char *const end = (const char *)data + bytes;
    limits_init(&limits);
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const size_t length = stop == NULL ? (size_t)(end - at) : (size_t)(stop - at) + 1;
        limits_take_line(&limits, at, length, now_unix_ms);
        check_wait(at, length, now_unix_ms);
        at += length;
    }
    check_summary(&limits);
    return 0;
}
