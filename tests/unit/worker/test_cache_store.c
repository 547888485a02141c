#include "tests/unit/remove_tree.h"
#include "worker/cache/cache_store.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/tiermq-cache-XXXXXX";
static char path[64];
static struct cache_store *store;
static char error[CACHE_ERROR_BYTES];

static int open_store(void)
{
    const struct cache_store_options options = {
        .path = path, .write_buffer_bytes = 1 << 20, .block_cache_bytes = 1 << 20};
    return cache_store_open(&options, &store, error);
}

static void start(void)
{
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/cache", directory);
    cr_assert_eq(open_store(), 0, "%s", error);
}

static void stop(void)
{
    cache_store_close(&store);
    remove_tree(directory);
}

TestSuite(cache_store, .init = start, .fini = stop, .timeout = 60);

static void put(uint8_t number, const char *body)
{
    const uint8_t key[CACHE_KEY_BYTES] = {number};
    Record__CacheAbout about = RECORD__CACHE_ABOUT__INIT;
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    about.tenant = "shop";
    entry.about = &about;
    entry.body = (ProtobufCBinaryData){strlen(body), (uint8_t *)body};
    cr_assert_eq(cache_store_put(store, key, &entry, error), 0, "%s", error);
}

static bool holds(uint8_t number, const char *body)
{
    const uint8_t key[CACHE_KEY_BYTES] = {number};
    Record__CacheEntry *entry = NULL;
    cr_assert_eq(cache_store_get(store, key, &entry, error), 0, "%s", error);
    const bool is_it = entry != NULL && entry->body.len == strlen(body) &&
                       memcmp(entry->body.data, body, entry->body.len) == 0;
    if (entry != NULL) {
        record__cache_entry__free_unpacked(entry, NULL);
    }
    return is_it;
}

static struct cache_store_stats stats(void)
{
    struct cache_store_stats all;
    cache_store_read_stats(store, &all);
    return all;
}

Test(cache_store, counts_what_is_put_replaced_and_removed_over_restarts)
{
    const uint8_t key[CACHE_KEY_BYTES] = {1};
    put(1, "one");
    put(2, "two");
    put(1, "uno, in more letters");
    cr_assert_eq(stats().entries, 2);
    cr_assert(holds(1, "uno, in more letters"));
    const uint64_t bytes = stats().bytes;
    cache_store_close(&store);
    cr_assert_eq(open_store(), 0);
    cr_assert_eq(stats().entries, 2);
    cr_assert_eq(stats().bytes, bytes);
    cr_assert_eq(cache_store_remove(store, key, error), 0);
    cr_assert_eq(cache_store_remove(store, key, error), 0, "it is gone already");
    cr_assert_eq(stats().entries, 1);
    cr_assert_lt(stats().bytes, bytes);
}

static uint64_t table_bytes(void)
{
    DIR *files = opendir(path);
    uint64_t bytes = 0;
    cr_assert_not_null(files);
    for (struct dirent *file = readdir(files); file != NULL; file = readdir(files)) {
        struct stat status;
        const char *ending = strrchr(file->d_name, '.');
        if (ending != NULL && strcmp(ending, ".sst") == 0 &&
            fstatat(dirfd(files), file->d_name, &status, 0) == 0) {
            bytes += (uint64_t)status.st_size;
        }
    }
    closedir(files);
    return bytes;
}

/* A block holds one of these, and nothing in it is there twice. */
Test(cache_store, what_answers_have_in_common_is_stored_once)
{
    enum { ENTRIES = 200, COMMON = 900, OWN = 100 };
    char body[COMMON + OWN + 1] = "";
    for (int i = 0; i < COMMON; i++) {
        body[i] = (char)('!' + rand() % 90);
    }
    for (int number = 0; number < ENTRIES; number++) {
        for (int i = COMMON; i < COMMON + OWN; i++) {
            body[i] = (char)('!' + rand() % 90);
        }
        put((uint8_t)number, body);
    }
    cache_store_close(&store);
    cr_assert_eq(open_store(), 0); /* puts them into a table */
    cr_expect(holds(ENTRIES - 1, body));
    cr_expect_lt(table_bytes(), ENTRIES * (COMMON + OWN) / 2);
    cr_expect_gt(table_bytes(), ENTRIES * OWN);
}

static bool count(void *context, const uint8_t key[CACHE_KEY_BYTES],
                  const Record__CacheAbout *about)
{
    (void)key;
    cr_assert_str_eq(about->tenant, "shop");
    (*(int *)context)++;
    return true;
}

