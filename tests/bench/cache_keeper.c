/*
 * bench-cache-keeper: what the whole cache costs, from its store to its thread.
 *
 *   bench-cache-keeper fill TEXTS ENTRIES FOLDER
 *   bench-cache-keeper measure TEXTS ENTRIES FOLDER LOOKUPS SCANS FILLS_PER_S
 *
 * `fill` makes the database FOLDER: the first ENTRIES lines of the file TEXTS, asked of the route
 * sim-small by the tenant "default", answered as the simulator does with --tokens 160:240 (about 1
 * KiB), so that a worker can be given it. `measure` opens it again. One line of JSON each.
 *
 * Measured, by the clock, and in CPU time of the threads that do it, since the machine may have
 * other work:
 * - read, spin_20us: what the machine gives, see machine.h;
 * - exact_cold: keeper_lookup() of entries, without an index, whose pages are not in memory;
 * - exact_inside: the same with all pages in memory, and RocksDB at rest, which has fallen behind
 * what was filled at once;
 * - first_hit: from cache_create() until the first exact hit is told to the loop;
 * - exact_building: exact hits through the thread while the index is made, one a millisecond;
 * - exact, near: through the thread, one at a time; near are entries' texts, varied;
 * - beside_fills: near again, while entries are filled at a steady rate.
 *
 * SCANS queries are compared with a scan of all entries: of those that it would answer, with each
 * of some thresholds, how many are answered.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/canonical.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "tests/bench/cache_queries.h"
#include "tests/bench/machine.h"
#include "tests/modelsim/model.h"
#include "worker/cache/cache.h"
#include "worker/cache/decision.h"
#include "worker/cache/embed_builtin.h"
#include "worker/cache/lexical_index.h"
#include "worker/cache/likeness.h"
#include "worker/cache/scope.h"
#include "worker/cache/sparse_table.h"

enum {
    CANDIDATES = 8,
    BYTES_MAX_GB = 16,
    DAY_MS = 24 * 3600 * 1000,
    ANSWER_BYTES_MAX = 4096,
    COLD_LESS = 10
};
#define TENANT "default"
#define ROUTE  "sim-small"
/* The keeper's own. */
static const double COSINE_MIN = 0.3;

struct bench {
    struct queries queries;
    struct keeper_options options;
    uint8_t scope[CACHE_SCOPE_BYTES];
    struct loop *loop;
    struct log *log;
    struct cache *cache;
    clockid_t thread_clock;     /* CPU time of the cache's thread */
    struct cache_result result; /* of the latest lookup, its entry given up */
    bool is_answered;
};

/* ---- entries ---- */

static json_t *body_of(const char *text)
{
    return json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", text);
}

static void key_of(const char *text, uint8_t ret_key[CACHE_KEY_BYTES])
{
    char error[CANONICAL_ERROR_BYTES];
    char *canonical = NULL;
    size_t bytes = 0;
    json_t *body = body_of(text);
    char *json = json_dumps(body, JSON_COMPACT);
    const int r =
        json == NULL ? -ENOMEM : canonical_json(json, strlen(json), &canonical, &bytes, error);
    if (r < 0) {
        queries_die("key", r);
    }
    canonical_key(NULL, TENANT, "", "chat.completions", ROUTE, canonical, bytes, ret_key);
    free(canonical);
    free(json);
    json_decref(body);
}

static void find_scope(struct bench *bench)
{
    const char *text;
    json_t *body = body_of("any");
    const int r = scope_of(NULL, TENANT, "", OPERATION_CHAT, ROUTE, body, bench->scope, &text);
    if (r < 0) {
        queries_die("scope", r);
    }
    json_decref(body);
}

static size_t write_answer(const char *text, char ret_answer[ANSWER_BYTES_MAX])
{
    const struct model_style style = {.tokens_min = 160, .tokens_max = 240};
    struct model_answer answer;
    const int r = model_answer_create(1, ROUTE, text, style, 0, NULL, &answer);
    if (r < 0) {
        queries_die("answer", r);
    }
    const int bytes = snprintf(
        ret_answer, ANSWER_BYTES_MAX,
        "{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"%"
        "s\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"completion_tokens\":%u}}",
        ROUTE, answer.text, answer.tokens);
    model_answer_finish(&answer);
    return (size_t)bytes;
}

