#include "tests/simulation/upstream.h"
#include <inttypes.h>
#include "tests/simulation/simulation.h"

enum {
    TROUBLE_MS_MIN = 15000,
    TROUBLE_MS_MAX = 240000,
    SLOWER = 20, /* times, when it is slow */
    GARBAGE_MS_MAX = 200,
    REFUSAL_MS_MAX = 50,
    TIMEOUT_MS_MAX = 20000,
    LIMIT_GONE_PER_MIN = 1000000,
};

static const char *const state_names[] = {
    [UPSTREAM_HEALTHY] = "upstream %" PRIu64 " is healthy",
    [UPSTREAM_DOWN] = "upstream %" PRIu64 " is down",
    [UPSTREAM_SLOW] = "upstream %" PRIu64 " is slow",
    [UPSTREAM_LIMITED] =
        "upstream %" PRIu64 " lets in %" PRIu64 " requests and %" PRIu64 " tokens a minute",
    [UPSTREAM_GARBAGE] = "upstream %" PRIu64 " answers with garbage",
};

/* Mostly it is reached. */
enum { DOWN_CODES = 6 };
static const char *const down_codes[DOWN_CODES] = {"unavailable", "unavailable", "unavailable",
                                                   "unavailable", "connect",     "tls"};

void upstream_init(struct simulation *simulation, uint32_t index)
{
    simulation->upstreams[index] = (struct upstream){.provider = scenario_upstreams[index][0],
                                                     .model = scenario_upstreams[index][1]};
}

/* ---- the sliding minute ---- */

static bool is_within_minute(int64_t second, int64_t now_ms)
{
    return second > now_ms / 1000 - UPSTREAM_SECONDS;
}

uint64_t upstream_requests_in_minute(const struct upstream *upstream, int64_t now_ms)
{
    uint64_t requests = 0;
    for (int i = 0; i < UPSTREAM_SECONDS; i++) {
        requests +=
            is_within_minute(upstream->window[i].second, now_ms) ? upstream->window[i].requests : 0;
    }
    return requests;
}

uint64_t upstream_tokens_in_minute(const struct upstream *upstream, int64_t now_ms)
{
    uint64_t tokens = 0;
    for (int i = 0; i < UPSTREAM_SECONDS; i++) {
        tokens +=
            is_within_minute(upstream->window[i].second, now_ms) ? upstream->window[i].tokens : 0;
    }
    return tokens;
}

static void let_in(struct upstream *upstream, int64_t now_ms, uint32_t tokens)
{
    const int64_t second = now_ms / 1000;
    const int64_t at = second % UPSTREAM_SECONDS;
    if (upstream->window[at].second != second) {
        upstream->window[at].second = second;
        upstream->window[at].requests = upstream->window[at].tokens = 0;
    }
    upstream->window[at].requests++;
    upstream->window[at].tokens += tokens;
}

/* ---- calls ---- */

static struct call answer(struct simulation *simulation, struct upstream *upstream, uint32_t tokens,
                          int64_t slower)
{
    upstream->answers++;
    let_in(upstream, simulation->now_ms, tokens);
    return (struct call){
        .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED,
        .error_code = "",
        .is_made = true,
        .limit_per_min = upstream->limit_told_per_min,
        .call_ms =
            slower * dice_between(&simulation->dice, 0, simulation->scenario.outcomes.run_ms_max),
        .tokens = tokens,
    };
}

static struct call fail(struct simulation *simulation, const char *error_code, int64_t most_ms)
{
    return (struct call){.is_made = true,
                         .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE,
                         .error_code = error_code,
                         .call_ms = dice_between(&simulation->dice, 1, most_ms)};
}

