/*
 * What is hard here is destruction inside handlers: epoll has already named the sources of this
 * turn when one of them destroys another. A destroyed source is silent at once, and its memory
 * rests on a list until the turn ends.
 */
#include "common/loop.h"
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "common/clock.h"
#include "common/heap.h"
#include "common/list.h"

enum { EVENTS_PER_TURN = 256 };

static const int64_t NEVER_MS = INT64_MAX;
static const int64_t NOW_MS = INT64_MIN;

enum { LOOP_TIMES = LOOP_BEFORE_SLEEP + 1 };

struct loop_source {
    struct loop *loop;
    int fd;
    loop_io_fn *handler; /* NULL: destroyed, or one of the loop's own */
    void *context;
    struct list_link link; /* in dead */
};

struct loop_task {
    struct loop *loop;
    enum loop_time when;
    loop_fn *handler;
    void *context;
    struct list_link link; /* in loop->tasks[when] */
    bool is_asked;
};

struct loop_timer {
    struct loop *loop;
    loop_fn *handler;
    void *context;
    uint32_t position; /* in loop->timers */
};

struct turn_handler {
    loop_fn *handler;
    void *context;
};

struct loop {
    int epoll_fd;
    int wake_fd;
    int timer_fd;  /* for loop_fd() only: turns of our own wait with epoll's timeout */
    int signal_fd; /* -1: signals are not watched */
    bool is_in_turn;
    bool is_stopped;
    bool is_again;
    bool is_embedded; /* loop_fd() was called */
    int64_t armed_ms; /* what timer_fd stands at */
    int64_t now_ms;
    struct heap timers;
    uint32_t n_timers;             /* that exist, on or off */
    struct list tasks[LOOP_TIMES]; /* that were asked for */
    struct list dead;
    struct turn_handler turn_handlers[LOOP_TURN_HANDLERS_MAX];
    size_t n_turn_handlers;
    struct loop_source wake_source;
    struct loop_source timer_source;
    struct loop_source *signal_source;
    void (*signal_handler)(void *context, int signal_number);
    void *signal_context;
    sigset_t signals_before;
};

static void close_fd(int fd)
{
    if (fd >= 0) {
        (void)close(fd); /* nothing was written to it that could be lost */
    }
}

/* Empties an eventfd or timerfd; -EAGAIN only says that it is empty already. */
static void drain_counter(int fd)
{
    uint64_t count;
    if (read(fd, &count, sizeof(count)) < 0) {
        assert(errno == EAGAIN || errno == EINTR || errno == ECANCELED);
    }
}

static int epoll_add(struct loop *loop, int fd, uint32_t events, struct loop_source *source)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* ---- sleeping and being woken ---- */

/* The time of the next turn that nothing from outside asks for. */
static int64_t soonest_ms(const struct loop *loop)
{
    if (loop->is_again || loop->tasks[LOOP_AFTER_EVENTS].length > 0 ||
        loop->tasks[LOOP_BEFORE_SLEEP].length > 0) {
        return NOW_MS;
    }
    return loop->timers.length == 0 ? NEVER_MS : heap_ms_from_key(heap_peek_key(&loop->timers));
}

/* Keeps loop_fd() honest. A time that is past makes a timerfd readable at once; zero would turn it
 * off. */
static void arm_timer_fd(struct loop *loop)
{
    const int64_t at_ms = soonest_ms(loop);
    if (!loop->is_embedded || loop->is_in_turn || at_ms == loop->armed_ms) {
        return;
    }
    struct itimerspec when = {0};
    if (at_ms <= 0) {
        when.it_value.tv_nsec = 1;
    } else if (at_ms != NEVER_MS) {
        when.it_value.tv_sec = at_ms / 1000;
        when.it_value.tv_nsec = at_ms % 1000 * 1000000 + 1;
    }
    const int r = timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
    assert(r == 0);
    loop->armed_ms = at_ms;
}

