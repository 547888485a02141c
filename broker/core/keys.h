/*
 * keys: idempotency keys, each with the id of the job it first came with, while that job is pending or its id remembered.
 *
 * A key is held as a 128-bit hash together with its tenant; only jobs that name one pay for it.
 */
#pragma once
#include <stdint.h>
#include "broker/core/state.h"

enum { KEY_HASH_BYTES = 16 };

struct idempotency {
    struct table_link by_key, by_job;
    struct id job_id;
    uint8_t hash[KEY_HASH_BYTES];
    uint16_t tenant;
};

uint64_t key_hash(const struct table_link *link, uint64_t seed);
uint64_t key_job_hash(const struct table_link *link, uint64_t seed);
/* The same in every run, since it is stored. */
void key_make(const char *tenant, const char *key, uint8_t ret_hash[KEY_HASH_BYTES]);
struct idempotency *key_find(const struct core *core, uint16_t tenant, const uint8_t hash[KEY_HASH_BYTES]);
struct idempotency *key_of_job(const struct core *core, const struct id *job_id);
/* Errors: -ENOMEM. */
MUST_USE int key_add(struct core *core, uint16_t tenant, const uint8_t hash[KEY_HASH_BYTES], const struct id *job_id);
void key_forget(struct core *core, const struct id *job_id);
void key_destroy_all(struct core *core);
