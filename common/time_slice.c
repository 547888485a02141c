/* glibc knows sched_setattr from 2.41 on; the kernel's number and structure are older and stable.
 */
#include "common/time_slice.h"
#include <sched.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/sched/types.h, first version: that header and glibc's sched.h exclude each other. */
struct attributes {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns; /* under SCHED_OTHER: the slice */
    uint64_t deadline_ns;
    uint64_t period_ns;
};

static bool read_attributes(struct attributes *ret_attributes)
{
    return syscall(SYS_sched_getattr, 0, ret_attributes, sizeof(*ret_attributes), 0) == 0 &&
           ret_attributes->policy == SCHED_OTHER;
}

void time_slice_set(uint64_t slice_ns)
{
    struct attributes attributes = {.size = sizeof(attributes)};
    if (!read_attributes(&attributes)) {
        return;
    }
    attributes.size = sizeof(attributes);
    attributes.runtime_ns = slice_ns;
    (void)syscall(SYS_sched_setattr, 0, &attributes, 0);
}

uint64_t time_slice_shorten(void)
{
    struct attributes attributes = {.size = sizeof(attributes)};
    const uint64_t before_ns = read_attributes(&attributes) ? attributes.runtime_ns : 0;
    time_slice_set(TIME_SLICE_SHORT_NS);
    return before_ns;
}
