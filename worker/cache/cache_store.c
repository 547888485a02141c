#include "worker/cache/cache_store.h"

#include <endian.h>
#include <errno.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    FAMILY_ENTRIES,
    FAMILY_ABOUT,
    FAMILY_VECTORS,
    FAMILY_META,
    FAMILIES,
    VERSION = 2,
    HEAD_BYTES = 1 + 8, /* version, checksum */
    COUNTS_BYTES = 16,
    POSITION_BYTES = CACHE_EPOCH_BYTES + 8,
    POSITION_KEY_BYTES_MAX = 512,
    /*
     * Above the highest level. After a failed write RocksDB's log asserts that it is left alone,
     * and is not: a full disk would abort the worker, since Debian's library is built with
     * assertions.
     */
    INFO_LOG_NOTHING = 6,
    /* Of a key. 10, as usual, let one lookup in a hundred read a block for nothing, at each level:
       that is the 99th percentile. */
    FILTER_BITS = 16,
    /*
     * Hardly an exact hit finds its block in memory, and decompressing it is most of what it costs.
     * So: small blocks, LZ4, and a dictionary of what the answers of a file have in common, which
     * makes up for both on disk. Beside 100 k entries, p50 / p99 of a hit: 18 / 47 µs with
     * Zstandard, blocks of 2 KiB and no dictionary, 12 / 33 so; on disk 65 MB and 63 (answers of
     * real texts 19.2 and 20.1). DICTIONARY_SAMPLE_BYTES of a file wait in memory until its
     * dictionary is made.
     */
    BLOCK_BYTES = 1024,
    DICTIONARY_BYTES = 16384,
    DICTIONARY_SAMPLE_BYTES = 1 << 20,
    /* As RocksDB has them by itself; LZ4 knows no window. */
    WINDOW_BITS = -14,
    DEFAULT_LEVEL = 32767,
};

struct cache_store {
    struct cache_store_options options;
    rocksdb_t *db;
    rocksdb_options_t *db_options;
    rocksdb_block_based_table_options_t *table_options;
    rocksdb_cache_t *block_cache;
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write, *write_synced;
    rocksdb_column_family_handle_t *families[FAMILIES];
    uint64_t entries, bytes;
    uint64_t damaged;
};

/* RocksDB's complaint becomes ours; frees it. */
static int failed(char *error, char *ret_error)
{
    const bool is_damage =
        strncmp(error, "Corruption", 10) == 0 || strncmp(error, "Invalid argument", 16) == 0;
    (void)snprintf(ret_error, CACHE_ERROR_BYTES, "%s", error);
    rocksdb_free(error);
    return is_damage ? -EBADMSG : -EIO;
}

/* ---- values ---- */

/* Before what is behind the head: version and checksum. */
static void seal(uint8_t *value, size_t bytes)
{
    const uint64_t sum = htobe64(XXH3_64bits(value + HEAD_BYTES, bytes - HEAD_BYTES));
    value[0] = VERSION;
    memcpy(value + 1, &sum, sizeof(sum));
}

/* False: damaged, or of another version. */
static bool is_whole(const char *value, size_t bytes)
{
    uint64_t sum;
    if (bytes < HEAD_BYTES || value[0] != VERSION) {
        return false;
    }
    memcpy(&sum, value + 1, sizeof(sum));
    return be64toh(sum) == XXH3_64bits(value + HEAD_BYTES, bytes - HEAD_BYTES);
}

/* Version and checksum, then the message. NULL: no memory. */
static char *encode(const ProtobufCMessage *message, size_t *ret_bytes)
{
    const size_t bytes = HEAD_BYTES + protobuf_c_message_get_packed_size(message);
    uint8_t *value = malloc(bytes);
    if (value == NULL) {
        return NULL;
    }
    (void)protobuf_c_message_pack(message, value + HEAD_BYTES);
    seal(value, bytes);
    *ret_bytes = bytes;
    return (char *)value;
}

/* NULL: damaged, or of another version. */
static ProtobufCMessage *decode(const ProtobufCMessageDescriptor *descriptor, const char *value,
                                size_t bytes)
{
    return is_whole(value, bytes) ? protobuf_c_message_unpack(descriptor, NULL, bytes - HEAD_BYTES,
                                                              (const uint8_t *)value + HEAD_BYTES)
                                  : NULL;
}

