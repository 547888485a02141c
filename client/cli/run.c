#include "client/cli/run.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include "client/cli/cli.h"
#include "client/cli/lines.h"
#include "client/cli/results.h"
#include "common/clock.h"
#include "common/heap.h"
#include "common/list.h"

enum {
    PROGRESS_MS = 200,
    WHY_TOLD_MS = 5000,
    WHY_TIMEOUT_MS = 1000,
    RETRY_FULL_MS = 50, /* the library's own bound on bytes; answers make room */
    RUN_ERROR_BYTES = 300,
    LINES_PER_TURN = 1024, /* then the sockets have their turn */
};

struct run;

/* A line on its way: submitted, or waiting to be submitted again. */
struct slot {
    struct run *run;
    struct list_link link;   /* in run->slots */
    uint32_t retry_position; /* in run->retries */
    uint64_t line;
    uint64_t place;         /* in the results */
    int64_t deadline_at_ms; /* 0: none of its own */
    struct line_job job;
};

struct run {
    const struct run_options *options;
    struct tiermq *client;
    struct line_reader reader;
    struct results results;
    struct summary summary;
    struct list slots;
    struct heap retries;
    int64_t started_ms;
    int64_t progress_at_ms;
    bool was_connected;
    int64_t stop_at_ms; /* INT64_MAX: not stopping */
    enum run_end end;   /* why it stops */
    uint64_t lines;     /* taken from the input */
    bool is_input_over;
    bool has_progress_line;
    bool has_told_wait;
    bool has_told_why; /* the one prompt waits */
    int64_t why_at_ms; /* when to look why; 0: there was no broker yet */
    char error[RUN_ERROR_BYTES];
};

static bool is_stopping(const struct run *run)
{
    return run->stop_at_ms != INT64_MAX;
}

static void fail(struct run *run, const char *what, int error)
{
    if (run->error[0] == '\0') {
        snprintf(run->error, sizeof(run->error), "%s: %s", what,
                 strerror(error < 0 ? -error : error));
    }
    run->end = RUN_FAILED;
    run->stop_at_ms = 0;
}

/* ---------------------------------------------------------------------------------------------------
 * results */

static const char *tier_name(const struct slot *slot)
{
    return slot->job.job.tier == NULL ? "standard" : slot->job.job.tier;
}

static void slot_destroy(struct slot **slot)
{
    struct run *run = (*slot)->run;
    if ((*slot)->retry_position != HEAP_NONE) {
        heap_remove(&run->retries, *slot);
    }
    list_remove(&run->slots, &(*slot)->link);
    line_job_finish(&(*slot)->job);
    free(*slot);
    *slot = NULL;
}

static json_t *result_json(const struct slot *slot, enum outcome outcome,
                           const struct tiermq_answer *answer)
{
    json_t *result = cli_answer_json(answer, slot->run->options->with_body);
    if (result == NULL) {
        return NULL;
    }
    json_t *line = json_object();
    if (slot->job.reference != NULL) {
        json_object_set(line, "id", (json_t *)slot->job.reference);
    }
    if (slot->run->options->input_fd >= 0) {
        json_object_set_new(line, "line", json_integer((json_int_t)slot->line));
    }
    json_object_set_new(line, "tier", json_string(tier_name(slot)));
    json_object_update(line, result);
    json_object_set_new(line, "outcome", json_string(summary_outcome_name(outcome)));
    json_decref(result);
    return line;
}

static void write_result(struct slot *slot, enum outcome outcome,
                         const struct tiermq_answer *answer)
{
    struct run *run = slot->run;
    if (run->options->output == NULL) {
        return;
    }
    json_t *result = result_json(slot, outcome, answer);
    char *text = result == NULL ? NULL : json_dumps(result, JSON_COMPACT);
    json_decref(result);
    int r = text == NULL ? -ENOMEM : results_write(&run->results, slot->place, text);
    if (r < 0) {
        fail(run, "cannot write results", r);
    }
}

