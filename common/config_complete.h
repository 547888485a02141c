/* config_complete: what the file leaves open, and what only the whole shows. Private to
 * common/config*.c. */
#pragma once
#include "common/config_walk.h"

/*
 * Adds the default lists that were not given and the route `auto`, checks every name that refers to
 * another entry, and derives the values that stand in for missing ones. `given`: a bit for each key
 * of `root`.
 */
void config_complete(struct reader *reader, const yaml_node_t *root, uint64_t given,
                     struct config *config);
