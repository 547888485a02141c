#include "broker/core/learning.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "common/choice.h"

static const double CHANCE_LEAST =
    0.02; /* chances are kept off 0 and 1, where grades have no end */

/* ---- cells ---- */

static uint64_t hash_of(const struct learning_key *key, uint64_t seed)
{
    const uint64_t packed =
        (uint64_t)key->tenant << 32 | (uint64_t)key->model << 16 | (uint64_t)key->task;
    return XXH3_64bits_withSeed(&packed, sizeof(packed), seed);
}

static uint64_t cell_hash(const struct table_link *link, uint64_t seed)
{
    return hash_of(&CONTAINER_OF((struct table_link *)link, struct learning_cell, by_key)->key,
                   seed);
}

int learning_init(struct learning *learning, uint64_t seed, learning_forgotten_fn *forgotten,
                  void *context)
{
    list_init(&learning->by_use);
    learning->counts = NULL;
    learning->counts_length = 0;
    learning->forgotten = forgotten;
    learning->context = context;
    return table_init(&learning->cells, seed, cell_hash);
}

static void forget(struct learning *learning, struct learning_cell *cell)
{
    table_remove(&learning->cells, &cell->by_key);
    list_remove(&learning->by_use, &cell->by_use);
    learning->counts[cell->key.tenant]--;
    free(cell);
}

static struct learning_cell *least_used(const struct learning *learning)
{
    struct list_link *link = list_first(&learning->by_use);
    return link == NULL ? NULL : CONTAINER_OF(link, struct learning_cell, by_use);
}

void learning_finish(struct learning *learning)
{
    struct learning_cell *cell;
    if (learning->by_use.head.next == NULL) {
        return; /* it was never begun */
    }
    while ((cell = least_used(learning)) != NULL) {
        forget(learning, cell);
    }
    table_finish(&learning->cells);
    free(learning->counts);
}

static bool is_same(const struct learning_key *a, const struct learning_key *b)
{
    return a->tenant == b->tenant && a->model == b->model && a->task == b->task;
}

struct learning_cell *learning_find(const struct learning *learning, const struct learning_key *key)
{
    struct table_link *link = table_first(&learning->cells, hash_of(key, learning->cells.seed));
    for (; link != NULL; link = link->next) {
        struct learning_cell *cell = CONTAINER_OF(link, struct learning_cell, by_key);
        if (is_same(&cell->key, key)) {
            return cell;
        }
    }
    return NULL;
}

/* So that the tenant has a count. Errors: -ENOMEM. */
static int grow_counts(struct learning *learning, uint16_t tenant)
{
    if (tenant < learning->counts_length) {
        return 0;
    }
    const size_t length = 2 * (size_t)tenant + 1;
    uint16_t *grown = reallocarray(learning->counts, length, sizeof(*grown));
    if (grown == NULL) {
        return -ENOMEM;
    }
    memset(grown + learning->counts_length, 0, (length - learning->counts_length) * sizeof(*grown));
    learning->counts = grown;
    learning->counts_length = length;
    return 0;
}

/* There is one. */
static struct learning_cell *least_used_of(const struct learning *learning, uint16_t tenant)
{
    const struct list_link *link = list_first(&learning->by_use);
    while (CONTAINER_OF((struct list_link *)link, struct learning_cell, by_use)->key.tenant !=
           tenant) {
        link = link->next;
    }
    return CONTAINER_OF((struct list_link *)link, struct learning_cell, by_use);
}

/* For one more of the tenant. */
static void make_room(struct learning *learning, uint16_t tenant)
{
    struct learning_cell *oldest = NULL;
    if (learning->counts[tenant] >= LEARNING_TENANT_CELLS_MAX) {
        oldest = least_used_of(learning, tenant);
    } else if (learning->by_use.length >= LEARNING_CELLS_MAX) {
        oldest = least_used(learning);
    }
    if (oldest != NULL) {
        learning->forgotten(learning->context, oldest);
        forget(learning, oldest);
    }
}

static struct learning_cell *make(struct learning *learning, const struct learning_key *key)
{
    struct learning_cell *cell = calloc(1, sizeof(*cell));
    if (cell == NULL || grow_counts(learning, key->tenant) < 0) {
        free(cell);
        return NULL;
    }
    make_room(learning, key->tenant);
    cell->key = *key;
    table_insert(&learning->cells, &cell->by_key);
    list_append(&learning->by_use, &cell->by_use);
    learning->counts[key->tenant]++;
    return cell;
}

struct learning_cell *learning_touch(struct learning *learning, const struct learning_key *key)
{
    struct learning_cell *cell = learning_find(learning, key);
    if (cell == NULL) {
        return make(learning, key);
    }
    list_remove(&learning->by_use, &cell->by_use);
    list_append(&learning->by_use, &cell->by_use);
    return cell;
}

/* ---- what they say ---- */

void learning_note(struct learning_cell *cell, double score, double complexity)
{
    const double kept = exp2(-1.0 / LEARNING_HALF_LIFE);
    cell->good = cell->good * kept + score;
    cell->bad = cell->bad * kept + (1 - score);
    cell->complexity = cell->complexity * kept + choice_complexity(complexity);
}

static double off_the_ends(double chance)
{
    return fmin(fmax(chance, CHANCE_LEAST), 1 - CHANCE_LEAST);
}

struct learned learning_read(const struct learning_cell *cell, double grade, double complexity)
{
    static const struct learning_cell none = {.good = 0};
    const struct learning_cell *seen = cell == NULL ? &none : cell;
    const double good = seen->good, bad = seen->bad;
    const double weight = good + bad;
    const double at = weight > 0 ? seen->complexity / weight : complexity;
    const double promised = off_the_ends(choice_chance(at, grade));
    const double a = LEARNING_PRIOR * promised + good, b = LEARNING_PRIOR * (1 - promised) + bad;
    const double mean = a / (a + b);
    const double grades = choice_grades_between(promised, off_the_ends(mean));
    /* Where the promise is nearly 1 or 0 a little less or more of it is many grades. */
    const double most = LEARNING_GRADES_MAX * weight / (weight + LEARNING_PRIOR);
    return (struct learned){
        .grades = fmin(fmax(grades, -most), most),
        .unsure = sqrt(mean * (1 - mean) / (a + b + 1)),
    };
}