/* The one way in which a line ends. */
static void finish_line(struct slot *slot, enum outcome outcome, const struct tiermq_answer *answer)
{
    struct run *run = slot->run;
    write_result(slot, outcome, answer);
    int r = summary_add(&run->summary, tier_name(slot), outcome, answer);
    if (r < 0) {
        fail(run, "cannot count a result", r);
    }
    if (run->options->on_answer != NULL && run->end != RUN_UNREACHABLE) {
        run->options->on_answer(run->options->context, answer);
    }
    slot_destroy(&slot);
}

/* A line that ends without a broker's word. */
static void finish_locally(struct slot *slot, enum outcome outcome, const char *code,
                           const char *text)
{
    const struct tiermq_answer answer = {
        .id = slot->job.job.id,
        .known_as = slot->job.job.id,
        .state = outcome == OUTCOME_INVALID ? TIERMQ_REJECTED : TIERMQ_PENDING,
        .error_code = code,
        .error_text = text,
        .text = "",
        .model = "",
        .provider = "",
        .worker = "",
        .router_reason = "",
    };
    finish_line(slot, outcome, &answer);
}

/* ---------------------------------------------------------------------------------------------
 * submitting */

/* What a broker refuses for now the library submits again; this is for what the library itself has
 * no room for. */
static void retry_later(struct slot *slot)
{
    int r = heap_push(&slot->run->retries, slot,
                      heap_key_from_ms(clock_monotonic_ms() + RETRY_FULL_MS));
    if (r < 0) {
        fail(slot->run, "cannot wait for another try", r);
    }
}

static void take_answer(void *context, const struct tiermq_answer *answer)
{
    struct slot *slot = context;
    const bool is_accepted = answer->state == TIERMQ_PENDING && slot->run->options->no_wait;
    finish_line(slot, is_accepted ? OUTCOME_ACCEPTED : summary_outcome(answer->state), answer);
}

static void take_chunk(void *context, const tiermq_id *id, const void *data, size_t bytes,
                       bool last)
{
    const struct slot *slot = context;
    slot->run->options->on_chunk(slot->run->options->context, id, data, bytes, last);
}

static void submit(struct slot *slot)
{
    struct run *run = slot->run;
    struct tiermq_job job = slot->job.job;
    if (slot->deadline_at_ms != 0) {
        job.deadline_ms = slot->deadline_at_ms - clock_monotonic_ms();
        if (job.deadline_ms <= 0) {
            finish_locally(slot, OUTCOME_EXPIRED, "deadline",
                           "it was not accepted before its deadline");
            return;
        }
    }
    const struct tiermq_callbacks callbacks = {
        .on_answer = take_answer,
        .on_chunk = run->options->on_chunk == NULL ? NULL : take_chunk,
        .context = slot,
    };
    int r = tiermq_submit_async(run->client, &job, &callbacks, &slot->job.job.id);
    if (r == -ENOBUFS) {
        retry_later(slot);
    } else if (r < 0) {
        finish_locally(slot, OUTCOME_INVALID, "invalid", tiermq_last_error(run->client));
    }
}

static void submit_again(struct run *run)
{
    const uint64_t now = heap_key_from_ms(clock_monotonic_ms());
    while (heap_peek(&run->retries) != NULL && heap_peek_key(&run->retries) <= now) {
        submit(heap_pop(&run->retries));
    }
}

static struct slot *slot_create(struct run *run)
{
    struct slot *slot = calloc(1, sizeof(*slot));
    if (slot == NULL) {
        return NULL;
    }
    slot->run = run;
    slot->retry_position = HEAP_NONE;
    slot->line = run->reader.number;
    slot->place = results_reserve(&run->results);
    list_append(&run->slots, &slot->link);
    return slot;
}

