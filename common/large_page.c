#include "common/large_page.h"
#include <stdlib.h>
#include <sys/mman.h>

void *large_page_alloc(void)
{
    void *page = aligned_alloc(LARGE_PAGE_BYTES, LARGE_PAGE_BYTES);
    if (page != NULL) {
        (void)madvise(page, LARGE_PAGE_BYTES, MADV_HUGEPAGE); /* refused: small pages do as well */
    }
    return page;
}
