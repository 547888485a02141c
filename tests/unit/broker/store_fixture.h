/*
 * store_fixture: a store with its loop in a temporary directory, and what it has reported; shared
 * by the tests of the store.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "broker/store/store.h"
#include "common/blob.h"
#include "common/config.h"

struct loop;

enum { FIXTURE_LOADED_MAX = 1024 };

struct store_fixture {
    char directory[64];
    struct config_broker config;
    struct loop *loop;
    struct store *store;
    char why[STORE_WHY_BYTES];
    uint64_t next_batch;
    uint64_t durable;     /* the last number reported */
    bool is_out_of_order; /* a number did not grow, or a load was answered before its turn */
    unsigned n_down, n_up;
    uint64_t down_first;
    char down_why[STORE_WHY_BYTES];
    int n_faults;
    char fault_why[STORE_WHY_BYTES];
    size_t n_loaded;
    struct loaded {
        uint64_t token;
        int result;
        struct blob *value; /* referenced */
    } loaded[FIXTURE_LOADED_MAX];
};

/* Makes the directory and the loop. */
void fixture_init(struct store_fixture *fixture, enum config_store kind);
/* Closes and removes the directory. */
void fixture_finish(struct store_fixture *fixture);
/* Returns store_open()'s result. */
int fixture_open(struct store_fixture *fixture);
void fixture_close(struct store_fixture *fixture);

/* Commits the batch as the next number, urgently; returns the number. */
uint64_t fixture_commit(struct store_fixture *fixture, struct store_batch **batch);
struct store_batch *fixture_batch(struct store_fixture *fixture);
/* One batch with one change. Text keys and values. */
uint64_t fixture_put(struct store_fixture *fixture, enum store_family family, const char *key,
                     const char *value);
uint64_t fixture_delete(struct store_fixture *fixture, enum store_family family, const char *key);
void fixture_load(struct store_fixture *fixture, enum store_family family, const char *key,
                  uint64_t token);

/* Turn the loop until it is so; abort after 30 s. */
void fixture_wait_durable(struct store_fixture *fixture, uint64_t batch);
void fixture_wait_loaded(struct store_fixture *fixture, size_t n);
void fixture_wait_down(struct store_fixture *fixture, unsigned n);
void fixture_wait_up(struct store_fixture *fixture, unsigned n);
/* Loads and compares; NULL: must not exist. */
bool fixture_has(struct store_fixture *fixture, enum store_family family, const char *key,
                 const char *value);
/* The family's records as "key=value key=value " in `ret_text`. */
void fixture_scan(struct store_fixture *fixture, enum store_family family, char *ret_text,
                  size_t bytes);
