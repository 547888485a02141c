/*
 * bench-drill: steady load on several tiers, second by second, for the drills of outage.py.
 *
 *   bench-drill CLIENTS_ENDPOINT SECONDS PATIENCE_S TIER:PER_S:DEADLINE_MS…
 *
 * Submits evenly for SECONDS, then waits up to PATIENCE_S for what is open. Each second one line of JSON: for each tier what was
 * submitted in it and what became of jobs in it. A job has a prompt of its own, so that no cache answers it. The last line sums up.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "client/tiermq.h"
#include "common/attributes.h"
#include "common/clock.h"
#include "common/histogram.h"

enum { TIERS_MAX = 8, TURN_MS = 5 };

struct counts {
    uint64_t submitted, succeeded, expired, rejected, dead, lost;
};

struct tier {
    char name[64];
    double per_s;
    int64_t deadline_ms;
    struct counts now, all;
    struct histogram ms_now, ms_all; /* from submission to success */
};

struct drill {
    struct tiermq *client;
    struct tier tiers[TIERS_MAX];
    size_t tiers_length;
    uint64_t open;
};

struct ticket {
    struct drill *drill;
    struct tier *tier;
};

static void count(struct counts *counts, enum tiermq_state state)
{
    counts->succeeded += state == TIERMQ_SUCCEEDED;
    counts->expired += state == TIERMQ_EXPIRED;
    counts->rejected += state == TIERMQ_REJECTED;
    counts->dead += state == TIERMQ_DEAD;
    counts->lost += state != TIERMQ_SUCCEEDED && state != TIERMQ_EXPIRED &&
                    state != TIERMQ_REJECTED && state != TIERMQ_DEAD;
}

static void answered(void *context, const struct tiermq_answer *answer)
{
    const struct ticket *ticket = context;
    struct tier *tier = ticket->tier;
    count(&tier->now, answer->state);
    count(&tier->all, answer->state);
    if (answer->state == TIERMQ_SUCCEEDED) {
        histogram_record(&tier->ms_now, (uint64_t)answer->total_us / 1000);
        histogram_record(&tier->ms_all, (uint64_t)answer->total_us / 1000);
    }
    ticket->drill->open--;
}

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "bench-drill: %s: %s\n", what, why);
    exit(1);
}

static void submit(struct drill *drill, struct ticket *ticket)
{
    char prompt[96];
    struct tier *tier = ticket->tier;
    snprintf(prompt, sizeof(prompt), "%s question %" PRIu64 ": what is a queue good for?", tier->name,
             tier->all.submitted);
    const struct tiermq_job job = {
        .tier = tier->name, .prompt = prompt, .route = "sim-small", .deadline_ms = tier->deadline_ms};
    const struct tiermq_callbacks callbacks = {.on_answer = answered, .context = ticket};
    if (tiermq_submit_async(drill->client, &job, &callbacks, NULL) < 0) {
        fail("submit", tiermq_last_error(drill->client));
    }
    tier->now.submitted++;
    tier->all.submitted++;
    drill->open++;
}

static void print_counts(const char *name, const struct counts *counts, const struct histogram *ms)
{
    printf("\"%s\":{\"submitted\":%" PRIu64 ",\"succeeded\":%" PRIu64 ",\"expired\":%" PRIu64
           ",\"rejected\":%" PRIu64 ",\"dead\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"p50_ms\":%" PRIu64
           ",\"p99_ms\":%" PRIu64 "}",
           name, counts->submitted, counts->succeeded, counts->expired, counts->rejected,
           counts->dead, counts->lost, histogram_quantile(ms, 0.5), histogram_quantile(ms, 0.99));
}

static void print_second(struct drill *drill, int64_t second)
{
    printf("{\"second\":%" PRId64 ",\"open\":%" PRIu64, second, drill->open);
    for (size_t i = 0; i < drill->tiers_length; i++) {
        struct tier *tier = &drill->tiers[i];
        putchar(',');
        print_counts(tier->name, &tier->now, &tier->ms_now);
        tier->now = (struct counts){0};
        histogram_init(&tier->ms_now);
    }
    puts("}");
    fflush(stdout);
}

static void print_sum(const struct drill *drill)
{
    printf("{\"sum\":true,\"open\":%" PRIu64, drill->open);
    for (size_t i = 0; i < drill->tiers_length; i++) {
        putchar(',');
        print_counts(drill->tiers[i].name, &drill->tiers[i].all, &drill->tiers[i].ms_all);
    }
    puts("}");
}

static void read_tier(struct drill *drill, const char *text)
{
    struct tier *tier = &drill->tiers[drill->tiers_length];
    if (drill->tiers_length == TIERS_MAX ||
        sscanf(text, "%63[^:]:%lf:%" SCNd64, tier->name, &tier->per_s, &tier->deadline_ms) != 3) {
        fail(text, "is not TIER:PER_S:DEADLINE_MS, or one too many");
    }
    histogram_init(&tier->ms_now);
    histogram_init(&tier->ms_all);
    drill->tiers_length++;
}

static void run(struct drill *drill, struct ticket *tickets, double seconds, double patience_s)
{
    const int64_t began_ns = clock_monotonic_ns();
    int64_t second = 0;
    for (;;) {
        const double elapsed_s = (double)(clock_monotonic_ns() - began_ns) / 1e9;
        const bool is_over = elapsed_s >= seconds;
        if (elapsed_s >= (double)second + 1) {
            print_second(drill, second++);
        }
        if ((is_over && drill->open == 0) || elapsed_s >= seconds + patience_s) {
            print_second(drill, second);
            return;
        }
        for (size_t i = 0; !is_over && i < drill->tiers_length; i++) {
            struct tier *tier = &drill->tiers[i];
            while ((double)tier->all.submitted < tier->per_s * elapsed_s) {
                submit(drill, &tickets[i]);
            }
        }
        if (tiermq_dispatch(drill->client, TURN_MS) < 0) {
            fail("dispatch", tiermq_last_error(drill->client));
        }
    }
}

int main(int argc, char **argv)
{
    static struct drill drill;
    static struct ticket tickets[TIERS_MAX];
    if (argc < 5) {
        fprintf(stderr, "usage: bench-drill CLIENTS_ENDPOINT SECONDS PATIENCE_S TIER:PER_S:DEADLINE_MS…\n");
        return 2;
    }
    for (int i = 4; i < argc; i++) {
        read_tier(&drill, argv[i]);
        tickets[i - 4] = (struct ticket){.drill = &drill, .tier = &drill.tiers[i - 4]};
    }
    const struct tiermq_options options = {
        .brokers = argv[1], .name = "bench-drill", .pending_max = 2000000, .pending_bytes_max = 1 << 30};
    if (tiermq_connect(&options, &drill.client) < 0) {
        fail("connect", argv[1]);
    }
    run(&drill, tickets, atof(argv[2]), atof(argv[3]));
    print_sum(&drill);
    tiermq_close(&drill.client);
    return 0;
}
