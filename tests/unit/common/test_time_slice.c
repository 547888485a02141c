#include <criterion/criterion.h>
#include <sched.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/time_slice.h"

/* As the kernel has it: its slice is the fourth of eight bytes. */
static uint64_t slice_ns(void)
{
    uint64_t attributes[6] = {0};
    cr_assert_eq(syscall(SYS_sched_getattr, 0, attributes, sizeof(attributes), 0), 0);
    return attributes[3];
}

Test(time_slice, policy_and_niceness_stay)
{
    cr_assert_eq(setpriority(PRIO_PROCESS, 0, 5), 0);
    time_slice_shorten();
    cr_assert_eq(getpriority(PRIO_PROCESS, 0), 5);
    cr_assert_eq(sched_getscheduler(0), SCHED_OTHER);
}

Test(time_slice, a_thread_of_another_policy_is_left_alone)
{
    const struct sched_param none = {.sched_priority = 0};
    cr_assert_eq(sched_setscheduler(0, SCHED_IDLE, &none), 0);
    const uint64_t before_ns = slice_ns();
    time_slice_shorten();
    cr_assert_eq(sched_getscheduler(0), SCHED_IDLE);
    cr_assert_eq(slice_ns(), before_ns);
}

/* Where the kernel gives slices; elsewhere it says 0 before and after. */
Test(time_slice, it_is_short)
{
    const uint64_t before_ns = slice_ns();
    time_slice_shorten();
    cr_assert_eq(slice_ns(), before_ns == 0 ? 0 : TIME_SLICE_SHORT_NS);
}
