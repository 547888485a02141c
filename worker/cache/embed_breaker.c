#include "worker/cache/embed_breaker.h"

bool embed_breaker_allows(const struct embed_breaker *breaker, int64_t now_ms)
{
    return !breaker->is_open || (now_ms >= breaker->open_until_ms && !breaker->is_probing);
}

void embed_breaker_send(struct embed_breaker *breaker)
{
    breaker->is_probing = breaker->is_open;
}

bool embed_breaker_succeed(struct embed_breaker *breaker)
{
    /* A request from before it opened says nothing of how things are now. */
    const bool is_late = breaker->is_open && !breaker->is_probing;
    if (is_late) {
        return false;
    }
    const bool was_open = breaker->is_open;
    *breaker = (struct embed_breaker){0};
    return was_open;
}

bool embed_breaker_fail(struct embed_breaker *breaker, int64_t now_ms, int64_t retry_after_ms,
                        double random)
{
    const bool is_late = breaker->is_open && !breaker->is_probing;
    breaker->failures++;
    if (is_late || (breaker->failures < EMBED_BREAKER_FAILURES_MAX && retry_after_ms == 0 &&
                    !breaker->is_open)) {
        return false;
    }
    int64_t pause_ms =
        breaker->pause_ms == 0 ? EMBED_BREAKER_PAUSE_FIRST_MS : breaker->pause_ms * 2;
    pause_ms = pause_ms < retry_after_ms ? retry_after_ms : pause_ms;
    pause_ms = pause_ms < EMBED_BREAKER_PAUSE_MAX_MS ? pause_ms : EMBED_BREAKER_PAUSE_MAX_MS;
    int64_t shorter_ms = pause_ms - (int64_t)((double)pause_ms * random / 2);
    /* Not before the server wants it. */
    const int64_t asked_ms =
        retry_after_ms < EMBED_BREAKER_PAUSE_MAX_MS ? retry_after_ms : EMBED_BREAKER_PAUSE_MAX_MS;
    shorter_ms = shorter_ms < asked_ms ? asked_ms : shorter_ms;
    breaker->is_open = true;
    breaker->is_probing = false;
    breaker->pause_ms = pause_ms;
    breaker->open_until_ms = now_ms + shorter_ms;
    return true;
}
