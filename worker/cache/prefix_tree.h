/*
 * prefix_tree: a fixed set of words with a number each; finds those that a text begins with.
 *
 * Children of a node lie side by side, their labels in an array of bytes of their own: a step is
 * one memchr, 13 bytes a node. Immutable once built; building sorts and takes 12 more bytes a node
 * for a while.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum { PREFIX_TREE_WORD_BYTES_MAX = 1024 };

struct prefix_tree;

struct prefix_word {
    const char *text; /* not terminated, not empty */
    uint32_t bytes;
    uint32_t value; /* below INT32_MAX */
};

/*
 * Sorts `words`; keeps nothing of them. Of two equal words the one with the higher value stays.
 * Errors: -EINVAL a word is empty or longer than PREFIX_TREE_WORD_BYTES_MAX; -ENOMEM.
 */
MUST_USE int prefix_tree_create(struct prefix_word *words, size_t length,
                                struct prefix_tree **ret_tree);
void prefix_tree_destroy(struct prefix_tree **tree);

/* A walk along a text. */
struct prefix_walk {
    const struct prefix_tree *tree;
    uint32_t node;
};

struct prefix_walk prefix_walk_begin(const struct prefix_tree *tree);
/*
 * One byte further.
 * Gives: the value of the word that ends with this byte, or -1: none does.
 * Errors: -ENOENT no word goes on like this; the walk is over.
 */
MUST_USE int prefix_walk_step(struct prefix_walk *walk, unsigned char byte, int32_t *ret_value);

/* The longest word that the text begins with: its bytes, 0 for none. */
size_t prefix_tree_longest(const struct prefix_tree *tree, const char *text, size_t bytes,
                           uint32_t *ret_value);
