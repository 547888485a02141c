/*
 * metrics: a registry of counters, gauges and histograms with Prometheus text exposition (format
 * 0.0.4).
 *
 * A family is registered once with its label names; a series is looked up once by its label values
 * and then updated in O(1) through its pointer. The number of series of a family is bounded
 * (METRICS_SERIES_MAX): beyond it, and for values longer than METRICS_VALUE_BYTES_MAX, the series
 * with all labels "other" is given. Belongs to the loop's thread; other threads count in atomics of
 * their own that the loop copies.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

struct metrics;
struct metric_family;
struct metric; /* one series */

enum { METRICS_LABELS_MAX = 4, METRICS_SERIES_MAX = 1000, METRICS_VALUE_BYTES_MAX = 128 };
enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

MUST_USE int metrics_create(struct metrics **ret_metrics);
void metrics_destroy(struct metrics **metrics);

/*
 * `labels` is a NULL-terminated list of label names, or NULL. For histograms `bounds` are the upper
 * bounds, ascending, without +Inf (NULL: METRICS_SECONDS_BOUNDS). Names and texts are copied.
 * Errors: -EINVAL a bad name, too many labels, or bounds that do not ascend; -EEXIST; -ENOMEM.
 */
MUST_USE int metrics_register(struct metrics *metrics, enum metric_type type, const char *name,
                              const char *help, const char *const *labels, const double *bounds,
                              size_t bounds_length, struct metric_family **ret_family);
/*
 * Values in the order of the labels; NULL for a family without labels. Lives as long as the
 * registry. Never NULL: on a lack of memory or of room the "other" series is given.
 */
struct metric *metric_series(struct metric_family *family, const char *const *values);

void metric_add(struct metric *metric, double amount); /* counter, gauge */
void metric_set(struct metric *metric, double value);  /* gauge; counter copied from elsewhere */
void metric_observe(struct metric *metric, double value);
double metric_value(const struct metric *metric); /* a histogram's count */

/* The exposition. Gives: *ret_text, to be released with free(). Errors: -ENOMEM. */
MUST_USE int metrics_write(const struct metrics *metrics, char **ret_text, size_t *ret_bytes);

/* 0.0005 … 120 s in steps of about 2. */
extern const double METRICS_SECONDS_BOUNDS[];
extern const size_t METRICS_SECONDS_BOUNDS_LENGTH;
