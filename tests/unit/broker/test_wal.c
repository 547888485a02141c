/* On a log that RocksDB wrote: whatever is done to it, what is missing shows. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "broker/store/wal.h"
#include "tests/unit/broker/store_fixture.h"

enum { SMALL = 40, LARGE_BYTES = 70000, RECORDS = SMALL + 2 + 1 /* the format's */ };

static struct store_fixture f;
static char directory[128], path[160];
static uint8_t *original, *changed;
static size_t length;
static struct wal_report whole;

static void put(const char *key, const void *value, size_t value_bytes)
{
    struct store_batch *batch = fixture_batch(&f);
    cr_assert_eq(store_batch_put(batch, STORE_PAYLOADS, key, strlen(key), value, value_bytes), 0);
    cr_assert_eq(store_batch_put(batch, STORE_JOBS, key, strlen(key), "job", 3), 0);
    fixture_wait_durable(&f, fixture_commit(&f, &batch));
}

static void write_log(const uint8_t *data, size_t bytes)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert_eq(write(fd, data, bytes), (ssize_t)bytes);
    cr_assert_eq(close(fd), 0);
}

static struct wal_report check(void)
{
    struct wal_report report;
    cr_assert_eq(wal_check(directory, 0, &report), 0);
    return report;
}

/* Small records within a block, two that span several, and a small one at the end. */
static void setup(void)
{
    static uint8_t large[LARGE_BYTES];
    fixture_init(&f, STORE_ROCKSDB);
    cr_assert_eq(fixture_open(&f), 0, "%s", f.why);
    for (int i = 0; i < SMALL + 2; i++) {
        char key[16];
        snprintf(key, sizeof(key), "%04d", i);
        memset(large, i, sizeof(large));
        put(key, large, i == 20 || i == 30 ? LARGE_BYTES : 60);
    }
    fixture_close(&f);
    snprintf(directory, sizeof(directory), "%s/rocksdb", f.directory);
    snprintf(path, sizeof(path), "%s/000004.log", directory);
    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    length = (size_t)status.st_size;
    original = malloc(length);
    changed = malloc(length);
    FILE *file = fopen(path, "r");
    cr_assert_eq(fread(original, 1, length, file), length);
    fclose(file);
    memcpy(changed, original, length);
    whole = check();
}

static void teardown(void)
{
    free(original);
    free(changed);
    fixture_finish(&f);
}

TestSuite(wal, .init = setup, .fini = teardown);

Test(wal, log_that_is_whole_is_said_to_be)
{
    cr_expect_eq(whole.files, 1);
    cr_expect_eq(whole.records, RECORDS);
    cr_expect_eq(whole.last, 1 + 2 * (RECORDS - 1));
    cr_expect_eq(whole.gapless, whole.last);
    cr_expect_eq(whole.missing, 0);
    cr_expect_str_eq(whole.place, "");
}

/* Before the last record it is a gap; in the last one the log ends earlier than the store's mark.
 */
static void expect_noticed(const char *what, size_t at)
{
    const struct wal_report report = check();
    cr_expect(report.missing > 0 || report.last < whole.last, "%s at %zu is not noticed", what, at);
    cr_expect_str_neq(report.place, "", "%s at %zu has no place", what, at);
    cr_expect_lt(report.gapless, whole.last);
    cr_expect_geq(report.records, RECORDS - 2, "%s at %zu takes more than a record", what, at);
}

Test(wal, every_flipped_bit_is_noticed)
{
    for (size_t at = 0; at < length; at += at < 600 ? 1 : 997) {
        changed[at] ^= (uint8_t)(1U << at % 8);
        write_log(changed, length);
        expect_noticed("a flipped bit", at);
        changed[at] = original[at];
    }
}

Test(wal, zeros_are_noticed)
{
    for (size_t at = 0; at + 200 < length; at += 1501) {
        memset(changed + at, 0, 200);
        write_log(changed, length);
        const struct wal_report report = check();
        cr_expect(report.missing > 0 || report.last < whole.last, "zeros at %zu", at);
        memcpy(changed + at, original + at, 200);
    }
}

Test(wal, end_that_is_cut_off_is_a_shorter_log)
{
    for (size_t bytes = 0; bytes < length; bytes += bytes + 2000 < length ? 1009 : 1) {
        write_log(original, bytes);
        const struct wal_report report = check();
        cr_expect_eq(report.missing, 0, "%zu bytes", bytes);
        cr_expect_lt(report.last, whole.last);
    }
}

Test(wal, noise_behind_the_end_is_not_missed)
{
    FILE *file = fopen(path, "a");
    for (int i = 0; i < 1000; i++) {
        fputc(rand() & 0xff, file);
    }
    fclose(file);
    const struct wal_report report = check();
    cr_expect_eq(report.missing, 0);
    cr_expect_eq(report.last, whole.last);
}

Test(wal, log_that_is_needed_no_more_is_left_out)
{
    changed[1000] ^= 1;
    write_log(changed, length);
    struct wal_report report;
    cr_assert_eq(wal_check(directory, 5, &report), 0);
    cr_expect_eq(report.files, 0);
    cr_expect_eq(report.missing, 0);
}

Test(wal, directory_that_is_not_there_has_no_log)
{
    struct wal_report report;
    cr_assert_eq(wal_check("/nonexistent/tiermq", 0, &report), 0);
    cr_expect_eq(report.files, 0);
}

struct visited {
    size_t records;
    uint64_t first;
};

static int count_record(void *context, uint64_t first, const void *record, size_t bytes)
{
    struct visited *visited = context;
    uint64_t number;
    memcpy(&number, record, sizeof(number));
    cr_expect_eq(number, first);
    cr_expect_gt(bytes, 12);
    visited->first = visited->records++ == 0 ? first : visited->first;
    return 0;
}

Test(wal, what_is_whole_behind_the_damage_is_visited)
{
    struct wal_report report;
    struct visited visited = {0};
    cr_assert_eq(wal_visit(directory, 0, count_record, &visited, &report), 0);
    cr_expect_eq(visited.records, 0, "RocksDB recovers it itself");
    changed[200] ^= 1;
    write_log(changed, length);
    cr_assert_eq(wal_visit(directory, 0, count_record, &visited, &report), 0);
    cr_expect_eq(visited.first, report.gapless + report.missing + 1);
    cr_expect_eq(visited.records, (whole.last - visited.first + 1) / 2);
}
