#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include "client/cli/cli.h"
#include "client/cli/run.h"
#include "common/clock.h"

enum { WINDOW_DEFAULT = 256, WINDOW_MAX = 100000, PROMPT_BYTES_MAX = 64 << 20, ERROR_BYTES = 300 };

enum {
    OPTION_TIER = 1,
    OPTION_TIERS,
    OPTION_ROUTE,
    OPTION_POOL,
    OPTION_OPERATION,
    OPTION_PRIORITY,
    OPTION_DEADLINE,
    OPTION_DELAY,
    OPTION_MAX_TOKENS,
    OPTION_KEY,
    OPTION_ID,
    OPTION_FILE,
    OPTION_OUT,
    OPTION_WINDOW,
    OPTION_ORDER,
    OPTION_LIMIT,
    OPTION_NO_WAIT,
    OPTION_NO_RETRY,
    OPTION_LEAVE,
    OPTION_BODY,
    OPTION_STREAM,
    OPTION_DISTINCT,
    OPTION_BATCHABLE,
    OPTION_RESIDENCY,
    OPTION_TASK,
    OPTION_COMPLEXITY,
    OPTION_CACHE_USE,
    OPTION_CACHE_NAMESPACE,
    OPTION_CACHE_TAG,
    OPTION_CACHE_DOCUMENT,
    OPTION_CACHE_TTL,
    OPTION_ALLOW_VARIETY,
    OPTION_TEMPLATE_VERSION,
};
/* One more of each than the library takes, so that it is the library that says how many it takes.
 */
enum { TAGS_MAX = 17, DOCUMENTS_MAX = 65 };

static const struct option own_options[] = {
    {"tier", required_argument, NULL, OPTION_TIER},
    {"tiers", required_argument, NULL, OPTION_TIERS},
    {"route", required_argument, NULL, OPTION_ROUTE},
    {"model", required_argument, NULL, OPTION_ROUTE},
    {"pool", required_argument, NULL, OPTION_POOL},
    {"operation", required_argument, NULL, OPTION_OPERATION},
    {"priority", required_argument, NULL, OPTION_PRIORITY},
    {"deadline", required_argument, NULL, OPTION_DEADLINE},
    {"delay", required_argument, NULL, OPTION_DELAY},
    {"max-tokens", required_argument, NULL, OPTION_MAX_TOKENS},
    {"idempotency-key", required_argument, NULL, OPTION_KEY},
    {"id", required_argument, NULL, OPTION_ID},
    {"file", required_argument, NULL, OPTION_FILE},
    {"out", required_argument, NULL, OPTION_OUT},
    {"window", required_argument, NULL, OPTION_WINDOW},
    {"order", required_argument, NULL, OPTION_ORDER},
    {"limit", required_argument, NULL, OPTION_LIMIT},
    {"no-wait", no_argument, NULL, OPTION_NO_WAIT},
    {"no-retry", no_argument, NULL, OPTION_NO_RETRY},
    {"leave", no_argument, NULL, OPTION_LEAVE},
    {"body", no_argument, NULL, OPTION_BODY},
    {"stream", no_argument, NULL, OPTION_STREAM},
    {"distinct", no_argument, NULL, OPTION_DISTINCT},
    {"batchable", no_argument, NULL, OPTION_BATCHABLE},
    {"cache-use", required_argument, NULL, OPTION_CACHE_USE},
    {"cache-namespace", required_argument, NULL, OPTION_CACHE_NAMESPACE},
    {"cache-tag", required_argument, NULL, OPTION_CACHE_TAG},
    {"cache-document", required_argument, NULL, OPTION_CACHE_DOCUMENT},
    {"cache-ttl", required_argument, NULL, OPTION_CACHE_TTL},
    {"allow-variety", no_argument, NULL, OPTION_ALLOW_VARIETY},
    {"template-version", required_argument, NULL, OPTION_TEMPLATE_VERSION},
    {"residency", required_argument, NULL, OPTION_RESIDENCY},
    {"task", required_argument, NULL, OPTION_TASK},
    {"complexity", required_argument, NULL, OPTION_COMPLEXITY},
    {0},
};

