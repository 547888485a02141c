/*
 * large_page: 2 MiB of memory that the kernel can back with one page of that size. What is looked up at random in hundreds of
 * megabytes would otherwise walk through page tables, which are themselves not in the cache, at each look.
 */
#pragma once

enum { LARGE_PAGE_BYTES = 2 << 20 };

/* Aligned to its size, content undefined, to be released with free(). NULL: no memory. */
void *large_page_alloc(void);