static bool about_is_good(const Record__CacheAbout *about)
{
    return about != NULL && (about->scope.len == 0 || about->scope.len == CACHE_SCOPE_BYTES);
}

/* ---- opening ---- */

static rocksdb_options_t *make_options(struct cache_store *store)
{
    rocksdb_options_t *options = rocksdb_options_create();
    store->block_cache = rocksdb_cache_create_lru(store->options.block_cache_bytes);
    store->table_options = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(store->table_options, store->block_cache);
    rocksdb_block_based_options_set_filter_policy(store->table_options,
                                                  rocksdb_filterpolicy_create_bloom(FILTER_BITS));
    rocksdb_block_based_options_set_block_size(store->table_options, BLOCK_BYTES);
    rocksdb_options_set_block_based_table_factory(options, store->table_options);
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_create_missing_column_families(options, 1);
    rocksdb_options_set_write_buffer_size(options, store->options.write_buffer_bytes);
    rocksdb_options_set_db_write_buffer_size(options, store->options.write_buffer_bytes);
    rocksdb_options_set_compression(options, rocksdb_lz4_compression);
    rocksdb_options_set_compression_options(options, WINDOW_BITS, DEFAULT_LEVEL, 0,
                                            DICTIONARY_BYTES);
    rocksdb_options_set_compression_options_max_dict_buffer_bytes(options, DICTIONARY_SAMPLE_BYTES);
    rocksdb_options_set_max_open_files(options, 256);
    rocksdb_options_set_max_total_wal_size(options, 4 * store->options.write_buffer_bytes);
    rocksdb_options_set_info_log_level(options, INFO_LOG_NOTHING);
    rocksdb_options_set_keep_log_file_num(options, 1);
    return options;
}

static int read_counts(struct cache_store *store, char *ret_error)
{
    char *error = NULL;
    size_t bytes = 0;
    char *value = rocksdb_get_cf(store->db, store->read, store->families[FAMILY_META], "counts", 6,
                                 &bytes, &error);
    if (error != NULL) {
        return failed(error, ret_error);
    }
    uint64_t counts[2] = {0, 0};
    if (value != NULL && bytes == COUNTS_BYTES) {
        memcpy(counts, value, sizeof(counts));
    }
    rocksdb_free(value);
    store->entries = be64toh(counts[0]);
    store->bytes = be64toh(counts[1]);
    return 0;
}

static int open_db(struct cache_store *store, char *ret_error)
{
    const char *const names[FAMILIES] = {"default", "about", "vectors", "meta"};
    char *error = NULL;
    store->db_options = make_options(store);
    store->read = rocksdb_readoptions_create();
    store->write = rocksdb_writeoptions_create();
    store->write_synced = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(store->write_synced, 1);
    const rocksdb_options_t *const options[FAMILIES] = {store->db_options, store->db_options,
                                                        store->db_options, store->db_options};
    store->db = rocksdb_open_column_families(store->db_options, store->options.path, FAMILIES,
                                             names, options, store->families, &error);
    return error == NULL ? read_counts(store, ret_error) : failed(error, ret_error);
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
    int r = store->options.path == NULL ? -ENOMEM : open_db(store, ret_error);
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
        rocksdb_writeoptions_destroy(old->write_synced);
    }
    free((char *)old->options.path);
    free(old);
}

/* ---- changes ---- */

static void batch_counts(struct cache_store *store, rocksdb_writebatch_t *batch, uint64_t entries,
                         uint64_t bytes)
{
    const uint64_t counts[2] = {htobe64(entries), htobe64(bytes)};
    rocksdb_writebatch_put_cf(batch, store->families[FAMILY_META], "counts", 6,
                              (const char *)counts, sizeof(counts));
}

/* Writes the batch with these counts, which hold from then on. */
static int commit(struct cache_store *store, rocksdb_writebatch_t *batch, uint64_t entries,
                  uint64_t bytes, char *ret_error)
{
    char *error = NULL;
    batch_counts(store, batch, entries, bytes);
    rocksdb_write(store->db, store->write, batch, &error);
    if (error != NULL) {
        return failed(error, ret_error);
    }
    store->entries = entries;
    store->bytes = bytes;
    return 0;
}

