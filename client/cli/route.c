/* route: what a configuration's choice of models would come to, without a broker. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "client/cli/bootstrap.h"
#include "client/cli/cli.h"
#include "client/cli/lines.h"
#include "client/cli/replay.h"
#include "common/config.h"

static const char help[] =
    "Usage: tiermq route replay [OPTIONS] FILE\n"
    "\n"
    "Replays recorded jobs, whose outcomes with each model are known, through the choice of models "
    "of a configuration (models,\n"
    "prices, routes, weights and floors of tiers), and compares its quality, cost and latency with "
    "always the best model, and\n"
    "always the cheapest. No broker is needed. FILE has JSON lines; - is standard input:\n"
    "\n"
    "  {\"tier\": \"standard\", \"prompt_complexity\": 180, \"input_tokens\": 900, \"outcomes\":\n"
    "   {\"small\": {\"right\": false, \"latency_ms\": 400}, \"large\": {\"score\": 0.9, "
    "\"run_ms\": "
    "2100}}}\n"
    "\n"
    "Other members: route, output_tokens, abilities, residency, deadline; of an outcome: "
    "cost_nanousd. Lines that lack an outcome\n"
    "of a model that could have answered are left out, and counted; when that is all of them, the "
    "command ends with 7.\n"
    "\n"
    "  --tier NAME        of lines that name none (standard)\n"
    "  --route NAME       likewise (auto)\n"
    "  --seed N           of the intervals (1)\n"
    "\n"
    "Examples:\n"
    "  tiermq route replay jobs.jsonl\n"
    "  tiermq route replay --config new.yaml --tier realtime --json jobs.jsonl | jq "
    ".against.best\n";

enum { OPTION_TIER = 1, OPTION_ROUTE, OPTION_SEED };

static const struct option own[] = {
    {"tier", required_argument, NULL, OPTION_TIER},
    {"route", required_argument, NULL, OPTION_ROUTE},
    {"seed", required_argument, NULL, OPTION_SEED},
    {0},
};

struct asked {
    const char *tier, *route; /* NULL: not given */
    uint64_t seed;
};

static bool take_own(void *context, struct cli *cli, int code, const char *argument)
{
    struct asked *asked = context;
    switch (code) {
    case OPTION_TIER:
        asked->tier = argument;
        return true;
    case OPTION_ROUTE:
        asked->route = argument;
        return true;
    case OPTION_SEED:
        return cli_read_number(argument, 0, INT64_MAX, &asked->seed) == 0 ||
               cli_refuse(cli, "--seed is \"%s\"; use a whole number", argument);
    default:
        return false;
    }
}

/* ---- reading ---- */

static int add_line(struct cli *cli, struct replay *replay, const struct line_reader *reader)
{
    char error[REPLAY_ERROR_BYTES] = "";
    const bool is_too_long = reader->is_too_long || reader->bytes > REPLAY_LINE_BYTES_MAX;
    int r = is_too_long ? -EINVAL : replay_add(replay, reader->text, reader->bytes, error);
    if (r == 0) {
        return EXIT_OK;
    }
    const char *why = is_too_long     ? "is too long"
                      : r == -EINVAL  ? error
                      : r == -ENOBUFS ? "there are too many jobs"
                                      : strerror(-r);
    return cli_fail(cli, r == -ENOMEM ? EXIT_INTERNAL : EXIT_USAGE, "line %llu: %s",
                    (unsigned long long)reader->number, why);
}

static int read_all(struct cli *cli, struct replay *replay, struct line_reader *reader)
{
    int code = EXIT_OK;
    int r = 0;
    while (code == EXIT_OK && (r = line_reader_next(reader)) == 1) {
        code = add_line(cli, replay, reader);
    }
    return code == EXIT_OK && r < 0 ? cli_fail(cli, EXIT_INTERNAL, "cannot read: %s", strerror(-r))
                                    : code;
}