int loop_timeout_ms(const struct loop *loop)
{
    const int64_t at_ms = soonest_ms(loop);
    if (at_ms == NEVER_MS) {
        return -1;
    }
    const int64_t now_ms = clock_monotonic_ms();
    if (at_ms <= now_ms) {
        return 0;
    }
    return at_ms - now_ms < INT_MAX ? (int)(at_ms - now_ms) : INT_MAX;
}

void loop_again(struct loop *loop)
{
    loop->is_again = true;
    arm_timer_fd(loop);
}

void loop_wake(struct loop *loop)
{
    const int errno_before = errno; /* a signal handler may not change it */
    const uint64_t one = 1;
    if (write(loop->wake_fd, &one, sizeof(one)) < 0) {
        assert(errno == EAGAIN); /* it is readable already */
    }
    errno = errno_before;
}

/* ---- sources ---- */

int loop_watch(struct loop *loop, int fd, uint32_t events, loop_io_fn *handler, void *context,
               struct loop_source **ret_source)
{
    struct loop_source *source = calloc(1, sizeof(*source));
    if (source == NULL) {
        return -ENOMEM;
    }
    *source = (struct loop_source){.loop = loop, .fd = fd, .handler = handler, .context = context};
    const int r = epoll_add(loop, fd, events, source);
    if (r < 0) {
        free(source);
        return r;
    }
    *ret_source = source;
    return 0;
}

int loop_source_set_events(struct loop_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0 ? -errno : 0;
}

void loop_source_destroy(struct loop_source **source)
{
    struct loop_source *gone = TAKE(*source);
    if (gone == NULL) {
        return;
    }
    /* Fails only when the descriptor was closed before, against the contract; epoll has forgotten
     * it then. */
    (void)epoll_ctl(gone->loop->epoll_fd, EPOLL_CTL_DEL, gone->fd, NULL);
    gone->handler = NULL;
    if (gone->loop->is_in_turn) {
        list_append(&gone->loop->dead, &gone->link);
    } else {
        free(gone);
    }
}

static void bury(struct loop *loop)
{
    while (!list_is_empty(&loop->dead)) {
        struct list_link *link = list_first(&loop->dead);
        list_remove(&loop->dead, link);
        free(CONTAINER_OF(link, struct loop_source, link));
    }
}

/* ---- tasks ---- */

int loop_task_create(struct loop *loop, enum loop_time when, loop_fn *handler, void *context,
                     struct loop_task **ret_task)
{
    struct loop_task *task = calloc(1, sizeof(*task));
    if (task == NULL) {
        return -ENOMEM;
    }
    *task = (struct loop_task){.loop = loop, .when = when, .handler = handler, .context = context};
    *ret_task = task;
    return 0;
}

void loop_task_ask(struct loop_task *task)
{
    if (!task->is_asked) {
        task->is_asked = true;
        list_append(&task->loop->tasks[task->when], &task->link);
        arm_timer_fd(task->loop);
    }
}

static void withdraw(struct loop_task *task)
{
    if (task->is_asked) {
        task->is_asked = false;
        list_remove(&task->loop->tasks[task->when], &task->link);
    }
}

void loop_task_destroy(struct loop_task **task)
{
    struct loop_task *gone = TAKE(*task);
    if (gone != NULL) {
        withdraw(gone);
        arm_timer_fd(gone->loop);
        free(gone);
    }
}

/* One that asks for itself, or for another, waits for the next turn, or this one would never end.
 */
static void do_tasks(struct loop *loop, enum loop_time when)
{
    struct list *asked = &loop->tasks[when];
    for (size_t left = asked->length; left > 0 && !list_is_empty(asked); left--) {
        struct loop_task *task = CONTAINER_OF(list_first(asked), struct loop_task, link);
        withdraw(task);
        task->handler(task->context); /* may destroy the task */
    }
}

void loop_settle(struct loop *loop)
{
    do_tasks(loop, LOOP_BEFORE_SLEEP);
    arm_timer_fd(loop);
}

/* ---- timers ---- */

