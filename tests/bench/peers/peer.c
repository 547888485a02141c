#include "tests/bench/peers/peer.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/clock.h"
#include "common/histogram.h"

enum {
    JOBS_REMEMBERED = 1 << 16, /* by number, modulo: many more than any window */
    STALL_S = 20,              /* without room for so long: the peer lost a job */
};

struct job {
    atomic_int steps;
    int64_t sent_ns;
};

static struct {
    unsigned window;
    int64_t began_ns, ends_ns;
    sem_t room;
    uint64_t jobs; /* producer's alone */
    struct job job[JOBS_REMEMBERED];
    pthread_mutex_t lock; /* for what follows */
    uint64_t done;
    struct histogram latency_us;
} peer = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct peer_options peer_read_options(int argc, char **argv)
{
    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: %s PORT WINDOW SECONDS [VARIANT]\n", program_invocation_short_name);
        exit(2);
    }
    struct peer_options options = {.port = atoi(argv[1]), .window = (unsigned)atoi(argv[2]), .seconds = atof(argv[3]),
                                   .variant = argc == 5 ? argv[4] : ""};
    if (options.window < 1 || options.window > 4096 || !(options.seconds > 0 && options.seconds < 600)) {
        peer_die("arguments", "WINDOW must be 1 to 4096, SECONDS above 0 and below 600");
    }
    return options;
}

void peer_die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, why);
    _exit(1);
}

void peer_start_thread(void *(*run)(void *argument), void *argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, argument) != 0) {
        peer_die("thread", "cannot be started");
    }
}

void peer_start_workers(unsigned workers, void *(*work)(void *argument))
{
    for (uintptr_t i = 0; i < workers; i++) {
        peer_start_thread(work, (void *)i);
    }
}

void peer_begin(const struct peer_options *options)
{
    peer.window = options->window;
    histogram_init(&peer.latency_us);
    if (sem_init(&peer.room, 0, options->window) != 0) {
        peer_die("semaphore", strerror(errno));
    }
    peer.began_ns = clock_monotonic_ns();
    peer.ends_ns = peer.began_ns + (int64_t)(options->seconds * 1e9);
}

bool peer_is_over(void)
{
    return clock_monotonic_ns() >= peer.ends_ns;
}

bool peer_take_room(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STALL_S;
    while (sem_timedwait(&peer.room, &until) != 0) {
        if (errno != EINTR) {
            peer_die("stalled", "a job was neither confirmed nor delivered");
        }
    }
    return !peer_is_over();
}

bool peer_take_more_room(void)
{
    return sem_trywait(&peer.room) == 0;
}

uint64_t peer_make_job(char ret_payload[PEER_PAYLOAD_BYTES])
{
    const uint64_t number = peer.jobs++;
    struct job *job = &peer.job[number % JOBS_REMEMBERED];
    job->sent_ns = clock_monotonic_ns();
    atomic_store(&job->steps, 0);
    memset(ret_payload, 'a' + (int)(number % 26), PEER_PAYLOAD_BYTES);
    memcpy(ret_payload, &number, sizeof(number));
    return number;
}

uint64_t peer_job_of(const void *payload, size_t bytes)
{
    uint64_t number;
    if (bytes != PEER_PAYLOAD_BYTES) {
        peer_die("payload", "is not what was sent");
    }
    memcpy(&number, payload, sizeof(number));
    return number;
}

void peer_note_step(uint64_t number)
{
    struct job *job = &peer.job[number % JOBS_REMEMBERED];
    if (atomic_fetch_add(&job->steps, 1) == 0) {
        return; /* the other one is still to come */
    }
    const int64_t took_ns = clock_monotonic_ns() - job->sent_ns;
    pthread_mutex_lock(&peer.lock);
    peer.done++;
    histogram_record(&peer.latency_us, (uint64_t)(took_ns / 1000));
    pthread_mutex_unlock(&peer.lock);
    sem_post(&peer.room);
}

void peer_report(void)
{
    pthread_mutex_lock(&peer.lock); /* and never unlocked: nothing is counted any more */
    const double took_s = (double)(clock_monotonic_ns() - peer.began_ns) / 1e9;
    printf("{\"window\":%u,\"jobs\":%llu,\"seconds\":%.2f,\"jobs_per_s\":%.0f,\"p50_us\":%llu,\"p99_us\":%llu}\n", peer.window,
           (unsigned long long)peer.done, took_s, (double)peer.done / took_s,
           (unsigned long long)histogram_quantile(&peer.latency_us, 0.5),
           (unsigned long long)histogram_quantile(&peer.latency_us, 0.99));
    fflush(stdout);
    _exit(0);
}
