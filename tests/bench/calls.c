/*
 * bench-calls: what a call takes, asked of a server of OpenAI's protocol or of a tiermq cluster, by the same program in the same way.
 *
 *   bench-calls http://HOST:PORT | tcp://BROKER  whole|stream  RATE  WINDOW  SECONDS  [SERVER_PID …]
 *
 * RATE calls a second, evenly spaced, or 0: as many as come back, WINDOW at once. Never more than WINDOW at once: a call that would be
 * one too many is not made, and counted as late. Over HTTP through libcurl's multi interface with epoll on kept connections, so
 * that a thousand cost no more each than one does; from a cluster as realtime jobs. One line of JSON: calls, their whole time and their time to the first token, in µs, tokens' delay since the simulator
 * (--stamp) wrote them, and CPU per call of this program and of the processes named.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include "client/tiermq.h"
#include "common/attributes.h"
#include "common/clock.h"
#include "common/histogram.h"
#include "common/time_slice.h"
#include "tests/bench/load.h"

enum { WINDOW_MAX = 4096, PIDS_MAX = 8, URL_BYTES = 256, EVENTS_MAX = 256 };

static const char STAMP[] = "\"sent_us\":";

struct call {
    struct run *run;
    struct call *next; /* free ones */
    CURL *easy;        /* over HTTP; kept */
    char body[256];
    int64_t began_us;
    bool has_token;
};

struct run {
    bool is_stream;
    double rate, seconds;
    uint64_t window;
    struct tiermq *client; /* or … */
    CURLM *multi;
    int poll;       /* its descriptors */
    int64_t due_us; /* when it wants to be called; -1: never */
    struct curl_slist *headers;
    char url[URL_BYTES];
    struct call calls[WINDOW_MAX];
    struct call *free_calls;
    uint64_t made, done, failed, late;
    struct histogram total_us, first_us, delay_us;
};

static int64_t now_us(void)
{
    return clock_monotonic_ns() / 1000;
}

static void die(const char *what)
{
    fprintf(stderr, "bench-calls: %s\n", what);
    exit(1);
}

/* ---- what comes back ---- */

static void take_tokens(struct call *call, const char *data, size_t bytes)
{
    const int64_t at_us = now_us();
    const char *const end = data + bytes;
    while ((data = memmem(data, (size_t)(end - data), STAMP, sizeof(STAMP) - 1)) != NULL) {
        data += sizeof(STAMP) - 1;
        int64_t sent_us = 0;
        for (; data < end && *data >= '0' && *data <= '9'; data++) {
            sent_us = sent_us * 10 + (*data - '0');
        }
        histogram_record(&call->run->delay_us, at_us > sent_us ? (uint64_t)(at_us - sent_us) : 0);
        if (!call->has_token) {
            call->has_token = true;
            histogram_record(&call->run->first_us, (uint64_t)(at_us - call->began_us));
        }
    }
}

static void call_over(struct call *call, bool is_answered, const char *why)
{
    struct run *run = call->run;
    run->done++;
    if (!is_answered && run->failed++ == 0) {
        fprintf(stderr, "bench-calls: a call failed: %s\n", why);
    }
    histogram_record(&run->total_us, (uint64_t)(now_us() - call->began_us));
    call->next = run->free_calls;
    run->free_calls = call;
}

static void on_chunk(void *context, const tiermq_id *id, const void *data, size_t bytes, bool last)
{
    (void)id, (void)last;
    take_tokens(context, data, bytes);
}

static void on_answer(void *context, const struct tiermq_answer *answer)
{
    call_over(context, answer->state == TIERMQ_SUCCEEDED, answer->error_text);
}

/* A stamp that two pieces share is missed: the simulator writes whole events at once. */
static size_t on_data(char *data, size_t size, size_t count, void *context)
{
    take_tokens(context, data, size * count);
    return size * count;
}

/* ---- making calls ---- */

static void ask_cluster(struct call *call)
{
    const struct tiermq_job job = {.tier = "realtime", .route = "sim-small", .body = call->body, .body_bytes = strlen(call->body),
                                   .stream = call->run->is_stream, .distinct = true, .deadline_ms = 120000};
    const struct tiermq_callbacks callbacks = {
        .on_chunk = call->run->is_stream ? on_chunk : NULL, .on_answer = on_answer, .context = call};
    if (tiermq_submit_async(call->run->client, &job, &callbacks, NULL) < 0) {
        die(tiermq_last_error(call->run->client));
    }
}

