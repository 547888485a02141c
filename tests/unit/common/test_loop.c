#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#include "common/clock.h"
#include "common/loop.h"

struct counter {
    struct loop *loop;
    struct loop_source *source, *other;
    struct loop_timer *timer;
    struct loop_task *task;
    int fd;
    int calls;
    int last;
};

static struct loop *make_loop(void)
{
    struct loop *loop = NULL;
    cr_assert_eq(loop_create(&loop), 0);
    return loop;
}

static void make_pipe(int pipe_fds[2])
{
    cr_assert_eq(pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC), 0);
}

static void put_byte(int fd)
{
    cr_assert_eq(write(fd, "x", 1), 1);
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd item = {.fd = fd, .events = POLLIN};
    return poll(&item, 1, timeout_ms) == 1;
}

static void count(void *context)
{
    ((struct counter *)context)->calls++;
}

static void count_io(void *context, uint32_t events)
{
    struct counter *counter = context;
    counter->calls++;
    counter->last = (int)events;
}

static void read_byte(void *context, uint32_t events)
{
    struct counter *counter = context;
    char byte;
    (void)events;
    cr_assert_eq(read(counter->fd, &byte, 1), 1);
    counter->calls++;
}

Test(loop, readable_descriptor_calls_its_handler)
{
    struct loop *loop = make_loop();
    struct counter counter = {0};
    int pipe_fds[2];
    make_pipe(pipe_fds);
    counter.fd = pipe_fds[0];
    cr_assert_eq(loop_watch(loop, pipe_fds[0], EPOLLIN, read_byte, &counter, &counter.source), 0);
    cr_assert_eq(loop_turn(loop, 0), 0);
    cr_assert_eq(counter.calls, 0);
    put_byte(pipe_fds[1]);
    cr_assert_eq(loop_turn(loop, 1000), 0);
    cr_assert_eq(counter.calls, 1);
    cr_assert_eq(loop_turn(loop, 0), 0);
    cr_assert_eq(counter.calls, 1);
    loop_source_destroy(&counter.source);
    loop_destroy(&loop);
}

Test(loop, events_can_be_changed)
{
    struct loop *loop = make_loop();
    struct counter counter = {0};
    int pipe_fds[2];
    make_pipe(pipe_fds);
    cr_assert_eq(loop_watch(loop, pipe_fds[1], 0, count_io, &counter, &counter.source), 0);
    cr_assert_eq(loop_turn(loop, 0), 0);
    cr_assert_eq(counter.calls, 0);
    cr_assert_eq(loop_source_set_events(counter.source, EPOLLOUT), 0);
    cr_assert_eq(loop_turn(loop, 1000), 0);
    cr_assert_eq(counter.calls, 1);
    cr_assert_eq(counter.last, EPOLLOUT);
    loop_source_destroy(&counter.source);
    loop_destroy(&loop);
}

static void destroy_both(void *context, uint32_t events)
{
    struct counter *counter = context;
    (void)events;
    counter->calls++;
    loop_source_destroy(&counter->source);
    loop_source_destroy(&counter->other);
}

/* Both are ready in the same turn, and whichever comes first destroys both: only one call may
 * follow. */
Test(loop, a_handler_may_destroy_itself_and_others)
{
    struct loop *loop = make_loop();
    struct counter counter = {0};
    int one[2], two[2];
    make_pipe(one);
    make_pipe(two);
    cr_assert_eq(loop_watch(loop, one[0], EPOLLIN, destroy_both, &counter, &counter.source), 0);
    cr_assert_eq(loop_watch(loop, two[0], EPOLLIN, destroy_both, &counter, &counter.other), 0);
    put_byte(one[1]);
    put_byte(two[1]);
    cr_assert_eq(loop_turn(loop, 1000), 0);
    cr_assert_eq(loop_turn(loop, 0), 0);
    cr_assert_eq(counter.calls, 1);
    loop_destroy(&loop);
}

Test(loop, a_timer_fires_once_and_not_early)
{
    struct loop *loop = make_loop();
    struct counter counter = {0};
    cr_assert_eq(loop_timer_create(loop, count, &counter, &counter.timer), 0);
    const int64_t at_ms = clock_monotonic_ms() + 20;
    loop_timer_set(counter.timer, at_ms);
    while (counter.calls == 0) {
        cr_assert_eq(loop_turn(loop, -1), 0);
        cr_assert(counter.calls == 0 || loop_now_ms(loop) >= at_ms);
    }
    cr_assert_geq(clock_monotonic_ms(), at_ms);
    cr_assert_eq(loop_timeout_ms(loop), -1);
    cr_assert_eq(loop_turn(loop, 0), 0);
    cr_assert_eq(counter.calls, 1);
    loop_timer_destroy(&counter.timer);
    loop_destroy(&loop);
}

