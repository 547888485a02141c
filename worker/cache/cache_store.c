#include "worker/cache/cache_store.h"

#include <endian.h>
#include <errno.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/near_index.h"

enum {
    FAMILY_ENTRIES,
    FAMILY_AGES,
    FAMILY_VECTORS,
    FAMILIES,
    ENTRY_VERSION = 1,
    AGE_KEY_BYTES = 8 + CACHE_KEY_BYTES,
    VECTOR_BYTES = 1 + CACHE_SCOPE_BYTES + EMBEDDER_DIMENSIONS, /* its version first */
    /* Above the highest level. After a failed write RocksDB's log asserts that it is left alone,
     * and is not: a full disk would abort the worker, since Debian's library is built with
     * assertions. */
    INFO_LOG_NOTHING = 6,
    EVICTIONS_A_FILL_MAX =
        64, /* a lowered bound is reached over several fills, none of which takes long */
};

struct cache_store {
    struct cache_store_options options;
    rocksdb_t *db;
    rocksdb_options_t *db_options;
    rocksdb_block_based_table_options_t *table_options;
    rocksdb_cache_t *block_cache;
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write;
    rocksdb_column_family_handle_t *families[FAMILIES];
    struct near_index *near;
    uint64_t entries;
    uint64_t bytes;
    uint64_t evictions;
    uint8_t oldest[AGE_KEY_BYTES]; /* nothing is older: a scan from the start would wade through
                                      deleted keys */
};

/* RocksDB's complaint becomes ours; frees it. */
static int failed(char *error, char *ret_error)
{
    (void)snprintf(ret_error, CACHE_ERROR_BYTES, "%s", error);
    rocksdb_free(error);
    return -EIO;
}

static void age_key(uint64_t filled_unix_ms, const uint8_t *key, uint8_t ret_key[AGE_KEY_BYTES])
{
    const uint64_t big = htobe64(filled_unix_ms);
    memcpy(ret_key, &big, sizeof(big));
    memcpy(ret_key + sizeof(big), key, CACHE_KEY_BYTES);
}

/* ---- opening ---- */

static rocksdb_options_t *make_options(struct cache_store *store)
{
    rocksdb_options_t *options = rocksdb_options_create();
    store->block_cache = rocksdb_cache_create_lru(store->options.block_cache_bytes);
    store->table_options = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(store->table_options, store->block_cache);
    rocksdb_block_based_options_set_filter_policy(store->table_options,
                                                  rocksdb_filterpolicy_create_bloom(10));
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(store->table_options, 1);
    rocksdb_options_set_block_based_table_factory(options, store->table_options);
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_create_missing_column_families(options, 1);
    rocksdb_options_set_write_buffer_size(options, store->options.write_buffer_bytes);
    rocksdb_options_set_db_write_buffer_size(options, store->options.write_buffer_bytes);
    rocksdb_options_set_compression(options, rocksdb_lz4_compression);
    rocksdb_options_set_max_open_files(options, 256);
    rocksdb_options_set_max_total_wal_size(options, 4 * store->options.write_buffer_bytes);
    rocksdb_options_set_info_log_level(options, INFO_LOG_NOTHING);
    rocksdb_options_set_keep_log_file_num(options, 1);
    return options;
}

/* Counts what is there: entries and bytes from their ages. */
static int count_entries(struct cache_store *store, char *ret_error)
{
    rocksdb_iterator_t *at =
        rocksdb_create_iterator_cf(store->db, store->read, store->families[FAMILY_AGES]);
    char *error = NULL;
    for (rocksdb_iter_seek_to_first(at); rocksdb_iter_valid(at); rocksdb_iter_next(at)) {
        size_t bytes;
        uint64_t entry_bytes;
        const char *value = rocksdb_iter_value(at, &bytes);
        if (bytes == sizeof(entry_bytes)) {
            memcpy(&entry_bytes, value, sizeof(entry_bytes));
            store->entries++;
            store->bytes += be64toh(entry_bytes);
        }
    }
    rocksdb_iter_get_error(at, &error);
    rocksdb_iter_destroy(at);
    return error == NULL ? 0 : failed(error, ret_error);
}

