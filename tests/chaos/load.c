/*
 * tiermq-chaos-load: a client of the shipped library that submits jobs of every sort and keeps a
 * history.
 *
 * It is made to be killed. What job number N of a client is follows from seed, name and N alone;
 * ids and deadlines are in the history. So a client that is started again continues where it was:
 * it asks for what was accepted, submits again what was not, and goes on with new jobs. SIGUSR1: no
 * new jobs, ends when none is open. SIGTERM: ends at once; its history says where to go on.
 *
 * With --audit it submits nothing and asks once where each job of a list stands.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include "client/tiermq.h"
#include "common/attributes.h"
#include "common/list.h"
#include "tests/chaos/history.h"
#include "tests/chaos/plan.h"
#include "tests/simulation/dice.h"

enum {
    OPEN_MAX_DEFAULT = 150,
    AUDIT_TIMEOUT_MS = 20000,
};

static const char *const state_names[] = {
    [TIERMQ_UNKNOWN] = "unknown",     [TIERMQ_PENDING] = "pending",
    [TIERMQ_SUCCEEDED] = "succeeded", [TIERMQ_DEAD] = "dead",
    [TIERMQ_CANCELLED] = "cancelled", [TIERMQ_EXPIRED] = "expired",
    [TIERMQ_REJECTED] = "rejected",   [TIERMQ_COLLECTED] = "collected",
    [TIERMQ_LOST] = "lost",
};
static const char *const cache_names[] = {"none", "miss", "hit", "near_hit", "stale_hit"};

struct options {
    const char *broker, *tenant, *name, *history, *foreign, *audit;
    uint64_t seed;
    int rate_per_s, open_max;
};

struct load {
    struct options options;
    struct tiermq *client;
    struct history *history;
    struct list open; /* of struct task */
    uint64_t next_number;
    int64_t next_submit_ms;
    struct dice dice; /* for what need not be told again after a restart */
};

/* A job that is open here. */
struct task {
    struct load *load;
    struct list_link link; /* in load->open */
    uint64_t number;
    struct plan plan; /* follows from its number */
    tiermq_id id;
    int64_t deadline_at_ms;
    int64_t cancel_at_ms;
    int64_t act_at_ms; /* 0: nothing to do; otherwise to be submitted or waited for then */
    bool needs_broker; /* to act is of no use while there is none */
    bool is_accepted;
    bool is_again; /* concluded before: what comes now must be the same */
    bool is_over;  /* to be let go of in the next turn */
    char *streamed;
    bool is_stream_whole;
};

/* Set by signals, which are let in only while the loop waits, so that none comes just before it
 * does. */
static volatile sig_atomic_t is_finishing, is_ended;

static void on_signal(int number)
{
    if (number == SIGTERM) {
        is_ended = 1;
    } else {
        is_finishing = 1;
    }
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Time-ordered, as the broker wants them (UUID version 7). Made here, since the history must have
 * it before the library does. */
static tiermq_id make_id(void)
{
    tiermq_id id;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const uint64_t unix_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    if (getrandom(id.bytes, sizeof(id.bytes), 0) != (ssize_t)sizeof(id.bytes)) {
        abort();
    }
    for (int i = 0; i < 6; i++) {
        id.bytes[i] = (uint8_t)(unix_ms >> (40 - 8 * i));
    }
    id.bytes[6] = 0x70 | (id.bytes[6] & 0x0f);
    id.bytes[8] = 0x80 | (id.bytes[8] & 0x3f);
    return id;
}

static const char *id_text(const tiermq_id *id, char ret_text[TIERMQ_ID_TEXT])
{
    tiermq_id_format(id, ret_text);
    return ret_text;
}

static struct task *task_create(struct load *load, uint64_t number)
{
    struct task *task = calloc(1, sizeof(*task));
    if (task == NULL) {
        abort();
    }
    task->load = load;
    task->number = number;
    plan_make(load->options.name, load->options.seed, number, &task->plan);
    list_append(&load->open, &task->link);
    return task;
}

static void task_destroy(struct task *task)
{
    list_remove(&task->load->open, &task->link);
    plan_finish(&task->plan);
    free(task->streamed);
    free(task);
}

/* What may be done at any moment of the next so many milliseconds. */
static int64_t some_time_within(struct load *load, int64_t span_ms)
{
    return now_ms() + dice_between(&load->dice, 0, span_ms - 1);
}

/* ---- what is seen ---- */

static void note(struct task *task, const char *event)
{
    char text[TIERMQ_ID_TEXT];
    history_append(task->load->history,
                   json_pack("{s:s, s:s, s:I}", "event", event, "id", id_text(&task->id, text),
                             "number", (json_int_t)task->number));
}

static void note_outcome(struct task *task, const struct tiermq_answer *answer)
{
    char text[TIERMQ_ID_TEXT];
    json_t *event =
        json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:I, s:b, s:b}", "event",
                  "outcome", "id", id_text(&task->id, text), "number", (json_int_t)task->number,
                  "state", state_names[answer->state], "code", answer->error_code, "reason",
                  answer->error_text, "text", answer->text, "model", answer->model, "worker",
                  answer->worker, "attempts", (json_int_t)answer->attempts, "cache",
                  cache_names[answer->cache], "retry_after_ms", (json_int_t)answer->retry_after_ms,
                  "hedged", (int)answer->hedged, "again", (int)task->is_again);
    if (event != NULL && task->streamed != NULL) {
        json_object_set_new(event, "streamed", json_string(task->streamed));
        json_object_set_new(event, "stream_whole", json_boolean(task->is_stream_whole));
    }
    history_append(task->load->history, event);
}