Test(loop, a_stopped_timer_does_not_fire)
{
    struct loop *loop = make_loop();
    struct counter counter = {0};
    cr_assert_eq(loop_timer_create(loop, count, &counter, &counter.timer), 0);
    loop_timer_set(counter.timer, 0);
    loop_timer_stop(counter.timer);
    cr_assert_eq(loop_turn(loop, 0), 0);
    cr_assert_eq(counter.calls, 0);
    loop_timer_destroy(&counter.timer);
    loop_destroy(&loop);
}

static void set_into_the_past(void *context)
{
    struct counter *counter = context;
    counter->calls++;
    loop_timer_set(counter->timer, 0);
}

Test(loop, a_timer_set_into_the_past_waits_for_the_next_turn)
{
    struct loop *loop = make_loop();
    struct counter counter = {0};
    cr_assert_eq(loop_timer_create(loop, set_into_the_past, &counter, &counter.timer), 0);
    loop_timer_set(counter.timer, -1);
    for (int turn = 1; turn <= 3; turn++) {
        cr_assert_eq(loop_turn(loop, -1), 0);
        cr_assert_eq(counter.calls, turn);
    }
    loop_timer_destroy(&counter.timer);
    loop_destroy(&loop);
}

static void destroy_timer(void *context)
{
    struct counter *counter = context;
    counter->calls++;
    loop_timer_destroy(&counter->timer);
}

Test(loop, a_timer_may_destroy_itself)
{
    struct loop *loop = make_loop();
    struct counter counter = {0};
    cr_assert_eq(loop_timer_create(loop, destroy_timer, &counter, &counter.timer), 0);
    loop_timer_set(counter.timer, 0);
    cr_assert_eq(loop_turn(loop, -1), 0);
    cr_assert_eq(counter.calls, 1);
    loop_destroy(&loop);
}

struct order {
    char text[16];
    size_t length;
};

static void note_a(void *context)
{
    struct order *order = context;
    order->text[order->length++] = 'a';
}

static void note_b(void *context)
{
    struct order *order = context;
    order->text[order->length++] = 'b';
}

static void note_t(void *context)
{
    struct order *order = context;
    order->text[order->length++] = 't';
}

Test(loop, turn_handlers_run_in_order_after_the_timers)
{
    struct loop *loop = make_loop();
    struct order order = {{0}, 0};
    struct loop_timer *timer = NULL;
    cr_assert_eq(loop_add_turn_handler(loop, note_a, &order), 0);
    cr_assert_eq(loop_add_turn_handler(loop, note_b, &order), 0);
    cr_assert_eq(loop_timer_create(loop, note_t, &order, &timer), 0);
    loop_timer_set(timer, 0);
    cr_assert_eq(loop_turn(loop, 0), 0);
    cr_assert_str_eq(order.text, "tab");
    loop_timer_destroy(&timer);
    loop_destroy(&loop);
}

Test(loop, takes_a_bounded_number_of_turn_handlers)
{
    struct loop *loop = make_loop();
    struct counter counter = {0};
    for (int i = 0; i < LOOP_TURN_HANDLERS_MAX; i++) {
        cr_assert_eq(loop_add_turn_handler(loop, count, &counter), 0);
    }
    cr_assert_eq(loop_add_turn_handler(loop, count, &counter), -ENOBUFS);
    loop_destroy(&loop);
}

static void again_twice(void *context)
{
    struct counter *counter = context;
    counter->calls++;
    if (counter->calls < 3) {
        loop_again(counter->loop);
    } else {
        loop_stop(counter->loop);
    }
}

/* Would hang if loop_again() did not keep the loop from sleeping: nothing else is going to happen.
 */
Test(loop, again_takes_another_turn_without_waiting, .timeout = 10)
{
    struct loop *loop = make_loop();
    struct counter counter = {.loop = loop};
    cr_assert_eq(loop_add_turn_handler(loop, again_twice, &counter), 0);
    loop_again(loop);
    cr_assert_eq(loop_run(loop), 0);
    cr_assert_eq(counter.calls, 3);
    loop_destroy(&loop);
}

static void *wake_from_outside(void *context)
{
    loop_wake(context);
    return NULL;
}

static void stop(void *context)
{
    loop_stop(context);
}

Test(loop, another_thread_can_wake_it, .timeout = 10)
{
    struct loop *loop = make_loop();
    cr_assert_eq(loop_add_turn_handler(loop, stop, loop), 0);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, wake_from_outside, loop), 0);
    cr_assert_eq(loop_run(loop), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    loop_destroy(&loop);
}

static void note_signal(void *context, int number)
{
    struct counter *counter = context;
    counter->calls++;
    counter->last = number;
}