static uint64_t less(uint64_t value, uint64_t by)
{
    return value > by ? value - by : 0;
}

/* `bytes` of an entry that is known to be there. */
static int remove_known(struct cache_store *store, const uint8_t *key, uint64_t bytes,
                        char *ret_error)
{
    static const int families[] = {FAMILY_ENTRIES, FAMILY_ABOUT, FAMILY_VECTORS};
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (size_t i = 0; i < ARRAY_LENGTH(families); i++) {
        rocksdb_writebatch_delete_cf(batch, store->families[families[i]], (const char *)key,
                                     CACHE_KEY_BYTES);
    }
    int r = commit(store, batch, less(store->entries, 1), less(store->bytes, bytes), ret_error);
    rocksdb_writebatch_destroy(batch);
    return r;
}

/* ---- reading ---- */

/*
 * *ret_message is NULL when it is not there. A damaged one is removed, its bytes by what is stored:
 * about right.
 */
static int get(struct cache_store *store, int family, const ProtobufCMessageDescriptor *descriptor,
               const uint8_t *key, ProtobufCMessage **ret_message, char *ret_error)
{
    char *error = NULL;
    rocksdb_pinnableslice_t *block =
        rocksdb_get_pinned_cf(store->db, store->read, store->families[family], (const char *)key,
                              CACHE_KEY_BYTES, &error);
    if (error != NULL) {
        return failed(error, ret_error);
    }
    size_t bytes = 0;
    const char *value = rocksdb_pinnableslice_value(block, &bytes);
    *ret_message = value == NULL ? NULL : decode(descriptor, value, bytes);
    const bool is_damaged = value != NULL && *ret_message == NULL;
    rocksdb_pinnableslice_destroy(block);
    if (!is_damaged) {
        return 0;
    }
    store->damaged++;
    return remove_known(store, key, bytes, ret_error);
}

int cache_store_get(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                    Record__CacheEntry **ret_entry, char ret_error[CACHE_ERROR_BYTES])
{
    ProtobufCMessage *message = NULL;
    int r = get(store, FAMILY_ENTRIES, &record__cache_entry__descriptor, key, &message, ret_error);
    Record__CacheEntry *entry = (Record__CacheEntry *)message;
    if (r == 0 && entry != NULL && !about_is_good(entry->about)) {
        record__cache_entry__free_unpacked(entry, NULL);
        entry = NULL;
    }
    *ret_entry = r == 0 ? entry : NULL;
    return r;
}

int cache_store_get_about(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                          Record__CacheAbout **ret_about, char ret_error[CACHE_ERROR_BYTES])
{
    ProtobufCMessage *message = NULL;
    int r = get(store, FAMILY_ABOUT, &record__cache_about__descriptor, key, &message, ret_error);
    Record__CacheAbout *about = (Record__CacheAbout *)message;
    if (r == 0 && about != NULL && !about_is_good(about)) {
        record__cache_about__free_unpacked(about, NULL);
        about = NULL;
    }
    *ret_about = r == 0 ? about : NULL;
    return r;
}

/* ---- writing ---- */

static int batch_put(struct cache_store *store, rocksdb_writebatch_t *batch, int family,
                     const uint8_t *key, const ProtobufCMessage *message)
{
    size_t bytes;
    char *value = encode(message, &bytes);
    if (value == NULL) {
        return -ENOMEM;
    }
    rocksdb_writebatch_put_cf(batch, store->families[family], (const char *)key, CACHE_KEY_BYTES,
                              value, bytes);
    free(value);
    return 0;
}

static int put_over(struct cache_store *store, const uint8_t *key, const Record__CacheEntry *entry,
                    const Record__CacheAbout *before, char *ret_error)
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    rocksdb_writebatch_delete_cf(batch, store->families[FAMILY_VECTORS], (const char *)key,
                                 CACHE_KEY_BYTES);
    int r = batch_put(store, batch, FAMILY_ENTRIES, key, &entry->base);
    r = r < 0 ? r : batch_put(store, batch, FAMILY_ABOUT, key, &entry->about->base);
    if (r == 0) {
        const uint64_t entries = store->entries + (before == NULL ? 1 : 0);
        const uint64_t bytes = less(store->bytes, before == NULL ? 0 : before->bytes);
        r = commit(store, batch, entries, bytes + entry->about->bytes, ret_error);
    }
    rocksdb_writebatch_destroy(batch);
    return r;
}