typedef int fill_fn(void *context, const uint8_t *key, Record__CacheEntry *entry);

static int fill_text(struct bench *bench, char *text, fill_fn *fill, void *context)
{
    char answer[ANSWER_BYTES_MAX];
    uint8_t key[CACHE_KEY_BYTES];
    Record__CacheAbout about = RECORD__CACHE_ABOUT__INIT;
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    key_of(text, key);
    about.tenant = TENANT;
    about.tier = "standard";
    about.route = about.model = ROUTE;
    about.text = text;
    about.scope = (ProtobufCBinaryData){CACHE_SCOPE_BYTES, bench->scope};
    about.filled_unix_ms = (uint64_t)clock_unix_ms();
    about.expires_unix_ms = about.stale_until_unix_ms = about.filled_unix_ms + DAY_MS;
    about.cost_nanousd = 100000;
    entry.about = &about;
    entry.provider = "sim";
    entry.body = (ProtobufCBinaryData){write_answer(text, answer), (uint8_t *)answer};
    return fill(context, key, &entry);
}

/* ---- filling ---- */

static int fill_keeper(void *context, const uint8_t *key, Record__CacheEntry *entry)
{
    char error[CACHE_ERROR_BYTES] = "";
    return keeper_fill(context, key, entry, NULL, false, 0, clock_unix_ms(), error);
}

static struct keeper *open_keeper(const struct bench *bench, bool is_near)
{
    char error[CACHE_ERROR_BYTES] = "";
    struct keeper *keeper = NULL;
    struct keeper_options options = bench->options;
    options.is_near = is_near;
    const int r = keeper_open(&options, &keeper, error);
    if (r < 0) {
        queries_die(error, r);
    }
    return keeper;
}

static void run_fill(struct bench *bench)
{
    struct keeper *keeper = open_keeper(bench, true);
    struct times cpu = times_new(bench->queries.entries);
    const int64_t began_ns = time_ns(CLOCK_MONOTONIC);
    for (size_t i = 0; i < bench->queries.entries; i++) {
        char error[CACHE_ERROR_BYTES] = "";
        const int64_t cpu_ns = time_ns(CLOCK_THREAD_CPUTIME_ID);
        int r = fill_text(bench, bench->queries.lines[i], fill_keeper, keeper);
        r = r < 0 ? r : keeper_step(keeper, clock_unix_ms(), error);
        if (r < 0) {
            queries_die("fill", r);
        }
        times_add(&cpu, time_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns);
    }
    keeper_close(&keeper);
    printf("{\"filled\": %zu, \"all_fills_s\": %.1f", bench->queries.entries,
           (double)(time_ns(CLOCK_MONOTONIC) - began_ns) / 1e9);
    times_print("fill_cpu", &cpu);
}

/* ---- exact hits inside the keeper ---- */

/* A typo may tear a character apart, and no request has such a text. */
static void some_query(struct bench *bench, char ret_text[QUERY_BYTES_MAX])
{
    json_t *text = NULL;
    while (text == NULL) {
        queries_some(&bench->queries, ret_text);
        text = json_string(ret_text);
    }
    json_decref(text);
}

static char *some_entry(struct bench *bench)
{
    return bench->queries.lines[queries_below(&bench->queries, bench->queries.entries)];
}

static void release(struct cache_result *result)
{
    if (result->entry != NULL) {
        record__cache_entry__free_unpacked(result->entry, NULL);
        result->entry = NULL;
    }
}

static void measure_hits(struct bench *bench, struct keeper *keeper, size_t lookups,
                         const char *what)
{
    char what_cpu[64];
    struct times cpu = times_new(lookups), clock = times_new(lookups);
    for (size_t i = 0; i < lookups; i++) {
        char error[CACHE_ERROR_BYTES] = "";
        struct cache_query query = {.threshold = INFINITY};
        struct cache_result result;
        key_of(some_entry(bench), query.key);
        /* Asking for CPU time is a system call of a microsecond here: outside what the clock times.
         */
        const int64_t cpu_ns = time_ns(CLOCK_THREAD_CPUTIME_ID);
        const int64_t clock_ns = time_ns(CLOCK_MONOTONIC);
        const int r = keeper_lookup(keeper, &query, clock_unix_ms(), &result, error);
        times_add(&clock, time_ns(CLOCK_MONOTONIC) - clock_ns);
        times_add(&cpu, time_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns);
        if (r < 0 || result.answer != CACHE_ANSWER_HIT) {
            queries_die("an entry is not there", r);
        }
        release(&result);
    }
    (void)snprintf(what_cpu, sizeof(what_cpu), "%s_cpu", what);
    times_print(what_cpu, &cpu);
    times_print(what, &clock);
}