static const char help[] =
    "Usage: tiermq submit [OPTIONS] [PROMPT …]\n"
    "       tiermq submit [OPTIONS] --file FILE\n"
    "\n"
    "Hands jobs in and waits for their answers. A prompt is taken from the arguments, or else from "
    "standard input;\n"
    "--file reads one job a line, as many as there are, with memory bounded by the window.\n"
    "\n"
    "A line is a JSON object with prompt (or text), or body (the request in OpenAI's format); and, "
    "if wanted, id, tier, route\n"
    "(or model), pool, operation, priority, deadline, delay, idempotency_key, max_tokens, "
    "distinct, batchable, residency,\ntask, prompt_complexity. Other "
    "members are ignored.\n"
    "Every line has exactly one result: "
    "{\"id\":…,\"line\":…,\"tier\":…,\"job\":…,\"outcome\":…,\"text\":…,…}.\n"
    "\n"
    "The job:\n"
    "  --tier NAME        realtime, standard (default), background, or another of the "
    "configuration\n"
    "  --route NAME       a model's name or an alias (default auto); --model is the same\n"
    "  --pool NAME        workers to run on, instead of the tier's\n"
    "  --operation NAME   chat.completions (default), completions, embeddings, responses\n"
    "  --priority N       0 to 9, 9 first, within the tenant\n"
    "  --deadline TIME    an answer is of no use later (default: the tier's)\n"
    "  --delay TIME       not before\n"
    "  --max-tokens N     of the answer to a prompt\n"
    "  --residency LABEL  only providers that have it, besides the tenant's label\n"
    "  --task NAME        what kind of work it is: feedback teaches by it, where routing.learn is on\n"
    "  --complexity N     of the prompt, 1 (simple) to 255, where it is known better than its text "
    "tells\n"
    "  --idempotency-key K  a second submission under it is the same job (one prompt only)\n"
    "  --id UUID          the job's id (one prompt only)\n"
    "  --stream           print a single answer as it comes\n"
    "  --distinct         run it also when an identical job is under way, instead of sharing its "
    "answer\n"
    "  --batchable        a short question that may be asked in one prompt with others, where the tier "
    "combines\n"
    "\n"
    "The cache, for all jobs of the command:\n"
    "  --cache-use USE    default (the tier's), off (not looked up, not kept), refresh (not looked "
    "up, but kept), exact (no near\n"
    "                     hits)\n"
    "  --cache-namespace NAME  jobs of different namespaces never share an answer\n"
    "  --cache-tag TAG, --cache-document ID  to invalidate the answer by; may be repeated\n"
    "  --cache-ttl TIME   how long the answer may be served\n"
    "  --allow-variety    serve and keep answers though the temperature is above "
    "cache.temperature_max\n"
    "  --template-version VERSION  of the prompt\n"
    "\n"
    "Many jobs:\n"
    "  --file FILE        JSON lines; - is standard input\n"
    "  --out FILE         results as JSON lines (default: standard output; the summary goes to "
    "standard error then)\n"
    "  --order ORDER      of results: arrival (default) or input\n"
    "  --window N         jobs under way at once (default 256)\n"
    "  --tiers A,B,…      for lines that name no tier, in turn\n"
    "  --limit N          read only so many lines\n"
    "  --body             whole answers in the results\n"
    "\n"
    "What happens when:\n"
    "  --no-wait          end when the jobs are accepted; tiermq wait collects the answers\n"
    "  --no-retry         do not submit again what is refused for now (a full queue) or shed; else "
    "one prompt without a\n"
    "                     deadline is for 10 minutes, lines of a file as long as it takes\n"
    "  --leave            on Ctrl-C leave pending jobs in the broker; else they are cancelled\n"
    "\n"
    "Examples:\n"
    "  tiermq submit --tier realtime 'What is a queue?'\n"
    "  git diff | tiermq submit --route auto --max-tokens 200\n"
    "  tiermq submit --file prompts.jsonl --tiers realtime,standard,background --out "
    "answers.jsonl\n"
    "  tiermq submit --file - --order input < prompts.jsonl | jq -r .text\n"
    "  tiermq submit --no-wait --json --tier background 'Summarise …' | jq -r .job\n";