static int read_file(struct cli *cli, struct replay *replay, const char *path)
{
    const bool is_standard = strcmp(path, "-") == 0;
    const int fd = is_standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    struct line_reader *reader = calloc(1, sizeof(*reader));
    int code = EXIT_INTERNAL;
    if (fd < 0 || reader == NULL) {
        code = cli_fail(cli, fd < 0 ? EXIT_USAGE : EXIT_INTERNAL, "%s: %s", path, strerror(errno));
    } else {
        reader->fd = fd;
        code = read_all(cli, replay, reader);
        line_reader_finish(reader);
    }
    free(reader);
    if (!is_standard && fd >= 0) {
        (void)close(fd);
    }
    return code;
}

/* ---- measuring ---- */

static const char *const policy_names[REPLAY_POLICIES] = {
    [REPLAY_CONFIGURED] = "configured", [REPLAY_BEST] = "best", [REPLAY_CHEAPEST] = "cheapest"};
static const char *const measure_names[REPLAY_MEASURES] = {[REPLAY_QUALITY] = "quality",
                                                           [REPLAY_COST_NANOUSD] = "cost_usd",
                                                           [REPLAY_LATENCY_MS] = "latency_ms"};
static const double measure_units[REPLAY_MEASURES] = {
    [REPLAY_QUALITY] = 1, [REPLAY_COST_NANOUSD] = 1e-9, [REPLAY_LATENCY_MS] = 1};

struct report {
    size_t lengths[REPLAY_MEASURES]; /* jobs that each is of */
    struct interval means[REPLAY_POLICIES][REPLAY_MEASURES];
    struct interval against[REPLAY_POLICIES][REPLAY_MEASURES]; /* the configured one less another */
};

/* Of `values`, less those of another policy where there are any. Of none there is nothing. */
static int measure(const double *values, const double *others, size_t length, double unit,
                   uint64_t seed, struct interval *ret_interval)
{
    if (length == 0) {
        return 0;
    }
    double *scaled = calloc(length, sizeof(*scaled));
    if (scaled == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < length; i++) {
        scaled[i] = (values[i] - (others == NULL ? 0 : others[i])) * unit;
    }
    const int r = bootstrap_mean(scaled, length, seed, ret_interval);
    free(scaled);
    return r;
}

static int make_report(const struct replay *replay, uint64_t seed, struct report *ret_report)
{
    int r = 0;
    *ret_report = (struct report){0};
    for (int p = 0; p < REPLAY_POLICIES; p++) {
        for (int m = 0; r == 0 && m < REPLAY_MEASURES; m++) {
            const enum replay_measure what = (enum replay_measure)m;
            size_t length;
            const double *values = replay_values(replay, (enum replay_policy)p, what, &length);
            const double *configured = replay_values(replay, REPLAY_CONFIGURED, what, &length);
            ret_report->lengths[m] = length;
            r = measure(values, NULL, length, measure_units[m], seed, &ret_report->means[p][m]);
            r = r < 0 ? r
                      : measure(configured, values, length, measure_units[m], seed,
                                &ret_report->against[p][m]);
        }
    }
    return r;
}

/* ---- showing ---- */

static json_t *intervals_json(const struct report *report, const struct interval *intervals,
                              const char *mean_name)
{
    json_t *object = json_object();
    for (size_t m = 0; m < REPLAY_MEASURES; m++) {
        (void)json_object_set_new(object, measure_names[m],
                                  report->lengths[m] == 0
                                      ? json_null()
                                      : json_pack("{s:f, s:f, s:f}", mean_name, intervals[m].mean,
                                                  "low", intervals[m].low, "high",
                                                  intervals[m].high));
    }
    return object;
}

static void add_choice(void *context, const char *model, size_t times)
{
    (void)json_object_set_new(context, model, json_integer((json_int_t)times));
}