int cache_store_put(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                    Record__CacheEntry *entry, char ret_error[CACHE_ERROR_BYTES])
{
    Record__CacheAbout *before = NULL;
    int r = cache_store_get_about(store, key, &before, ret_error);
    if (r < 0) {
        return r;
    }
    entry->about->bytes = HEAD_BYTES + record__cache_entry__get_packed_size(entry);
    r = put_over(store, key, entry, before, ret_error);
    if (before != NULL) {
        record__cache_about__free_unpacked(before, NULL);
    }
    return r;
}

int cache_store_remove(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                       char ret_error[CACHE_ERROR_BYTES])
{
    Record__CacheAbout *about = NULL;
    int r = cache_store_get_about(store, key, &about, ret_error);
    if (r == 0 && about != NULL) {
        r = remove_known(store, key, about->bytes, ret_error);
        record__cache_about__free_unpacked(about, NULL);
    }
    return r;
}

int cache_store_put_about(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                          const Record__CacheAbout *about, char ret_error[CACHE_ERROR_BYTES])
{
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    int r = batch_put(store, batch, FAMILY_ABOUT, key, &about->base);
    r = r < 0 ? r : commit(store, batch, store->entries, store->bytes, ret_error);
    rocksdb_writebatch_destroy(batch);
    return r;
}

/* ---- vectors ---- */

int cache_store_put_vector(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                           const Record__CacheAbout *about, const int8_t *vector, size_t bytes,
                           char ret_error[CACHE_ERROR_BYTES])
{
    uint8_t *value = malloc(HEAD_BYTES + bytes);
    if (value == NULL) {
        return -ENOMEM;
    }
    if (bytes > 0) {
        memcpy(value + HEAD_BYTES, vector, bytes);
    }
    seal(value, HEAD_BYTES + bytes);
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    rocksdb_writebatch_put_cf(batch, store->families[FAMILY_VECTORS], (const char *)key,
                              CACHE_KEY_BYTES, (const char *)value, HEAD_BYTES + bytes);
    int r = batch_put(store, batch, FAMILY_ABOUT, key, &about->base);
    r = r < 0 ? r : commit(store, batch, store->entries, store->bytes, ret_error);
    rocksdb_writebatch_destroy(batch);
    free(value);
    return r;
}

int cache_store_get_vector(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                           int8_t *ret_vector, size_t bytes_max, size_t *ret_bytes,
                           char ret_error[CACHE_ERROR_BYTES])
{
    char *error = NULL;
    size_t bytes = 0;
    char *value = rocksdb_get_cf(store->db, store->read, store->families[FAMILY_VECTORS],
                                 (const char *)key, CACHE_KEY_BYTES, &bytes, &error);
    if (error != NULL) {
        return failed(error, ret_error);
    }
    const bool is_good = value != NULL && is_whole(value, bytes) && bytes - HEAD_BYTES <= bytes_max;
    if (is_good) {
        memcpy(ret_vector, value + HEAD_BYTES, bytes - HEAD_BYTES);
        *ret_bytes = bytes - HEAD_BYTES;
    }
    rocksdb_free(value);
    return is_good ? 0 : -ENOENT;
}

/* ---- scanning ---- */

static bool increment(uint8_t key[CACHE_KEY_BYTES])
{
    for (size_t i = CACHE_KEY_BYTES; i > 0; i--) {
        if (++key[i - 1] != 0) {
            return true;
        }
    }
    return false;
}