struct submit {
    struct run_options run;
    const char *file, *out;
    char *tiers_text;                                      /* owned; what run.tiers points into */
    char *prompt;                                          /* owned */
    const char *tags[TAGS_MAX], *documents[DOCUMENTS_MAX]; /* what run.defaults.cache points to */
    bool is_json;
    bool has_id, has_key;
    bool no_retry;        /* what is refused for now stays refused */
    bool has_streamed;    /* something of the answer is on the screen already */
    bool is_stream_whole; /* all of it is */
    int exit_code;
};

/* -----------------------------------------------------------------------------------------------
 * options */

static bool read_tiers(struct submit *submit, struct cli *cli, const char *list)
{
    free(submit->tiers_text);
    submit->tiers_text = strdup(list);
    submit->run.tiers_length = 0;
    char *rest = NULL;
    char *name = submit->tiers_text == NULL ? NULL : strtok_r(submit->tiers_text, ",", &rest);
    for (; name != NULL; name = strtok_r(NULL, ",", &rest)) {
        if (submit->run.tiers_length == RUN_TIERS_MAX) {
            return cli_refuse(cli, "--tiers: more than %d", RUN_TIERS_MAX);
        }
        submit->run.tiers[submit->run.tiers_length++] = name;
    }
    return submit->run.tiers_length > 0 || cli_refuse(cli, "--tiers: \"%s\" names none", list);
}

static bool read_order(struct submit *submit, struct cli *cli, const char *order)
{
    submit->run.is_ordered = strcmp(order, "input") == 0;
    return submit->run.is_ordered || strcmp(order, "arrival") == 0 ||
           cli_refuse(cli, "--order: \"%s\" is neither arrival nor input", order);
}

static bool read_number(struct cli *cli, const char *name, const char *text, uint64_t least,
                        uint64_t most, uint64_t *ret_number)
{
    return cli_read_number(text, least, most, ret_number) == 0 ||
           cli_refuse(cli, "%s: \"%s\" is no whole number from %llu to %llu", name, text,
                      (unsigned long long)least, (unsigned long long)most);
}

static bool read_time(struct cli *cli, const char *name, const char *text, int64_t *ret_ms)
{
    return cli_read_duration(text, ret_ms) == 0 ||
           cli_refuse(cli, "%s: \"%s\" is not a duration; write e.g. 30s", name, text);
}

static bool read_id(struct submit *submit, struct cli *cli, const char *text)
{
    submit->has_id = true;
    return tiermq_id_parse(text, &submit->run.defaults.id) == 0 ||
           cli_refuse(cli, "--id: \"%s\" is no UUID", text);
}

static bool read_use(struct submit *submit, struct cli *cli, const char *argument)
{
    static const char *const words[] = {"default", "off", "refresh", "exact"};
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        if (strcmp(argument, words[i]) == 0) {
            submit->run.defaults.cache.use = (enum tiermq_cache_use)i;
            return true;
        }
    }
    return cli_refuse(cli, "--cache-use: \"%s\" is none of default, off, refresh, exact", argument);
}

static bool add_text(struct cli *cli, const char *name, const char *argument, const char **texts,
                     size_t texts_max, size_t *length)
{
    if (*length == texts_max) {
        return cli_refuse(cli, "%s: more than %zu", name, texts_max - 1);
    }
    texts[(*length)++] = argument;
    return true;
}