static void on_accepted(void *context, const tiermq_id *id, bool duplicate)
{
    struct task *task = context;
    char text[TIERMQ_ID_TEXT];
    history_append(task->load->history,
                   json_pack("{s:s, s:s, s:I, s:b}", "event", "accepted", "id", id_text(id, text),
                             "number", (json_int_t)task->number, "duplicate", (int)duplicate));
    task->is_accepted = true;
}

static void on_chunk(void *context, const tiermq_id *id, const void *data, size_t bytes, bool last)
{
    (void)id;
    struct task *task = context;
    char *piece = NULL, *longer = NULL;
    if (tiermq_chunk_text(data, bytes, &piece) < 0 ||
        asprintf(&longer, "%s%s", task->streamed != NULL ? task->streamed : "", piece) < 0) {
        abort();
    }
    free(piece);
    free(task->streamed);
    task->streamed = longer;
    task->is_stream_whole = last;
}

/* A job that the library or the broker knows nothing of may be handed in again, as long as the
 * answer is of use. */
static bool may_submit_again(const struct task *task)
{
    return !task->is_again && (!task->plan.is_durable || !task->is_accepted) &&
           now_ms() < task->deadline_at_ms;
}

static void conclude(struct task *task, const struct tiermq_answer *answer)
{
    note_outcome(task, answer);
    /* One that was cancelled, or whose time was up, before it was sent would be a new job. */
    if (!task->plan.ask_again || task->is_again || !task->is_accepted) {
        task->is_over = true;
        return;
    }
    task->is_again = true;
    task->cancel_at_ms = 0;
    task->act_at_ms = some_time_within(task->load, 3000);
}

/*
 * No outcome: the library has lost sight of the job, and says that one should ask again; or it
 * could not even ask, which says nothing of a job that was accepted before.
 */
static bool is_open_still(const struct task *task, const struct tiermq_answer *answer)
{
    const bool was_not_sent =
        answer->state == TIERMQ_EXPIRED && strncmp(answer->error_text, "no broker", 9) == 0;
    return answer->state == TIERMQ_LOST || (was_not_sent && task->is_accepted);
}

static void on_answer(void *context, const struct tiermq_answer *answer)
{
    struct task *task = context;
    if (answer->state == TIERMQ_PENDING) {
        note(task, "detached");
        task->act_at_ms = some_time_within(task->load, 2000);
    } else if (is_open_still(task, answer)) {
        note(task, "lost_sight");
        task->act_at_ms = now_ms();
        task->needs_broker = true;
    } else if (answer->state == TIERMQ_UNKNOWN && may_submit_again(task)) {
        note(task, "forgotten");
        task->is_accepted = false;
        task->act_at_ms = now_ms();
    } else {
        conclude(task, answer);
    }
}