/* Half of the providers say when to come again. */
static struct call refuse(struct simulation *simulation, struct upstream *upstream)
{
    upstream->refusals++;
    return (struct call){
        .is_made = true,
        .limit_per_min = upstream->limit_told_per_min,
        .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED,
        .error_code = "rate_limited",
        .call_ms = dice_between(&simulation->dice, 1, REFUSAL_MS_MAX),
        .retry_after_ms = dice_hit(&simulation->dice, 500)
                              ? 1000 * dice_between(&simulation->dice, 1, UPSTREAM_SECONDS)
                              : 0,
    };
}

static struct call ask_limited(struct simulation *simulation, struct upstream *upstream,
                               uint32_t tokens)
{
    const int64_t now_ms = simulation->now_ms;
    const bool fits =
        upstream_requests_in_minute(upstream, now_ms) < upstream->requests_per_min &&
        upstream_tokens_in_minute(upstream, now_ms) + tokens <= upstream->tokens_per_min;
    return fits ? answer(simulation, upstream, tokens, 1) : refuse(simulation, upstream);
}

struct call upstream_call(struct simulation *simulation, struct upstream *upstream, uint32_t tokens)
{
    upstream->calls++;
    upstream->calls_this_trouble++;
    switch (upstream->state) {
    case UPSTREAM_HEALTHY:
        return answer(simulation, upstream, tokens, 1);
    case UPSTREAM_DOWN:
        upstream->calls_while_down++;
        return fail(simulation, down_codes[dice_below(&simulation->dice, DOWN_CODES)],
                    upstream->fails_after_ms);
    case UPSTREAM_SLOW:
        return answer(simulation, upstream, tokens, SLOWER);
    case UPSTREAM_LIMITED:
        return ask_limited(simulation, upstream, tokens);
    case UPSTREAM_GARBAGE:
        return fail(simulation, "bad_answer", GARBAGE_MS_MAX);
    }
    return fail(simulation, "unavailable", 1);
}

/* ---- trouble ---- */

static void become(struct simulation *simulation, uint32_t index, enum upstream_state state)
{
    struct upstream *upstream = &simulation->upstreams[index];
    upstream->state = state;
    upstream->generation++;
    upstream->since_ms = simulation->now_ms;
    upstream->calls_this_trouble = 0;
    simulation_trace(simulation, state_names[state], index, upstream->requests_per_min,
                     upstream->tokens_per_min);
}

bool upstream_trouble(struct simulation *simulation, uint32_t index)
{
    struct dice *dice = &simulation->dice;
    struct upstream *upstream = &simulation->upstreams[index];
    if (upstream->state != UPSTREAM_HEALTHY) {
        return false;
    }
    upstream->fails_after_ms = dice_hit(dice, 500) ? REFUSAL_MS_MAX : TIMEOUT_MS_MAX;
    upstream->requests_per_min = (uint32_t)dice_between(dice, 1, 40);
    upstream->tokens_per_min =
        upstream->requests_per_min * (uint32_t)dice_between(dice, 100, SCENARIO_TOKENS_MAX);
    const bool tells = dice_hit(dice, 300);
    become(simulation, index,
           (enum upstream_state)dice_between(dice, UPSTREAM_DOWN, UPSTREAM_GARBAGE));
    if (upstream->state == UPSTREAM_LIMITED && tells) {
        upstream->limit_told_per_min = upstream->requests_per_min;
    }
    schedule_add(&simulation->schedule,
                 simulation->now_ms + dice_between(dice, TROUBLE_MS_MIN, TROUBLE_MS_MAX),
                 TASK_UPSTREAM, index, upstream->generation, NULL);
    return true;
}

void upstream_heal(struct simulation *simulation, uint32_t index)
{
    if (simulation->upstreams[index].state != UPSTREAM_HEALTHY) {
        become(simulation, index, UPSTREAM_HEALTHY);
        struct upstream *upstream = &simulation->upstreams[index];
        /* Who has told of a limit tells that it is gone. */
        upstream->limit_told_per_min = upstream->limit_told_per_min > 0 ? LIMIT_GONE_PER_MIN : 0;
    }
}
