#include "tests/simulation/crew.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/simulation/memory.h"

static void write_outcome(int pipe, const struct outcome *outcome)
{
    const char *at = (const char *)outcome;
    size_t left = sizeof(*outcome);
    while (left > 0) {
        const ssize_t written = write(pipe, at, left);
        if (written < 0 && errno != EINTR) {
            _exit(0); /* nobody wants to know any more */
        }
        at += written > 0 ? written : 0;
        left -= written > 0 ? (size_t)written : 0;
    }
}

/* False: the process has ended. */
static bool read_outcome(int pipe, struct outcome *outcome)
{
    char *at = (char *)outcome;
    size_t left = sizeof(*outcome);
    while (left > 0) {
        const ssize_t got = read(pipe, at, left);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return false;
        }
        at += got > 0 ? got : 0;
        left -= got > 0 ? (size_t)got : 0;
    }
    return true;
}

/* Every `processes`th seed from this one on. */
_Noreturn static void work(const struct crew *crew, uint64_t first, int pipe)
{
    struct options options = crew->options;
    (void)signal(SIGPIPE, SIG_IGN);
    for (uint64_t i = first; i < crew->seeds; i += crew->processes) {
        struct outcome outcome;
        options.seed = crew->options.seed + i;
        crew->run(&options, crew->mode, &outcome);
        (void)fflush(stdout);
        write_outcome(pipe, &outcome);
    }
    _exit(0);
}

static void start(struct crew *crew, uint32_t member, uint64_t first)
{
    int ends[2];
    (void)fflush(NULL);
    if (pipe(ends) < 0) {
        perror("tiermq-simulate: pipe");
        abort();
    }
    const pid_t pid = fork();
    if (pid < 0) {
        perror("tiermq-simulate: fork");
        abort();
    }
    if (pid == 0) {
        (void)close(ends[0]);
        work(crew, first, ends[1]);
    }
    (void)close(ends[1]);
    crew->members[member].pid = pid;
    crew->members[member].pipe = ends[0];
}

void crew_begin(struct crew *crew, const struct options *options, uint64_t seeds,
                uint32_t processes, enum trace_mode mode, crew_run_fn *run)
{
    *crew = (struct crew){.options = *options,
                          .seeds = seeds,
                          .processes = seeds < processes ? (uint32_t)seeds : processes,
                          .mode = mode,
                          .run = run};
    for (uint32_t i = 0; i < crew->processes && crew->processes > 1; i++) {
        start(crew, i, i);
    }
}

static void end(struct crew *crew, uint32_t member)
{
    (void)close(crew->members[member].pipe);
    (void)waitpid(crew->members[member].pid, NULL, 0);
    crew->members[member].pid = 0;
}

static void next_of_processes(struct crew *crew, struct outcome *ret_outcome)
{
    const uint32_t member = (uint32_t)(crew->next % crew->processes);
    if (read_outcome(crew->members[member].pipe, ret_outcome)) {
        return;
    }
    *ret_outcome = (struct outcome){.has_crashed = true};
    (void)snprintf(ret_outcome->violation, sizeof(ret_outcome->violation), "it crashed");
    end(crew, member);
    start(crew, member, crew->next + crew->processes);
}

uint64_t crew_next(struct crew *crew, struct outcome *ret_outcome)
{
    struct options options = crew->options;
    options.seed += crew->next;
    if (crew->processes > 1) {
        next_of_processes(crew, ret_outcome);
    } else {
        crew->run(&options, crew->mode, ret_outcome);
    }
    crew->next++;
    return options.seed;
}

void crew_end(struct crew *crew)
{
    for (uint32_t i = 0; i < crew->processes && crew->processes > 1; i++) {
        (void)kill(crew->members[i].pid, SIGTERM);
        end(crew, i);
    }
}