/* Returns 1: it is enough. */
static int visit_one(struct cache_store *store, rocksdb_iterator_t *at, cache_store_visit_fn *visit,
                     void *context, uint8_t ret_key[CACHE_KEY_BYTES], char *ret_error)
{
    size_t key_bytes, bytes;
    const char *key = rocksdb_iter_key(at, &key_bytes);
    const char *value = rocksdb_iter_value(at, &bytes);
    if (key_bytes != CACHE_KEY_BYTES) {
        return -EBADMSG;
    }
    memcpy(ret_key, key, CACHE_KEY_BYTES);
    Record__CacheAbout *about =
        (Record__CacheAbout *)decode(&record__cache_about__descriptor, value, bytes);
    if (about_is_good(about)) {
        const bool goes_on = visit(context, ret_key, about);
        record__cache_about__free_unpacked(about, NULL);
        return goes_on ? 0 : 1;
    }
    if (about != NULL) {
        record__cache_about__free_unpacked(about, NULL);
    }
    store->damaged++;
    return remove_known(store, ret_key, bytes, ret_error);
}

int cache_store_scan(struct cache_store *store, const uint8_t from[CACHE_KEY_BYTES], size_t most,
                     cache_store_visit_fn *visit, void *context, uint8_t ret_next[CACHE_KEY_BYTES],
                     bool *ret_is_end, char ret_error[CACHE_ERROR_BYTES])
{
    rocksdb_iterator_t *at =
        rocksdb_create_iterator_cf(store->db, store->read, store->families[FAMILY_ABOUT]);
    rocksdb_iter_seek(at, (const char *)from, CACHE_KEY_BYTES);
    memcpy(ret_next, from, CACHE_KEY_BYTES);
    int r = 0;
    bool is_end = false;
    for (size_t i = 0; r == 0 && !is_end && i < most && rocksdb_iter_valid(at); i++) {
        r = visit_one(store, at, visit, context, ret_next, ret_error);
        is_end = !increment(ret_next);
        rocksdb_iter_next(at);
    }
    char *error = NULL;
    rocksdb_iter_get_error(at, &error);
    *ret_is_end = is_end || !rocksdb_iter_valid(at);
    rocksdb_iter_destroy(at);
    return error != NULL ? failed(error, ret_error) : r < 0 ? r : 0;
}

/* ---- positions ---- */

static size_t position_key(const char *endpoint, char ret_key[POSITION_KEY_BYTES_MAX])
{
    const int bytes = snprintf(ret_key, POSITION_KEY_BYTES_MAX, "position/%s", endpoint);
    return bytes < POSITION_KEY_BYTES_MAX ? (size_t)bytes : POSITION_KEY_BYTES_MAX - 1;
}

int cache_store_get_position(struct cache_store *store, const char *endpoint,
                             uint8_t ret_epoch[CACHE_EPOCH_BYTES], uint64_t *ret_sequence,
                             char ret_error[CACHE_ERROR_BYTES])
{
    char key[POSITION_KEY_BYTES_MAX];
    char *error = NULL;
    size_t bytes = 0;
    char *value = rocksdb_get_cf(store->db, store->read, store->families[FAMILY_META], key,
                                 position_key(endpoint, key), &bytes, &error);
    if (error != NULL) {
        return failed(error, ret_error);
    }
    *ret_sequence = 0;
    if (value != NULL && bytes == POSITION_BYTES) {
        memcpy(ret_epoch, value, CACHE_EPOCH_BYTES);
        memcpy(ret_sequence, value + CACHE_EPOCH_BYTES, sizeof(*ret_sequence));
        *ret_sequence = be64toh(*ret_sequence);
    }
    rocksdb_free(value);
    return 0;
}

int cache_store_put_position(struct cache_store *store, const char *endpoint,
                             const uint8_t epoch[CACHE_EPOCH_BYTES], uint64_t sequence,
                             char ret_error[CACHE_ERROR_BYTES])
{
    char key[POSITION_KEY_BYTES_MAX];
    char value[POSITION_BYTES];
    char *error = NULL;
    const uint64_t big = htobe64(sequence);
    memcpy(value, epoch, CACHE_EPOCH_BYTES);
    memcpy(value + CACHE_EPOCH_BYTES, &big, sizeof(big));
    rocksdb_put_cf(store->db, store->write_synced, store->families[FAMILY_META], key,
                   position_key(endpoint, key), value, sizeof(value), &error);
    return error == NULL ? 0 : failed(error, ret_error);
}

void cache_store_read_stats(const struct cache_store *store, struct cache_store_stats *ret_stats)
{
    *ret_stats = (struct cache_store_stats){
        .entries = store->entries, .bytes = store->bytes, .damaged = store->damaged};
}