static int load_vectors(struct cache_store *store, char *ret_error)
{
    rocksdb_iterator_t *at =
        rocksdb_create_iterator_cf(store->db, store->read, store->families[FAMILY_VECTORS]);
    char *error = NULL;
    int r = 0;
    for (rocksdb_iter_seek_to_first(at); r == 0 && rocksdb_iter_valid(at); rocksdb_iter_next(at)) {
        size_t key_bytes, bytes;
        struct vector vector;
        const char *key = rocksdb_iter_key(at, &key_bytes);
        const char *value = rocksdb_iter_value(at, &bytes);
        if (key_bytes != CACHE_KEY_BYTES || bytes != VECTOR_BYTES || value[0] != EMBEDDER_VERSION) {
            continue;
        }
        memcpy(vector.values, value + 1 + CACHE_SCOPE_BYTES, sizeof(vector.values));
        vector_set_norm(&vector);
        r = near_index_add(store->near, (const uint8_t *)value + 1, (const uint8_t *)key, &vector);
    }
    rocksdb_iter_get_error(at, &error);
    rocksdb_iter_destroy(at);
    return error == NULL ? r : failed(error, ret_error);
}

static int store_open_db(struct cache_store *store, char *ret_error)
{
    const char *const names[FAMILIES] = {"default", "ages", "vectors"};
    char *error = NULL;
    store->db_options = make_options(store);
    store->read = rocksdb_readoptions_create();
    store->write = rocksdb_writeoptions_create();
    const rocksdb_options_t *const options[FAMILIES] = {store->db_options, store->db_options,
                                                        store->db_options};
    store->db = rocksdb_open_column_families(store->db_options, store->options.path, FAMILIES,
                                             names, options, store->families, &error);
    return error == NULL ? 0 : failed(error, ret_error);
}

int cache_store_open(const struct cache_store_options *options, struct cache_store **ret_store,
                     char ret_error[CACHE_ERROR_BYTES])
{
    CLEANUP(cache_store_close) struct cache_store *store = calloc(1, sizeof(*store));
    if (store == NULL) {
        return -ENOMEM;
    }
    store->options = *options;
    store->options.path = strdup(options->path);
    int r = store->options.path == NULL ? -ENOMEM : near_index_create(&store->near);
    r = r < 0 ? r : store_open_db(store, ret_error);
    r = r < 0 ? r : count_entries(store, ret_error);
    if (r == 0 && options->keeps_vectors) {
        r = load_vectors(store, ret_error);
    }
    if (r < 0) {
        return r;
    }
    *ret_store = TAKE(store);
    return 0;
}

void cache_store_close(struct cache_store **store)
{
    struct cache_store *old = TAKE(*store);
    if (old == NULL) {
        return;
    }
    for (size_t i = 0; i < FAMILIES && old->db != NULL; i++) {
        rocksdb_column_family_handle_destroy(old->families[i]);
    }
    if (old->db != NULL) {
        rocksdb_close(old->db);
    }
    if (old->db_options != NULL) {
        rocksdb_options_destroy(old->db_options);
        rocksdb_block_based_options_destroy(old->table_options);
        rocksdb_cache_destroy(old->block_cache);
        rocksdb_readoptions_destroy(old->read);
        rocksdb_writeoptions_destroy(old->write);
    }
    near_index_destroy(&old->near);
    free((char *)old->options.path);
    free(old);
}

/* ---- reading ---- */

/* NULL: damaged, or of a later version. */
static Record__CacheEntry *entry_decode(const char *value, size_t bytes)
{
    if (bytes < 1 || value[0] != ENTRY_VERSION) {
        return NULL;
    }
    Record__CacheEntry *entry =
        record__cache_entry__unpack(NULL, bytes - 1, (const uint8_t *)value + 1);
    if (entry != NULL && entry->scope.len != 0 && entry->scope.len != CACHE_SCOPE_BYTES) {
        record__cache_entry__free_unpacked(entry, NULL);
        return NULL;
    }
    return entry;
}

