#include "common/metrics.h"
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "common/list.h"

enum { SERIES_BUCKETS = 256 };

const double METRICS_SECONDS_BOUNDS[] = {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
                                         0.5,    1,     2,     5,     10,   20,   60,   120};
const size_t METRICS_SECONDS_BOUNDS_LENGTH = ARRAY_LENGTH(METRICS_SECONDS_BOUNDS);

static const char OTHER[] = "other";

struct metric {
    struct metric_family *family;
    struct list_link in_family;
    struct metric *next_in_bucket;
    uint64_t hash;
    char *values[METRICS_LABELS_MAX];
    double value;     /* a histogram's sum */
    uint64_t count;   /* of a histogram's observations */
    uint64_t *counts; /* of a histogram, one for each bound, not cumulative */
    bool is_used;     /* the series "other" is shown once it was given */
};

struct metric_family {
    enum metric_type type;
    struct list_link in_metrics;
    char *name, *help;
    char *labels[METRICS_LABELS_MAX];
    size_t n_labels;
    double *bounds;
    size_t n_bounds;
    struct metric *other; /* the only series of a family without labels */
    struct list series;   /* in the order of their appearance, without `other` */
    struct metric *buckets[SERIES_BUCKETS];
};

struct metrics {
    struct list families;
};

/* ---- series ---- */

static void metric_destroy(struct metric **metric)
{
    struct metric *gone = TAKE(*metric);
    if (gone == NULL) {
        return;
    }
    for (size_t i = 0; i < METRICS_LABELS_MAX; i++) {
        free(gone->values[i]);
    }
    free(gone->counts);
    free(gone);
}

static int metric_create(struct metric_family *family, const char *const *values,
                         struct metric **ret_metric)
{
    CLEANUP(metric_destroy) struct metric *metric = calloc(1, sizeof(*metric));
    if (metric == NULL) {
        return -ENOMEM;
    }
    metric->family = family;
    for (size_t i = 0; i < family->n_labels; i++) {
        metric->values[i] = strdup(values[i]);
        if (metric->values[i] == NULL) {
            return -ENOMEM;
        }
    }
    if (family->n_bounds > 0) {
        metric->counts = calloc(family->n_bounds, sizeof(*metric->counts));
        if (metric->counts == NULL) {
            return -ENOMEM;
        }
    }
    *ret_metric = TAKE(metric);
    return 0;
}

static bool has_values(const struct metric *metric, const char *const *values)
{
    for (size_t i = 0; i < metric->family->n_labels; i++) {
        if (strcmp(metric->values[i], values[i]) != 0) {
            return false;
        }
    }
    return true;
}

static uint64_t hash_values(const struct metric_family *family, const char *const *values)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < family->n_labels; i++) {
        hash = XXH3_64bits_withSeed(values[i], strlen(values[i]), hash);
    }
    return hash;
}

static bool are_bounded(const struct metric_family *family, const char *const *values)
{
    for (size_t i = 0; i < family->n_labels; i++) {
        if (strnlen(values[i], METRICS_VALUE_BYTES_MAX + 1) > METRICS_VALUE_BYTES_MAX) {
            return false;
        }
    }
    return true;
}

static struct metric *give_other(struct metric_family *family)
{
    family->other->is_used = true;
    return family->other;
}

struct metric *metric_series(struct metric_family *family, const char *const *values)
{
    if (family->n_labels == 0 || !are_bounded(family, values) ||
        has_values(family->other, values)) {
        return give_other(family);
    }
    const uint64_t hash = hash_values(family, values);
    struct metric **bucket = &family->buckets[hash % SERIES_BUCKETS];
    for (struct metric *metric = *bucket; metric != NULL; metric = metric->next_in_bucket) {
        if (metric->hash == hash && has_values(metric, values)) {
            return metric;
        }
    }
    struct metric *metric;
    if (family->series.length == METRICS_SERIES_MAX || metric_create(family, values, &metric) < 0) {
        return give_other(family);
    }
    metric->hash = hash;
    metric->next_in_bucket = *bucket;
    *bucket = metric;
    list_append(&family->series, &metric->in_family);
    return metric;
}

void metric_add(struct metric *metric, double amount)
{
    assert(metric->family->type != METRIC_HISTOGRAM);
    assert(metric->family->type == METRIC_GAUGE || amount >= 0);
    metric->value += amount;
}