int loop_timer_create(struct loop *loop, loop_fn *handler, void *context,
                      struct loop_timer **ret_timer)
{
    /* Room for all timers that exist, so that setting one cannot fail. */
    const int r = heap_reserve(&loop->timers, loop->n_timers + 1 - loop->timers.length);
    if (r < 0) {
        return r;
    }
    struct loop_timer *timer = calloc(1, sizeof(*timer));
    if (timer == NULL) {
        return -ENOMEM;
    }
    *timer = (struct loop_timer){
        .loop = loop, .handler = handler, .context = context, .position = HEAP_NONE};
    loop->n_timers++;
    *ret_timer = timer;
    return 0;
}

static void take_off(struct loop_timer *timer)
{
    if (heap_contains(&timer->loop->timers, timer)) {
        heap_remove(&timer->loop->timers, timer);
    }
}

void loop_timer_set(struct loop_timer *timer, int64_t at_ms)
{
    take_off(timer);
    const int r = heap_push(&timer->loop->timers, timer, heap_key_from_ms(at_ms));
    assert(r == 0);
    arm_timer_fd(timer->loop);
}

void loop_timer_stop(struct loop_timer *timer)
{
    take_off(timer);
    arm_timer_fd(timer->loop);
}

void loop_timer_destroy(struct loop_timer **timer)
{
    struct loop_timer *gone = TAKE(*timer);
    if (gone == NULL) {
        return;
    }
    loop_timer_stop(gone);
    gone->loop->n_timers--;
    free(gone);
}

/* A timer that a handler sets into the past waits for the next turn, or the turn would never end.
 */
static void call_due_timers(struct loop *loop)
{
    for (uint32_t left = loop->timers.length; left > 0; left--) {
        if (loop->timers.length == 0 ||
            heap_ms_from_key(heap_peek_key(&loop->timers)) > loop->now_ms) {
            return;
        }
        const struct loop_timer *timer = heap_pop(&loop->timers);
        timer->handler(timer->context); /* may destroy the timer */
    }
}

/* ---- signals ---- */

static void on_signal(void *context, uint32_t events)
{
    struct loop *loop = context;
    (void)events;
    struct signalfd_siginfo info;
    while (read(loop->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        loop->signal_handler(loop->signal_context, (int)info.ssi_signo);
    }
}

int loop_watch_signals(struct loop *loop, void (*handler)(void *context, int signal_number),
                       void *context)
{
    if (loop->signal_fd >= 0) {
        return -EEXIST;
    }
    sigset_t signals;
    if (sigemptyset(&signals) < 0 || sigaddset(&signals, SIGTERM) < 0 ||
        sigaddset(&signals, SIGINT) < 0 || sigaddset(&signals, SIGHUP) < 0) {
        return -errno;
    }
    const int fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) {
        return -errno;
    }
    int r = loop_watch(loop, fd, EPOLLIN, on_signal, loop, &loop->signal_source);
    if (r == 0) {
        r = -pthread_sigmask(SIG_BLOCK, &signals, &loop->signals_before);
    }
    if (r < 0) {
        loop_source_destroy(&loop->signal_source);
        close_fd(fd);
        return r;
    }
    loop->signal_fd = fd;
    loop->signal_handler = handler;
    loop->signal_context = context;
    return 0;
}

static void unwatch_signals(struct loop *loop)
{
    if (loop->signal_fd < 0) {
        return;
    }
    loop_source_destroy(&loop->signal_source);
    close_fd(loop->signal_fd);
    (void)pthread_sigmask(SIG_SETMASK, &loop->signals_before, NULL);
}

/* ---- the loop ---- */

static int open_descriptors(struct loop *loop)
{
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        return -errno;
    }
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0) {
        return -errno;
    }
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (loop->timer_fd < 0) {
        return -errno;
    }
    const int r = epoll_add(loop, loop->wake_fd, EPOLLIN, &loop->wake_source);
    return r < 0 ? r : epoll_add(loop, loop->timer_fd, EPOLLIN, &loop->timer_source);
}