static json_t *policy_json(const struct replay *replay, const struct report *report,
                           enum replay_policy policy)
{
    json_t *object = intervals_json(report, report->means[policy], "mean");
    json_t *models = json_object();
    replay_visit_choices(replay, policy, add_choice, models);
    (void)json_object_set_new(object, "models", models);
    return object;
}

static int print_json(struct cli *cli, const struct replay *replay, const struct report *report)
{
    json_t *policies = json_object(), *against = json_object();
    for (int p = 0; p < REPLAY_POLICIES; p++) {
        (void)json_object_set_new(policies, policy_names[p],
                                  policy_json(replay, report, (enum replay_policy)p));
        if (p != REPLAY_CONFIGURED) {
            (void)json_object_set_new(against, policy_names[p],
                                      intervals_json(report, report->against[p], "difference"));
        }
    }
    const size_t jobs = replay_length(replay);
    json_t *object =
        json_pack("{s:I, s:I, s:I, s:I, s:o, s:o}", "jobs", (json_int_t)jobs, "left_out",
                  (json_int_t)replay_left_out(replay), "without_complexity",
                  (json_int_t)replay_without_complexity(replay), "without_latency",
                  (json_int_t)(jobs - report->lengths[REPLAY_LATENCY_MS]), "policies", policies,
                  "against", against);
    const bool is_written =
        object != NULL && json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) == 0;
    json_decref(object);
    if (!is_written) {
        return cli_fail(cli, EXIT_INTERNAL, "cannot write the report");
    }
    putchar('\n');
    return EXIT_OK;
}

static void print_row(const struct report *report, const char *name,
                      const struct interval *intervals, const char *sign)
{
    char texts[REPLAY_MEASURES][64];
    static const int digits[REPLAY_MEASURES] = {3, 8, 1};
    for (size_t m = 0; m < REPLAY_MEASURES; m++) {
        const bool is_signed = sign[0] == '+';
        if (report->lengths[m] == 0) {
            (void)snprintf(texts[m], sizeof(texts[m]), "-");
            continue;
        }
        (void)snprintf(texts[m], sizeof(texts[m]),
                       is_signed ? "%+.*f (%+.*f to %+.*f)" : "%.*f (%.*f to %.*f)", digits[m],
                       intervals[m].mean, digits[m], intervals[m].low, digits[m],
                       intervals[m].high);
    }
    printf("%-18s %-26s %-42s %s\n", name, texts[0], texts[1], texts[2]);
}

static void print_choice(void *context, const char *model, size_t times)
{
    (void)context;
    printf(" %s %zu", model, times);
}

/* What the figures above do not hold, and why. */
static void print_notes(const struct replay *replay, const struct report *report)
{
    char why[REPLAY_WHY_BYTES];
    const size_t jobs = replay_length(replay);
    replay_explain_left_out(replay, why);
    if (why[0] != '\0') {
        printf("left out: %s\n", why);
    }
    if (replay_without_complexity(replay) > 0) {
        printf("%zu of %zu jobs have no prompt_complexity: it was taken to be 0.5\n",
               replay_without_complexity(replay), jobs);
    }
    if (report->lengths[REPLAY_LATENCY_MS] < jobs) {
        printf("%zu of %zu jobs have no latency_ms or run_ms with each outcome: their latency does "
               "not "
               "count\n",
               jobs - report->lengths[REPLAY_LATENCY_MS], jobs);
    }
}

static void print_text(const struct replay *replay, const struct report *report)
{
    printf("%zu jobs, %zu left out; means, with 95 %% intervals\n", replay_length(replay),
           replay_left_out(replay));
    printf("%-18s %-26s %-42s %s\n", "", "quality", "cost USD", "latency ms");
    for (size_t p = 0; p < REPLAY_POLICIES; p++) {
        print_row(report, policy_names[p], report->means[p], "");
    }
    print_row(report, "against best", report->against[REPLAY_BEST], "+");
    print_row(report, "against cheapest", report->against[REPLAY_CHEAPEST], "+");
    printf("chosen:");
    replay_visit_choices(replay, REPLAY_CONFIGURED, print_choice, NULL);
    putchar('\n');
    print_notes(replay, report);
}