/* Until its threads, RocksDB's among them, have had nothing to do for half a second. */
static void wait_until_idle(void)
{
    enum { STEP_US = 500000, IDLE_NS = 5000000 };
    int64_t before_ns;
    do {
        before_ns = time_ns(CLOCK_PROCESS_CPUTIME_ID);
        usleep(STEP_US);
    } while (time_ns(CLOCK_PROCESS_CPUTIME_ID) - before_ns > IDLE_NS);
}

/* Takes the pages of the database from memory, or reads them into it. */
static void place_pages(const char *folder, bool in_memory)
{
    DIR *files = opendir(folder);
    char path[PATH_MAX];
    static char block[1 << 20];
    for (struct dirent *file = files == NULL ? NULL : readdir(files); file != NULL;
         file = readdir(files)) {
        (void)snprintf(path, sizeof(path), "%s/%s", folder, file->d_name);
        const int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            continue; /* removed meanwhile */
        }
        if (in_memory) {
            while (read(fd, block, sizeof(block)) > 0) {
            }
        } else {
            (void)fsync(fd); /* what is not on disk stays */
            (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        }
        close(fd);
    }
    if (files != NULL) {
        closedir(files);
    }
}

static void measure_inside(struct bench *bench, size_t lookups)
{
    struct keeper *keeper = open_keeper(bench, false);
    wait_until_idle();
    place_pages(bench->options.store.path, false);
    measure_hits(bench, keeper, lookups / COLD_LESS, "exact_cold");
    place_pages(bench->options.store.path, true);
    measure_hits(bench, keeper, lookups, "exact_inside");
    keeper_close(&keeper);
}

/* ---- through the thread ---- */

static void answered(void *context, struct cache_result *result)
{
    struct bench *bench = context;
    bench->result = *result;
    bench->result.entry = NULL;
    bench->is_answered = true;
}

static void lookup(struct bench *bench, const struct cache_query *query)
{
    struct cache_lookup *started = NULL;
    bench->is_answered = false;
    int r = cache_start_lookup(bench->cache, query, INT64_MAX, answered, bench, &started);
    while (r == 0 && !bench->is_answered) {
        r = loop_turn(bench->loop, 1000);
    }
    if (r < 0) {
        queries_die("lookup", r);
    }
}

static void lookup_text(struct bench *bench, const char *text, double threshold)
{
    struct cache_query query = {.may_be_near = true, .text = text, .threshold = threshold};
    key_of(text, query.key);
    memcpy(query.scope, bench->scope, CACHE_SCOPE_BYTES);
    lookup(bench, &query);
}

/* Of the loop's thread and the cache's; RocksDB has threads of its own beside them. */
static int64_t both_cpu_ns(const struct bench *bench)
{
    return time_ns(CLOCK_THREAD_CPUTIME_ID) + time_ns(bench->thread_clock);
}

static void timed_lookup(struct bench *bench, const char *text, bool is_near, struct times *cpu,
                         struct times *clock)
{
    struct cache_query query = {.may_be_near = is_near, .text = text, .threshold = 0};
    key_of(text, query.key);
    memcpy(query.scope, bench->scope, CACHE_SCOPE_BYTES);
    const int64_t cpu_ns = both_cpu_ns(bench);
    const int64_t clock_ns = time_ns(CLOCK_MONOTONIC);
    lookup(bench, &query);
    times_add(clock, time_ns(CLOCK_MONOTONIC) - clock_ns);
    times_add(cpu, both_cpu_ns(bench) - cpu_ns);
}

static void measure_exact(struct bench *bench, size_t lookups)
{
    struct times cpu = times_new(lookups), clock = times_new(lookups);
    for (size_t i = 0; i < lookups; i++) {
        timed_lookup(bench, some_entry(bench), false, &cpu, &clock);
    }
    times_print("exact_cpu", &cpu);
    times_print("exact", &clock);
}