/* *ret_entry is NULL when there is none. `ret_bytes`: of the stored value. */
static int entry_read(struct cache_store *store, const uint8_t *key, Record__CacheEntry **ret_entry,
                      size_t *ret_bytes, char *ret_error)
{
    char *error = NULL;
    *ret_bytes = 0;
    char *value = rocksdb_get_cf(store->db, store->read, store->families[FAMILY_ENTRIES],
                                 (const char *)key, CACHE_KEY_BYTES, ret_bytes, &error);
    if (error != NULL) {
        return failed(error, ret_error);
    }
    *ret_entry = value == NULL ? NULL : entry_decode(value, *ret_bytes);
    rocksdb_free(value);
    return 0;
}

static void batch_delete(struct cache_store *store, rocksdb_writebatch_t *batch, const uint8_t *key,
                         const uint8_t age[AGE_KEY_BYTES])
{
    rocksdb_writebatch_delete_cf(batch, store->families[FAMILY_ENTRIES], (const char *)key,
                                 CACHE_KEY_BYTES);
    rocksdb_writebatch_delete_cf(batch, store->families[FAMILY_VECTORS], (const char *)key,
                                 CACHE_KEY_BYTES);
    rocksdb_writebatch_delete_cf(batch, store->families[FAMILY_AGES], (const char *)age,
                                 AGE_KEY_BYTES);
}

static int batch_write(struct cache_store *store, rocksdb_writebatch_t *batch, char *ret_error)
{
    char *error = NULL;
    rocksdb_write(store->db, store->write, batch, &error);
    return error == NULL ? 0 : failed(error, ret_error);
}

/* What is kept in memory about an entry that leaves the database. */
static void forget(struct cache_store *store, const uint8_t *key, const Record__CacheEntry *entry,
                   size_t bytes)
{
    if (entry != NULL && entry->scope.len == CACHE_SCOPE_BYTES) {
        near_index_remove(store->near, entry->scope.data, key);
    }
    store->entries -= store->entries > 0 ? 1 : 0;
    store->bytes -= store->bytes > bytes ? bytes : store->bytes;
}

static int expire(struct cache_store *store, const uint8_t *key, const Record__CacheEntry *entry,
                  size_t bytes, char *ret_error)
{
    uint8_t age[AGE_KEY_BYTES];
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    age_key(entry->filled_unix_ms, key, age);
    batch_delete(store, batch, key, age);
    int r = batch_write(store, batch, ret_error);
    rocksdb_writebatch_destroy(batch);
    if (r == 0) {
        forget(store, key, entry, bytes);
    }
    return r;
}

/* *ret_entry is NULL unless a living entry is there. */
static int lookup_key(struct cache_store *store, const uint8_t *key, int64_t now_unix_ms,
                      Record__CacheEntry **ret_entry, char *ret_error)
{
    Record__CacheEntry *entry = NULL;
    size_t bytes;
    int r = entry_read(store, key, &entry, &bytes, ret_error);
    if (r == 0 && entry != NULL && entry->expires_unix_ms <= (uint64_t)now_unix_ms) {
        r = expire(store, key, entry, bytes, ret_error);
        record__cache_entry__free_unpacked(entry, NULL);
        entry = NULL;
    }
    *ret_entry = entry;
    return r;
}

static int lookup_near(struct cache_store *store, const struct cache_query *query,
                       int64_t now_unix_ms, struct cache_result *result, char *ret_error)
{
    struct vector vector;
    const size_t n_words = embedder_embed(query->text, strlen(query->text), &vector);
    if (n_words == 0 || n_words > EMBEDDER_WORDS_MAX ||
        near_index_best(store->near, query->scope, &vector, result->key, &result->score) < 0 ||
        result->score < store->options.near_threshold) {
        return 0;
    }
    int r = lookup_key(store, result->key, now_unix_ms, &result->entry, ret_error);
    if (result->entry != NULL) {
        result->answer = CACHE_ANSWER_NEAR_HIT;
    } else {
        near_index_remove(store->near, query->scope, result->key);
    }
    return r;
}