int loop_create(struct loop **ret_loop)
{
    CLEANUP(loop_destroy) struct loop *loop = calloc(1, sizeof(*loop));
    if (loop == NULL) {
        return -ENOMEM;
    }
    loop->epoll_fd = loop->wake_fd = loop->timer_fd = loop->signal_fd = -1;
    loop->armed_ms = NEVER_MS;
    loop->now_ms = clock_monotonic_ms();
    heap_init(&loop->timers, offsetof(struct loop_timer, position));
    list_init(&loop->tasks[LOOP_AFTER_EVENTS]);
    list_init(&loop->tasks[LOOP_BEFORE_SLEEP]);
    list_init(&loop->dead);
    const int r = open_descriptors(loop);
    if (r < 0) {
        return r;
    }
    *ret_loop = TAKE(loop);
    return 0;
}

void loop_destroy(struct loop **loop)
{
    struct loop *gone = TAKE(*loop);
    if (gone == NULL) {
        return;
    }
    unwatch_signals(gone);
    assert(gone->n_timers == 0);
    heap_finish(&gone->timers);
    close_fd(gone->timer_fd);
    close_fd(gone->wake_fd);
    close_fd(gone->epoll_fd);
    free(gone);
}

int loop_add_turn_handler(struct loop *loop, loop_fn *handler, void *context)
{
    if (loop->n_turn_handlers == LOOP_TURN_HANDLERS_MAX) {
        return -ENOBUFS;
    }
    loop->turn_handlers[loop->n_turn_handlers++] =
        (struct turn_handler){.handler = handler, .context = context};
    return 0;
}

int64_t loop_now_ms(const struct loop *loop)
{
    return loop->now_ms;
}

static void handle_event(struct loop *loop, const struct epoll_event *event)
{
    struct loop_source *source = event->data.ptr;
    if (source == &loop->wake_source) {
        drain_counter(loop->wake_fd);
    } else if (source == &loop->timer_source) {
        drain_counter(loop->timer_fd);
        loop->armed_ms = NEVER_MS;
    } else if (source->handler != NULL) {
        source->handler(source->context, event->events);
    }
}

static int wait_ms(const struct loop *loop, int timeout_ms)
{
    const int due_ms = loop_timeout_ms(loop);
    if (due_ms < 0) {
        return timeout_ms;
    }
    return timeout_ms < 0 || due_ms < timeout_ms ? due_ms : timeout_ms;
}

int loop_turn(struct loop *loop, int timeout_ms)
{
    assert(!loop->is_in_turn);
    do_tasks(loop, LOOP_BEFORE_SLEEP);
    struct epoll_event events[EVENTS_PER_TURN];
    const int n = epoll_wait(loop->epoll_fd, events, EVENTS_PER_TURN, wait_ms(loop, timeout_ms));
    if (n < 0 && errno != EINTR) {
        return -errno;
    }
    loop->is_in_turn = true;
    loop->is_again = false;
    loop->now_ms = clock_monotonic_ms();
    for (int i = 0; i < n; i++) {
        handle_event(loop, &events[i]);
    }
    do_tasks(loop, LOOP_AFTER_EVENTS);
    call_due_timers(loop);
    for (size_t i = 0; i < loop->n_turn_handlers; i++) {
        loop->turn_handlers[i].handler(loop->turn_handlers[i].context);
    }
    do_tasks(loop, LOOP_BEFORE_SLEEP);
    loop->is_in_turn = false;
    bury(loop);
    arm_timer_fd(loop);
    return 0;
}

int loop_run(struct loop *loop)
{
    int r = 0;
    while (!loop->is_stopped && r == 0) {
        r = loop_turn(loop, -1);
    }
    loop->is_stopped = false;
    return r;
}

void loop_stop(struct loop *loop)
{
    loop->is_stopped = true;
}

int loop_fd(struct loop *loop)
{
    loop->is_embedded = true;
    arm_timer_fd(loop);
    return loop->epoll_fd;
}
