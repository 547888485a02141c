/*
 * load: what every benchmark client shares: a window of jobs in flight for some seconds, their latencies, and one line
 * of JSON at the end. Jobs are numbered from 0; the number travels in the job and comes back with its result.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/histogram.h"

enum { LOAD_WINDOW_MAX = 4096, LOAD_PAYLOAD_BYTES = 1024 };

struct load {
    const char *name;      /* of the system under load */
    uint32_t window;       /* jobs in flight */
    double seconds;
    uint64_t jobs_max;     /* stop after so many, even if time is left; 0: no limit */
    uint64_t sent, done;
    int64_t began_ns, ends_ns;
    int64_t sent_ns[LOAD_WINDOW_MAX * 2]; /* by number, modulo */
    struct histogram latency_us;
    double cpu_s;          /* of the client itself, at the start */
};

void load_begin(struct load *load);
bool load_is_over(const struct load *load);       /* time or jobs are used up, nothing new may be sent */
bool load_may_send(const struct load *load);      /* the window has room, and it is not over */
uint64_t load_note_sent(struct load *load);       /* the number of the job that is sent now */
void load_note_done(struct load *load, uint64_t number);
/* One line of JSON on standard output. CPU seconds of the broker and of everything else but the client. */
void load_report(const struct load *load, double broker_cpu_s, double other_cpu_s);

double process_cpu_s(pid_t pid);      /* from /proc; 0 when it is gone */
uint64_t process_rss_bytes(pid_t pid);
/* Kills a child and returns the CPU seconds it used. */
double child_end(pid_t pid);
/* Forks a child that dies with its parent. Exits when it cannot. */
pid_t child_begin(void);
