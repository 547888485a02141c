/* glibc knows sched_setattr from 2.41 on; the kernel's number and structure are older and stable.
 */
#include "common/time_slice.h"
#include <sched.h>
#include <stdint.h>
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

void time_slice_shorten(void)
{
    struct attributes attributes = {.size = sizeof(attributes)};
    if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0 ||
        attributes.policy != SCHED_OTHER) {
        return;
    }
    attributes.size = sizeof(attributes);
    attributes.runtime_ns = TIME_SLICE_SHORT_NS;
    (void)syscall(SYS_sched_setattr, 0, &attributes, 0);
}