static const struct tiermq_callbacks callbacks = {
    .on_accepted = on_accepted, .on_chunk = on_chunk, .on_answer = on_answer};

/* ---- what is done ---- */

/* Not in the callbacks' way: a call that fails has no answer to come. */
static void give_up(struct task *task, const char *call, int error)
{
    char text[TIERMQ_ID_TEXT];
    history_append(task->load->history,
                   json_pack("{s:s, s:s, s:s, s:s, s:s}", "event", "call_failed", "id",
                             id_text(&task->id, text), "call", call, "error", strerror(-error),
                             "words", tiermq_last_error(task->load->client)));
    task->is_over = true;
}

/* What comes now may be another attempt's stream. */
static void begin_stream(struct task *task)
{
    free(task->streamed);
    task->streamed = NULL;
    task->is_stream_whole = false;
}

static void submit(struct task *task)
{
    begin_stream(task);
    char text[TIERMQ_ID_TEXT];
    const int64_t left_ms = task->deadline_at_ms - now_ms();
    history_append(
        task->load->history,
        json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:i, s:b, s:b, s:b, s:b}", "event",
                  "submit", "id", id_text(&task->id, text), "number", (json_int_t)task->number,
                  "tier", task->plan.tier, "operation", task->plan.operation, "prompt",
                  task->plan.prompt, "key", task->plan.key, "deadline_at_ms",
                  (json_int_t)task->deadline_at_ms, "delay_ms", (json_int_t)task->plan.delay_ms,
                  "priority", (int)task->plan.priority, "stream", (int)task->plan.stream, "detach",
                  (int)task->plan.detach, "discard", (int)task->plan.discard, "again",
                  (int)task->is_again));
    const struct tiermq_job job = {
        .id = task->id,
        .tier = task->plan.tier,
        .operation = task->plan.operation,
        .prompt = task->plan.prompt,
        .priority = task->plan.priority,
        .deadline_ms = left_ms > 0 ? left_ms : 1,
        .delay_ms = task->plan.delay_ms,
        .idempotency_key = task->plan.key[0] != '\0' ? task->plan.key : NULL,
        .stream = task->plan.stream,
        .detach = task->plan.detach && !task->is_accepted,
        .discard_result = task->plan.discard,
    };
    struct tiermq_callbacks own = callbacks;
    own.context = task;
    int r = tiermq_submit_async(task->load->client, &job, &own, NULL);
    if (r < 0) {
        give_up(task, "submit", r);
    }
}

static void wait_for(struct task *task)
{
    begin_stream(task);
    note(task, task->is_again ? "wait_again" : "wait");
    struct tiermq_callbacks own = callbacks;
    own.context = task;
    int r = tiermq_wait_async(task->load->client, &task->id, &own);
    if (r < 0) {
        give_up(task, "wait", r);
    }
}

/* Under a key, the job may be an earlier one, whose id only the broker knows: to submit it again is
 * how to ask for it. */
static void act(struct task *task)
{
    const bool is_useful =
        task->plan.key[0] != '\0' || (!task->is_accepted && now_ms() < task->deadline_at_ms);
    const bool by_submit = task->is_again ? task->plan.again_by_submit : is_useful;
    task->act_at_ms = 0;
    task->needs_broker = false;
    if (by_submit) {
        submit(task);
    } else {
        wait_for(task);
    }
}

static void cancel(struct task *task)
{
    task->cancel_at_ms = 0;
    note(task, "cancel");
    int r = tiermq_cancel(task->load->client, &task->id);
    if (r < 0) {
        fprintf(stderr, "cancel: %s\n", strerror(-r));
    }
}

static void start_next(struct load *load)
{
    struct task *task = task_create(load, load->next_number++);
    task->id = make_id();
    task->deadline_at_ms = now_ms() + task->plan.lasts_ms;
    task->cancel_at_ms = task->plan.cancel_after_ms > 0 ? now_ms() + task->plan.cancel_after_ms : 0;
    submit(task);
}

/* ---- what is not ours to see ---- */

struct foreign_pick {
    struct dice *dice;
    uint64_t seen;
    tiermq_id id;
};