static struct tiermq_job next_defaults(struct run *run)
{
    struct tiermq_job job = run->options->defaults;
    if (run->options->tiers_length > 0) {
        job.tier = run->options->tiers[run->lines % run->options->tiers_length];
    }
    job.detach = run->options->no_wait;
    job.stream = run->options->on_chunk != NULL;
    run->lines++;
    return job;
}

static void start_line(struct run *run)
{
    struct slot *slot = slot_create(run);
    if (slot == NULL) {
        fail(run, "cannot take a line", ENOMEM);
        return;
    }
    const struct tiermq_job defaults = next_defaults(run);
    char error[LINE_ERROR_BYTES] = "";
    int r = 0;
    if (run->options->input_fd < 0) {
        slot->job.job = defaults;
    } else if (run->reader.is_too_long) {
        r = -EINVAL;
        snprintf(error, sizeof(error), "longer than %d bytes", LINE_BYTES_MAX);
    } else {
        r = line_job_read(run->reader.text, run->reader.bytes, &defaults, &slot->job, error);
    }
    if (r < 0) {
        finish_locally(slot, OUTCOME_INVALID, "invalid", r == -ENOMEM ? "out of memory" : error);
        return;
    }
    if (slot->job.job.deadline_ms > 0) {
        slot->deadline_at_ms = clock_monotonic_ms() + slot->job.job.deadline_ms;
    }
    submit(slot);
}

static bool wants_line(const struct run *run)
{
    return !is_stopping(run) && !run->is_input_over && run->slots.length < run->options->window &&
           results_has_room(&run->results);
}

/* Takes the next line if it is there, or notes that there is none. */
static bool read_next(struct run *run)
{
    const bool is_enough = run->options->lines_max > 0 && run->lines == run->options->lines_max;
    int r = 0;
    if (run->options->input_fd < 0) {
        r = run->lines == 0;
    } else if (!is_enough) {
        r = line_reader_next(&run->reader);
    }
    if (r == -EAGAIN) {
        return false;
    }
    if (r < 0) {
        fail(run, "cannot read the input", r);
    }
    run->is_input_over = r <= 0;
    return r > 0;
}

static void fill_window(struct run *run)
{
    for (size_t n = 0; n < LINES_PER_TURN; n++) {
        if (!wants_line(run) || !read_next(run)) {
            return;
        }
        start_line(run);
    }
}

/* ------------------------------------------------------------------------------------------------
 * stopping */

static void cancel_all(struct run *run)
{
    list_for_each (&run->slots, link) {
        const struct slot *slot = CONTAINER_OF(link, struct slot, link);
        if (slot->retry_position == HEAP_NONE &&
            tiermq_cancel(run->client, &slot->job.job.id) < 0) {
            return; /* the summary says that they are pending */
        }
    }
}

static void stop(struct run *run, enum run_end why, int64_t grace_ms)
{
    if (is_stopping(run)) {
        run->stop_at_ms = 0; /* asked twice */
        return;
    }
    run->end = why;
    run->stop_at_ms = clock_monotonic_ms() + grace_ms;
    if (grace_ms > 0) {
        cancel_all(run);
    }
}

static void take_interrupt(struct run *run)
{
    struct signalfd_siginfo info;
    if (read(run->options->interrupt_fd, &info, sizeof(info)) == sizeof(info)) {
        stop(run, RUN_INTERRUPTED, run->options->leave_on_interrupt ? 0 : RUN_INTERRUPT_MS);
    }
}

static void look_at_clock(struct run *run)
{
    const int64_t now_ms = clock_monotonic_ms();
    run->was_connected = run->was_connected || tiermq_is_connected(run->client);
    if (is_stopping(run)) {
        return;
    }
    const int64_t runs_ms = now_ms - run->started_ms;
    const bool is_timed_out = run->options->timeout_ms > 0 && runs_ms >= run->options->timeout_ms;
    if (!run->was_connected && (is_timed_out || runs_ms >= run->options->connect_timeout_ms)) {
        stop(run, RUN_UNREACHABLE, 0);
    } else if (is_timed_out) {
        stop(run, RUN_TIMED_OUT, run->options->leave_on_interrupt ? 0 : RUN_INTERRUPT_MS);
    }
}

