/*
 * cache: what `tiermq cache` makes of the answers of all workers ({"workers": [{"worker", "answer" or "error"}], "complete"}):
 * sums, merged lists, pages. Pure; the commands themselves are in cache.c.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include "client/cli/cli.h"

/* A member of an object; "" and 0 when it is not there. True counts as 1. */
const char *cache_text(const json_t *object, const char *key);
json_int_t cache_number(const json_t *object, const char *key);
double cache_real(const json_t *object, const char *key);

/*
 * cache_stats.c. The sum over all workers that have answered: counters, lookups by tenant, tier, route and namespace; of each class
 * (tenant, tier, embedder) what the worker with the most evidence says. Gives: a new reference; NULL: no memory.
 */
json_t *cache_stats_sum(const json_t *answer);
void cache_stats_print(const json_t *answer, const json_t *sum, FILE *out);

/*
 * cache_top.c. Entries of all workers, each key once with its hits, savings and bytes added up, sorted by `by` (saved, hits,
 * bytes), `limit` at most. Gives: a new reference to an array; NULL: no memory.
 */
json_t *cache_top_merge(const json_t *answer, const char *by, size_t limit);
void cache_top_print(const json_t *entries, FILE *out);

/*
 * cache_page.c. One page of an export: what every worker has below where the first of them stopped, by key, each key once; what is
 * beyond comes with the next page. Gives: *ret_entries, a new reference, and *ret_next, borrowed from `answer`, NULL at the end.
 * Errors: -EBADMSG a worker sent what is no page; -ENOMEM.
 */
MUST_USE int cache_page_merge(const json_t *answer, const char *from, json_t **ret_entries, const char **ret_next);

/* cache_transfer.c: both return the exit code. */
int cache_export(struct cli *cli, const char *path);
int cache_import(struct cli *cli, const char *path);

/*
 * cache_invalidate.c: `body` is the question to the broker. Goes to each broker whose admin HTTP cli->admin names, separated by commas;
 * where these are fewer than the client's brokers, to all of them as a client of the tenant that the body names. Returns the exit code: not
 * 0 when a broker or a worker was not reached.
 */
int cache_invalidate(struct cli *cli, const json_t *body, bool dry_run);

/* On standard output, in a line. Returns the exit code. */
int cache_print_json(const struct cli *cli, const json_t *json);
bool cache_has_workers(const json_t *answer);
/* What workers said instead of an answer, on standard error. Returns how many did. */
size_t cache_say_errors(const struct cli *cli, const json_t *answer);
