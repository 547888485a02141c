/*
 * peer: what the clients of other queues share, so that all do the same work: jobs of 1 KiB, at most a window of them in flight, each
 * done when the server has confirmed its submission and a worker has had it removed.
 *
 * A program has one producer, which is its first thread, and workers on threads and connections of their own. Errors end the
 * process with a line on standard error.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PEER_PAYLOAD_BYTES = 1024, PEER_BATCH = 60 /* jobs that a producer sends at once, if the window has room */ };

struct peer_options {
    int port;
    unsigned window;
    double seconds;
    const char *variant; /* "" when none is given */
};

/* Reads PORT WINDOW SECONDS [VARIANT]. */
struct peer_options peer_read_options(int argc, char **argv);
_Noreturn void peer_die(const char *what, const char *why);
/* Runs `work(argument)` on so many threads, with arguments 0, 1 … */
void peer_start_workers(unsigned workers, void *(*work)(void *argument));
void peer_start_thread(void *(*run)(void *argument), void *argument);

/* The clock starts. */
void peer_begin(const struct peer_options *options);
bool peer_is_over(void);
/* Waits for room in the window and takes it; false when the time is over. */
bool peer_take_room(void);
/* The same without waiting; false when there is none. */
bool peer_take_more_room(void);
/* Writes a payload, and returns the number of its job. */
uint64_t peer_make_job(char ret_payload[PEER_PAYLOAD_BYTES]);
uint64_t peer_job_of(const void *payload, size_t bytes);
/* Called twice for each job: when the server confirmed its submission, and when it was removed. */
void peer_note_step(uint64_t job);
/* One line of JSON, then the end of the process with all its threads. */
_Noreturn void peer_report(void);
