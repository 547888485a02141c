#include "broker/core/breaker.h"
#include <string.h>

enum {
    JITTER_PERCENT = 20,
    FAILING_DOUBT =
        4, /* calls that are thought to have gone well, so that one failure says little */
};

void breaker_tick(struct breaker *breaker, int64_t now_ms)
{
    if (breaker->state == BREAKER_OPEN && now_ms >= breaker->open_until_ms) {
        breaker->state = BREAKER_HALF_OPEN;
        breaker->is_probing = false;
    }
    if (breaker->is_probing && now_ms >= breaker->probe_until_ms) {
        breaker->is_probing = false;
    }
}

int64_t breaker_closed_until_ms(const struct breaker *breaker)
{
    if (breaker->state == BREAKER_OPEN) {
        return breaker->open_until_ms;
    }
    return breaker->is_probing ? breaker->probe_until_ms : INT64_MIN;
}

uint32_t breaker_probe(struct breaker *breaker, const struct config_breaker *config, int64_t now_ms)
{
    breaker->probe = breaker->probe == UINT32_MAX ? 1 : breaker->probe + 1;
    breaker->is_probing = true;
    breaker->probe_until_ms = now_ms + config->open_max_ms;
    return breaker->probe;
}

void breaker_forget_probe(struct breaker *breaker, uint32_t probe)
{
    if (probe == breaker->probe) {
        breaker->is_probing = false;
    }
}

bool breaker_awaits_probe(const struct breaker *breaker, uint32_t probe)
{
    return breaker->is_probing && probe == breaker->probe;
}

static void count(struct breaker *breaker, const struct config_breaker *config,
                  enum breaker_sample sample, int64_t now_ms)
{
    const int64_t slice_ms =
        config->window_ms >= BREAKER_SLICES ? config->window_ms / BREAKER_SLICES : 1;
    const int64_t number = now_ms / slice_ms;
    const size_t at = (size_t)(number % BREAKER_SLICES);
    if (breaker->slices[at].number != number) {
        memset(&breaker->slices[at], 0, sizeof(breaker->slices[at]));
        breaker->slices[at].number = number;
    }
    breaker->slices[at].calls++;
    breaker->slices[at].failures += sample == SAMPLE_FAILURE;
    breaker->slices[at].slow += sample == SAMPLE_SLOW;
    breaker->failures_in_a_row = sample == SAMPLE_FAILURE ? breaker->failures_in_a_row + 1 : 0;
}

struct window {
    uint64_t calls, failures, slow;
};

static struct window window_of(const struct breaker *breaker, const struct config_breaker *config,
                               int64_t now_ms)
{
    const int64_t slice_ms =
        config->window_ms >= BREAKER_SLICES ? config->window_ms / BREAKER_SLICES : 1;
    struct window window = {.calls = 0};
    for (size_t i = 0; i < BREAKER_SLICES; i++) {
        if (breaker->slices[i].number > now_ms / slice_ms - BREAKER_SLICES) {
            window.calls += breaker->slices[i].calls;
            window.failures += breaker->slices[i].failures;
            window.slow += breaker->slices[i].slow;
        }
    }
    return window;
}

double breaker_failing(const struct breaker *breaker, const struct config_breaker *config,
                       int64_t now_ms)
{
    const struct window window = window_of(breaker, config, now_ms);
    return (double)window.failures / (double)(window.calls + FAILING_DOUBT);
}

static bool is_too_much(const struct breaker *breaker, const struct config_breaker *config,
                        int64_t now_ms)
{
    const struct window window = window_of(breaker, config, now_ms);
    return breaker->failures_in_a_row >= config->failures ||
           (window.calls >= config->calls_min &&
            (window.failures * 1000 >= window.calls * config->failure_share_permille ||
             window.slow * 1000 >= window.calls * config->slow_share_permille));
}

static void open_it(struct breaker *breaker, const struct config_breaker *config, double jitter,
                    int64_t now_ms)
{
    int64_t for_ms = config->open_first_ms;
    for (uint32_t i = 0; i < breaker->opened_in_a_row && for_ms < config->open_max_ms; i++) {
        for_ms *= 2;
    }
    for_ms = for_ms < config->open_max_ms ? for_ms : config->open_max_ms;
    /* Shorter rather than longer, so that open_max is the most. */
    for_ms -= (int64_t)((double)for_ms * jitter * JITTER_PERCENT / 100.0);
    breaker->state = BREAKER_OPEN;
    breaker->opened_in_a_row++;
    breaker->open_until_ms = now_ms + (for_ms > 0 ? for_ms : 1);
    breaker->is_probing = false;
}

static void close_it(struct breaker *breaker)
{
    *breaker = (struct breaker){.state = BREAKER_CLOSED, .probe = breaker->probe};
}

bool breaker_report(struct breaker *breaker, const struct config_breaker *config,
                    enum breaker_sample sample, bool is_probe, double jitter, int64_t now_ms)
{
    if (is_probe && breaker->state != BREAKER_CLOSED) {
        if (sample == SAMPLE_FAILURE) {
            open_it(breaker, config, jitter, now_ms);
        } else {
            close_it(breaker);
        }
        return true;
    }
    if (breaker->state != BREAKER_CLOSED) {
        return false; /* called before it opened */
    }
    count(breaker, config, sample, now_ms);
    if (sample != SAMPLE_SUCCESS && is_too_much(breaker, config, now_ms)) {
        open_it(breaker, config, jitter, now_ms);
        return true;
    }
    return false;
}

void breaker_probe_now(struct breaker *breaker, int64_t now_ms)
{
    if (breaker->state == BREAKER_OPEN) {
        breaker->open_until_ms = now_ms;
    }
    breaker->is_probing = false;
    breaker_tick(breaker, now_ms);
}

void breaker_restore(struct breaker *breaker, uint32_t opened_in_a_row, int64_t open_until_ms)
{
    *breaker = (struct breaker){
        .state = BREAKER_OPEN, .opened_in_a_row = opened_in_a_row, .open_until_ms = open_until_ms};
}
