/* dead: dead letters: which there are, why, and what becomes of them. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "client/cli/cli.h"
#include "client/cli/history.h"

enum { PAGE_LENGTH = 1000, RATE_REQUEUE = 100, RATE_MAX = 1000000, POLL_MS = 250 };
enum {
    OPTION_TIER = 1,
    OPTION_ROUTE,
    OPTION_CODE,
    OPTION_WORKER,
    OPTION_PROVIDER,
    OPTION_OLDER,
    OPTION_NEWER,
    OPTION_LIMIT,
    OPTION_ALL,
    OPTION_RATE,
    OPTION_WAIT,
    OPTION_PAYLOAD
};

static const struct option own_options[] = {
    {"tier", required_argument, NULL, OPTION_TIER},
    {"route", required_argument, NULL, OPTION_ROUTE},
    {"code", required_argument, NULL, OPTION_CODE},
    {"worker", required_argument, NULL, OPTION_WORKER},
    {"provider", required_argument, NULL, OPTION_PROVIDER},
    {"older", required_argument, NULL, OPTION_OLDER},
    {"newer", required_argument, NULL, OPTION_NEWER},
    {"limit", required_argument, NULL, OPTION_LIMIT},
    {"all", no_argument, NULL, OPTION_ALL},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"wait", no_argument, NULL, OPTION_WAIT},
    {"payload", no_argument, NULL, OPTION_PAYLOAD},
    {0},
};

static const char help[] =
    "Usage: tiermq dead list    [FILTERS] [--limit N]\n"
    "       tiermq dead show    [--payload] JOB …\n"
    "       tiermq dead requeue JOB … | FILTERS | --all  [--rate 100/s] [--wait]\n"
    "       tiermq dead drop    JOB … | FILTERS | --all  [--rate 100/s] [--wait]\n"
    "       tiermq dead sweeps\n"
    "       tiermq dead stop    SWEEP\n"
    "\n"
    "Dead letters are jobs that used up their attempts, can never succeed, or end workers. requeue "
    "gives them a new life, as if they\n"
    "had been submitted now; drop deletes them. With filters or --all the broker does it in a "
    "sweep, at its own pace, whether somebody waits\n"
    "for it or not; a restart of the broker ends it. Answers on the broker's admin HTTP, which "
    "takes "
    "changes, and shows requests, on the same\n"
    "machine only.\n"
    "\n"
    "Filters; those given must all hold:\n"
    "  --tenant NAME      whose; nothing of others is seen or touched then\n"
    "  --tier NAME, --route NAME, --code CODE, --worker NAME, --provider NAME\n"
    "                     code is the error code; worker and provider are those of the last "
    "attempt\n"
    "  --older TIME, --newer TIME\n"
    "                     dead for longer, or for less: 30m, 24h, 7d\n"
    "\n"
    "  --limit N          of list: at most so many\n"
    "  --payload          of show: what was asked for, too\n"
    "  --rate N/s         of sweeps: at most so many a second; 100/s unless given, as fast as may "
    "be "
    "for drop. 0: as fast as may be\n"
    "  --wait             of sweeps: until the end, with progress\n"
    "\n"
    "Examples:\n"
    "  tiermq dead list --code attempts_exhausted --newer 24h\n"
    "  tiermq dead show 01936e2a-7b1c-7def-8a90-123456789abc\n"
    "  tiermq dead requeue --tier background --provider openai --rate 50/s --wait\n"
    "  tiermq dead drop --all --older 30d\n";

struct dead_options {
    const char *tier, *route, *code, *worker, *provider;
    int64_t older_ms, newer_ms;
    uint64_t limit;
    uint64_t rate;
    bool has_rate, all, waits, payload;
};

/* ---- options ---- */

static bool take_duration(struct cli *cli, const char *name, const char *argument, int64_t *ret_ms)
{
    return (cli_read_duration(argument, ret_ms) == 0 && *ret_ms > 0) ||
           cli_refuse(cli, "--%s: \"%s\" is not a duration; write e.g. 24h", name, argument);
}

/* "100/s" or "100". */
static bool take_rate(struct cli *cli, const char *argument, struct dead_options *options)
{
    char text[16] = "";
    const size_t length = strcspn(argument, "/");
    const bool is_rate = argument[length] == '\0' || strcmp(argument + length, "/s") == 0;
    if (is_rate && length < sizeof(text)) {
        memcpy(text, argument, length);
    }
    options->has_rate = true;
    return cli_read_number(text, 0, RATE_MAX, &options->rate) == 0 ||
           cli_refuse(cli, "--rate: \"%s\" is not a rate; write e.g. 100/s", argument);
}