/* ---- the command ---- */

static int report_on(struct cli *cli, struct replay *replay, uint64_t seed)
{
    struct report report;
    char why[REPLAY_WHY_BYTES];
    int r = replay_run(replay);
    if (r == 0 && replay_length(replay) == 0) {
        replay_explain_left_out(replay, why);
        return why[0] == '\0' ? cli_fail(cli, EXIT_REJECTED, "the file has no jobs")
                              : cli_fail(cli, EXIT_REJECTED, "no job can be judged: of %zu, %s",
                                         replay_left_out(replay), why);
    }
    r = r < 0 ? r : make_report(replay, seed, &report);
    if (r < 0) {
        return cli_fail(cli, EXIT_INTERNAL, "%s", strerror(-r));
    }
    if (cli->json) {
        return print_json(cli, replay, &report);
    }
    print_text(replay, &report);
    return EXIT_OK;
}

/* What the options name, whether a line needs it or not. */
static bool is_configured(struct cli *cli, const struct config *config, const struct asked *asked)
{
    const char *route = asked->route;
    if (asked->tier != NULL && config_find_tier(config, asked->tier) == NULL) {
        return cli_refuse(cli, "--tier: \"%s\" is not a tier; write the name of one in tiers",
                          asked->tier);
    }
    return route == NULL || strcmp(route, "auto") == 0 ||
           config_find_model(config, route) != NULL || config_find_route(config, route) != NULL ||
           cli_refuse(cli,
                      "--route: \"%s\" is no configured model or alias; write the name of one in "
                      "models or routes",
                      route);
}

static int replay_with(struct cli *cli, const struct config *config, const struct asked *asked,
                       const char *path)
{
    if (!is_configured(cli, config, asked)) {
        return cli->exit_code;
    }
    CLEANUP(replay_destroy) struct replay *replay = NULL;
    int r = replay_create(config, asked->tier == NULL ? "standard" : asked->tier,
                          asked->route == NULL ? "auto" : asked->route, &replay);
    if (r < 0) {
        return cli_fail(cli, EXIT_INTERNAL, "%s", strerror(-r));
    }
    const int code = read_file(cli, replay, path);
    return code == EXIT_OK ? report_on(cli, replay, asked->seed) : code;
}

static int replay_file(struct cli *cli, const struct asked *asked, const char *file)
{
    char *path = NULL;
    int r = config_locate(cli->config_path, &path);
    if (r < 0) {
        return cli_fail(cli, EXIT_INTERNAL, "%s", strerror(-r));
    }
    struct config *config = NULL;
    struct config_errors errors = {0};
    r = config_read(path, &config, &errors);
    for (size_t i = 0; i < errors.length; i++) {
        fprintf(stderr, "%s\n", errors.items[i].text);
    }
    config_errors_finish(&errors);
    free(path);
    const int code = r < 0 ? EXIT_CONFIG : replay_with(cli, config, asked, file);
    config_destroy(&config);
    return code;
}

static bool check(struct cli *cli, int argc, char **argv)
{
    if (argc == 0 || strcmp(argv[0], "replay") != 0) {
        return cli_refuse_verb(cli, argc > 0 ? argv[0] : NULL, "replay");
    }
    return argc == 2 || cli_refuse(cli, "replay takes one FILE");
}

static int route_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    struct asked asked = {.seed = 1};
    cli_parse(&cli, command, argc, argv, own, take_own, &asked);
    const bool is_good = !cli.is_done && check(&cli, argc - optind, argv + optind);
    const int code = is_good ? replay_file(&cli, &asked, argv[optind + 1]) : cli.exit_code;
    cli_finish(&cli);
    return code;
}

const struct command route_command = {"route", "replay recorded jobs through the choice of models",
                                      help, route_run};
