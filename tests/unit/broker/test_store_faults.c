/*
 * The store on a real disk that fails, and a process that dies in the middle: what was reported
 * durable is there afterwards, in order and once. A plain program: it starts itself to be killed;
 * failing calls are linked in (tests/faults/).
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/loop.h"
#include "tests/unit/broker/check.h"
#include "tests/unit/broker/store_fixture.h"

static void set_fault(const struct store_fixture *f, int error)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/../tiermq-fault-%d", f->directory, (int)getpid());
    CHECK(setenv("TIERMQ_DISK_FAULTS", path, 1) == 0);
    if (error == 0) {
        unlink(path);
        return;
    }
    char next[144]; /* written aside, because writing itself will fail */
    snprintf(next, sizeof(next), "%s.next", path);
    FILE *file = fopen(next, "w");
    CHECK(file != NULL);
    fprintf(file, "%d", error);
    CHECK(fclose(file) == 0);
    CHECK(rename(next, path) == 0);
}

static void open_store(struct store_fixture *f)
{
    CHECK_SAYING(fixture_open(f) == 0, f->why);
}

static void put_number(struct store_fixture *f, unsigned number)
{
    char key[16];
    snprintf(key, sizeof(key), "%08u", number);
    fixture_put(f, STORE_JOBS, key, key);
}

struct count {
    unsigned next;
};

static int expect_next(void *context, const void *key, size_t key_bytes, const void *value,
                       size_t value_bytes)
{
    struct count *count = context;
    char expected[16];
    snprintf(expected, sizeof(expected), "%08u", count->next++);
    CHECK_SAYING(key_bytes == 8 && memcmp(key, expected, 8) == 0, expected);
    CHECK(value_bytes == 8 && memcmp(value, expected, 8) == 0);
    return 0;
}

/* How many of the numbers from 1 on are there, without a gap. */
static unsigned count_numbers(struct store_fixture *f)
{
    struct count count = {.next = 1};
    CHECK(store_scan(f->store, STORE_JOBS, expect_next, &count, f->why) == 0);
    return count.next - 1;
}

static void failing_disk_loses_nothing(int error, const char *word)
{
    struct store_fixture f;
    fixture_init(&f, STORE_ROCKSDB);
    set_fault(&f, 0);
    open_store(&f);
    unsigned n = 0;
    while (n < 100) {
        put_number(&f, ++n);
    }
    fixture_wait_durable(&f, 100);

    set_fault(&f, error);
    while (n < 150) {
        put_number(&f, ++n);
    }
    fixture_wait_down(&f, 1);
    CHECK(f.down_first == 101);
    CHECK_SAYING(strstr(f.down_why, word) != NULL, f.down_why);
    CHECK(f.durable == 100);
    while (n < 200) {
        put_number(&f, ++n);
    }
    set_fault(&f, 0);
    fixture_wait_up(&f, 1);
    CHECK(f.durable == 200);
    CHECK(!f.is_out_of_order);

    fixture_close(&f);
    open_store(&f);
    CHECK(count_numbers(&f) == 200);
    fixture_finish(&f);
}

/*
 * What was durable when the disk failed, and no more, is there after a stop without the disk's
 * recovery.
 */
static void stop_while_down_keeps_what_was_durable(void)
{
    struct store_fixture f;
    fixture_init(&f, STORE_ROCKSDB);
    set_fault(&f, 0);
    open_store(&f);
    put_number(&f, 1);
    fixture_wait_durable(&f, 1);
    set_fault(&f, ENOSPC);
    put_number(&f, 2);
    fixture_wait_down(&f, 1);
    fixture_close(&f);
    CHECK(fixture_open(&f) == -ENOSPC);
    CHECK_SAYING(strstr(f.why, "free space") != NULL, f.why);
    set_fault(&f, 0);
    open_store(&f);
    unsigned found = count_numbers(&f);
    CHECK(found == 1 || found == 2); /* a failed write may have reached the disk */
    fixture_finish(&f);
}

/*
 * The other process: commits numbers in the directory and tells each durable one on standard
 * output, until it is killed.
 */
static int commit_until_killed(const char *directory)
{
    struct store_fixture f;
    fixture_init(&f, STORE_ROCKSDB);
    rmdir(f.directory);
    snprintf(f.directory, sizeof(f.directory), "%s", directory);
    open_store(&f);
    unsigned n = count_numbers(&f);
    unsigned first = n;
    uint64_t told = 0;
    for (;;) {
        while (n - first < f.durable + 500) {
            put_number(&f, ++n);
        }
        CHECK(loop_turn(f.loop, 1000) == 0);
        if (f.durable > told) {
            told = f.durable;
            unsigned number = first + (unsigned)told;
            CHECK(write(STDOUT_FILENO, &number, sizeof(number)) == sizeof(number));
        }
    }
}

/* A new program instead of a mere fork, for TSan's sake. Its standard output is *ret_pipe. */
static pid_t start_committing(const struct store_fixture *f, int *ret_pipe)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        CHECK(dup2(ends[1], STDOUT_FILENO) == STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl("/proc/self/exe", "test_store_faults", f->directory, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    *ret_pipe = ends[0];
    return child;
}

static unsigned last_told(int pipe_fd, unsigned enough)
{
    unsigned number, last = 0;
    while (last < enough && read(pipe_fd, &number, sizeof(number)) == sizeof(number)) {
        last = number;
    }
    return last;
}

static void killed_process_keeps_what_was_reported(void)
{
    struct store_fixture f;
    fixture_init(&f, STORE_ROCKSDB);
    set_fault(&f, 0);
    unsigned kept = 0;
    for (unsigned round = 0; round < 5; round++) {
        int pipe_fd = -1;
        pid_t child = start_committing(&f, &pipe_fd);
        unsigned told = last_told(pipe_fd, kept + 2000 + round * 777);
        CHECK(kill(child, SIGKILL) == 0);
        unsigned later = last_told(pipe_fd, UINT32_MAX); /* what it had told before the blow */
        told = later > told ? later : told;
        CHECK(waitpid(child, NULL, 0) == child);
        close(pipe_fd);
        CHECK(told > kept);

        open_store(&f);
        unsigned found = count_numbers(&f);
        CHECK(found >= told);
        kept = found;
        fixture_close(&f);
    }
    fixture_finish(&f);
}

int main(int argc, char **argv)
{
    if (argc == 2) {
        return commit_until_killed(argv[1]);
    }
    killed_process_keeps_what_was_reported();
    failing_disk_loses_nothing(ENOSPC, "No space left");
    failing_disk_loses_nothing(EIO, "Input/output error");
    stop_while_down_keeps_what_was_durable();
    return 0;
}
