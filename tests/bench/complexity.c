/*
 * bench-complexity: what common/complexity says of prompts, for tools/route-fit and
 * routing_quality, and what it costs.
 *
 *   bench-complexity names                names of the features, one a line
 *   bench-complexity weights              the built-in bias and weights, one a line
 *   bench-complexity features REQUESTS    of each request its features, with tabs between them, and
 * its score bench-complexity speed REQUESTS       nanoseconds a request: median and 99th of a
 * hundred
 *
 * REQUESTS: a body in OpenAI form on each line. Time is the wall's, of the middle of several rounds
 * for each request: what is measured is the function, not who else uses the machine.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/complexity.h"

enum { ROUNDS = 31, REQUESTS_MAX = 1 << 16 };

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "bench-complexity: %s\n", what);
    exit(1);
}

struct requests {
    json_t *bodies[REQUESTS_MAX];
    size_t length;
};

static struct requests requests;

static void read_requests(const char *path)
{
    char *line = NULL;
    size_t capacity = 0;
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        die(path);
    }
    while (getline(&line, &capacity, file) > 0) {
        json_t *body = json_loads(line, 0, NULL);
        if (body == NULL || requests.length == REQUESTS_MAX) {
            die("a line is not JSON, or there are too many");
        }
        requests.bodies[requests.length++] = body;
    }
    free(line);
    (void)fclose(file);
}

static void write_features(void)
{
    uint8_t features[COMPLEXITY_FEATURES];
    for (size_t i = 0; i < requests.length; i++) {
        complexity_features(requests.bodies[i], features);
        for (size_t k = 0; k < COMPLEXITY_FEATURES; k++) {
            printf("%u\t", features[k]);
        }
        printf("%.9f\n", complexity_score(features, complexity_weights_builtin()));
    }
}

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double measure(const json_t *body)
{
    uint8_t features[COMPLEXITY_FEATURES];
    const double began = now_ns();
    complexity_features(body, features);
    volatile double score = complexity_score(features, complexity_weights_builtin());
    (void)score;
    return now_ns() - began;
}

/* Rounds over all requests: each is met again when the others have been through the caches. */
static void measure_speed(void)
{
    static double rounds[REQUESTS_MAX][ROUNDS];
    static double ns[REQUESTS_MAX];
    if (requests.length == 0) {
        die("no requests");
    }
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < requests.length; i++) {
            rounds[i][round] = measure(requests.bodies[i]);
        }
    }
    for (size_t i = 0; i < requests.length; i++) {
        qsort(rounds[i], ROUNDS, sizeof(rounds[i][0]), by_value);
        ns[i] = rounds[i][ROUNDS / 2];
    }
    qsort(ns, requests.length, sizeof(ns[0]), by_value);
    printf("{\"requests\": %zu, \"p50_ns\": %.0f, \"p99_ns\": %.0f, \"max_ns\": %.0f}\n",
           requests.length, ns[requests.length / 2], ns[requests.length * 99 / 100],
           ns[requests.length - 1]);
}

static void write_weights(void)
{
    const struct complexity_weights *weights = complexity_weights_builtin();
    printf("%.6f\n", weights->bias);
    for (size_t i = 0; i < COMPLEXITY_FEATURES; i++) {
        printf("%.6f\n", weights->weights[i]);
    }
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    if (argc == 3) {
        read_requests(argv[2]);
    }
    if (strcmp(command, "names") == 0 && argc == 2) {
        for (size_t i = 0; i < COMPLEXITY_FEATURES; i++) {
            printf("%s\n", complexity_feature_name(i));
        }
    } else if (strcmp(command, "weights") == 0 && argc == 2) {
        write_weights();
    } else if (strcmp(command, "features") == 0 && argc == 3) {
        write_features();
    } else if (strcmp(command, "speed") == 0 && argc == 3) {
        measure_speed();
    } else {
        die("names | weights | features REQUESTS | speed REQUESTS");
    }
    for (size_t i = 0; i < requests.length; i++) {
        json_decref(requests.bodies[i]);
    }
    return fflush(stdout) == 0 && ferror(stdout) == 0 ? 0 : 1;
}
