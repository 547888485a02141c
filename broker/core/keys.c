#include "broker/core/keys.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static uint64_t hash_of(uint16_t tenant, const uint8_t *hash, uint64_t seed)
{
    return XXH3_64bits_withSeed(hash, KEY_HASH_BYTES, seed + tenant);
}

uint64_t key_hash(const struct table_link *link, uint64_t seed)
{
    const struct idempotency *key =
        CONTAINER_OF((struct table_link *)link, struct idempotency, by_key);
    return hash_of(key->tenant, key->hash, seed);
}

uint64_t key_job_hash(const struct table_link *link, uint64_t seed)
{
    return id_hash(&CONTAINER_OF((struct table_link *)link, struct idempotency, by_job)->job_id,
                   seed);
}

void key_make(const char *tenant, const char *key, uint8_t ret_hash[KEY_HASH_BYTES])
{
    const uint64_t seed = XXH3_64bits(tenant, strlen(tenant));
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_withSeed(key, strlen(key), seed));
    memcpy(ret_hash, canonical.digest, KEY_HASH_BYTES);
}

struct idempotency *key_find(const struct core *core, uint16_t tenant,
                             const uint8_t hash[KEY_HASH_BYTES])
{
    struct table_link *link = table_first(&core->keys, hash_of(tenant, hash, core->keys.seed));
    for (; link != NULL; link = link->next) {
        struct idempotency *key = CONTAINER_OF(link, struct idempotency, by_key);
        if (key->tenant == tenant && memcmp(key->hash, hash, KEY_HASH_BYTES) == 0) {
            return key;
        }
    }
    return NULL;
}

struct idempotency *key_of_job(const struct core *core, const struct id *job_id)
{
    struct table_link *link =
        table_first(&core->keys_by_job, id_hash(job_id, core->keys_by_job.seed));
    for (; link != NULL; link = link->next) {
        struct idempotency *key = CONTAINER_OF(link, struct idempotency, by_job);
        if (id_equal(&key->job_id, job_id)) {
            return key;
        }
    }
    return NULL;
}

int key_add(struct core *core, uint16_t tenant, const uint8_t hash[KEY_HASH_BYTES],
            const struct id *job_id)
{
    struct idempotency *key = calloc(1, sizeof(*key));
    if (key == NULL) {
        return -ENOMEM;
    }
    key->job_id = *job_id;
    key->tenant = tenant;
    memcpy(key->hash, hash, KEY_HASH_BYTES);
    table_insert(&core->keys, &key->by_key);
    table_insert(&core->keys_by_job, &key->by_job);
    return 0;
}

void key_forget(struct core *core, const struct id *job_id)
{
    struct idempotency *key = key_of_job(core, job_id);
    if (key != NULL) {
        table_remove(&core->keys, &key->by_key);
        table_remove(&core->keys_by_job, &key->by_job);
        free(key);
    }
}

void key_destroy_all(struct core *core)
{
    for (size_t i = 0; i < core->keys.buckets_length; i++) {
        struct table_link *link = table_bucket_at(&core->keys, i)->first;
        while (link != NULL) {
            struct table_link *next = link->next;
            free(CONTAINER_OF(link, struct idempotency, by_key));
            link = next;
        }
    }
}
