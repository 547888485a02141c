/* What holds for every engine, and what holds for the one on disk across openings. */
#include <criterion/criterion.h>
#include <errno.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/clock.h"
#include "common/loop.h"
#include "tests/unit/broker/store_fixture.h"

static const enum config_store kinds[] = {STORE_ROCKSDB, STORE_MEMORY};

/* Runs the rest of the block once for each engine. */
#define FOR_EACH_ENGINE(fixture)                                                                   \
    for (size_t kind_ = 0; kind_ < sizeof(kinds) / sizeof(kinds[0]); kind_++)                      \
        for (struct store_fixture fixture##_storage,                                               \
             *fixture = open_fixture(&fixture##_storage, kinds[kind_]);                            \
             fixture != NULL; fixture = close_fixture(fixture))

static struct store_fixture *open_fixture(struct store_fixture *fixture, enum config_store kind)
{
    fixture_init(fixture, kind);
    cr_assert_eq(fixture_open(fixture), 0, "%s", fixture->why);
    return fixture;
}

static struct store_fixture *close_fixture(struct store_fixture *fixture)
{
    cr_expect_not(fixture->is_out_of_order);
    fixture_finish(fixture);
    return NULL;
}

Test(store, load_sees_what_was_handed_over_before)
{
    FOR_EACH_ENGINE(f)
    {
        fixture_put(f, STORE_PAYLOADS, "a", "one");
        cr_expect(fixture_has(f, STORE_PAYLOADS, "a", "one"));
        cr_expect(fixture_has(f, STORE_RESULTS, "a", NULL), "families are apart");
        fixture_put(f, STORE_PAYLOADS, "a", "two");
        cr_expect(fixture_has(f, STORE_PAYLOADS, "a", "two"));
        fixture_delete(f, STORE_PAYLOADS, "a");
        cr_expect(fixture_has(f, STORE_PAYLOADS, "a", NULL));
    }
}

Test(store, load_makes_a_batch_urgent_that_nobody_waited_for)
{
    FOR_EACH_ENGINE(f)
    {
        struct store_batch *batch = fixture_batch(f);
        cr_assert_eq(store_batch_put(batch, STORE_RESULTS, "k", 1, "v", 1), 0);
        store_commit(f->store, &batch, f->next_batch++, false);
        cr_expect_null(batch);
        cr_expect(fixture_has(f, STORE_RESULTS, "k", "v"));
    }
}

Test(store, batch_that_nobody_waits_for_becomes_durable_by_itself)
{
    FOR_EACH_ENGINE(f)
    {
        struct store_batch *batch = fixture_batch(f);
        cr_assert_eq(store_batch_put(batch, STORE_JOBS, "k", 1, "v", 1), 0);
        store_commit(f->store, &batch, f->next_batch++, false);
        fixture_wait_durable(f, 1);
    }
}

Test(store, value_is_head_and_blob_joined)
{
    FOR_EACH_ENGINE(f)
    {
        struct blob *blob = NULL;
        cr_assert_eq(blob_create("payload", 7, &blob), 0);
        struct store_batch *batch = fixture_batch(f);
        cr_assert_eq(store_batch_put_blob(batch, STORE_RESULTS, "both", 4, "head+", 5, blob), 0);
        cr_assert_eq(store_batch_put_blob(batch, STORE_RESULTS, "blob", 4, NULL, 0, blob), 0);
        cr_assert_eq(store_batch_put(batch, STORE_RESULTS, "none", 4, NULL, 0), 0);
        cr_expect_eq(store_batch_length(batch), 3);
        blob_unref(&blob); /* the batch has its own reference */
        fixture_commit(f, &batch);
        cr_expect(fixture_has(f, STORE_RESULTS, "both", "head+payload"));
        cr_expect(fixture_has(f, STORE_RESULTS, "blob", "payload"));
        cr_expect(fixture_has(f, STORE_RESULTS, "none", ""));
    }
}

Test(store, changes_of_a_batch_apply_in_order)
{
    FOR_EACH_ENGINE(f)
    {
        struct store_batch *batch = fixture_batch(f);
        cr_assert_eq(store_batch_put(batch, STORE_RESULTS, "x", 1, "1", 1), 0);
        cr_assert_eq(store_batch_delete(batch, STORE_RESULTS, "x", 1), 0);
        cr_assert_eq(store_batch_put(batch, STORE_RESULTS, "x", 1, "2", 1), 0);
        cr_assert_eq(store_batch_put(batch, STORE_RESULTS, "y", 1, "3", 1), 0);
        cr_assert_eq(store_batch_delete(batch, STORE_RESULTS, "y", 1), 0);
        fixture_commit(f, &batch);
        cr_expect(fixture_has(f, STORE_RESULTS, "x", "2"));
        cr_expect(fixture_has(f, STORE_RESULTS, "y", NULL));
    }
}

Test(store, range_is_deleted_from_its_start_up_to_its_end)
{
    FOR_EACH_ENGINE(f)
    {
        struct store_batch *batch = fixture_batch(f);
        for (char c = 'a'; c <= 'z'; c++) {
            cr_assert_eq(store_batch_put(batch, STORE_RESULTS, &c, 1, &c, 1), 0);
        }
        cr_assert_eq(store_batch_put(batch, STORE_RESULTS, "ca", 2, "ca", 2), 0);
        cr_assert_eq(store_batch_put(batch, STORE_PAYLOADS, "d", 1, "d", 1), 0);
        cr_assert_eq(store_batch_delete_range(batch, STORE_RESULTS, "b", 1, "k", 1), 0);
        cr_assert_eq(store_batch_put(batch, STORE_RESULTS, "e", 1, "new", 3), 0);
        fixture_commit(f, &batch);
        cr_expect(fixture_has(f, STORE_RESULTS, "a", "a"));
        cr_expect(fixture_has(f, STORE_RESULTS, "b", NULL));
        cr_expect(fixture_has(f, STORE_RESULTS, "ca", NULL));
        cr_expect(fixture_has(f, STORE_RESULTS, "e", "new"));
        cr_expect(fixture_has(f, STORE_RESULTS, "j", NULL));
        cr_expect(fixture_has(f, STORE_RESULTS, "k", "k"));
        cr_expect(fixture_has(f, STORE_PAYLOADS, "d", "d"));
    }
}

Test(store, discarded_batch_leaves_no_trace)
{
    FOR_EACH_ENGINE(f)
    {
        struct store_batch *batch = fixture_batch(f);
        cr_assert_eq(store_batch_put(batch, STORE_RESULTS, "x", 1, "1", 1), 0);
        store_batch_destroy(&batch);
        cr_expect_null(batch);
        batch = fixture_batch(f);
        cr_expect_eq(store_batch_length(batch), 0, "a batch used again is empty");
        fixture_commit(f, &batch);
        cr_expect(fixture_has(f, STORE_RESULTS, "x", NULL));
    }
}

/* Deterministic, so that a failure can be repeated. */
static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

enum { MODEL_KEYS = 64 };

/* One random change, on the store and on an array that says what must be there. */
static void change_both(struct store_batch *batch, unsigned *model, unsigned round,
                        uint32_t *random)
{
    unsigned key = next_random(random) % MODEL_KEYS;
    char name[3], to[3], value[12];
    snprintf(name, sizeof(name), "%02u", key);
    switch (next_random(random) % 8) {
    case 0: {
        unsigned end = key + next_random(random) % 10;
        snprintf(to, sizeof(to), "%02u", end % 100);
        cr_assert_eq(store_batch_delete_range(batch, STORE_PAYLOADS, name, 2, to, 2), 0);
        for (unsigned i = key; i < end && i < MODEL_KEYS; i++) {
            model[i] = 0;
        }
        return;
    }
    case 1:
    case 2:
        cr_assert_eq(store_batch_delete(batch, STORE_PAYLOADS, name, 2), 0);
        model[key] = 0;
        return;
    default:
        snprintf(value, sizeof(value), "%u", round);
        cr_assert_eq(store_batch_put(batch, STORE_PAYLOADS, name, 2, value, strlen(value)), 0);
        model[key] = round;
    }
}

Test(store, agrees_with_an_array_after_random_changes)
{
    FOR_EACH_ENGINE(f)
    {
        uint32_t random = 20261124;
        unsigned model[MODEL_KEYS] = {0};
        for (unsigned round = 1; round <= 400; round++) {
            struct store_batch *batch = fixture_batch(f);
            for (unsigned n = next_random(&random) % 20; n > 0; n--) {
                change_both(batch, model, round, &random);
            }
            fixture_commit(f, &batch);
        }
        for (unsigned key = 0; key < MODEL_KEYS; key++) {
            char name[3], value[12];
            snprintf(name, sizeof(name), "%02u", key);
            snprintf(value, sizeof(value), "%u", model[key]);
            cr_expect(fixture_has(f, STORE_PAYLOADS, name, model[key] == 0 ? NULL : value),
                      "key %u", key);
        }
        fixture_wait_durable(f, 400);
    }
}

Test(store, loads_are_answered_in_the_order_of_asking)
{
    FOR_EACH_ENGINE(f)
    {
        for (unsigned i = 0; i < 300; i++) {
            char key[8];
            snprintf(key, sizeof(key), "%u", i);
            if (i % 3 != 0) {
                fixture_put(f, STORE_PAYLOADS, key, key);
            }
            fixture_load(f, STORE_PAYLOADS, key, i);
        }
        fixture_wait_loaded(f, 300);
        for (unsigned i = 0; i < 300; i++) {
            cr_expect_eq(f->loaded[i].token, i);
            cr_expect_eq(f->loaded[i].result, i % 3 != 0 ? 0 : -ENOENT);
        }
    }
}

enum { SPREAD_KEYS = 2000, SPREAD_LOADS = 64 };

static bool is_spread_there(unsigned key)
{
    const bool is_in_gap = key >= 1000 && key < 1600; /* more than is stepped over */
    return !is_in_gap && key % 7 != 3;
}

/* All are put, then some are deleted: what was deleted lies between the others. */
static void put_spread(struct store_fixture *f)
{
    char name[8];
    struct store_batch *batch = fixture_batch(f);
    for (unsigned key = 0; key < SPREAD_KEYS; key++) {
        snprintf(name, sizeof(name), "%05u", key);
        cr_assert_eq(store_batch_put(batch, STORE_PAYLOADS, name, 5, name, 5), 0);
    }
    fixture_commit(f, &batch);
    batch = fixture_batch(f);
    for (unsigned key = 0; key < SPREAD_KEYS; key++) {
        snprintf(name, sizeof(name), "%05u", key);
        if (!is_spread_there(key)) {
            cr_assert_eq(store_batch_delete(batch, STORE_PAYLOADS, name, 5), 0);
        }
    }
    fixture_commit(f, &batch);
}

/* Asked for behind a write, so that they are read together. */
static void expect_spread(struct store_fixture *f, unsigned first, int step)
{
    char name[8];
    const size_t before = f->n_loaded;
    fixture_put(f, STORE_META, "m", "x");
    for (unsigned i = 0; i < SPREAD_LOADS; i++) {
        snprintf(name, sizeof(name), "%05u", (first + i * (unsigned)step) % SPREAD_KEYS);
        fixture_load(f, STORE_PAYLOADS, name, before + i);
    }
    fixture_wait_loaded(f, before + SPREAD_LOADS);
    for (unsigned i = 0; i < SPREAD_LOADS; i++) {
        const unsigned key = (first + i * (unsigned)step) % SPREAD_KEYS;
        const struct loaded *loaded = &f->loaded[before + i];
        snprintf(name, sizeof(name), "%05u", key);
        cr_expect_eq(loaded->token, before + i);
        cr_expect_eq(loaded->result, is_spread_there(key) ? 0 : -ENOENT, "key %u", key);
        cr_expect(loaded->value == NULL || (blob_bytes(loaded->value) == 5 &&
                                            memcmp(blob_data(loaded->value), name, 5) == 0),
                  "key %u", key);
    }
}

static void expect_every_spread(struct store_fixture *f)
{
    expect_spread(f, 100, 1);  /* side by side */
    expect_spread(f, 300, 0);  /* one and the same */
    expect_spread(f, 980, 1);  /* into the gap */
    expect_spread(f, 500, -1); /* against the order */
    expect_spread(f, 0, 31);   /* far apart, and over the gap */
    expect_spread(f, 100, 1);  /* side by side again, after that */
    expect_spread(f, 1960, 1); /* beyond the last key, and from the first */
}

Test(store, loads_find_what_is_there_however_far_apart_their_keys_are)
{
    FOR_EACH_ENGINE(f)
    {
        put_spread(f);
        expect_every_spread(f);
    }
}

Test(store_rocksdb, loads_find_in_tables_what_is_there_however_far_apart_their_keys_are)
{
    struct store_fixture storage, *f = open_fixture(&storage, STORE_ROCKSDB);
    put_spread(f);
    fixture_close(f);
    cr_assert_eq(fixture_open(f), 0, "%s", f->why); /* from the log into tables */
    expect_every_spread(f);
    close_fixture(f);
}

Test(store, too_many_loads_are_refused)
{
    FOR_EACH_ENGINE(f)
    {
        for (unsigned i = 0; i < STORE_LOADS_MAX; i++) {
            int r = store_load(f->store, STORE_PAYLOADS, "k", 1, i);
            cr_assert_eq(r, 0);
        }
        cr_expect_eq(store_load(f->store, STORE_PAYLOADS, "k", 1, 0), -ENOBUFS);
    }
}

Test(store, counts_what_it_does)
{
    FOR_EACH_ENGINE(f)
    {
        fixture_wait_durable(f, fixture_put(f, STORE_PAYLOADS, "key", "value"));
        fixture_wait_durable(f, fixture_delete(f, STORE_PAYLOADS, "key"));
        struct store_stats stats;
        store_read_stats(f->store, &stats);
        cr_expect_eq(stats.commits, 2);
        cr_expect_eq(stats.records, 2);
        cr_expect_eq(stats.bytes, 11);
        cr_expect_eq(stats.pending_batches, 0);
        cr_expect_eq(stats.failures, 0);
    }
}

Test(store_memory, deleted_values_give_their_memory_back)
{
    struct store_fixture storage, *f = open_fixture(&storage, STORE_MEMORY);
    struct store_stats before, full, after;
    store_read_stats(f->store, &before);
    fixture_wait_durable(f, fixture_put(f, STORE_PAYLOADS, "a", "0123456789"));
    fixture_wait_durable(f, fixture_put(f, STORE_PAYLOADS, "a", "0123456789012"));
    store_read_stats(f->store, &full);
    fixture_wait_durable(f, fixture_delete(f, STORE_PAYLOADS, "a"));
    store_read_stats(f->store, &after);
    cr_expect_geq(full.memory_bytes, before.memory_bytes + 14);
    cr_expect_eq(after.memory_bytes, before.memory_bytes);
    close_fixture(f);
}

Test(store_rocksdb, keeps_records_over_a_restart_in_the_order_of_keys)
{
    struct store_fixture storage, *f = open_fixture(&storage, STORE_ROCKSDB);
    fixture_put(f, STORE_JOBS, "b", "2");
    fixture_put(f, STORE_JOBS, "c", "3");
    fixture_put(f, STORE_JOBS, "a", "1");
    fixture_delete(f, STORE_JOBS, "c");
    fixture_put(f, STORE_META, "m", "x");
    fixture_close(f); /* commits what is pending */
    cr_assert_eq(fixture_open(f), 0, "%s", f->why);
    char text[64];
    fixture_scan(f, STORE_JOBS, text, sizeof(text));
    cr_expect_str_eq(text, "a=1 b=2 ");
    fixture_scan(f, STORE_META, text, sizeof(text));
    cr_expect_str_eq(text, "m=x ", "the engine's own records are not seen");
    close_fixture(f);
}

Test(store_rocksdb, second_opening_is_refused_with_words)
{
    struct store_fixture storage, *f = open_fixture(&storage, STORE_ROCKSDB);
    struct store_fixture second = {.config = f->config, .loop = f->loop};
    cr_expect_eq(fixture_open(&second), -EBUSY);
    cr_expect(strstr(second.why, "another broker") != NULL, "%s", second.why);
    cr_expect(strstr(second.why, f->directory) != NULL, "%s", second.why);
    close_fixture(f);
}

static void write_file(const char *directory, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_geq(fputs(text, file), 0);
    cr_assert_eq(fclose(file), 0);
}

Test(store_rocksdb, a_file_is_no_data_directory)
{
    struct store_fixture f;
    char path[128];
    fixture_init(&f, STORE_ROCKSDB);
    write_file(f.directory, "file", "");
    snprintf(path, sizeof(path), "%s/file", f.directory);
    f.config.data_dir = path;
    cr_expect_eq(fixture_open(&f), -ENOTDIR);
    cr_expect(strstr(f.why, "set broker.data_dir") != NULL, "%s", f.why);
    snprintf(path, sizeof(path), "%s/file/below", f.directory);
    cr_expect_eq(fixture_open(&f), -ENOTDIR);
    fixture_finish(&f);
}

Test(store_rocksdb, directory_is_made_with_its_parents_for_its_user_alone)
{
    struct store_fixture f;
    char path[128];
    fixture_init(&f, STORE_ROCKSDB);
    snprintf(path, sizeof(path), "%s/some/where", f.directory);
    f.config.data_dir = path;
    cr_assert_eq(fixture_open(&f), 0, "%s", f.why);
    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    cr_expect_eq(status.st_mode & 0777, 0700);
    fixture_finish(&f);
}

Test(store_rocksdb, directory_that_cannot_be_made_is_named)
{
    struct store_fixture f;
    fixture_init(&f, STORE_ROCKSDB);
    char path[] = "/proc/tiermq";
    f.config.data_dir = path;
    cr_expect_lt(fixture_open(&f), 0);
    cr_expect(strstr(f.why, "/proc/tiermq") != NULL, "%s", f.why);
    f.config.data_dir = f.directory;
    fixture_finish(&f);
}

Test(store_rocksdb, damaged_database_is_refused_and_stays_as_it_is)
{
    struct store_fixture storage, *f = open_fixture(&storage, STORE_ROCKSDB);
    fixture_wait_durable(f, fixture_put(f, STORE_JOBS, "a", "1"));
    fixture_close(f);
    write_file(f->directory, "rocksdb/CURRENT", "nonsense\n");
    cr_expect_eq(fixture_open(f), -EBADMSG);
    cr_expect(strstr(f->why, "damaged") != NULL, "%s", f->why);
    close_fixture(f);
}

/* Opens the database below the store, as another version of the program would. */
static rocksdb_t *open_raw(const struct store_fixture *f,
                           rocksdb_column_family_handle_t *families[8])
{
    static const char *const names[] = {"default",  "jobs",      "payloads", "leases",
                                        "attempts", "concluded", "results",  "meta"};
    char path[128];
    snprintf(path, sizeof(path), "%s/rocksdb", f->directory);
    rocksdb_options_t *options = rocksdb_options_create();
    const rocksdb_options_t *each[8] = {options, options, options, options,
                                        options, options, options, options};
    char *error = NULL;
    rocksdb_t *db = rocksdb_open_column_families(options, path, 8, names, each, families, &error);
    cr_assert_null(error, "%s", error);
    rocksdb_options_destroy(options);
    return db;
}

static void close_raw(rocksdb_t *db, rocksdb_column_family_handle_t *families[8])
{
    for (int i = 0; i < 8; i++) {
        rocksdb_column_family_handle_destroy(families[i]);
    }
    rocksdb_close(db);
}

Test(store_rocksdb, data_of_a_later_version_is_refused)
{
    struct store_fixture storage, *f = open_fixture(&storage, STORE_ROCKSDB);
    fixture_close(f);
    rocksdb_column_family_handle_t *families[8];
    rocksdb_t *db = open_raw(f, families);
    rocksdb_writeoptions_t *options = rocksdb_writeoptions_create();
    char *error = NULL;
    rocksdb_put_cf(db, options, families[0], "format", 6, "\x02", 1, &error);
    cr_assert_null(error, "%s", error);
    rocksdb_writeoptions_destroy(options);
    close_raw(db, families);

    cr_expect_eq(fixture_open(f), -EBADMSG);
    cr_expect(strstr(f->why, "its format is version 2, this program knows version 1") != NULL, "%s",
              f->why);
    close_fixture(f);
}

Test(store_rocksdb, family_of_a_later_version_is_refused)
{
    struct store_fixture storage, *f = open_fixture(&storage, STORE_ROCKSDB);
    fixture_close(f);
    rocksdb_column_family_handle_t *families[8], *later;
    rocksdb_t *db = open_raw(f, families);
    rocksdb_options_t *options = rocksdb_options_create();
    char *error = NULL;
    later = rocksdb_create_column_family(db, options, "later", &error);
    cr_assert_null(error, "%s", error);
    rocksdb_column_family_handle_destroy(later);
    rocksdb_options_destroy(options);
    close_raw(db, families);

    cr_expect_eq(fixture_open(f), -EBADMSG);
    cr_expect(strstr(f->why, "later version") != NULL, "%s", f->why);
    close_fixture(f);
}

static uint64_t disk_bytes(struct store_fixture *f)
{
    struct store_stats stats;
    store_read_stats(f->store, &stats);
    return stats.disk_bytes;
}

/* Waits until it is above, or below. */
static void wait_disk_bytes(struct store_fixture *f, bool is_above, uint64_t bytes)
{
    const int64_t end_ms = clock_monotonic_ms() + 110000; /* a test has 120 s */
    while ((disk_bytes(f) > bytes) != is_above) {
        cr_assert_lt(clock_monotonic_ms(), end_ms, "%llu bytes", (unsigned long long)disk_bytes(f));
        cr_assert_eq(loop_turn(f->loop, 100), 0);
    }
}

Test(store, range_that_was_deleted_gives_its_space_back_without_more_traffic)
{
    static char value[20000];
    struct store_fixture *f = open_fixture(&(struct store_fixture){0}, STORE_ROCKSDB);
    for (int i = 0; i < 2500; i++) { /* 50 MB */
        char key[16];
        snprintf(key, sizeof(key), "%08d", i);
        for (size_t at = 0; at < sizeof(value); at++) {
            value[at] = (char)rand();
        }
        struct store_batch *batch = fixture_batch(f);
        cr_assert_eq(store_batch_put(batch, STORE_RESULTS, key, 8, value, sizeof(value)), 0);
        fixture_commit(f, &batch);
    }
    wait_disk_bytes(f, true, 38 << 20); /* the rest is in memory yet, or in the log */
    struct store_batch *batch = fixture_batch(f);
    cr_assert_eq(store_batch_delete_range(batch, STORE_RESULTS, "00000000", 8, "00002500", 8), 0);
    fixture_commit(f, &batch);
    /* On a busy machine ten tables of the newest level are merged there, and stay. */
    wait_disk_bytes(f, false, 20 << 20);
    close_fixture(f);
}