static void pick_accepted(void *context, const json_t *event)
{
    struct foreign_pick *pick = context;
    const char *name = json_string_value(json_object_get(event, "event"));
    const char *id = json_string_value(json_object_get(event, "id"));
    const bool is_candidate = name != NULL && id != NULL && strcmp(name, "accepted") == 0;
    if (is_candidate && dice_below(pick->dice, ++pick->seen) == 0 &&
        tiermq_id_parse(id, &pick->id) < 0) {
        pick->seen = 0;
    }
}

static void on_foreign(void *context, const struct tiermq_answer *answer)
{
    struct load *load = context;
    char text[TIERMQ_ID_TEXT];
    history_append(load->history, json_pack("{s:s, s:s, s:s, s:s}", "event", "foreign", "id",
                                            id_text(&answer->id, text), "state",
                                            state_names[answer->state], "text", answer->text));
}

/* Tries to see, and to cancel, a job of another tenant. */
static void try_foreign(struct load *load)
{
    struct foreign_pick pick = {.dice = &load->dice};
    history_read(load->options.foreign, pick_accepted, &pick);
    if (pick.seen == 0) {
        return;
    }
    const struct tiermq_callbacks own = {.on_answer = on_foreign, .context = load};
    if (tiermq_wait_async(load->client, &pick.id, &own) < 0 ||
        tiermq_cancel(load->client, &pick.id) < 0) {
        fprintf(stderr, "foreign job: %s\n", tiermq_last_error(load->client));
    }
}

/* ---- after a restart ---- */

struct recovery {
    struct load *load;
    struct task **tasks; /* by number; NULL: concluded, or never begun */
    size_t length;
};

static struct task **recovered(struct recovery *recovery, uint64_t number)
{
    if (number >= recovery->length) {
        const size_t length = (size_t)number * 2 + 64;
        recovery->tasks = realloc(recovery->tasks, length * sizeof(*recovery->tasks));
        if (recovery->tasks == NULL) {
            abort();
        }
        memset(recovery->tasks + recovery->length, 0,
               (length - recovery->length) * sizeof(*recovery->tasks));
        recovery->length = length;
    }
    return &recovery->tasks[number];
}

static void recover_submit(struct recovery *recovery, struct task **task, uint64_t number,
                           const json_t *event)
{
    struct load *load = recovery->load;
    const char *id = json_string_value(json_object_get(event, "id"));
    if (*task != NULL || number < load->next_number || id == NULL) {
        return; /* submitted again */
    }
    *task = task_create(load, number);
    (*task)->deadline_at_ms = json_integer_value(json_object_get(event, "deadline_at_ms"));
    load->next_number = number + 1;
    if (tiermq_id_parse(id, &(*task)->id) < 0) {
        abort();
    }
}

static void recover(void *context, const json_t *event)
{
    struct recovery *recovery = context;
    const char *name = json_string_value(json_object_get(event, "event"));
    const json_t *number = json_object_get(event, "number");
    if (name == NULL || !json_is_integer(number)) {
        return;
    }
    struct task **task = recovered(recovery, (uint64_t)json_integer_value(number));
    if (strcmp(name, "submit") == 0) {
        recover_submit(recovery, task, (uint64_t)json_integer_value(number), event);
    } else if (*task != NULL && strcmp(name, "accepted") == 0) {
        (*task)->is_accepted = true;
    } else if (*task != NULL && strcmp(name, "forgotten") == 0) {
        (*task)->is_accepted = false;
    } else if (*task != NULL &&
               (strcmp(name, "outcome") == 0 || strcmp(name, "call_failed") == 0)) {
        task_destroy(*task);
        *task = NULL;
    }
}

/* A cancellation may not have left the process that is gone: whoever still wants it has to ask
 * again. */
static void continue_history(struct load *load)
{
    struct recovery recovery = {.load = load};
    history_read(load->options.history, recover, &recovery);
    free(recovery.tasks);
    list_for_each (&load->open, link) {
        struct task *task = CONTAINER_OF(link, struct task, link);
        task->act_at_ms = now_ms();
    }
}

/* ---- the loop ---- */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* INT64_MAX, here and below: there is nothing to do. */
static int64_t acts_at_ms(const struct task *task)
{
    const bool may_act = !task->needs_broker || tiermq_is_connected(task->load->client);
    return task->act_at_ms != 0 && may_act ? task->act_at_ms : INT64_MAX;
}

