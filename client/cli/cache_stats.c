/* cache_stats: what the workers say of their caches, added up. */
#include <string.h>
#include "client/cli/cache.h"

static const char *const counters[] = {
    "entries",   "bytes",         "memory_bytes", "indexed",
    "building",  "fills",         "fills_failed", "late",
    "evictions", "expired",       "damaged",      "broken",
    "set_aside", "dropped_fills", "invalidated",  "invalidations_pending",
    "searches_cut"};

const char *cache_text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value == NULL ? "" : value;
}

json_int_t cache_number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_true(value) ? 1 : (json_int_t)json_number_value(value);
}

double cache_real(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* ---- adding up ---- */

static void add_number(json_t *sum, const char *key, json_int_t more)
{
    json_object_set_new(sum, key, json_integer(cache_number(sum, key) + more));
}

static void add_real(json_t *sum, const char *key, double more)
{
    json_object_set_new(sum, key, json_real(cache_real(sum, key) + more));
}

/* The element of the list that has the same names, made if there is none. Borrowed; NULL: no
 * memory. */
static json_t *element_of(json_t *list, const json_t *like, const char *const *names,
                          size_t names_length)
{
    size_t i = 0;
    json_t *element = NULL;
    json_array_foreach (list, i, element) {
        bool is_same = true;
        for (size_t j = 0; is_same && j < names_length; j++) {
            is_same = strcmp(cache_text(element, names[j]), cache_text(like, names[j])) == 0;
        }
        if (is_same) {
            return element;
        }
    }
    element = json_object();
    for (size_t j = 0; j < names_length; j++) {
        json_object_set_new(element, names[j], json_string(cache_text(like, names[j])));
    }
    return json_array_append_new(list, element) < 0 ? NULL : element;
}

static void add_bypass(json_t *sum, const json_t *bypass)
{
    json_t *reasons = json_object_get(sum, "bypass");
    if (reasons == NULL) {
        reasons = json_object();
        json_object_set_new(sum, "bypass", reasons);
    }
    const char *reason = NULL;
    json_t *count = NULL;
    json_object_foreach ((json_t *)bypass, reason, count) {
        add_number(reasons, reason, json_integer_value(count));
    }
}

static void add_lookups(json_t *list, const json_t *lookups)
{
    static const char *const names[] = {"tenant", "tier", "route", "namespace"};
    static const char *const results[] = {"exact", "near", "stale", "miss"};
    static const char *const reals[] = {"saved_usd", "saved_seconds", "served_age_seconds",
                                        "checks_usd"};
    size_t i = 0;
    const json_t *more = NULL;
    json_array_foreach (lookups, i, more) {
        json_t *sum = element_of(list, more, names, ARRAY_LENGTH(names));
        for (size_t j = 0; j < ARRAY_LENGTH(results); j++) {
            add_number(sum, results[j], cache_number(more, results[j]));
        }
        add_bypass(sum, json_object_get(more, "bypass"));
        for (size_t j = 0; j < ARRAY_LENGTH(reals); j++) {
            add_real(sum, reals[j], cache_real(more, reals[j]));
        }
    }
}

/* Evidence adds up at the broker: whoever has more of it heard of it later. */
static void add_classes(json_t *list, const json_t *classes)
{
    static const char *const names[] = {"tenant", "tier", "embedder"};
    size_t i = 0;
    json_t *more = NULL;
    json_array_foreach (classes, i, more) {
        json_t *best = element_of(list, more, names, ARRAY_LENGTH(names));
        if (json_object_get(best, "evidence") == NULL ||
            cache_real(more, "evidence") > cache_real(best, "evidence")) {
            json_object_update(best, more);
        }
    }
}

json_t *cache_stats_sum(const json_t *answer)
{
    json_t *sum = json_object();
    json_t *lookups = json_array();
    json_t *classes = json_array();
    for (size_t i = 0; i < ARRAY_LENGTH(counters); i++) {
        json_object_set_new(sum, counters[i], json_integer(0));
    }
    size_t i = 0;
    const json_t *worker = NULL;
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        const json_t *stats = json_object_get(worker, "answer");
        for (size_t j = 0; stats != NULL && j < ARRAY_LENGTH(counters); j++) {
            add_number(sum, counters[j], cache_number(stats, counters[j]));
        }
        add_lookups(lookups, json_object_get(stats, "lookups"));
        add_classes(classes, json_object_get(stats, "classes"));
    }
    const bool is_whole = json_object_set_new(sum, "lookups", lookups) == 0;
    if (json_object_set_new(sum, "classes", classes) < 0 || !is_whole) {
        json_decref(sum);
        return NULL;
    }
    return sum;
}

/* ---- for people ---- */

/* Of what a judge is asked it has to answer so much, else it is said. */
static const double SILENT_BELOW = 0.5;

/* What hinders it now, behind its row. */
static void print_troubles(const json_t *stats, FILE *out)
{
    const json_t *embedding = json_object_get(stats, "embedding");
    fputs(cache_number(stats, "building") != 0 ? "  building" : "", out);
    fputs(cache_number(stats, "broken") != 0 ? "  broken" : "", out);
    if (json_is_true(json_object_get(embedding, "down"))) {
        const char *error = cache_text(embedding, "error");
        fprintf(out, "  embedder down%s%s", error[0] == '\0' ? "" : ": ", error);
    }
    const json_t *judging = json_object_get(stats, "judging");
    if (json_is_object(judging) && cache_real(judging, "share") < SILENT_BELOW) {
        fprintf(out, "  judge %s silent: %.0f %% of what it was asked lately has an answer",
                cache_text(judging, "model"), 100.0 * cache_real(judging, "share"));
    }
    fputc('\n', out);
}

