/*
 * loop: the one event loop of a process, on epoll.
 *
 * A turn is: wait for descriptors or the soonest timer; call the ready handlers and what they asked
 * for; call the timers that are due; call the turn handler once; do what was kept for the end.
 * Handlers only take in what arrived; the turn handler does the work of the turn and lets the
 * answers go. Belongs to one thread; only loop_wake() may be called from others and from signal
 * handlers.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include "common/attributes.h"

struct loop;
struct loop_source; /* a watched descriptor */
struct loop_task;
struct loop_timer;

/* `events` are EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP as epoll gave them. */
typedef void loop_io_fn(void *context, uint32_t events);
typedef void loop_fn(void *context);

/* Errors: -ENOMEM, -errno of epoll_create1, eventfd, timerfd_create. */
MUST_USE int loop_create(struct loop **ret_loop);
void loop_destroy(struct loop **loop); /* its sources and timers are destroyed before it */

/* Watches fd (not owned) for `events`; EPOLLET may be given. Errors: -ENOMEM, -errno of epoll_ctl.
 */
MUST_USE int loop_watch(struct loop *loop, int fd, uint32_t events, loop_io_fn *handler,
                        void *context, struct loop_source **ret_source);
MUST_USE int loop_source_set_events(struct loop_source *source, uint32_t events);
/* Safe inside a handler, also for the source being handled. Call before fd is closed. */
void loop_source_destroy(struct loop_source **source);

/*
 * Work that handlers gather and the turn does once, however often it was asked for:
 * LOOP_AFTER_EVENTS when all ready handlers were called, before timers and turn handlers;
 * LOOP_BEFORE_SLEEP when everything else is done, also what was asked for between two turns.
 * Asked for too late, or by a task of its own time, it is done in the next turn, which follows at
 * once. Errors: -ENOMEM.
 */
enum loop_time { LOOP_AFTER_EVENTS, LOOP_BEFORE_SLEEP };
MUST_USE int loop_task_create(struct loop *loop, enum loop_time when, loop_fn *handler,
                              void *context, struct loop_task **ret_task);
void loop_task_ask(struct loop_task *task);
void loop_task_destroy(struct loop_task **task); /* safe inside its own handler */
/* Does now what is asked for LOOP_BEFORE_SLEEP, for those who add to it after a turn. */
void loop_settle(struct loop *loop);

/* A timer that is off until it is set. Errors: -ENOMEM. */
MUST_USE int loop_timer_create(struct loop *loop, loop_fn *handler, void *context,
                               struct loop_timer **ret_timer);
/* Fires once at `at_ms` (monotonic, clock_monotonic_ms()), in the next turn if that is past; set
 * again to move it. */
void loop_timer_set(struct loop_timer *timer, int64_t at_ms);
void loop_timer_stop(struct loop_timer *timer);
void loop_timer_destroy(struct loop_timer **timer); /* safe inside its own handler */

/* Called at the end of each turn; at most LOOP_TURN_HANDLERS_MAX, in order of addition. */
enum { LOOP_TURN_HANDLERS_MAX = 8 };
MUST_USE int loop_add_turn_handler(struct loop *loop, loop_fn *handler, void *context);
/* Asks for another turn at once, without waiting (more is ready than one turn takes). */
void loop_again(struct loop *loop);

/* The monotonic time at which this turn began, in milliseconds. */
int64_t loop_now_ms(const struct loop *loop);

/* From any thread, or a signal handler: makes the loop take a turn. */
void loop_wake(struct loop *loop);

/*
 * SIGTERM, SIGINT and SIGHUP as events of the loop: `handler(context, signal)` in a turn. Uses
 * signalfd, so the signals are blocked in this thread until loop_destroy(), and in those it
 * creates: call it before any are. Errors: -EEXIST called before; -ENOMEM, -errno of signalfd.
 */
MUST_USE int loop_watch_signals(struct loop *loop,
                                void (*handler)(void *context, int signal_number), void *context);

/* Runs until loop_stop(), also if that was called before. Errors: -errno of epoll_wait. */
MUST_USE int loop_run(struct loop *loop);
/* One turn, waiting at most `timeout_ms` (-1: until something happens). For tests and the client
 * library. */
MUST_USE int loop_turn(struct loop *loop, int timeout_ms);
void loop_stop(struct loop *loop);
/* How long loop_turn(loop, -1) would wait at most: 0 when something is due, -1 when nothing is
 * timed. */
int loop_timeout_ms(const struct loop *loop);
/*
 * A descriptor for a loop around this one: readable when a turn would do something, timers
 * included. From the first call on the loop keeps a timerfd for that, which costs a system call
 * when the soonest timer changes.
 */
int loop_fd(struct loop *loop);