static void ask_server(struct call *call)
{
    struct run *run = call->run;
    if (call->easy == NULL) {
        call->easy = curl_easy_init();
        (void)curl_easy_setopt(call->easy, CURLOPT_URL, run->url);
        (void)curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, run->headers);
        (void)curl_easy_setopt(call->easy, CURLOPT_WRITEFUNCTION, on_data);
        (void)curl_easy_setopt(call->easy, CURLOPT_WRITEDATA, call);
        (void)curl_easy_setopt(call->easy, CURLOPT_PRIVATE, (char *)call);
    }
    (void)curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, call->body);
    if (call->easy == NULL || curl_multi_add_handle(run->multi, call->easy) != CURLM_OK) {
        die("curl_multi_add_handle");
    }
}

static void make_call(struct run *run)
{
    struct call *call = run->free_calls;
    if (call == NULL) {
        run->late++;
        return;
    }
    run->free_calls = call->next;
    snprintf(call->body, sizeof(call->body), "{\"model\":\"sim-small\",%s\"messages\":[{\"role\":\"user\",\"content\":\"Question %llu?\"}]}",
             run->is_stream ? "\"stream\":true," : "", (unsigned long long)run->made);
    call->began_us = now_us();
    call->has_token = false;
    run->made++;
    (run->client != NULL ? ask_cluster : ask_server)(call);
}

static int socket_changed(CURL *easy, curl_socket_t fd, int what, void *context, void *known)
{
    (void)easy;
    struct run *run = context;
    struct epoll_event event = {.data.fd = fd};
    event.events = ((what & CURL_POLL_IN) != 0 ? EPOLLIN : 0U) | ((what & CURL_POLL_OUT) != 0 ? EPOLLOUT : 0U);
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(run->poll, EPOLL_CTL_DEL, fd, NULL);
    } else if (epoll_ctl(run->poll, known == NULL ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) < 0) {
        die("epoll_ctl");
    }
    (void)curl_multi_assign(run->multi, fd, what == CURL_POLL_REMOVE ? NULL : run);
    return 0;
}

static int timeout_changed(CURLM *multi, long timeout_ms, void *context)
{
    (void)multi;
    struct run *run = context;
    run->due_us = timeout_ms < 0 ? -1 : now_us() + timeout_ms * 1000;
    return 0;
}

static int wait_ms(const struct run *run, int timeout_ms)
{
    const int64_t left_us = run->due_us < 0 ? INT64_MAX : run->due_us - now_us();
    return left_us <= 0 ? 0 : left_us / 1000 < timeout_ms ? (int)(left_us / 1000) + 1 : timeout_ms;
}