static void measure_near(struct bench *bench, size_t lookups)
{
    struct times cpu = times_new(lookups), clock = times_new(lookups);
    size_t near = 0;
    for (size_t i = 0; i < lookups; i++) {
        char text[QUERY_BYTES_MAX];
        some_query(bench, text);
        timed_lookup(bench, text, true, &cpu, &clock);
        near += bench->result.answer == CACHE_ANSWER_NEAR_HIT;
    }
    printf(", \"near_hit_share\": %.2f", (double)near / (double)lookups);
    times_print("near_cpu", &cpu);
    times_print("near", &clock);
}

static int fill_cache(void *context, const uint8_t *key, Record__CacheEntry *entry)
{
    return cache_start_fill(context, key, entry, NULL, cache_latest(context), CACHE_KEEPS, NULL);
}

/* Entries are filled again, one after the other, whenever it is time. */
static void measure_beside_fills(struct bench *bench, size_t lookups, size_t fills_per_s)
{
    struct times cpu = times_new(lookups), clock = times_new(lookups);
    const int64_t began_ns = time_ns(CLOCK_MONOTONIC);
    size_t fills = 0, dropped = 0;
    for (size_t i = 0; i < lookups; i++) {
        char text[QUERY_BYTES_MAX];
        some_query(bench, text);
        const int64_t ns = time_ns(CLOCK_MONOTONIC) - began_ns;
        for (; (double)fills * 1e9 / (double)fills_per_s <= (double)ns; fills++) {
            dropped += fill_text(bench, bench->queries.lines[fills % bench->queries.entries],
                                 fill_cache, bench->cache) < 0;
        }
        timed_lookup(bench, text, true, &cpu, &clock);
    }
    printf(", \"fills_per_s\": %.0f, \"fills_dropped\": %zu",
           (double)fills * 1e9 / (double)(time_ns(CLOCK_MONOTONIC) - began_ns), dropped);
    times_print("beside_fills_cpu", &cpu);
    times_print("beside_fills", &clock);
}

/* ---- starting ---- */

static double resident_mb(void)
{
    char line[256];
    double kb = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "VmRSS:", 6) == 0) {
            kb = strtod(line + 6, NULL);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return kb / 1024;
}

static void applied(void *context, const char *endpoint, const uint8_t epoch[CACHE_EPOCH_BYTES],
                    uint64_t sequence, const Wire__CacheSelector *selector, uint64_t entries,
                    uint64_t bytes)
{
    (void)selector;
    (void)context, (void)endpoint, (void)epoch, (void)sequence, (void)entries, (void)bytes;
}

static void compared(void *context, const struct cache_comparison *comparison,
                     enum judge_verdict verdict)
{
    (void)context, (void)comparison, (void)verdict;
}

/* The numbers of threads grow: those above `from`, the least and the greatest. */
static void find_threads(long from, long *ret_first, long *ret_last)
{
    DIR *threads = opendir("/proc/self/task");
    if (threads == NULL) {
        queries_die("/proc/self/task", -errno);
    }
    *ret_first = LONG_MAX;
    *ret_last = from;
    for (const struct dirent *at = NULL; (at = readdir(threads)) != NULL;) {
        const long number = strtol(at->d_name, NULL, 10);
        *ret_first = number > from && number < *ret_first ? number : *ret_first;
        *ret_last = number > *ret_last ? number : *ret_last;
    }
    closedir(threads);
}

/* As pthread_getcpuclockid() makes it of a thread's number. */
static clockid_t clock_of(long thread)
{
    return (clockid_t)(~(unsigned int)thread << 3 | 6);
}

/* Exact lookups go on while the index is made. */
static void wait_for_index(struct bench *bench, int64_t began_ns)
{
    enum { TIMES_MAX = 1000000 };
    struct times cpu = times_new(TIMES_MAX), clock = times_new(TIMES_MAX);
    struct cache_stats stats;
    do {
        timed_lookup(bench, some_entry(bench), false, &cpu, &clock);
        usleep(1000); /* a rate, not a wait */
        cache_read_stats(bench->cache, &stats);
    } while (stats.keeper.is_building && clock.length < TIMES_MAX);
    printf(", \"index_s\": %.2f, \"indexed\": %llu, \"bytes_per_entry\": %.0f, "
           "\"lookups_while_building\": %zu",
           (double)(time_ns(CLOCK_MONOTONIC) - began_ns) / 1e9,
           (unsigned long long)stats.keeper.indexed,
           (double)stats.keeper.memory_bytes / (double)stats.keeper.indexed, clock.length);
    times_print("exact_building_cpu", &cpu);
    times_print("exact_building", &clock);
}