static bool take_cache(struct submit *submit, struct cli *cli, int code, const char *argument)
{
    struct tiermq_cache_control *cache = &submit->run.defaults.cache;
    switch (code) {
    case OPTION_CACHE_USE:
        return read_use(submit, cli, argument);
    case OPTION_CACHE_NAMESPACE:
        cache->cache_namespace = argument;
        return true;
    case OPTION_CACHE_TAG:
        cache->tags = submit->tags;
        return add_text(cli, "--cache-tag", argument, submit->tags, TAGS_MAX, &cache->tags_length);
    case OPTION_CACHE_DOCUMENT:
        cache->documents = submit->documents;
        return add_text(cli, "--cache-document", argument, submit->documents, DOCUMENTS_MAX,
                        &cache->documents_length);
    case OPTION_CACHE_TTL:
        return read_time(cli, "--cache-ttl", argument, &cache->ttl_ms);
    case OPTION_ALLOW_VARIETY:
        cache->allow_variety = true;
        return true;
    default: /* OPTION_TEMPLATE_VERSION */
        cache->template_version = argument;
        return true;
    }
}

static bool take_number(struct submit *submit, struct cli *cli, int code, const char *argument)
{
    struct run_options *run = &submit->run;
    uint64_t number = 0;
    switch (code) {
    case OPTION_PRIORITY:
        if (!read_number(cli, "--priority", argument, 0, 9, &number)) {
            return false;
        }
        run->defaults.priority = (unsigned)number;
        return true;
    case OPTION_MAX_TOKENS:
        if (!read_number(cli, "--max-tokens", argument, 1, 1 << 30, &number)) {
            return false;
        }
        run->defaults.max_tokens = (unsigned)number;
        return true;
    case OPTION_COMPLEXITY:
        if (!read_number(cli, "--complexity", argument, 1, UINT8_MAX, &number)) {
            return false;
        }
        run->defaults.complexity = (unsigned)number;
        return true;
    case OPTION_WINDOW:
        if (!read_number(cli, "--window", argument, 1, WINDOW_MAX, &number)) {
            return false;
        }
        run->window = number;
        return true;
    default: /* OPTION_LIMIT */
        return read_number(cli, "--limit", argument, 1, INT64_MAX, &run->lines_max);
    }
}

static bool take_option(void *context, struct cli *cli, int code, const char *argument)
{
    struct submit *submit = context;
    struct tiermq_job *job = &submit->run.defaults;
    switch (code) {
    case OPTION_TIER:
        job->tier = argument;
        return true;
    case OPTION_TIERS:
        return read_tiers(submit, cli, argument);
    case OPTION_ROUTE:
        job->route = argument;
        return true;
    case OPTION_POOL:
        job->pool = argument;
        return true;
    case OPTION_OPERATION:
        job->operation = argument;
        return true;
    case OPTION_DEADLINE:
        return read_time(cli, "--deadline", argument, &job->deadline_ms);
    case OPTION_DELAY:
        return read_time(cli, "--delay", argument, &job->delay_ms);
    case OPTION_RESIDENCY:
        job->residency = argument;
        return true;
    case OPTION_TASK:
        job->task = argument;
        return true;
    case OPTION_KEY:
        job->idempotency_key = argument;
        submit->has_key = true;
        return true;
    case OPTION_ID:
        return read_id(submit, cli, argument);
    case OPTION_FILE:
        submit->file = argument;
        return true;
    case OPTION_OUT:
        submit->out = argument;
        return true;
    case OPTION_ORDER:
        return read_order(submit, cli, argument);
    case OPTION_NO_WAIT:
        submit->run.no_wait = true;
        return true;
    case OPTION_NO_RETRY:
        submit->no_retry = true;
        return true;
    case OPTION_LEAVE:
        submit->run.leave_on_interrupt = true;
        return true;
    case OPTION_BODY:
        submit->run.with_body = true;
        return true;
    case OPTION_STREAM:
        job->stream = true;
        return true;
    case OPTION_DISTINCT:
        job->distinct = true;
        return true;
    case OPTION_BATCHABLE:
        job->batchable = true;
        return true;
    default:
        return code >= OPTION_CACHE_USE ? take_cache(submit, cli, code, argument)
                                        : take_number(submit, cli, code, argument);
    }
}

