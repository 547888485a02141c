/*
 * learning: how good models turn out to be at a tenant's tasks, against what their grades promise.
 *
 * A cell for each tenant, task and model sums up scores, 0 to 1; each counts half as much LEARNING_HALF_LIFE later ones on. Its grade
 * promises the chance p (common/choice.h) at the mean complexity of what was judged, and counts for LEARNING_PRIOR scores:
 *
 *   a = LEARNING_PRIOR · p + sum of scores     b = LEARNING_PRIOR · (1 - p) + sum of (1 - score)
 *
 * Beta(a, b) is then what is thought of it. `grades` are those by which its mean differs from p, as choice.h turns grades into
 * chances; at most ±LEARNING_GRADES_MAX · n / (n + LEARNING_PRIOR) after n scores, so that one of them moves no grade far, and no task
 * makes a small model the largest one. They hold at any complexity. `unsure` is
 * the standard deviation: the largest one of several models is tried to know more.
 *
 * Pure: no clock, no I/O. LEARNING_CELLS_MAX cells of about 100 bytes, LEARNING_TENANT_CELLS_MAX of a tenant; the least recently judged
 * is forgotten, of the tenant when that has so many: its tasks do not push out what others taught.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "broker/core/table.h"
#include "common/attributes.h"
#include "common/list.h"

enum { LEARNING_CELLS_MAX = 4096, LEARNING_TENANT_CELLS_MAX = 512, LEARNING_HALF_LIFE = 200, LEARNING_PRIOR = 8, LEARNING_GRADES_MAX = 30 };

/* Indexes, as their owner has them. */
struct learning_key {
    uint16_t tenant, model;
    uint8_t task;
};

struct learning_cell {
    struct table_link by_key;
    struct list_link by_use;
    struct learning_key key;
    double good, bad;       /* decayed sums: of scores, and of what they lack to 1 */
    double complexity;      /* likewise, of those of the jobs: good + bad of them */
    /* The owner's, for its records. */
    struct list_link link;
    bool is_listed, has_record;
};

/* About to be forgotten. */
typedef void learning_forgotten_fn(void *context, struct learning_cell *cell);

struct learning {
    struct table cells;
    struct list by_use;     /* the least recently judged first */
    uint16_t *counts;       /* of cells, by tenant */
    size_t counts_length;
    learning_forgotten_fn *forgotten;
    void *context;
};

MUST_USE int learning_init(struct learning *learning, uint64_t seed, learning_forgotten_fn *forgotten, void *context); /* Errors: -ENOMEM */
/* Does not say what is forgotten by it. */
void learning_finish(struct learning *learning);

struct learning_cell *learning_find(const struct learning *learning, const struct learning_key *key); /* NULL: nothing is known */
/* Finds or makes; when there are too many, one is forgotten. NULL: no memory; nothing is forgotten then. */
struct learning_cell *learning_touch(struct learning *learning, const struct learning_key *key);
/* A score of an answer to a prompt of this complexity (below 0: not known). */
void learning_note(struct learning_cell *cell, double score, double complexity);

struct learned {
    double grades; /* to add to the model's */
    double unsure; /* 0 to 0.5 */
};
/* Of a model of this grade; `cell` NULL: what its grade alone says at `complexity`, which is then that of the job. */
struct learned learning_read(const struct learning_cell *cell, double grade, double complexity);