static void measure_start(struct bench *bench)
{
    static const struct cache_handler handler = {.on_applied = applied, .on_compared = compared};
    const struct cache_options options = {.keeper = bench->options};
    const double before_mb = resident_mb();
    long thread, latest;
    find_threads(0, &thread, &latest);
    int r = loop_create(&bench->loop);
    r = r < 0 ? r : log_create("bench", LOG_ERROR, STDERR_FILENO, &bench->log);
    const int64_t began_ns = time_ns(CLOCK_MONOTONIC);
    r = r < 0 ? r : cache_create(bench->loop, bench->log, &options, &handler, NULL, &bench->cache);
    if (r < 0) {
        queries_die("starting the cache", r);
    }
    find_threads(latest, &thread, &latest);
    bench->thread_clock = clock_of(thread);
    lookup_text(bench, bench->queries.lines[0], INFINITY);
    printf(", \"first_hit_ms\": %.1f, \"first_is_hit\": %d",
           (double)(time_ns(CLOCK_MONOTONIC) - began_ns) / 1e6,
           bench->result.answer == CACHE_ANSWER_HIT);
    wait_for_index(bench, began_ns);
    printf(", \"resident_mb\": %.0f", resident_mb() - before_mb);
}

/* ---- what a scan would serve ---- */

static bool read_text(const char *text, union profile_buffer *ret_profile,
                      struct sparse_vector *ret_vector)
{
    const size_t words = profile_make(text, strlen(text), ret_profile);
    if (words == 0 || words > PROFILE_WORDS_MAX) {
        return false;
    }
    embed_builtin(&ret_profile->profile, ret_vector);
    return ret_vector->length > 0;
}

struct found {
    double cosine;
    size_t entry;
};

static size_t scan(const struct bench *bench, const struct sparse_vector *vectors,
                   const struct sparse_vector *query, struct found ret_found[CANDIDATES])
{
    struct sparse_table table;
    size_t length = 0;
    sparse_table_fill(&table, query);
    for (size_t i = 0; i < bench->queries.entries; i++) {
        const double norms = sqrt((double)query->norm_squared * (double)vectors[i].norm_squared);
        const double cosine =
            norms > 0 ? sparse_table_dot(&table, vectors[i].items, vectors[i].length) / norms : 0;
        if (cosine < COSINE_MIN ||
            (length == CANDIDATES && cosine <= ret_found[CANDIDATES - 1].cosine)) {
            continue;
        }
        size_t at = length < CANDIDATES ? length++ : CANDIDATES - 1;
        for (; at > 0 && ret_found[at - 1].cosine < cosine; at--) {
            ret_found[at] = ret_found[at - 1];
        }
        ret_found[at] = (struct found){cosine, i};
    }
    return length;
}

/* -INFINITY: none. */
static double best_score(const struct bench *bench, const union profile_buffer *profile,
                         const struct found *found, size_t length)
{
    double best = -INFINITY;
    for (size_t i = 0; i < length; i++) {
        union profile_buffer other;
        struct sparse_vector vector;
        struct likeness likeness;
        if (read_text(bench->queries.lines[found[i].entry], &other, &vector)) {
            likeness_of(&profile->profile, &other.profile, found[i].cosine, &likeness);
            best = fmax(best, decision_score(decision_builtin(), &likeness));
        }
    }
    return best;
}

static struct sparse_vector *all_vectors(const struct bench *bench)
{
    struct sparse_vector *vectors = calloc(bench->queries.entries, sizeof(*vectors));
    if (vectors == NULL) {
        queries_die("vectors", -ENOMEM);
    }
    for (size_t i = 0; i < bench->queries.entries; i++) {
        union profile_buffer profile;
        if (!read_text(bench->queries.lines[i], &profile, &vectors[i])) {
            vectors[i] = (struct sparse_vector){.length = 0};
        }
    }
    return vectors;
}