static void act_on_sockets(struct run *run, int timeout_ms)
{
    struct epoll_event events[EVENTS_MAX];
    int running;
    const int ready = epoll_wait(run->poll, events, EVENTS_MAX, wait_ms(run, timeout_ms));
    for (int i = 0; i < ready; i++) {
        const int what = ((events[i].events & EPOLLIN) != 0 ? CURL_CSELECT_IN : 0) | ((events[i].events & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0) |
                         ((events[i].events & (EPOLLERR | EPOLLHUP)) != 0 ? CURL_CSELECT_ERR : 0);
        (void)curl_multi_socket_action(run->multi, events[i].data.fd, what, &running);
    }
    if (run->due_us >= 0 && run->due_us <= now_us()) {
        run->due_us = -1;
        (void)curl_multi_socket_action(run->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
}

static void turn_http(struct run *run, int timeout_ms)
{
    int left;
    act_on_sockets(run, timeout_ms);
    CURLMsg *message;
    while ((message = curl_multi_info_read(run->multi, &left)) != NULL) {
        struct call *call = NULL;
        CURL *easy = message->easy_handle;
        const CURLcode code = message->data.result;
        long status = 0;
        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&call);
        (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        (void)curl_multi_remove_handle(run->multi, easy);
        call_over(call, code == CURLE_OK && status == 200, curl_easy_strerror(code));
    }
}

static void turn(struct run *run, int timeout_ms)
{
    if (run->client == NULL) {
        turn_http(run, timeout_ms);
    } else if (tiermq_dispatch(run->client, timeout_ms) < 0) {
        die(tiermq_last_error(run->client));
    }
}

/* ---- the run ---- */

static void open_run(struct run *run, const char *target)
{
    histogram_init(&run->total_us);
    histogram_init(&run->first_us);
    histogram_init(&run->delay_us);
    for (uint64_t i = 0; i < run->window; i++) {
        run->calls[i] = (struct call){.run = run, .next = run->free_calls};
        run->free_calls = &run->calls[i];
    }
    if (strncmp(target, "http://", 7) == 0) {
        snprintf(run->url, sizeof(run->url), "%s/v1/chat/completions", target);
        run->headers = curl_slist_append(NULL, "Content-Type: application/json");
        run->multi = curl_multi_init();
        run->poll = epoll_create1(0);
        run->due_us = -1;
        (void)curl_multi_setopt(run->multi, CURLMOPT_SOCKETFUNCTION, socket_changed);
        (void)curl_multi_setopt(run->multi, CURLMOPT_SOCKETDATA, run);
        (void)curl_multi_setopt(run->multi, CURLMOPT_TIMERFUNCTION, timeout_changed);
        (void)curl_multi_setopt(run->multi, CURLMOPT_TIMERDATA, run);
        (void)curl_multi_setopt(run->multi, CURLMOPT_MAXCONNECTS, (long)run->window);
        return;
    }
    const struct tiermq_options options = {.brokers = target, .name = "bench-calls"};
    if (tiermq_connect(&options, &run->client) < 0) {
        die("cannot connect");
    }
    while (!tiermq_is_connected(run->client)) {
        turn(run, 100);
    }
}

static void drive(struct run *run, int64_t began_ns)
{
    for (uint64_t due = 0;;) {
        const double elapsed_s = (double)(clock_monotonic_ns() - began_ns) / 1e9;
        const bool is_over = elapsed_s >= run->seconds;
        if (is_over && run->done == run->made) {
            return;
        }
        for (; !is_over && run->rate > 0 && (double)due < run->rate * elapsed_s; due++) {
            make_call(run);
        }
        while (!is_over && run->rate == 0 && run->free_calls != NULL) {
            make_call(run);
        }
        turn(run, 1);
    }
}

static double own_cpu_s(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void print_quantiles(const char *name, const struct histogram *histogram)
{
    printf(",\"%s_p50_us\":%llu,\"%s_p99_us\":%llu,\"%s_p999_us\":%llu,\"%s_max_us\":%llu", name,
           (unsigned long long)histogram_quantile(histogram, 0.5), name, (unsigned long long)histogram_quantile(histogram, 0.99), name,
           (unsigned long long)histogram_quantile(histogram, 0.999), name, (unsigned long long)histogram->max);
}

int main(int argc, char **argv)
{
    static struct run run;
    const int pids = argc - 6;
    run.window = argc >= 6 ? strtoull(argv[4], NULL, 10) : 0;
    if (run.window < 1 || run.window > WINDOW_MAX || pids > PIDS_MAX) {
        fprintf(stderr, "usage: bench-calls http://HOST:PORT|tcp://BROKER whole|stream RATE WINDOW SECONDS [PID …]\n");
        return 2;
    }
    time_slice_shorten(); /* as what is measured: else the machine's other users are measured here */
    run.is_stream = strcmp(argv[2], "stream") == 0;
    run.rate = atof(argv[3]);
    run.seconds = atof(argv[5]);
    open_run(&run, argv[1]);
    double before_s[PIDS_MAX];
    for (int i = 0; i < pids; i++) {
        before_s[i] = process_cpu_s((pid_t)atoi(argv[6 + i]));
    }
    const double own_before_s = own_cpu_s();
    const int64_t began_ns = clock_monotonic_ns();
    drive(&run, began_ns);
    const double took_s = (double)(clock_monotonic_ns() - began_ns) / 1e9, per_call = run.done > 0 ? 1e6 / (double)run.done : 0;
    printf("{\"calls\":%llu,\"failed\":%llu,\"late\":%llu,\"calls_per_s\":%.0f,\"tokens\":%llu,\"tokens_per_s\":%.0f",
           (unsigned long long)run.done, (unsigned long long)run.failed, (unsigned long long)run.late, (double)run.done / took_s,
           (unsigned long long)run.delay_us.count, (double)run.delay_us.count / took_s);
    print_quantiles("total", &run.total_us);
    print_quantiles("first", &run.first_us);
    print_quantiles("delay", &run.delay_us);
    printf(",\"cpu_us\":[%.1f", (own_cpu_s() - own_before_s) * per_call);
    for (int i = 0; i < pids; i++) {
        printf(",%.1f", (process_cpu_s((pid_t)atoi(argv[6 + i])) - before_s[i]) * per_call);
    }
    printf("]}\n");
    tiermq_close(&run.client);
    return run.failed > 0;
}