static bool take_option(void *context, struct cli *cli, int code, const char *argument)
{
    struct dead_options *options = context;
    switch (code) {
    case OPTION_TIER:
        options->tier = argument;
        return true;
    case OPTION_ROUTE:
        options->route = argument;
        return true;
    case OPTION_CODE:
        options->code = argument;
        return true;
    case OPTION_WORKER:
        options->worker = argument;
        return true;
    case OPTION_PROVIDER:
        options->provider = argument;
        return true;
    case OPTION_OLDER:
        return take_duration(cli, "older", argument, &options->older_ms);
    case OPTION_NEWER:
        return take_duration(cli, "newer", argument, &options->newer_ms);
    case OPTION_LIMIT:
        return cli_read_number(argument, 1, UINT32_MAX, &options->limit) == 0 ||
               cli_refuse(cli, "--limit: \"%s\" is not a number from 1", argument);
    case OPTION_ALL:
        options->all = true;
        return true;
    case OPTION_RATE:
        return take_rate(cli, argument, options);
    case OPTION_WAIT:
        options->waits = true;
        return true;
    default: /* OPTION_PAYLOAD */
        options->payload = true;
        return true;
    }
}

/* As the broker has them. Gives: a new reference. */
static json_t *filter_object(const struct cli *cli, const struct dead_options *options)
{
    json_t *filter =
        json_pack("{s:s*, s:s*, s:s*, s:s*, s:s*, s:s*}", "tenant", cli->tenant_option, "tier",
                  options->tier, "route", options->route, "code", options->code, "worker",
                  options->worker, "provider", options->provider);
    if (filter != NULL && options->older_ms > 0) {
        json_object_set_new(filter, "older_than_ms", json_integer(options->older_ms));
    }
    if (filter != NULL && options->newer_ms > 0) {
        json_object_set_new(filter, "newer_than_ms", json_integer(options->newer_ms));
    }
    return filter;
}

static bool has_filter(const struct cli *cli, const struct dead_options *options)
{
    return cli->tenant_option != NULL || options->tier != NULL || options->route != NULL ||
           options->code != NULL || options->worker != NULL || options->provider != NULL ||
           options->older_ms > 0 || options->newer_ms > 0;
}

/* No error, since one that was configured once may have dead letters yet. */
static void say_if_unknown(struct cli *cli, const char *tier)
{
    json_t *stats = NULL;
    if (tier == NULL || cli_admin(cli, "/v1/stats", NULL, &stats) != EXIT_OK) {
        return;
    }
    bool is_known = false;
    size_t i = 0;
    const json_t *object = NULL;
    json_array_foreach (json_object_get(stats, "tiers"), i, object) {
        const char *name = json_string_value(json_object_get(object, "name"));
        is_known |= name != NULL && strcmp(name, tier) == 0;
    }
    if (!is_known) {
        fprintf(stderr, "tiermq dead: no tier \"%s\" is configured; tiermq stats lists them\n",
                tier);
    }
    json_decref(stats);
}

/* ---- printing ---- */

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value == NULL ? "" : value;
}

static json_int_t number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static int print_json(struct cli *cli, const json_t *json)
{
    if (json_dumpf(json, stdout, JSON_COMPACT) < 0 || putchar('\n') == EOF) {
        return cli_fail(cli, EXIT_INTERNAL, "cannot write");
    }
    return EXIT_OK;
}

/* The broker calls a letter's job its id; every command of ours that shows a job calls it "job". */
static int print_job_json(struct cli *cli, const json_t *object)
{
    json_t *named = json_pack("{s:O}", "job", json_object_get(object, "id"));
    if (named == NULL || json_object_update(named, (json_t *)object) < 0) {
        json_decref(named);
        return cli_fail(cli, EXIT_INTERNAL, "out of memory");
    }
    json_object_del(named, "id");
    const int code = print_json(cli, named);
    json_decref(named);
    return code;
}

static void print_head(void)
{
    printf("%-36s  %-19s  %-12s %-12s %-20s %8s  %-16s %s\n", "job", "died (UTC)", "tier", "tenant",
           "code", "attempts", "worker", "text");
}

static void print_letter(const json_t *letter)
{
    char died[HISTORY_TIME_TEXT];
    history_format_time(number(letter, "died_unix_ms"), died);
    printf("%-36s  %-19s  %-12s %-12s %-20s %8lld  %-16s %s\n", text(letter, "id"), died,
           text(letter, "tier"), text(letter, "tenant"), text(letter, "error_code"),
           (long long)number(letter, "attempts"), text(letter, "worker"),
           text(letter, "error_text"));
}

