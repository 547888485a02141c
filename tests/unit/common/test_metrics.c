#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/metrics.h"

static struct metrics *make(void)
{
    struct metrics *metrics = NULL;
    cr_assert_eq(metrics_create(&metrics), 0);
    return metrics;
}

static struct metric_family *add_family(struct metrics *metrics, enum metric_type type,
                                        const char *name, const char *const *labels)
{
    struct metric_family *family = NULL;
    cr_assert_eq(metrics_register(metrics, type, name, "Help.", labels, NULL, 0, &family), 0);
    return family;
}

static void check_exposition(const struct metrics *metrics, const char *expected)
{
    char *text = NULL;
    size_t bytes = 0;
    cr_assert_eq(metrics_write(metrics, &text, &bytes), 0);
    cr_assert_str_eq(text, expected);
    cr_assert_eq(bytes, strlen(expected));
    free(text);
}

Test(metrics, counters_and_gauges_are_exposed)
{
    struct metrics *metrics = make();
    struct metric_family *jobs = add_family(metrics, METRIC_COUNTER, "jobs_total",
                                            (const char *const[]){"tier", "outcome", NULL});
    struct metric_family *memory = add_family(metrics, METRIC_GAUGE, "memory_bytes", NULL);
    metric_add(metric_series(jobs, (const char *const[]){"realtime", "succeeded"}), 2);
    metric_add(metric_series(jobs, (const char *const[]){"realtime", "dead"}), 1);
    metric_add(metric_series(jobs, (const char *const[]){"realtime", "succeeded"}), 1);
    metric_set(metric_series(memory, NULL), 0.1);
    check_exposition(metrics, "# HELP jobs_total Help.\n"
                              "# TYPE jobs_total counter\n"
                              "jobs_total{tier=\"realtime\",outcome=\"succeeded\"} 3\n"
                              "jobs_total{tier=\"realtime\",outcome=\"dead\"} 1\n"
                              "# HELP memory_bytes Help.\n"
                              "# TYPE memory_bytes gauge\n"
                              "memory_bytes 0.1\n");
    metrics_destroy(&metrics);
    cr_assert_null(metrics);
}

Test(metrics, histograms_are_cumulative_and_their_bounds_inclusive)
{
    struct metrics *metrics = make();
    struct metric_family *family = NULL;
    cr_assert_eq(metrics_register(metrics, METRIC_HISTOGRAM, "wait_seconds", "Wait.",
                                  (const char *const[]){"tier", NULL},
                                  (const double[]){0.5, 1, 2.5}, 3, &family),
                 0);
    struct metric *wait = metric_series(family, (const char *const[]){"a"});
    const double values[] = {0.25, 0.5, 1, 2, 100};
    for (size_t i = 0; i < 5; i++) {
        metric_observe(wait, values[i]);
    }
    cr_assert_eq(metric_value(wait), 5);
    check_exposition(metrics, "# HELP wait_seconds Wait.\n"
                              "# TYPE wait_seconds histogram\n"
                              "wait_seconds_bucket{tier=\"a\",le=\"0.5\"} 2\n"
                              "wait_seconds_bucket{tier=\"a\",le=\"1\"} 3\n"
                              "wait_seconds_bucket{tier=\"a\",le=\"2.5\"} 4\n"
                              "wait_seconds_bucket{tier=\"a\",le=\"+Inf\"} 5\n"
                              "wait_seconds_sum{tier=\"a\"} 103.75\n"
                              "wait_seconds_count{tier=\"a\"} 5\n");
    metrics_destroy(&metrics);
}

Test(metrics, texts_are_escaped)
{
    struct metrics *metrics = make();
    struct metric_family *family = NULL;
    cr_assert_eq(metrics_register(metrics, METRIC_GAUGE, "g", "a\\b\nc\"d",
                                  (const char *const[]){"l", NULL}, NULL, 0, &family),
                 0);
    metric_set(metric_series(family, (const char *const[]){"x\"y\\z\n"}), 1);
    check_exposition(metrics,
                     "# HELP g a\\\\b\\nc\"d\n# TYPE g gauge\ng{l=\"x\\\"y\\\\z\\n\"} 1\n");
    metrics_destroy(&metrics);
}

Test(metrics, numbers_that_are_none_have_their_names)
{
    struct metrics *metrics = make();
    struct metric *gauge = metric_series(add_family(metrics, METRIC_GAUGE, "g", NULL), NULL);
    metric_set(gauge, NAN);
    check_exposition(metrics, "# HELP g Help.\n# TYPE g gauge\ng NaN\n");
    metric_set(gauge, -INFINITY);
    check_exposition(metrics, "# HELP g Help.\n# TYPE g gauge\ng -Inf\n");
    metric_set(gauge, 12345678901234567.0);
    check_exposition(metrics, "# HELP g Help.\n# TYPE g gauge\ng 12345678901234568\n");
    metrics_destroy(&metrics);
}

Test(metrics, more_series_than_the_bound_are_one_named_other)
{
    struct metrics *metrics = make();
    struct metric_family *family =
        add_family(metrics, METRIC_COUNTER, "c_total", (const char *const[]){"tenant", NULL});
    struct metric *first = metric_series(family, (const char *const[]){"t0"});
    for (int i = 0; i < METRICS_SERIES_MAX + 50; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "t%d", i);
        metric_add(metric_series(family, (const char *const[]){name}), 1);
    }
    struct metric *other = metric_series(family, (const char *const[]){"other"});
    cr_assert_eq(metric_value(other), 50);
    cr_assert_eq(metric_series(family, (const char *const[]){"t0"}), first);
    cr_assert_eq(metric_series(family, (const char *const[]){"one too many"}), other);
    metrics_destroy(&metrics);
}

Test(metrics, values_that_are_too_long_are_other)
{
    struct metrics *metrics = make();
    struct metric_family *family =
        add_family(metrics, METRIC_COUNTER, "c_total", (const char *const[]){"tenant", NULL});
    char name[METRICS_VALUE_BYTES_MAX + 2];
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    cr_assert_eq(metric_series(family, (const char *const[]){name}),
                 metric_series(family, (const char *const[]){"other"}));
    metrics_destroy(&metrics);
}

Test(metrics, wrong_registrations_are_refused)
{
    struct metrics *metrics = make();
    struct metric_family *family = NULL;
    const char *const names[] = {"", "1a", "a-b", "a b", "\xc3\xa9"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cr_assert_eq(
            metrics_register(metrics, METRIC_COUNTER, names[i], "", NULL, NULL, 0, &family),
            -EINVAL, "%s", names[i]);
    }
    const char *const labels[][6] = {{"le"}, {""}, {"a:b"}, {"a", "b", "c", "d", "e"}};
    for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
        cr_assert_eq(
            metrics_register(metrics, METRIC_COUNTER, "x", "", labels[i], NULL, 0, &family),
            -EINVAL);
    }
    cr_assert_eq(metrics_register(metrics, METRIC_HISTOGRAM, "x", "", NULL, (const double[]){2, 1},
                                  2, &family),
                 -EINVAL);
    cr_assert_eq(
        metrics_register(metrics, METRIC_COUNTER, "ns:x_total", "", NULL, NULL, 0, &family), 0);
    cr_assert_eq(metrics_register(metrics, METRIC_GAUGE, "ns:x_total", "", NULL, NULL, 0, &family),
                 -EEXIST);
    metrics_destroy(&metrics);
}
