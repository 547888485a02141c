/* quality: what feedback says of answers, by each of what they came from. */
#include <stdlib.h>
#include <string.h>
#include "client/cli/cli.h"

static const char help[] =
    "Usage: tiermq quality [OPTIONS] [--comments]\n"
    "\n"
    "Shows what users have said of answers since the broker started: how many scores, their mean "
    "and the last one, by model,\n"
    "route, tier, cache decision and task.\n"
    "\n"
    "  --comments         the latest comments instead, on the broker's machine only\n"
    "\n"
    "Examples:\n"
    "  tiermq quality\n"
    "  tiermq quality --json | jq '.sums[] | select(.task == \"summary\")'\n"
    "  tiermq quality --comments\n";

enum { OPTION_COMMENTS = 1 };

static const struct option own[] = {{"comments", no_argument, NULL, OPTION_COMMENTS}, {0}};

static bool take_own(void *context, struct cli *cli, int code, const char *argument)
{
    (void)cli;
    (void)code;
    (void)argument;
    *(bool *)context = true;
    return true;
}

static const char *text(const json_t *object, const char *key)
{
    const char *string = json_string_value(json_object_get(object, key));
    return string == NULL ? "" : string;
}

static double real(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* Adds a sum of the answer to what is known of its `group` ("model" …) so far: count, score, last,
 * when that came. */
static void add_sum(json_t *groups, const char *group, const json_t *sum)
{
    const char *name = text(sum, group);
    json_t *known = json_object_get(groups, name);
    if (known == NULL) {
        known = json_pack("{s:f, s:f, s:f, s:f}", "count", 0.0, "score", 0.0, "last", 0.0,
                          "last_unix_ms", -1.0);
        (void)json_object_set_new(groups, name, known);
    }
    const double count = real(sum, "count");
    (void)json_object_set_new(known, "count", json_real(real(known, "count") + count));
    (void)json_object_set_new(known, "score",
                              json_real(real(known, "score") + count * real(sum, "mean")));
    if (real(sum, "last_unix_ms") > real(known, "last_unix_ms")) {
        (void)json_object_set_new(known, "last", json_real(real(sum, "last")));
        (void)json_object_set_new(known, "last_unix_ms", json_real(real(sum, "last_unix_ms")));
    }
}

static void print_group(const json_t *answer, const char *group)
{
    json_t *groups = json_object();
    size_t i = 0;
    const json_t *sum = NULL;
    json_array_foreach (json_object_get(answer, "sums"), i, sum) {
        add_sum(groups, group, sum);
    }
    printf("%-32s %9s %6s %6s\n", group, "feedback", "mean", "last");
    const char *name = NULL;
    json_t *known = NULL;
    json_object_foreach (groups, name, known) {
        printf("%-32s %9.0f %6.2f %6.2f\n", name[0] == '\0' ? "-" : name, real(known, "count"),
               real(known, "score") / real(known, "count"), real(known, "last"));
    }
    json_decref(groups);
}

static void print_sums(const json_t *answer)
{
    static const char *const groups[] = {"model", "route", "tier", "cache", "task"};
    for (size_t i = 0; i < ARRAY_LENGTH(groups); i++) {
        print_group(answer, groups[i]);
        putchar('\n');
    }
    const char *separator = "feedback: ";
    const char *outcome = NULL;
    json_t *count = NULL;
    json_object_foreach (json_object_get(answer, "feedback"), outcome, count) {
        printf("%s%lld %s", separator, (long long)json_integer_value(count), outcome);
        separator = ", ";
    }
    putchar('\n');
}

static void print_comments(const json_t *answer)
{
    size_t i = 0;
    const json_t *comment = NULL;
    json_array_foreach (json_object_get(answer, "comments"), i, comment) {
        printf("%s  %.2f  %s  %s: %s\n", text(comment, "id"), real(comment, "score"),
               text(comment, "tenant"), text(comment, "model"), text(comment, "comment"));
    }
}

static int quality_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    bool comments = false;
    cli_parse(&cli, command, argc, argv, own, take_own, &comments);
    if (!cli.is_done && optind < argc) {
        cli_refuse(&cli, "takes no \"%s\"", argv[optind]);
    }
    int code = cli.exit_code;
    if (!cli.is_done && cli_configure(&cli)) {
        code = comments ? cli_admin_show(&cli, "/v1/quality/comments", NULL, print_comments)
                        : cli_admin_show(&cli, "/v1/quality", NULL, print_sums);
    } else {
        code = cli.exit_code;
    }
    cli_finish(&cli);
    return code;
}

const struct command quality_command = {"quality", "show what users say of answers", help,
                                        quality_run};