/* ---- list ---- */

/* One page. `ret_next` is where the next one begins, empty at the end. */
static int list_page(struct cli *cli, json_t *parameters, uint64_t *printed, uint64_t limit,
                     json_t **ret_next)
{
    char *path = cli_admin_path("/v1/dead", parameters);
    json_t *page = NULL;
    int code = path == NULL ? cli_fail(cli, EXIT_INTERNAL, "out of memory")
                            : cli_admin(cli, path, NULL, &page);
    free(path);
    if (code != EXIT_OK) {
        return code;
    }
    size_t i = 0;
    const json_t *letter = NULL;
    json_array_foreach (json_object_get(page, "dead_letters"), i, letter) {
        if (*printed == limit || code != EXIT_OK) {
            break;
        }
        if (cli->json) {
            code = print_job_json(cli, letter);
        } else {
            if (*printed == 0) {
                print_head();
            }
            print_letter(letter);
        }
        (*printed)++;
    }
    *ret_next = json_incref(json_object_get(page, "next"));
    json_decref(page);
    return code;
}

static int list_letters(struct cli *cli, const struct dead_options *options)
{
    json_t *parameters = filter_object(cli, options);
    const uint64_t limit = options->limit > 0 ? options->limit : UINT64_MAX;
    uint64_t printed = 0;
    int code = EXIT_OK;
    bool is_over = parameters == NULL;
    while (!is_over && code == EXIT_OK) {
        json_t *next = NULL;
        json_object_set_new(parameters, "limit",
                            json_integer(limit - printed < PAGE_LENGTH
                                             ? (json_int_t)(limit - printed)
                                             : PAGE_LENGTH));
        code = list_page(cli, parameters, &printed, limit, &next);
        is_over = !json_is_string(next) || printed == limit;
        json_object_set(parameters, "cursor", next);
        json_decref(next);
    }
    if (parameters == NULL) {
        code = cli_fail(cli, EXIT_USAGE, "filters must be UTF-8");
    } else if (code == EXIT_OK && printed == 0) {
        fputs(cli->json ? "" : "no dead letters\n", stdout);
        say_if_unknown(cli, options->tier);
    }
    json_decref(parameters);
    return code;
}

/* ---- show ---- */