static void print_worker(const char *name, const json_t *stats, FILE *out)
{
    fprintf(out, "%-16s %10lld %13lld %12lld %10lld %9lld %7lld %7lld %8lld %8lld %11lld %8lld",
            name, (long long)cache_number(stats, "entries"),
            (long long)cache_number(stats, "bytes"), (long long)cache_number(stats, "memory_bytes"),
            (long long)cache_number(stats, "indexed"), (long long)cache_number(stats, "fills"),
            (long long)cache_number(stats, "fills_failed"), (long long)cache_number(stats, "late"),
            (long long)cache_number(stats, "evictions"), (long long)cache_number(stats, "expired"),
            (long long)cache_number(stats, "invalidated"),
            (long long)cache_number(stats, "invalidations_pending"));
    print_troubles(stats, out);
}

static void print_workers(const json_t *answer, const json_t *sum, FILE *out)
{
    fprintf(out, "%-16s %10s %13s %12s %10s %9s %7s %7s %8s %8s %11s %8s\n", "worker", "entries",
            "bytes", "memory", "indexed", "fills", "failed", "late", "evicted", "expired",
            "invalidated", "pending");
    size_t i = 0;
    const json_t *worker = NULL;
    json_array_foreach (json_object_get(answer, "workers"), i, worker) {
        const json_t *stats = json_object_get(worker, "answer");
        if (stats != NULL) {
            print_worker(cache_text(worker, "worker"), stats, out);
        }
    }
    print_worker("all", sum, out);
    fprintf(out, "%lld fills dropped, %lld entries damaged, %lld databases set aside\n",
            (long long)cache_number(sum, "dropped_fills"), (long long)cache_number(sum, "damaged"),
            (long long)cache_number(sum, "set_aside"));
}

static json_int_t bypassed(const json_t *lookup)
{
    json_int_t all = 0;
    const char *reason = NULL;
    json_t *count = NULL;
    json_object_foreach (json_object_get(lookup, "bypass"), reason, count) {
        all += json_integer_value(count);
    }
    return all;
}

static void print_reasons(const json_t *lookup, FILE *out)
{
    const char *reason = NULL;
    json_t *count = NULL;
    const char *before = "  bypassed: ";
    json_object_foreach (json_object_get(lookup, "bypass"), reason, count) {
        fprintf(out, "%s%s %lld", before, reason, (long long)json_integer_value(count));
        before = ", ";
    }
    fputc('\n', out);
}

static void print_lookups(const json_t *sum, FILE *out)
{
    fprintf(out, "\n%-12s %-12s %-16s %-12s %9s %9s %9s %9s %9s %7s %12s %10s %12s %9s\n", "tenant",
            "tier", "route", "namespace", "exact", "near", "stale", "miss", "bypass", "hits",
            "saved USD", "saved s", "checks USD", "mean age");
    size_t i = 0;
    const json_t *lookup = NULL;
    json_array_foreach (json_object_get(sum, "lookups"), i, lookup) {
        const double hits =
            cache_real(lookup, "exact") + cache_real(lookup, "near") + cache_real(lookup, "stale");
        const double asked = hits + cache_real(lookup, "miss");
        fprintf(out,
                "%-12s %-12s %-16s %-12s %9lld %9lld %9lld %9lld %9lld %6.1f%% %12.6f %10.1f "
                "%12.6f %8.0fs",
                cache_text(lookup, "tenant"), cache_text(lookup, "tier"),
                cache_text(lookup, "route"),
                cache_text(lookup, "namespace")[0] == '\0' ? "-" : cache_text(lookup, "namespace"),
                (long long)cache_number(lookup, "exact"), (long long)cache_number(lookup, "near"),
                (long long)cache_number(lookup, "stale"), (long long)cache_number(lookup, "miss"),
                (long long)bypassed(lookup), asked > 0 ? 100.0 * hits / asked : 0.0,
                cache_real(lookup, "saved_usd"), cache_real(lookup, "saved_seconds"),
                cache_real(lookup, "checks_usd"),
                hits > 0 ? cache_real(lookup, "served_age_seconds") / hits : 0.0);
        print_reasons(lookup, out);
    }
}

static void print_class(const json_t *class, FILE *out)
{
    char threshold[32] = "closed";
    const json_t *value = json_object_get(class, "threshold");
    if (json_is_number(value)) {
        (void)snprintf(threshold, sizeof(threshold), "%.3f", json_number_value(value));
    }
    fprintf(out, "%-12s %-12s %-20s %9s %9.2f%% %7.2f%% – %5.2f%% %10.0f  %s\n",
            cache_text(class, "tenant"), cache_text(class, "tier"), cache_text(class, "embedder"),
            threshold, 100.0 * cache_real(class, "false_hit_rate"),
            100.0 * cache_real(class, "false_hit_low"), 100.0 * cache_real(class, "false_hit_high"),
            cache_real(class, "evidence"), cache_text(class, "why_closed"));
}

static void print_classes(const json_t *sum, FILE *out)
{
    fprintf(out, "\n%-12s %-12s %-20s %9s %10s %17s %10s  %s\n", "tenant", "tier", "embedder",
            "threshold", "wrong hits", "95 % between", "evidence", "why closed");
    size_t i = 0;
    const json_t *class = NULL;
    json_array_foreach (json_object_get(sum, "classes"), i, class) {
        print_class(class, out);
    }
}

void cache_stats_print(const json_t *answer, const json_t *sum, FILE *out)
{
    print_workers(answer, sum, out);
    if (json_array_size(json_object_get(sum, "lookups")) > 0) {
        print_lookups(sum, out);
    }
    if (json_array_size(json_object_get(sum, "classes")) > 0) {
        print_classes(sum, out);
    }
}
