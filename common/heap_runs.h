/*
 * heap_runs: the part of a heap that came in order. Private to heap.c.
 *
 * Most of what a long queue holds is pushed with keys that grow: jobs by their age, deadlines that are equally far away. In a tree
 * each of them would come out by way of ten others, all somewhere in memory. A run is a list of chunks in order of their keys:
 * pushed at its end, popped at its begin, both O(1) and next to each other, with any number of elements. There are a few runs,
 * since there are a few priorities and a few usual deadlines; what fits none is left to the tree.
 *
 * An element that leaves from the middle leaves a gap. A chunk that is mostly gaps gives the rest to the tree, so that memory is
 * proportional to what is in the runs, whatever stays how long.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

struct heap_node {
    uint64_t key;
    void *element;
};

struct heap_runs;

/* NULL: no memory. */
struct heap_runs *heap_runs_create(void);
void heap_runs_destroy(struct heap_runs **runs);
/* False: its key fits no run, or there is no memory. *ret_position: to be given to the functions below. */
MUST_USE bool heap_runs_push(struct heap_runs *runs, struct heap_node node, uint32_t *ret_position);
/* The node with the smallest key; NULL: none. Valid until the next push or removal. */
const struct heap_node *heap_runs_first(const struct heap_runs *runs);
/* Whether this is a position in runs at all, and the element is at it. */
bool heap_runs_contain(const struct heap_runs *runs, uint32_t position, const void *element);
/* How many have a smaller key: exact up to so many of each run, and beyond them as if its keys were spread evenly. */
uint32_t heap_runs_count_below(const struct heap_runs *runs, uint64_t key, uint32_t looked_at_max);
/* `evict` is called for each element that has to leave its chunk with it. */
void heap_runs_remove(struct heap_runs *runs, uint32_t position,
                      void (*evict)(void *context, struct heap_node node), void *context);