Test(cache_store, scan_goes_through_all_in_steps)
{
    uint8_t from[CACHE_KEY_BYTES] = {0};
    bool is_end = false;
    int seen = 0, steps = 0;
    for (int i = 0; i < 100; i++) {
        put((uint8_t)(255 - i), "x");
    }
    while (!is_end) {
        cr_assert_eq(cache_store_scan(store, from, 7, count, &seen, from, &is_end, error), 0);
        steps++;
    }
    cr_assert_eq(seen, 100);
    cr_assert_eq(steps, 15);
}

static bool count_one(void *context, const uint8_t key[CACHE_KEY_BYTES],
                      const Record__CacheAbout *about)
{
    (void)count(context, key, about);
    return false;
}

Test(cache_store, a_visit_may_be_the_last_of_its_scan)
{
    uint8_t from[CACHE_KEY_BYTES] = {0};
    bool is_end = false;
    int seen = 0, steps = 0;
    put(3, "x");
    put(7, "x");
    while (!is_end) {
        cr_assert_eq(cache_store_scan(store, from, 7, count_one, &seen, from, &is_end, error), 0);
        steps++;
    }
    cr_assert_eq(seen, 2);
    cr_assert_eq(steps, 2);
}

/* A bit of each data file is turned. */
static int spoil(const char *file, const struct stat *status, int kind, struct FTW *ftw)
{
    (void)kind;
    (void)ftw;
    if (strstr(file, ".sst") != NULL) {
        FILE *data = fopen(file, "r+");
        cr_assert_eq(fseek(data, status->st_size / 3, SEEK_SET), 0);
        const int byte = fgetc(data);
        cr_assert_eq(fseek(data, -1, SEEK_CUR), 0);
        fputc(byte ^ 0x10, data);
        fclose(data);
    }
    return 0;
}

Test(cache_store, turned_bit_is_damage_and_no_answer)
{
    for (int i = 0; i < 200; i++) {
        put((uint8_t)i, "an answer of some length, so that there are a few blocks of these");
    }
    cache_store_close(&store);
    cr_assert_eq(open_store(), 0, "the log becomes a table");
    cache_store_close(&store);
    nftw(path, spoil, 16, FTW_PHYS);
    int r = open_store();
    for (int i = 0; i < 200 && r == 0; i++) {
        const uint8_t key[CACHE_KEY_BYTES] = {(uint8_t)i};
        Record__CacheEntry *entry = NULL;
        r = cache_store_get(store, key, &entry, error);
        if (entry != NULL) {
            cr_assert_eq(entry->body.len, 65);
            record__cache_entry__free_unpacked(entry, NULL);
        }
    }
    cr_assert_eq(r, -EBADMSG, "%d: %s", r, error);
}

Test(cache_store, what_is_in_the_way_is_an_error)
{
    cache_store_close(&store);
    remove_tree(path);
    FILE *file = fopen(path, "w");
    fclose(file);
    const int r = open_store();
    cr_assert(r == -EIO || r == -EBADMSG, "%d: %s", r, error);
    cr_assert_neq(error[0], '\0');
}

Test(cache_store, vector_is_kept_with_whose_it_is_and_goes_with_its_entry)
{
    const uint8_t key[CACHE_KEY_BYTES] = {1};
    const int8_t vector[3] = {1, -127, 3};
    int8_t found[4];
    size_t bytes = 9;
    Record__CacheAbout *about = NULL;
    put(1, "one");
    cr_assert_eq(cache_store_get_vector(store, key, found, sizeof(found), &bytes, error), -ENOENT);
    cr_assert_eq(cache_store_get_about(store, key, &about, error), 0);
    char *before = about->embedder;
    about->embedder = "e/1";
    cr_assert_eq(cache_store_put_vector(store, key, about, vector, sizeof(vector), error), 0);
    about->embedder = before;
    record__cache_about__free_unpacked(about, NULL);
    cache_store_close(&store);
    cr_assert_eq(open_store(), 0, "%s", error);
    cr_assert_eq(cache_store_get_about(store, key, &about, error), 0);
    cr_assert_str_eq(about->embedder, "e/1");
    cr_assert_eq(cache_store_get_vector(store, key, found, sizeof(found), &bytes, error), 0);
    cr_assert_eq(bytes, sizeof(vector));
    cr_assert_arr_eq(found, vector, sizeof(vector));
    cr_assert_eq(cache_store_get_vector(store, key, found, 2, &bytes, error), -ENOENT,
                 "longer than there is room");
    cr_assert_eq(cache_store_put_vector(store, key, about, NULL, 0, error), 0);
    cr_assert_eq(cache_store_get_vector(store, key, found, sizeof(found), &bytes, error), 0);
    cr_assert_eq(bytes, 0, "nothing is known of it");
    record__cache_about__free_unpacked(about, NULL);
    put(1, "another");
    cr_assert_eq(cache_store_get_vector(store, key, found, sizeof(found), &bytes, error), -ENOENT,
                 "replaced");
}
