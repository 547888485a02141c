/*
 * Built breadth first over the sorted words: a node stands for a range of them that share its
 * bytes; its children are the ranges with the same next byte. So children are made one after the
 * other, and no recursion is needed.
 */
#include "worker/cache/prefix_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct node {
    uint32_t first_child;
    int32_t value; /* -1: no word ends here */
    uint16_t children;
};

struct prefix_tree {
    struct node *nodes;
    uint8_t *labels; /* of the nodes: the byte that leads to each */
    uint32_t length;
};

/* While it is built: which words a node stands for. */
struct range {
    uint32_t from;
    uint32_t to;
    uint32_t depth;
};

static int compare(const void *a, const void *b)
{
    const struct prefix_word *first = a;
    const struct prefix_word *second = b;
    const size_t shorter = first->bytes < second->bytes ? first->bytes : second->bytes;
    const int order = memcmp(first->text, second->text, shorter);
    if (order != 0) {
        return order;
    }
    if (first->bytes != second->bytes) {
        return first->bytes < second->bytes ? -1 : 1;
    }
    return first->value < second->value ? -1 : first->value > second->value;
}

/* Nodes of the tree: a new one for each byte that a word does not share with the one before. */
static size_t count_nodes(const struct prefix_word *words, size_t length)
{
    size_t nodes = 1;
    for (size_t i = 0; i < length; i++) {
        size_t shared = 0;
        while (i > 0 && shared < words[i].bytes && shared < words[i - 1].bytes &&
               words[i].text[shared] == words[i - 1].text[shared]) {
            shared++;
        }
        nodes += words[i].bytes - shared;
    }
    return nodes;
}

static void grow_children(struct prefix_tree *tree, const struct prefix_word *words,
                          struct range *ranges, uint32_t at)
{
    struct node *node = &tree->nodes[at];
    const struct range range = ranges[at];
    uint32_t from = range.from;
    node->value = -1;
    node->first_child = tree->length;
    /* Those that end here are the first of the range; the last of them has the highest value. */
    while (from < range.to && words[from].bytes == range.depth) {
        node->value = (int32_t)words[from++].value;
    }
    while (from < range.to) {
        const char label = words[from].text[range.depth];
        uint32_t to = from + 1;
        while (to < range.to && words[to].text[range.depth] == label) {
            to++;
        }
        tree->labels[tree->length] = (uint8_t)label;
        ranges[tree->length++] = (struct range){from, to, range.depth + 1};
        node->children++;
        from = to;
    }
}

int prefix_tree_create(struct prefix_word *words, size_t length, struct prefix_tree **ret_tree)
{
    for (size_t i = 0; i < length; i++) {
        if (words[i].bytes == 0 || words[i].bytes > PREFIX_TREE_WORD_BYTES_MAX ||
            words[i].value >= INT32_MAX) {
            return -EINVAL;
        }
    }
    if (length >= UINT32_MAX / PREFIX_TREE_WORD_BYTES_MAX) {
        return -EINVAL;
    }
    if (length > 0) {
        qsort(words, length, sizeof(*words), compare);
    }
    CLEANUP(prefix_tree_destroy) struct prefix_tree *tree = calloc(1, sizeof(*tree));
    if (tree == NULL) {
        return -ENOMEM;
    }
    const size_t nodes = count_nodes(words, length);
    tree->nodes = calloc(nodes, sizeof(*tree->nodes));
    tree->labels = calloc(nodes, 1);
    struct range *ranges = calloc(nodes, sizeof(*ranges));
    if (tree->nodes == NULL || tree->labels == NULL || ranges == NULL) {
        free(ranges);
        return -ENOMEM;
    }
    ranges[0] = (struct range){0, (uint32_t)length, 0};
    tree->length = 1;
    for (uint32_t at = 0; at < tree->length; at++) {
        grow_children(tree, words, ranges, at);
    }
    free(ranges);
    *ret_tree = TAKE(tree);
    return 0;
}

void prefix_tree_destroy(struct prefix_tree **tree)
{
    struct prefix_tree *old = TAKE(*tree);
    if (old == NULL) {
        return;
    }
    free(old->nodes);
    free(old->labels);
    free(old);
}

struct prefix_walk prefix_walk_begin(const struct prefix_tree *tree)
{
    return (struct prefix_walk){.tree = tree};
}

int prefix_walk_step(struct prefix_walk *walk, unsigned char byte, int32_t *ret_value)
{
    const struct prefix_tree *tree = walk->tree;
    const struct node *node = &tree->nodes[walk->node];
    if (node->children == 0) {
        return -ENOENT;
    }
    const uint8_t *labels = tree->labels + node->first_child;
    /* Most nodes have one child, and a call costs more than a look at it. */
    const uint8_t *found = labels[0] == byte ? labels : memchr(labels, byte, node->children);
    if (found == NULL) {
        return -ENOENT;
    }
    walk->node = node->first_child + (uint32_t)(found - labels);
    *ret_value = tree->nodes[walk->node].value;
    return 0;
}

size_t prefix_tree_longest(const struct prefix_tree *tree, const char *text, size_t bytes,
                           uint32_t *ret_value)
{
    struct prefix_walk walk = prefix_walk_begin(tree);
    size_t longest = 0;
    int32_t value;
    for (size_t at = 0; at < bytes; at++) {
        if (prefix_walk_step(&walk, (unsigned char)text[at], &value) < 0) {
            break;
        }
        if (value >= 0) {
            longest = at + 1;
            *ret_value = (uint32_t)value;
        }
    }
    return longest;
}
