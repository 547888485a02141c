/* remove_tree: a test's directory with all that is in it, at its end. */
#pragma once
#include <ftw.h>
#include <stdio.h>

static inline int remove_tree_one(const char *file, const struct stat *status, int kind, struct FTW *ftw)
{
    (void)status;
    (void)kind;
    (void)ftw;
    return remove(file);
}

static inline void remove_tree(const char *directory)
{
    (void)nftw(directory, remove_tree_one, 16, FTW_DEPTH | FTW_PHYS);
}