static int64_t cancels_at_ms(const struct task *task)
{
    return task->cancel_at_ms != 0 ? task->cancel_at_ms : INT64_MAX;
}

static bool may_start(const struct load *load)
{
    return !is_finishing && load->open.length < (size_t)load->options.open_max;
}

static void start_due(struct load *load, int64_t now)
{
    while (may_start(load) && now >= load->next_submit_ms) {
        start_next(load);
        load->next_submit_ms += dice_between(&load->dice, 1, 2000 / load->options.rate_per_s);
        if (load->options.foreign != NULL && dice_hit(&load->dice, 20)) {
            try_foreign(load);
        }
    }
    /* What was held up by the bound is not caught up with. */
    load->next_submit_ms = load->next_submit_ms > now - 1000 ? load->next_submit_ms : now;
}

/* Does what is due, and says when the next thing is. */
static int64_t tick(struct load *load)
{
    const int64_t now = now_ms();
    int64_t next_ms = INT64_MAX;
    struct list_link *next = NULL;
    for (struct list_link *link = load->open.head.next; link != &load->open.head; link = next) {
        struct task *task = CONTAINER_OF(link, struct task, link);
        next = link->next;
        if (task->is_over) {
            task_destroy(task);
            continue;
        }
        if (now >= acts_at_ms(task)) {
            act(task);
        }
        if (now >= cancels_at_ms(task)) {
            cancel(task);
        }
        next_ms =
            earlier(next_ms, task->is_over ? now : earlier(acts_at_ms(task), cancels_at_ms(task)));
    }
    start_due(load, now);
    return may_start(load) ? earlier(next_ms, load->next_submit_ms) : next_ms;
}

/* Signals are blocked but here. */
static void wait_until(struct load *load, int64_t at_ms)
{
    const int own_ms = tiermq_timeout_ms(load->client);
    at_ms = own_ms < 0 ? at_ms : earlier(at_ms, now_ms() + own_ms);
    const int64_t left_ms = at_ms - now_ms();
    const struct timespec left = {.tv_sec = left_ms > 0 ? left_ms / 1000 : 0,
                                  .tv_nsec = left_ms > 0 ? left_ms % 1000 * 1000000 : 0};
    struct pollfd fd = {.fd = tiermq_fd(load->client), .events = POLLIN};
    sigset_t none;
    sigemptyset(&none);
    if (ppoll(&fd, 1, at_ms == INT64_MAX ? NULL : &left, &none) < 0 && errno != EINTR) {
        perror("poll");
        exit(EXIT_FAILURE);
    }
}

static void run(struct load *load)
{
    continue_history(load);
    load->next_submit_ms = now_ms();
    int64_t next_ms = 0;
    while (!is_ended && !(is_finishing && load->open.length == 0)) {
        wait_until(load, next_ms);
        int r = tiermq_dispatch(load->client, 0);
        if (r < 0) {
            fprintf(stderr, "dispatch: %s\n", strerror(-r));
            exit(EXIT_FAILURE);
        }
        next_ms = tick(load);
    }
}

/* With --audit they end the process, as they do any other. */
static void listen_to_signals(void)
{
    const struct sigaction action = {.sa_handler = on_signal};
    sigset_t ours;
    if (sigemptyset(&ours) < 0 || sigaddset(&ours, SIGTERM) < 0 || sigaddset(&ours, SIGUSR1) < 0 ||
        sigprocmask(SIG_BLOCK, &ours, NULL) < 0 || sigaction(SIGTERM, &action, NULL) < 0 ||
        sigaction(SIGUSR1, &action, NULL) < 0) {
        perror("signals");
        exit(EXIT_FAILURE);
    }
}

static void audit_one(void *context, const json_t *event)
{
    struct load *load = context;
    const char *text = json_string_value(json_object_get(event, "id"));
    tiermq_id id;
    struct tiermq_status *status = NULL;
    if (text == NULL || tiermq_id_parse(text, &id) < 0) {
        return;
    }
    int r = tiermq_get_status(load->client, &id, AUDIT_TIMEOUT_MS, &status);
    if (r < 0) {
        fprintf(stderr, "audit of %s: %s\n", text, strerror(-r));
        exit(EXIT_FAILURE);
    }
    history_append(load->history, json_pack("{s:s, s:s, s:s, s:s, s:I}", "event", "audit", "id",
                                            text, "state", status->state, "why", status->why,
                                            "attempts", (json_int_t)status->attempts));
    tiermq_status_free(&status);
}