int cache_store_lookup(struct cache_store *store, const struct cache_query *query,
                       int64_t now_unix_ms, struct cache_result *ret_result,
                       char ret_error[CACHE_ERROR_BYTES])
{
    struct cache_result result = {.answer = CACHE_ANSWER_MISS, .score = 1};
    memcpy(result.key, query->key, CACHE_KEY_BYTES);
    int r = lookup_key(store, query->key, now_unix_ms, &result.entry, ret_error);
    if (result.entry != NULL) {
        result.answer = CACHE_ANSWER_HIT;
    } else if (r == 0 && query->may_be_near && store->options.keeps_vectors) {
        r = lookup_near(store, query, now_unix_ms, &result, ret_error);
    }
    *ret_result = result;
    return r;
}

/* ---- filling ---- */

static bool is_over(const struct cache_store *store)
{
    return store->entries > store->options.entries_max || store->bytes > store->options.bytes_max ||
           near_index_bytes(store->near) > store->options.memory_bytes_max;
}

/* The oldest entry goes. Errors: -ENOENT there is none; -EIO. */
static int evict_oldest(struct cache_store *store, rocksdb_iterator_t *at, char *ret_error)
{
    size_t age_bytes, bytes;
    uint8_t age[AGE_KEY_BYTES];
    Record__CacheEntry *entry = NULL;
    if (!rocksdb_iter_valid(at)) {
        return -ENOENT;
    }
    const char *key = rocksdb_iter_key(at, &age_bytes);
    if (age_bytes != AGE_KEY_BYTES) {
        return -ENOENT;
    }
    memcpy(age, key, AGE_KEY_BYTES);
    int r = entry_read(store, age + 8, &entry, &bytes, ret_error);
    if (r < 0) {
        return r;
    }
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    batch_delete(store, batch, age + 8, age);
    r = batch_write(store, batch, ret_error);
    rocksdb_writebatch_destroy(batch);
    if (r == 0) {
        forget(store, age + 8, entry, bytes);
        memcpy(store->oldest, age, AGE_KEY_BYTES);
        store->evictions++;
    }
    if (entry != NULL) {
        record__cache_entry__free_unpacked(entry, NULL);
    }
    return r;
}

static int evict(struct cache_store *store, char *ret_error)
{
    if (!is_over(store)) {
        return 0;
    }
    int r = 0;
    rocksdb_iterator_t *at =
        rocksdb_create_iterator_cf(store->db, store->read, store->families[FAMILY_AGES]);
    rocksdb_iter_seek(at, (const char *)store->oldest, AGE_KEY_BYTES);
    for (size_t i = 0; r == 0 && i < EVICTIONS_A_FILL_MAX && is_over(store); i++) {
        r = evict_oldest(store, at, ret_error);
        if (r == 0) {
            rocksdb_iter_next(at);
        }
    }
    rocksdb_iter_destroy(at);
    return r == -ENOENT ? 0 : r;
}

/*
 * Entries may arrive with an older time than one that was evicted: within its millisecond, or by a
 * clock set back.
 */
static void remember_oldest(struct cache_store *store, const uint8_t age[AGE_KEY_BYTES])
{
    if (memcmp(age, store->oldest, AGE_KEY_BYTES) < 0) {
        memcpy(store->oldest, age, AGE_KEY_BYTES);
    }
}