/* ------------------------------------------------------------------------------------------------
 * the prompt */

static char *join_arguments(int argc, char **argv)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) {
        return NULL;
    }
    for (int i = 0; i < argc; i++) {
        fprintf(out, "%s%s", i == 0 ? "" : " ", argv[i]);
    }
    return fclose(out) == 0 ? text : NULL;
}

/* All of standard input, without the last line's end. */
static char *read_prompt(void)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    int c = 0;
    for (size_t n = 0; out != NULL && n < PROMPT_BYTES_MAX && (c = getc_unlocked(stdin)) != EOF;
         n++) {
        putc_unlocked(c, out);
    }
    if (out == NULL || fclose(out) != 0) {
        return NULL;
    }
    while (bytes > 0 && (text[bytes - 1] == '\n' || text[bytes - 1] == '\r')) {
        text[--bytes] = '\0';
    }
    return text;
}

static bool take_prompt(struct submit *submit, struct cli *cli, int argc, char **argv)
{
    submit->run.input_fd = -1;
    submit->prompt = argc > 0 ? join_arguments(argc, argv) : read_prompt();
    if (submit->prompt == NULL) {
        cli->is_done = true;
        cli->exit_code = cli_fail(cli, EXIT_INTERNAL, "out of memory");
        return false;
    }
    if (submit->prompt[0] == '\0') {
        return cli_refuse(
            cli, "the prompt is empty; give it as an argument, on standard input, or use --file");
    }
    submit->run.defaults.prompt = submit->prompt;
    return true;
}

/* ---------------------------------------------------------------------------------------------------
 * answers */

static void print_text(const struct tiermq_answer *answer)
{
    if (answer->text[0] != '\0' || answer->body == NULL) {
        puts(answer->text);
    } else {
        printf("%.*s\n", (int)answer->body_bytes, (const char *)answer->body);
    }
}

/* What was streamed is on the screen already, unless the stream broke off. */
static void print_succeeded(const struct submit *submit, const struct tiermq_answer *answer)
{
    if (!submit->has_streamed) {
        print_text(answer);
        return;
    }
    putchar('\n');
    if (!submit->is_stream_whole) {
        fputs("tiermq submit: the stream broke off; this is the whole answer:\n", stderr);
        print_text(answer);
    }
}

/* One prompt, for a person: its answer on standard output, everything else on standard error. */
static void print_answer(void *context, const struct tiermq_answer *answer)
{
    char id[TIERMQ_ID_TEXT];
    tiermq_id_format(&answer->known_as, id);
    if (answer->state == TIERMQ_SUCCEEDED) {
        print_succeeded(context, answer);
    } else if (answer->state == TIERMQ_PENDING && answer->error_code[0] == '\0') {
        puts(id); /* accepted (--no-wait) */
    } else if (answer->state == TIERMQ_PENDING) {
        fprintf(stderr, "tiermq submit: job %s: %s\n", id, answer->error_text);
    } else {
        char state[CLI_STATE_TEXT];
        cli_state_text(answer, state);
        fprintf(stderr, "tiermq submit: %s: %s\n", state, answer->error_text);
    }
}

static void print_chunk(void *context, const tiermq_id *id, const void *data, size_t bytes,
                        bool last)
{
    (void)id;
    struct submit *submit = context;
    char *text = NULL;
    if (tiermq_chunk_text(data, bytes, &text) < 0) {
        return; /* the answer follows whole */
    }
    submit->has_streamed = submit->has_streamed || text[0] != '\0';
    submit->is_stream_whole = last;
    fputs(text, stdout);
    fflush(stdout);
    free(text);
}