/* ---- arguments ---- */

static const char usage[] =
    "Usage: tiermq-chaos-load --broker ENDPOINT --name NAME --history FILE [OPTION]...\n"
    "  --tenant NAME      (default)\n"
    "  --seed N           decides, with the name, what its jobs are (1)\n"
    "  --rate N           jobs a second (10)\n"
    "  --open N           jobs that are open at once (150)\n"
    "  --foreign FILE     history of a client of another tenant, whose jobs it tries to get at\n"
    "  --audit FILE       submit nothing: ask where each job of this list stands, one {\"id\": …} "
    "a line\n";

static int number_of(const char *text, int max)
{
    char *end = NULL;
    const long number = strtol(text, &end, 10);
    if (end == text || *end != '\0' || number < 1 || number > max) {
        fprintf(stderr, "tiermq-chaos-load: \"%s\" is not a number from 1 to %d\n", text, max);
        exit(EXIT_FAILURE);
    }
    return (int)number;
}

static struct options read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"broker", required_argument, NULL, 'b'}, {"tenant", required_argument, NULL, 't'},
        {"name", required_argument, NULL, 'n'},   {"history", required_argument, NULL, 'h'},
        {"seed", required_argument, NULL, 's'},   {"rate", required_argument, NULL, 'r'},
        {"open", required_argument, NULL, 'o'},   {"foreign", required_argument, NULL, 'f'},
        {"audit", required_argument, NULL, 'a'},  {NULL, 0, NULL, 0},
    };
    struct options options = {
        .tenant = "default", .seed = 1, .rate_per_s = 10, .open_max = OPEN_MAX_DEFAULT};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'b':
            options.broker = optarg;
            break;
        case 't':
            options.tenant = optarg;
            break;
        case 'n':
            options.name = optarg;
            break;
        case 'h':
            options.history = optarg;
            break;
        case 'f':
            options.foreign = optarg;
            break;
        case 'a':
            options.audit = optarg;
            break;
        case 's':
            options.seed = (uint64_t)number_of(optarg, INT32_MAX);
            break;
        case 'r':
            options.rate_per_s = number_of(optarg, 1000);
            break;
        case 'o':
            options.open_max = number_of(optarg, 10000);
            break;
        default:
            fputs(usage, stderr);
            exit(EXIT_FAILURE);
        }
    }
    if (options.broker == NULL || options.name == NULL || options.history == NULL ||
        optind < argc) {
        fputs(usage, stderr);
        exit(EXIT_FAILURE);
    }
    return options;
}

int main(int argc, char **argv)
{
    struct load load = {.options = read_options(argc, argv)};
    list_init(&load.open);
    load.dice.state = (uint64_t)now_ms() ^ (uint64_t)getpid();
    int r = history_open(load.options.history, &load.history);
    if (r < 0) {
        fprintf(stderr, "%s: %s\n", load.options.history, strerror(-r));
        return EXIT_FAILURE;
    }
    if (load.options.audit == NULL) {
        listen_to_signals();
    }
    history_append(load.history,
                   json_pack("{s:s, s:s, s:s, s:i}", "event", "start", "client", load.options.name,
                             "tenant", load.options.tenant, "pid", (int)getpid()));
    r = tiermq_connect(&(struct tiermq_options){.brokers = load.options.broker,
                                                .tenant = load.options.tenant,
                                                .name = load.options.name},
                       &load.client);
    if (r < 0) {
        fprintf(stderr, "connect: %s\n", strerror(-r));
        return EXIT_FAILURE;
    }
    if (load.options.audit != NULL) {
        history_read(load.options.audit, audit_one, &load);
    } else {
        run(&load);
    }
    history_append(load.history, json_pack("{s:s}", "event", "end"));
    tiermq_close(&load.client);
    while (load.open.length > 0) {
        task_destroy(CONTAINER_OF(list_first(&load.open), struct task, link));
    }
    history_close(&load.history);
    return EXIT_SUCCESS;
}