static int batch_put_entry(struct cache_store *store, rocksdb_writebatch_t *batch,
                           const uint8_t *key, const Record__CacheEntry *entry, size_t *ret_bytes)
{
    const size_t bytes = 1 + record__cache_entry__get_packed_size(entry);
    const uint64_t big = htobe64(bytes);
    uint8_t age[AGE_KEY_BYTES];
    uint8_t *value = malloc(bytes);
    if (value == NULL) {
        return -ENOMEM;
    }
    value[0] = ENTRY_VERSION;
    (void)record__cache_entry__pack(entry, value + 1);
    age_key(entry->filled_unix_ms, key, age);
    remember_oldest(store, age);
    rocksdb_writebatch_put_cf(batch, store->families[FAMILY_ENTRIES], (const char *)key,
                              CACHE_KEY_BYTES, (const char *)value, bytes);
    rocksdb_writebatch_put_cf(batch, store->families[FAMILY_AGES], (const char *)age, AGE_KEY_BYTES,
                              (const char *)&big, sizeof(big));
    free(value);
    *ret_bytes = bytes;
    return 0;
}

static void batch_put_vector(struct cache_store *store, rocksdb_writebatch_t *batch,
                             const uint8_t *key, const uint8_t *scope, const struct vector *vector)
{
    uint8_t value[VECTOR_BYTES];
    value[0] = EMBEDDER_VERSION;
    memcpy(value + 1, scope, CACHE_SCOPE_BYTES);
    memcpy(value + 1 + CACHE_SCOPE_BYTES, vector->values, EMBEDDER_DIMENSIONS);
    rocksdb_writebatch_put_cf(batch, store->families[FAMILY_VECTORS], (const char *)key,
                              CACHE_KEY_BYTES, (const char *)value, sizeof(value));
}

/* Takes the entry that a fill replaces out of the batch's way and of the counts. */
static int replace(struct cache_store *store, rocksdb_writebatch_t *batch, const uint8_t *key,
                   char *ret_error)
{
    Record__CacheEntry *old = NULL;
    size_t bytes;
    uint8_t age[AGE_KEY_BYTES];
    int r = entry_read(store, key, &old, &bytes, ret_error);
    if (r < 0 || old == NULL) {
        return r;
    }
    age_key(old->filled_unix_ms, key, age);
    batch_delete(store, batch, key, age);
    forget(store, key, old, bytes);
    record__cache_entry__free_unpacked(old, NULL);
    return 0;
}

static int fill_batch(struct cache_store *store, rocksdb_writebatch_t *batch, const uint8_t *key,
                      const Record__CacheEntry *entry, const struct vector *vector, char *ret_error)
{
    size_t bytes = 0;
    int r = replace(store, batch, key, ret_error);
    r = r < 0 ? r : batch_put_entry(store, batch, key, entry, &bytes);
    if (r == 0 && vector != NULL) {
        batch_put_vector(store, batch, key, entry->scope.data, vector);
    }
    r = r < 0 ? r : batch_write(store, batch, ret_error);
    if (r < 0) {
        return r;
    }
    store->entries++;
    store->bytes += bytes;
    return vector == NULL ? 0 : near_index_add(store->near, entry->scope.data, key, vector);
}

int cache_store_fill(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                     const Record__CacheEntry *entry, const char *text,
                     char ret_error[CACHE_ERROR_BYTES])
{
    struct vector vector;
    bool has_vector = false;
    if (text != NULL && store->options.keeps_vectors && entry->scope.len == CACHE_SCOPE_BYTES) {
        const size_t n_words = embedder_embed(text, strlen(text), &vector);
        has_vector = n_words > 0 && n_words <= EMBEDDER_WORDS_MAX;
    }
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    int r = fill_batch(store, batch, key, entry, has_vector ? &vector : NULL, ret_error);
    rocksdb_writebatch_destroy(batch);
    return r < 0 ? r : evict(store, ret_error);
}

void cache_store_read_stats(const struct cache_store *store, struct cache_store_stats *ret_stats)
{
    *ret_stats = (struct cache_store_stats){
        .entries = store->entries,
        .bytes = store->bytes,
        .memory_bytes = near_index_bytes(store->near),
        .evictions = store->evictions,
    };
}