void metric_set(struct metric *metric, double value)
{
    assert(metric->family->type != METRIC_HISTOGRAM);
    metric->value = value;
}

void metric_observe(struct metric *metric, double value)
{
    const struct metric_family *family = metric->family;
    assert(family->type == METRIC_HISTOGRAM);
    metric->value += value;
    metric->count++;
    size_t i = 0;
    while (i < family->n_bounds && value > family->bounds[i]) {
        i++;
    }
    if (i < family->n_bounds) {
        metric->counts[i]++;
    }
}

double metric_value(const struct metric *metric)
{
    return metric->family->type == METRIC_HISTOGRAM ? (double)metric->count : metric->value;
}

/* ---- families ---- */

static void family_destroy(struct metric_family **family)
{
    struct metric_family *gone = TAKE(*family);
    if (gone == NULL) {
        return;
    }
    while (gone->series.length > 0) {
        struct list_link *first = list_first(&gone->series);
        list_remove(&gone->series, first);
        struct metric *metric = CONTAINER_OF(first, struct metric, in_family);
        metric_destroy(&metric);
    }
    metric_destroy(&gone->other);
    for (size_t i = 0; i < METRICS_LABELS_MAX; i++) {
        free(gone->labels[i]);
    }
    free(gone->bounds);
    free(gone->help);
    free(gone->name);
    free(gone);
}

static bool is_name(const char *name, bool may_have_colons)
{
    if (*name >= '0' && *name <= '9') {
        return false;
    }
    const char *at = name;
    while ((*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || (*at >= '0' && *at <= '9') ||
           *at == '_' || (may_have_colons && *at == ':')) {
        at++;
    }
    return at > name && *at == '\0';
}

static int copy_labels(struct metric_family *family, const char *const *labels)
{
    for (size_t i = 0; labels != NULL && labels[i] != NULL; i++) {
        if (i == METRICS_LABELS_MAX || !is_name(labels[i], false) || strcmp(labels[i], "le") == 0) {
            return -EINVAL;
        }
        family->labels[i] = strdup(labels[i]);
        if (family->labels[i] == NULL) {
            return -ENOMEM;
        }
        family->n_labels++;
    }
    return 0;
}

static int copy_bounds(struct metric_family *family, const double *bounds, size_t bounds_length)
{
    for (size_t i = 0; i < bounds_length; i++) {
        if (!isfinite(bounds[i]) || (i > 0 && bounds[i] <= bounds[i - 1])) {
            return -EINVAL;
        }
    }
    family->bounds = calloc(bounds_length + 1, sizeof(*bounds));
    if (family->bounds == NULL) {
        return -ENOMEM;
    }
    memcpy(family->bounds, bounds, bounds_length * sizeof(*bounds));
    family->n_bounds = bounds_length;
    return 0;
}

static bool is_registered(const struct metrics *metrics, const char *name)
{
    list_for_each (&metrics->families, link) {
        if (strcmp(CONTAINER_OF(link, struct metric_family, in_metrics)->name, name) == 0) {
            return true;
        }
    }
    return false;
}

int metrics_register(struct metrics *metrics, enum metric_type type, const char *name,
                     const char *help, const char *const *labels, const double *bounds,
                     size_t bounds_length, struct metric_family **ret_family)
{
    if (!is_name(name, true)) {
        return -EINVAL;
    }
    if (is_registered(metrics, name)) {
        return -EEXIST;
    }
    CLEANUP(family_destroy) struct metric_family *family = calloc(1, sizeof(*family));
    if (family == NULL) {
        return -ENOMEM;
    }
    family->type = type;
    list_init(&family->series);
    family->name = strdup(name);
    family->help = strdup(help);
    if (family->name == NULL || family->help == NULL) {
        return -ENOMEM;
    }
    int r = copy_labels(family, labels);
    if (r == 0 && type == METRIC_HISTOGRAM) {
        r = bounds != NULL
                ? copy_bounds(family, bounds, bounds_length)
                : copy_bounds(family, METRICS_SECONDS_BOUNDS, METRICS_SECONDS_BOUNDS_LENGTH);
    }
    if (r == 0) {
        r = metric_create(family,
                          (const char *const[METRICS_LABELS_MAX]){OTHER, OTHER, OTHER, OTHER},
                          &family->other);
    }
    if (r < 0) {
        return r;
    }
    list_append(&metrics->families, &family->in_metrics);
    *ret_family = TAKE(family);
    return 0;
}

int metrics_create(struct metrics **ret_metrics)
{
    struct metrics *metrics = calloc(1, sizeof(*metrics));
    if (metrics == NULL) {
        return -ENOMEM;
    }
    list_init(&metrics->families);
    *ret_metrics = metrics;
    return 0;
}

void metrics_destroy(struct metrics **metrics)
{
    struct metrics *gone = TAKE(*metrics);
    if (gone == NULL) {
        return;
    }
    while (gone->families.length > 0) {
        struct list_link *first = list_first(&gone->families);
        list_remove(&gone->families, first);
        struct metric_family *family = CONTAINER_OF(first, struct metric_family, in_metrics);
        family_destroy(&family);
    }
    free(gone);
}

/* ---- exposition; failures of the memory stream show when it is closed ---- */

static void write_escaped(FILE *out, const char *text, bool is_quoted)
{
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '\n') {
            (void)fputs("\\n", out);
        } else if (*at == '\\' || (is_quoted && *at == '"')) {
            (void)fprintf(out, "\\%c", *at);
        } else {
            (void)fputc(*at, out);
        }
    }
}