/* Learned thresholds are mostly between these. */
static const double thresholds[] = {0, 1, 2};

static void measure_served(struct bench *bench, size_t queries)
{
    size_t wanted[ARRAY_LENGTH(thresholds)] = {0}, served[ARRAY_LENGTH(thresholds)] = {0};
    struct sparse_vector *vectors = all_vectors(bench);
    for (size_t i = 0; i < queries; i++) {
        char text[QUERY_BYTES_MAX];
        union profile_buffer profile;
        struct sparse_vector vector;
        struct found found[CANDIDATES];
        some_query(bench, text);
        if (!read_text(text, &profile, &vector)) {
            continue;
        }
        const double score =
            best_score(bench, &profile, found, scan(bench, vectors, &vector, found));
        for (size_t at = 0; at < ARRAY_LENGTH(thresholds); at++) {
            lookup_text(bench, text, thresholds[at]);
            /* One that varied into nothing is an exact hit. */
            if (score >= thresholds[at] && bench->result.answer != CACHE_ANSWER_HIT) {
                wanted[at]++;
                served[at] += bench->result.answer == CACHE_ANSWER_NEAR_HIT;
            }
        }
    }
    free(vectors);
    for (size_t at = 0; at < ARRAY_LENGTH(thresholds); at++) {
        printf(", \"scan_hits_%.0f\": %zu, \"served_%.0f\": %.4f", thresholds[at], wanted[at],
               thresholds[at], wanted[at] == 0 ? 1 : (double)served[at] / (double)wanted[at]);
    }
}

/* ---- ---- */

static void run_measure(struct bench *bench, char **arguments)
{
    const size_t lookups = strtoul(arguments[0], NULL, 10);
    const size_t scans = strtoul(arguments[1], NULL, 10);
    const size_t fills_per_s = strtoul(arguments[2], NULL, 10);
    if (lookups == 0 || fills_per_s == 0) {
        queries_die("LOOKUPS or FILLS_PER_S", -EINVAL);
    }
    printf("{\"read_8mib_ns\": %.0f, \"read_256mib_ns\": %.0f, \"spin_20us_p99_us\": %.1f",
           machine_read_ns(8 << 20), machine_read_ns(256 << 20), machine_spin_p99_ns(20000) / 1000);
    printf(", \"asked\": %zu, \"lookups\": %zu", bench->queries.entries, lookups);
    measure_inside(bench, lookups);
    measure_start(bench);
    measure_exact(bench, lookups);
    measure_near(bench, lookups);
    measure_beside_fills(bench, lookups, fills_per_s);
    measure_served(bench, scans);
    cache_destroy(&bench->cache);
    log_destroy(&bench->log);
    loop_destroy(&bench->loop);
}

int main(int argc, char **argv)
{
    struct bench bench = {.queries.random = 1};
    const bool is_fill = argc == 5 && strcmp(argv[1], "fill") == 0;
    if (!is_fill && (argc != 8 || strcmp(argv[1], "measure") != 0)) {
        fputs("usage: bench-cache-keeper fill TEXTS ENTRIES FOLDER\n"
              "       bench-cache-keeper measure TEXTS ENTRIES FOLDER LOOKUPS SCANS FILLS_PER_S\n",
              stderr);
        return 2;
    }
    queries_read(&bench.queries, argv[2]);
    bench.queries.entries = strtoul(argv[3], NULL, 10);
    if (bench.queries.entries == 0 || bench.queries.entries > bench.queries.lines_length) {
        queries_die("ENTRIES", -EINVAL);
    }
    /* As a worker has them by default, but for the bounds. */
    bench.options = (struct keeper_options){
        .store = {.path = argv[4], .write_buffer_bytes = 8 << 20, .block_cache_bytes = 8 << 20},
        .is_near = true,
        .entries_max = LEXICAL_ENTRIES_MAX,
        .bytes_max = (uint64_t)BYTES_MAX_GB << 30,
        .memory_bytes_max = (uint64_t)BYTES_MAX_GB << 30};
    find_scope(&bench);
    if (is_fill) {
        run_fill(&bench);
    } else {
        run_measure(&bench, argv + 5);
    }
    printf("}\n");
    queries_finish(&bench.queries);
    return 0;
}