Test(loop, signals_are_events, .timeout = 10)
{
    struct loop *loop = make_loop();
    struct counter counter = {0};
    cr_assert_eq(loop_watch_signals(loop, note_signal, &counter), 0);
    cr_assert_eq(loop_watch_signals(loop, note_signal, &counter), -EEXIST);
    const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(raise(numbers[i]), 0);
        cr_assert_eq(loop_turn(loop, -1), 0);
        cr_assert_eq(counter.calls, i + 1);
        cr_assert_eq(counter.last, numbers[i]);
    }
    loop_destroy(&loop);
}

Test(loop, its_descriptor_tells_of_timers_wakes_and_turns_asked_for, .timeout = 10)
{
    struct loop *loop = make_loop();
    struct counter counter = {0};
    cr_assert_eq(loop_timer_create(loop, count, &counter, &counter.timer), 0);
    loop_timer_set(counter.timer, clock_monotonic_ms() + 15);
    const int fd = loop_fd(loop);
    cr_assert_not(is_readable(fd, 0));
    cr_assert(is_readable(fd, -1), "the timer is due");
    cr_assert_eq(loop_turn(loop, 0), 0);
    cr_assert_eq(counter.calls, 1);
    cr_assert_not(is_readable(fd, 0));

    loop_again(loop);
    cr_assert(is_readable(fd, 0), "a turn was asked for");
    cr_assert_eq(loop_turn(loop, 0), 0);
    cr_assert_not(is_readable(fd, 0));

    loop_wake(loop);
    cr_assert(is_readable(fd, 0), "it was woken");
    cr_assert_eq(loop_turn(loop, 0), 0);
    cr_assert_not(is_readable(fd, 0));

    loop_timer_set(counter.timer, clock_monotonic_ms() + 1000000);
    loop_timer_stop(counter.timer);
    cr_assert_not(is_readable(fd, 0));
    loop_timer_destroy(&counter.timer);
    loop_destroy(&loop);
}

/* Asks for itself until nothing is left of `fd`. */
static void take_rest(void *context)
{
    struct counter *counter = context;
    counter->calls++;
    if (--counter->fd > 0) {
        loop_task_ask(counter->task);
    }
}

Test(loop, a_task_that_asks_for_itself_is_done_once_a_turn, .timeout = 10)
{
    struct loop *loop = make_loop();
    struct counter counter = {.loop = loop, .fd = 3};
    cr_assert_eq(loop_task_create(loop, LOOP_AFTER_EVENTS, take_rest, &counter, &counter.task), 0);
    cr_assert_eq(loop_timeout_ms(loop), -1);
    loop_task_ask(counter.task);
    loop_task_ask(counter.task);
    for (int turn = 1; turn <= 3; turn++) {
        cr_assert_eq(loop_timeout_ms(loop), 0);
        cr_assert_eq(loop_turn(loop, -1), 0);
        cr_assert_eq(counter.calls, turn);
    }
    cr_assert_eq(loop_timeout_ms(loop), -1, "nothing is left");
    loop_task_destroy(&counter.task);
    loop_destroy(&loop);
}

static void ask_for_task(void *context)
{
    loop_task_ask(((struct counter *)context)->task);
}

Test(loop, what_is_asked_for_by_the_end_of_a_turn_is_done_before_it_sleeps, .timeout = 10)
{
    struct loop *loop = make_loop();
    struct counter counter = {.loop = loop};
    cr_assert_eq(loop_task_create(loop, LOOP_BEFORE_SLEEP, count, &counter, &counter.task), 0);
    cr_assert_eq(loop_add_turn_handler(loop, ask_for_task, &counter), 0);
    cr_assert_eq(loop_turn(loop, 0), 0);
    cr_assert_eq(counter.calls, 1);
    cr_assert_eq(loop_timeout_ms(loop), -1);

    const int fd = loop_fd(loop);
    loop_task_ask(counter.task);
    cr_assert(is_readable(fd, 0), "a loop around this one is told");
    loop_settle(loop);
    cr_assert_eq(counter.calls, 2);
    cr_assert_not(is_readable(fd, 0));

    loop_task_ask(counter.task);
    loop_task_destroy(&counter.task);
    cr_assert_not(is_readable(fd, 0), "a task that is gone is not asked for");
    loop_destroy(&loop);
}

Test(loop, a_descriptor_that_cannot_be_watched_is_refused)
{
    struct loop *loop = make_loop();
    struct counter counter = {0};
    cr_assert_eq(loop_watch(loop, -1, EPOLLIN, count_io, &counter, &counter.source), -EBADF);
    cr_assert_null(counter.source);
    loop_destroy(&loop);
}