static void write_number(FILE *out, double value)
{
    if (isnan(value)) {
        (void)fputs("NaN", out);
    } else if (isinf(value)) {
        (void)fputs(value > 0 ? "+Inf" : "-Inf", out);
    } else {
        char text[32];
        /* Fifteen digits show 0.1 as it was written; the few values that need 17 get them. */
        (void)snprintf(text, sizeof(text), "%.15g", value);
        if (strtod(text, NULL) != value) {
            (void)snprintf(text, sizeof(text), "%.17g", value);
        }
        (void)fputs(text, out);
    }
}

/* `bound` NULL: no label "le". */
static void write_sample(FILE *out, const struct metric *metric, const char *suffix,
                         const double *bound, double value)
{
    const struct metric_family *family = metric->family;
    (void)fprintf(out, "%s%s", family->name, suffix);
    const char *separator = "{";
    for (size_t i = 0; i < family->n_labels; i++) {
        (void)fprintf(out, "%s%s=\"", separator, family->labels[i]);
        write_escaped(out, metric->values[i], true);
        (void)fputc('"', out);
        separator = ",";
    }
    if (bound != NULL) {
        (void)fprintf(out, "%sle=\"", separator);
        write_number(out, *bound);
        (void)fputc('"', out);
    }
    (void)fputs(family->n_labels > 0 || bound != NULL ? "} " : " ", out);
    write_number(out, value);
    (void)fputc('\n', out);
}

static void write_histogram(FILE *out, const struct metric *metric)
{
    static const double infinity = HUGE_VAL;
    uint64_t below = 0;
    for (size_t i = 0; i < metric->family->n_bounds; i++) {
        below += metric->counts[i];
        write_sample(out, metric, "_bucket", &metric->family->bounds[i], (double)below);
    }
    write_sample(out, metric, "_bucket", &infinity, (double)metric->count);
    write_sample(out, metric, "_sum", NULL, metric->value);
    write_sample(out, metric, "_count", NULL, (double)metric->count);
}

static void write_series(FILE *out, const struct metric *metric)
{
    if (metric->family->type == METRIC_HISTOGRAM) {
        write_histogram(out, metric);
    } else {
        write_sample(out, metric, "", NULL, metric->value);
    }
}

static void write_family(FILE *out, const struct metric_family *family)
{
    static const char *const types[] = {
        [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};
    (void)fprintf(out, "# HELP %s ", family->name);
    write_escaped(out, family->help, false);
    (void)fprintf(out, "\n# TYPE %s %s\n", family->name, types[family->type]);
    list_for_each (&family->series, link) {
        write_series(out, CONTAINER_OF(link, struct metric, in_family));
    }
    if (family->other->is_used || family->n_labels == 0) {
        write_series(out, family->other);
    }
}

int metrics_write(const struct metrics *metrics, char **ret_text, size_t *ret_bytes)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) {
        return -ENOMEM;
    }
    list_for_each (&metrics->families, link) {
        write_family(out, CONTAINER_OF(link, struct metric_family, in_metrics));
    }
    const bool is_failed = ferror(out) != 0;
    if (fclose(out) != 0 || is_failed) {
        free(text);
        return -ENOMEM;
    }
    *ret_text = text;
    *ret_bytes = bytes;
    return 0;
}