/* ---------------------------------------------------------------------------------------------------
 * files */

static bool open_input(struct submit *submit, struct cli *cli)
{
    struct stat status;
    const bool is_standard = strcmp(submit->file, "-") == 0;
    const int fd = is_standard ? STDIN_FILENO : open(submit->file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0 || S_ISDIR(status.st_mode)) {
        cli->is_done = true;
        cli->exit_code = cli_fail(cli, EXIT_USAGE, "--file: cannot read %s: %s", submit->file,
                                  fd < 0 ? strerror(errno) : "it is no file");
        if (fd > STDERR_FILENO) {
            close(fd);
        }
        return false;
    }
    submit->run.input_fd = fd;
    submit->run.input_bytes = S_ISREG(status.st_mode) ? (uint64_t)status.st_size : 0;
    return true;
}

static bool open_output(struct submit *submit, struct cli *cli)
{
    if (submit->out == NULL || strcmp(submit->out, "-") == 0) {
        submit->run.output = submit->file != NULL || cli->json ? stdout : NULL;
        return true;
    }
    submit->run.output = fopen(submit->out, "we");
    if (submit->run.output == NULL) {
        cli->is_done = true;
        cli->exit_code =
            cli_fail(cli, EXIT_USAGE, "--out: cannot write %s: %s", submit->out, strerror(errno));
        return false;
    }
    return true;
}

static bool check(const struct submit *submit, struct cli *cli, int arguments)
{
    if (submit->file != NULL && arguments > 0) {
        return cli_refuse(cli, "give either a prompt or --file");
    }
    if (submit->file != NULL && (submit->has_id || submit->has_key)) {
        return cli_refuse(
            cli, "--id and --idempotency-key are for one prompt; lines have members of their own");
    }
    if (submit->file != NULL && submit->run.defaults.stream) {
        return cli_refuse(cli, "--stream is for one prompt");
    }
    return true;
}

static bool prepare(struct submit *submit, struct cli *cli, int argc, char **argv)
{
    if (!check(submit, cli, argc) || !cli_configure(cli)) {
        return false;
    }
    const bool has_input =
        submit->file != NULL ? open_input(submit, cli) : take_prompt(submit, cli, argc, argv);
    if (!has_input || !open_output(submit, cli)) {
        return false;
    }
    submit->run.timeout_ms = cli->timeout_ms;
    submit->run.tells_waits = submit->file != NULL;
    submit->run.has_progress = submit->file != NULL && isatty(STDERR_FILENO) != 0;
    if (submit->run.output == NULL) {
        submit->run.on_answer = print_answer;
        submit->run.on_chunk = submit->run.defaults.stream ? print_chunk : NULL;
        submit->run.context = submit;
    }
    return true;
}

/* -------------------------------------------------------------------------------------------------
 * the end */

static void print_summary(const struct submit *submit, const struct cli *cli,
                          const struct summary *summary, double seconds)
{
    if (submit->file == NULL) {
        return;
    }
    FILE *out = submit->run.output == stdout ? stderr : stdout;
    if (!cli->json) {
        summary_print(summary, seconds, out);
        return;
    }
    json_t *json = summary_json(summary, seconds);
    if (json != NULL && json_dumpf(json, out, JSON_COMPACT) == 0) {
        fputc('\n', out);
    }
    json_decref(json);
}

static int explain_interrupt(const struct submit *submit, const struct cli *cli, int code,
                             const char *why, uint64_t n_pending)
{
    if (submit->run.leave_on_interrupt) {
        return cli_fail(cli, code, "interrupted; jobs without an answer stay in the broker");
    }
    if (n_pending == 0) {
        return cli_fail(cli, code, "interrupted; jobs without an answer were cancelled");
    }
    return cli_fail(cli, code,
                    "interrupted; no broker confirmed that the jobs without an answer are "
                    "cancelled: they may still run%s%s",
                    why[0] == '\0' ? "" : "; ", why);
}