static const char *end_text(enum run_end end)
{
    switch (end) {
    case RUN_INTERRUPTED:
        return "interrupted before its answer came; a durable tier may still have it";
    case RUN_TIMED_OUT:
        return "the time given with --timeout was over before its answer came; a durable tier may "
               "still have it";
    case RUN_UNREACHABLE:
        return "no broker could be reached; it was not sent";
    case RUN_DONE:
    case RUN_FAILED:
        break;
    }
    return "given up before its answer came; a durable tier may still have it";
}

/* ----------------------------------------------------------------------------------------------
 * the progress */

static void show_progress(struct run *run)
{
    const int64_t now_ms = clock_monotonic_ms();
    if (!run->options->has_progress || now_ms < run->progress_at_ms) {
        return;
    }
    run->progress_at_ms = now_ms + PROGRESS_MS;
    run->has_progress_line = true;
    const struct summary *summary = &run->summary;
    const double seconds = (double)(now_ms - run->started_ms) / 1e3;
    const uint64_t good =
        summary->outcomes[OUTCOME_SUCCEEDED] + summary->outcomes[OUTCOME_ACCEPTED];
    fprintf(stderr, "\r\033[K%llu done, %llu failed, %zu in flight, %.0f/s",
            (unsigned long long)summary->jobs, (unsigned long long)(summary->jobs - good),
            run->slots.length, seconds > 0 ? (double)summary->jobs / seconds : 0.0);
    if (run->options->input_bytes > 0) {
        fprintf(stderr, ", %.0f %% read",
                100.0 * (double)run->reader.bytes_read / (double)run->options->input_bytes);
    }
    if (!tiermq_is_connected(run->client)) {
        fprintf(stderr, "; waiting for a broker: %s", tiermq_connection_error(run->client));
    }
}

static void clear_progress(const struct run *run)
{
    if (run->has_progress_line) {
        fputs("\r\033[K", stderr);
    }
}

/* Once: later ones would say the same of another job, and each result has its own words. */
static void tell_wait(struct run *run)
{
    int64_t ms = 0;
    const char *why = tiermq_refusal(run->client, &ms);
    if (!run->options->tells_waits || run->has_told_wait || why[0] == '\0' || ms < WAIT_TOLD_MS) {
        return;
    }
    run->has_told_wait = true;
    char when[32] = "";
    struct tm utc;
    const time_t at = (clock_unix_ms() + ms) / 1000;
    (void)strftime(when, sizeof(when), "%F %T UTC", gmtime_r(&at, &utc));
    clear_progress(run);
    fprintf(
        stderr,
        "tiermq submit: refused for now: %s; tried again at %s (--no-retry takes it as refused)\n",
        why, when);
}

/* Of one prompt, once: without a worker, say, it would wait in silence until its deadline. */
static void tell_why(struct run *run)
{
    struct tiermq_status *status = NULL;
    if (run->options->input_fd >= 0 || run->has_told_why || is_stopping(run) ||
        list_is_empty(&run->slots) || !tiermq_is_connected(run->client) ||
        tiermq_refusal(run->client, NULL)[0] != '\0') { /* tell_wait() tells that */
        return;
    }
    const int64_t now_ms = clock_monotonic_ms();
    const bool is_due = run->why_at_ms > 0 && now_ms >= run->why_at_ms;
    run->why_at_ms = run->why_at_ms == 0 || is_due ? now_ms + WHY_TOLD_MS : run->why_at_ms;
    if (!is_due) {
        return;
    }
    const tiermq_id id = CONTAINER_OF(list_first(&run->slots), struct slot, link)->job.job.id;
    if (tiermq_get_status(run->client, &id, WHY_TIMEOUT_MS, &status) < 0) {
        return;
    }
    run->has_told_why = status->why[0] != '\0'; /* else it runs, or nobody knows it */
    if (run->has_told_why) {
        char text[TIERMQ_ID_TEXT];
        tiermq_id_format(&id, text);
        fprintf(stderr,
                "tiermq submit: it still waits: %s; tiermq status %s tells how it goes on\n",
                status->why, text);
    }
    tiermq_status_free(&status);
}

