#include "tests/bench/load.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/clock.h"

static double seconds_of(const struct rusage *usage)
{
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

static double own_cpu_s(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? seconds_of(&usage) : 0;
}

void load_begin(struct load *load)
{
    histogram_init(&load->latency_us);
    load->cpu_s = own_cpu_s();
    load->began_ns = clock_monotonic_ns();
    load->ends_ns = load->began_ns + (int64_t)(load->seconds * 1e9);
}

bool load_is_over(const struct load *load)
{
    return (load->jobs_max != 0 && load->sent >= load->jobs_max) || clock_monotonic_ns() >= load->ends_ns;
}

bool load_may_send(const struct load *load)
{
    return load->sent - load->done < load->window && !load_is_over(load);
}

uint64_t load_note_sent(struct load *load)
{
    load->sent_ns[load->sent % (LOAD_WINDOW_MAX * 2)] = clock_monotonic_ns();
    return load->sent++;
}

void load_note_done(struct load *load, uint64_t number)
{
    if (number >= load->sent) {
        fprintf(stderr, "%s: an answer for job %llu, which was never sent\n", load->name, (unsigned long long)number);
        exit(1);
    }
    load->done++;
    int64_t took_ns = clock_monotonic_ns() - load->sent_ns[number % (LOAD_WINDOW_MAX * 2)];
    histogram_record(&load->latency_us, (uint64_t)(took_ns / 1000));
}

void load_report(const struct load *load, double broker_cpu_s, double other_cpu_s)
{
    double took_s = (double)(clock_monotonic_ns() - load->began_ns) / 1e9;
    double per_million = load->done > 0 ? 1e6 / (double)load->done : 0;
    double client_cpu_s = own_cpu_s() - load->cpu_s;
    printf("{\"name\":\"%s\",\"window\":%u,\"jobs\":%llu,\"seconds\":%.2f,\"jobs_per_s\":%.0f,\"p50_us\":%llu,\"p99_us\":%llu,"
           "\"broker_cpu_s_per_million\":%.2f,\"all_cpu_s_per_million\":%.2f}\n",
           load->name, load->window, (unsigned long long)load->done, took_s, (double)load->done / took_s,
           (unsigned long long)histogram_quantile(&load->latency_us, 0.5), (unsigned long long)histogram_quantile(&load->latency_us, 0.99),
           broker_cpu_s * per_million, (broker_cpu_s + other_cpu_s + client_cpu_s) * per_million);
    fflush(stdout);
}

double process_cpu_s(pid_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return 0;
    }
    size_t bytes = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[bytes] = '\0';
    const char *after_name = strrchr(text, ')');
    unsigned long long user = 0, system = 0;
    if (after_name == NULL ||
        sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2) {
        return 0;
    }
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

uint64_t process_rss_bytes(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
    FILE *file = fopen(path, "r");
    unsigned long long resident = 0;
    if (file == NULL) {
        return 0;
    }
    int fields = fscanf(file, "%*u %llu", &resident);
    fclose(file);
    return fields == 1 ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

pid_t child_begin(void)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    return pid;
}

double child_end(pid_t pid)
{
    struct rusage usage;
    int status = 0;
    kill(pid, SIGKILL);
    return wait4(pid, &status, 0, &usage) == pid ? seconds_of(&usage) : 0;
}