static void print_one(const json_t *letter)
{
    char died[HISTORY_TIME_TEXT];
    history_format_time(number(letter, "died_unix_ms"), died);
    printf("%s  dead since %s UTC\n", text(letter, "id"), died);
    printf("%s: %s\n", text(letter, "error_code"), text(letter, "error_text"));
    printf("tenant %s, tier %s, route %s, attempts %lld, %lld of them lost with their workers, "
           "%lld bytes\n",
           text(letter, "tenant"), text(letter, "tier"), text(letter, "route"),
           (long long)number(letter, "attempts"), (long long)number(letter, "losses"),
           (long long)number(letter, "payload_bytes"));
    if (text(letter, "why_not")[0] != '\0') {
        printf("cannot be requeued%s: %s\n",
               json_is_true(json_object_get(letter, "requeuable")) ? " now" : "",
               text(letter, "why_not"));
    }
    history_print(letter);
    const json_t *request = json_object_get(letter, "request");
    if (request != NULL) {
        printf("request:\n");
        json_dumpf(request, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (text(letter, "request_error")[0] != '\0') {
        printf("request: %s\n", text(letter, "request_error"));
    }
}

static int show_one(struct cli *cli, const struct dead_options *options, const char *id)
{
    char prefix[96];
    snprintf(prefix, sizeof(prefix), "/v1/dead/%s%s", options->payload ? "requests/" : "", id);
    json_t *parameters = json_pack("{s:s*}", "tenant", cli->tenant_option);
    char *path = cli_admin_path(prefix, parameters);
    json_t *letter = NULL;
    int code = path == NULL ? cli_fail(cli, EXIT_INTERNAL, "out of memory")
                            : cli_admin(cli, path, NULL, &letter);
    if (code == EXIT_OK && cli->json) {
        code = print_job_json(cli, letter);
    } else if (code == EXIT_OK) {
        print_one(letter);
    }
    json_decref(letter);
    json_decref(parameters);
    free(path);
    return code;
}

/* ---- requeue, drop ---- */

static int act_on_one(struct cli *cli, const char *action, const char *id)
{
    char path[96];
    snprintf(path, sizeof(path), "/v1/dead/%s/%s", id, action);
    json_t *body = json_pack("{s:s*}", "tenant", cli->tenant_option);
    json_t *answer = NULL;
    int code = cli_admin(cli, path, body, &answer);
    if (code == EXIT_OK && cli->json) {
        code = print_job_json(cli, answer);
    } else if (code == EXIT_OK) {
        printf("%s  %s\n", id, text(answer, "state"));
    }
    json_decref(answer);
    json_decref(body);
    return code;
}

static void print_sweep(const json_t *sweep, FILE *out)
{
    fprintf(out, "sweep %lld  %s  %s  %lld done, %lld skipped, %lld looked at",
            (long long)number(sweep, "number"), text(sweep, "action"), text(sweep, "state"),
            (long long)number(sweep, "done"), (long long)number(sweep, "skipped"),
            (long long)number(sweep, "looked"));
    if (number(sweep, "rate_per_s") > 0) {
        fprintf(out, "  at most %lld/s", (long long)number(sweep, "rate_per_s"));
    }
    if (text(sweep, "why")[0] != '\0') {
        fprintf(out, "  waits: %s", text(sweep, "why"));
    }
    fputc('\n', out);
}

static bool is_over(const json_t *sweep)
{
    return strcmp(text(sweep, "state"), "done") == 0 ||
           strcmp(text(sweep, "state"), "stopped") == 0;
}

static void show_progress(const json_t *sweep, char before[96])
{
    char now[96];
    snprintf(now, sizeof(now), "%lld %lld %s", (long long)number(sweep, "done"),
             (long long)number(sweep, "skipped"), text(sweep, "state"));
    if (strcmp(now, before) != 0 && isatty(STDERR_FILENO)) {
        print_sweep(sweep, stderr);
    }
    memcpy(before, now, sizeof(now));
}

/* Takes the sweep as it began; gives it back as it ended. */
static int follow(struct cli *cli, json_t **sweep)
{
    char path[48];
    char before[96] = "";
    snprintf(path, sizeof(path), "/v1/dead/sweeps/%lld", (long long)number(*sweep, "number"));
    while (!is_over(*sweep)) {
        show_progress(*sweep, before);
        const struct timespec wait = {.tv_nsec = POLL_MS * 1000000L};
        (void)nanosleep(&wait, NULL);
        json_t *next = NULL;
        const int code = cli_admin(cli, path, NULL, &next);
        if (code != EXIT_OK) {
            return code;
        }
        json_decref(*sweep);
        *sweep = next;
    }
    return EXIT_OK;
}

static int end_of_sweep(struct cli *cli, const json_t *sweep)
{
    if (number(sweep, "skipped") > 0) {
        return cli_fail(cli, EXIT_REJECTED,
                        "%lld were skipped: their payloads are not kept, see tiermq dead list",
                        (long long)number(sweep, "skipped"));
    }
    return EXIT_OK;
}

static int begin_sweep(struct cli *cli, const char *action, const struct dead_options *options)
{
    char path[32];
    snprintf(path, sizeof(path), "/v1/dead/%s", action);
    const uint64_t rate = options->has_rate                ? options->rate
                          : strcmp(action, "requeue") == 0 ? RATE_REQUEUE
                                                           : 0;
    json_t *filter = filter_object(cli, options);
    json_t *body = filter == NULL
                       ? NULL
                       : json_pack("{s:o, s:I}", "filter", filter, "rate_per_s", (json_int_t)rate);
    json_t *sweep = NULL;
    int code = body == NULL ? cli_fail(cli, EXIT_USAGE, "filters must be UTF-8")
                            : cli_admin(cli, path, body, &sweep);
    json_decref(body);
    if (code == EXIT_OK) {
        say_if_unknown(cli, options->tier);
    }
    if (code == EXIT_OK && options->waits) {
        code = follow(cli, &sweep);
    }
    if (code == EXIT_OK && cli->json) {
        code = print_json(cli, sweep);
    } else if (code == EXIT_OK) {
        print_sweep(sweep, stdout);
    }
    if (code == EXIT_OK && options->waits) {
        code = end_of_sweep(cli, sweep);
    } else if (code == EXIT_OK && !cli->json) {
        fprintf(stderr, "tiermq dead sweeps tells how far it is, tiermq dead stop %lld ends it\n",
                (long long)number(sweep, "number"));
    }
    json_decref(sweep);
    return code;
}

/* ---- sweeps ---- */

static int list_sweeps(struct cli *cli)
{
    json_t *answer = NULL;
    int code = cli_admin(cli, "/v1/dead/sweeps", NULL, &answer);
    size_t i = 0;
    const json_t *sweep = NULL;
    json_array_foreach (json_object_get(answer, "sweeps"), i, sweep) {
        if (cli->json && code == EXIT_OK) {
            code = print_json(cli, sweep);
        } else if (!cli->json) {
            print_sweep(sweep, stdout);
        }
    }
    json_decref(answer);
    return code;
}

static int stop_sweep(struct cli *cli, const char *sweep)
{
    char path[64];
    uint64_t which = 0;
    if (cli_read_number(sweep, 0, INT64_MAX, &which) < 0) {
        cli_refuse(cli, "\"%s\" is no number of a sweep", sweep);
        return cli->exit_code;
    }
    snprintf(path, sizeof(path), "/v1/dead/sweeps/%llu/stop", (unsigned long long)which);
    json_t *body = json_object();
    json_t *answer = NULL;
    int code = cli_admin(cli, path, body, &answer);
    if (code == EXIT_OK && cli->json) {
        code = print_json(cli, answer);
    } else if (code == EXIT_OK) {
        print_sweep(answer, stdout);
    }
    json_decref(answer);
    json_decref(body);
    return code;
}

/* ---- the command ---- */

static bool are_ids(struct cli *cli, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        tiermq_id id;
        if (tiermq_id_parse(argv[i], &id) < 0) {
            return cli_refuse(cli, "\"%s\" is no job id (a UUID)", argv[i]);
        }
    }
    return true;
}

/* The first failure is the command's. */
static int show_all(struct cli *cli, const struct dead_options *options, int argc, char **argv)
{
    int code = EXIT_OK;
    for (int i = 0; i < argc; i++) {
        const int one = show_one(cli, options, argv[i]);
        code = code == EXIT_OK ? one : code;
    }
    return code;
}

static int act(struct cli *cli, const struct dead_options *options, const char *action, int argc,
               char **argv)
{
    int code = EXIT_OK;
    if (argc == 0) {
        return begin_sweep(cli, action, options);
    }
    for (int i = 0; i < argc; i++) {
        const int one = act_on_one(cli, action, argv[i]);
        code = code == EXIT_OK ? one : code;
    }
    return code;
}

static bool is_action(const char *verb)
{
    return strcmp(verb, "requeue") == 0 || strcmp(verb, "drop") == 0;
}

/* What was asked for is whole, and nothing is done to all by leaving something out. */
static bool check(struct cli *cli, const struct dead_options *options, int argc, char **argv)
{
    const char *verb = argc > 0 ? argv[0] : "";
    const bool names_jobs = argc > 1;
    if (is_action(verb)) {
        const bool is_sweep = options->all || has_filter(cli, options);
        if (!names_jobs && !is_sweep) {
            return cli_refuse(cli, "%s needs jobs, filters, or --all", verb);
        }
        return are_ids(cli, argc - 1, argv + 1);
    }
    if (strcmp(verb, "show") == 0) {
        return names_jobs ? are_ids(cli, argc - 1, argv + 1) : cli_refuse(cli, "show names no job");
    }
    if (strcmp(verb, "stop") == 0) {
        return argc == 2 || cli_refuse(cli, "stop needs the number of a sweep");
    }
    if (strcmp(verb, "list") != 0 && strcmp(verb, "sweeps") != 0) {
        return cli_refuse_verb(cli, argc > 0 ? verb : NULL,
                               "list, show, requeue, drop, sweeps, stop");
    }
    return argc == 1 || cli_refuse(cli, "%s takes no \"%s\"", verb, argv[1]);
}

static int carry_out(struct cli *cli, const struct dead_options *options, int argc, char **argv)
{
    const char *verb = argv[0];
    if (is_action(verb)) {
        return act(cli, options, verb, argc - 1, argv + 1);
    }
    if (strcmp(verb, "show") == 0) {
        return show_all(cli, options, argc - 1, argv + 1);
    }
    if (strcmp(verb, "stop") == 0) {
        return stop_sweep(cli, argv[1]);
    }
    return strcmp(verb, "list") == 0 ? list_letters(cli, options) : list_sweeps(cli);
}

static int dead_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    struct dead_options options = {0};
    cli_parse(&cli, command, argc, argv, own_options, take_option, &options);
    const int length = argc - optind;
    char **rest = argv + optind;
    const bool is_good = !cli.is_done && check(&cli, &options, length, rest) && cli_configure(&cli);
    const int code = is_good ? carry_out(&cli, &options, length, rest) : cli.exit_code;
    cli_finish(&cli);
    return code;
}

const struct command dead_command = {"dead", "list, show, requeue and drop dead letters", help,
                                     dead_run};