/* ------------------------------------------------------------------------------------------------
 * the turn */

static int sleep_ms(const struct run *run)
{
    int64_t ms = PROGRESS_MS;
    const int own_ms = tiermq_timeout_ms(run->client);
    if (own_ms >= 0 && own_ms < ms) {
        ms = own_ms;
    }
    if (heap_peek(&run->retries) != NULL) {
        const int64_t retry_ms =
            heap_ms_from_key(heap_peek_key(&run->retries)) - clock_monotonic_ms();
        ms = retry_ms < ms ? retry_ms : ms;
    }
    return ms > 0 ? (int)ms : 0;
}

static void turn(struct run *run)
{
    struct pollfd fds[] = {{.fd = tiermq_fd(run->client), .events = POLLIN},
                           {.fd = run->options->interrupt_fd, .events = POLLIN},
                           {.fd = wants_line(run) ? run->options->input_fd : -1, .events = POLLIN}};
    if (poll(fds, ARRAY_LENGTH(fds), sleep_ms(run)) < 0 && errno != EINTR) {
        fail(run, "cannot wait", errno);
        return;
    }
    if ((fds[1].revents & POLLIN) != 0) {
        take_interrupt(run);
    }
    int r = tiermq_dispatch(run->client, 0);
    if (r < 0) {
        fail(run, "cannot dispatch", r);
    }
    /* Whoever reads the results at the other end of a pipe sees each turn's at once. */
    if (run->options->output != NULL && fflush(run->options->output) != 0) {
        fail(run, "cannot write results", errno);
    }
}

/* Stopping waits for what became of the cancellations: without a broker nobody will say. */
static bool is_over(const struct run *run)
{
    if (is_stopping(run)) {
        return list_is_empty(&run->slots) || clock_monotonic_ms() >= run->stop_at_ms ||
               !tiermq_is_connected(run->client);
    }
    return run->is_input_over && list_is_empty(&run->slots);
}

static void run_finish(struct run *run)
{
    line_reader_finish(&run->reader);
    results_finish(&run->results);
    heap_finish(&run->retries);
}

enum run_end run_jobs(struct tiermq *client, const struct run_options *options,
                      struct summary *ret_summary, char *ret_error)
{
    const int64_t now_ms = clock_monotonic_ms();
    struct run run = {
        .options = options,
        .client = client,
        .reader = {.fd = options->input_fd},
        .started_ms = now_ms,
        .progress_at_ms = now_ms,
        .stop_at_ms = INT64_MAX,
    };
    list_init(&run.slots);
    heap_init(&run.retries, offsetof(struct slot, retry_position));
    int r = results_init(&run.results, options->output, options->is_ordered, options->window);
    if (r < 0) {
        fail(&run, "cannot keep results in order", r);
    }
    while (!is_over(&run)) {
        fill_window(&run);
        submit_again(&run);
        turn(&run);
        look_at_clock(&run);
        tell_wait(&run);
        tell_why(&run);
        show_progress(&run);
    }
    while (!list_is_empty(&run.slots)) {
        finish_locally(CONTAINER_OF(list_first(&run.slots), struct slot, link), OUTCOME_PENDING,
                       "pending", end_text(run.end));
    }
    clear_progress(&run);
    snprintf(ret_error, RUN_ERROR_BYTES, "%s", run.error);
    *ret_summary = run.summary;
    run_finish(&run);
    return run.end;
}