#define NAMES_ANOTHER "--brokers or client.brokers names another"

static int explain_end(const struct submit *submit, const struct cli *cli, enum run_end end,
                       const char *error, const struct tiermq *client,
                       const struct summary *summary)
{
    const char *why = tiermq_connection_error(client);
    const bool is_connected = tiermq_is_connected(client);
    const int code = summary_exit_code(summary);
    switch (end) {
    case RUN_DONE:
        if (summary->outcomes[OUTCOME_EXPIRED] == 0 || is_connected) {
            return code;
        }
        return cli_fail(cli, code, "is tiermq-broker running? " NAMES_ANOTHER);
    case RUN_INTERRUPTED:
        return explain_interrupt(submit, cli, code, why, summary->outcomes[OUTCOME_PENDING]);
    case RUN_TIMED_OUT:
        return cli_fail(cli, code, "--timeout is over");
    case RUN_UNREACHABLE:
        return cli_fail(cli, EXIT_UNREACHABLE,
                        "no broker answered: %s%s; is tiermq-broker running? " NAMES_ANOTHER,
                        why[0] == '\0' ? cli->brokers : "", why);
    case RUN_FAILED:
        break;
    }
    return cli_fail(cli, EXIT_INTERNAL, "%s", error);
}

static int close_output(const struct submit *submit, const struct cli *cli, int code)
{
    FILE *out = submit->run.output;
    if (out == NULL || out == stdout) {
        return code;
    }
    return fclose(out) == 0
               ? code
               : cli_fail(cli, EXIT_INTERNAL, "--out: %s: %s", submit->out, strerror(errno));
}

/* SIGINT and SIGTERM come through a descriptor, so that what was read so far can be ended in order.
 */
static int open_interrupts(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0) {
        return -1;
    }
    return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int run_submit(struct submit *submit, struct cli *cli)
{
    struct tiermq *client = NULL;
    /* Answers make room for the next line in the same turn: a little more than the window is never
     * needed. */
    const int64_t retry_ms = submit->file != NULL ? INT64_MAX : 0; /* of one prompt the library's */
    const struct tiermq_options limits = {
        .pending_max = submit->run.window + 16,
        .retry_ms = submit->no_retry ? TIERMQ_RETRY_NONE : retry_ms,
    };
    if (!cli_connect(cli, &limits, &client)) {
        return cli->exit_code;
    }
    submit->run.interrupt_fd = open_interrupts();
    struct summary summary = {0};
    char error[ERROR_BYTES] = "";
    const int64_t started_ms = clock_monotonic_ms();
    const enum run_end end = run_jobs(client, &submit->run, &summary, error);
    const double seconds = (double)(clock_monotonic_ms() - started_ms) / 1e3;
    print_summary(submit, cli, &summary, seconds);
    const int code = explain_end(submit, cli, end, error, client, &summary);
    tiermq_close(&client);
    summary_finish(&summary);
    if (submit->run.interrupt_fd >= 0) {
        close(submit->run.interrupt_fd);
    }
    return code;
}

static int submit_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    struct submit submit = {.run = {.window = WINDOW_DEFAULT,
                                    .connect_timeout_ms = CLI_CONNECT_TIMEOUT_MS,
                                    .input_fd = -1}};
    cli_parse(&cli, command, argc, argv, own_options, take_option, &submit);
    int code = EXIT_OK;
    if (!cli.is_done && prepare(&submit, &cli, argc - optind, argv + optind)) {
        code = run_submit(&submit, &cli);
    } else {
        code = cli.exit_code;
    }
    code = close_output(&submit, &cli, code);
    if (submit.run.input_fd > STDERR_FILENO) {
        close(submit.run.input_fd);
    }
    free(submit.tiers_text);
    free(submit.prompt);
    cli_finish(&cli);
    return code;
}

const struct command submit_command = {"submit", "hand jobs in and wait for their answers", help,
                                       submit_run};
