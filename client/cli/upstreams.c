/* upstreams: the models at providers as the broker sees them: which are down, limited, slow to
 * start. */
#include <string.h>
#include "client/cli/cli.h"

enum { OPTION_ALL = 1 };

static const struct option own_options[] = {{"all", no_argument, NULL, OPTION_ALL}, {0}};

static const char help[] =
    "Usage: tiermq upstreams [OPTIONS]\n"
    "       tiermq upstreams reset PROVIDER/MODEL … | --all\n"
    "\n"
    "Shows each model at each provider: whether it is called (closed), down (open), being probed "
    "(half_open) or filling again (slow_start), its limits, and what came of its calls.\n"
    "\n"
    "reset forgets for how long it asked to be left alone, and lets what is down be probed now: "
    "only an answer shows that it is up.\n"
    "It shows them as they are then. On the broker's admin HTTP, which takes this from the same "
    "machine only.\n"
    "\n"
    "Examples:\n"
    "  tiermq upstreams\n"
    "  tiermq upstreams reset openai/gpt-large\n"
    "  tiermq upstreams --json | jq '.upstreams[] | select(.state != \"closed\")'\n";

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value == NULL || value[0] == '\0' ? "-" : value;
}

static long long number(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static void print_table(const json_t *answer)
{
    printf("%-16s %-20s %-10s %-16s %10s %8s %10s %9s %11s %12s %7s %7s\n", "provider", "model",
           "state", "error", "blocked ms", "pace/s", "limit/min", "answered", "unavailable",
           "rate limited", "probes", "opened");
    size_t i = 0;
    const json_t *upstream = NULL;
    json_array_foreach (json_object_get(answer, "upstreams"), i, upstream) {
        printf("%-16s %-20s %-10s %-16s %10lld %8.1f %10lld %9lld %11lld %12lld %7lld %7lld\n",
               text(upstream, "provider"), text(upstream, "model"), text(upstream, "state"),
               text(upstream, "error"), number(upstream, "blocked_ms"),
               json_number_value(json_object_get(upstream, "pace_per_s")),
               number(upstream, "requests_per_min"), number(upstream, "answered"),
               number(upstream, "unavailable"), number(upstream, "rate_limited"),
               number(upstream, "probes"), number(upstream, "opened"));
    }
}

static bool is_upstream(const char *name)
{
    const char *slash = strchr(name, '/');
    return slash != NULL && slash != name && slash[1] != '\0';
}

/* NULL: all. */
static json_t *choice_of(const char *upstream)
{
    if (upstream == NULL) {
        return json_pack("{s:b}", "all", true);
    }
    const char *slash = strchr(upstream, '/');
    return json_pack("{s:s%, s:s}", "provider", upstream, (size_t)(slash - upstream), "model",
                     slash + 1);
}

static int reset(struct cli *cli, const char *upstream)
{
    json_t *choice = choice_of(upstream);
    if (choice == NULL) {
        return cli_fail(cli, EXIT_INTERNAL, "\"%s\": not UTF-8, or out of memory", upstream == NULL ? "--all" : upstream);
    }
    const int code = cli_admin_show(cli, "/v1/upstreams/reset", choice, print_table);
    json_decref(choice);
    return code;
}

/* Either all of them or those that are named, every one of them well formed before the first is reset: what resets more
 * than was meant calls a provider that asked for quiet. */
static bool check(struct cli *cli, int argc, char **argv, bool all)
{
    if (argc == 0) {
        return !all || cli_refuse(cli, "--all is for reset");
    }
    if (strcmp(argv[0], "reset") != 0) {
        return cli_refuse(cli, "takes no \"%s\", but reset", argv[0]);
    }
    if (all == (argc > 1)) {
        return cli_refuse(cli, "reset needs PROVIDER/MODEL, or --all and none of them");
    }
    for (int i = 1; i < argc; i++) {
        if (!is_upstream(argv[i])) {
            return cli_refuse(cli, "\"%s\" is not of the form PROVIDER/MODEL", argv[i]);
        }
    }
    return true;
}

static int carry_out(struct cli *cli, int argc, char **argv)
{
    if (argc == 0) {
        return cli_admin_show(cli, "/v1/upstreams", NULL, print_table);
    }
    int code = argc == 1 ? reset(cli, NULL) : EXIT_OK;
    for (int i = 1; i < argc && code == EXIT_OK; i++) {
        code = reset(cli, argv[i]);
    }
    return code;
}

static bool take_option(void *context, struct cli *cli, int code, const char *argument)
{
    (void)cli, (void)code, (void)argument;
    bool *all = context;
    *all = true;
    return true;
}

static int upstreams_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    bool all = false;
    cli_parse(&cli, command, argc, argv, own_options, take_option, &all);
    char **rest = argv + optind;
    const bool is_good =
        !cli.is_done && check(&cli, argc - optind, rest, all) && cli_configure(&cli);
    const int code = is_good ? carry_out(&cli, argc - optind, rest) : cli.exit_code;
    cli_finish(&cli);
    return code;
}

const struct command upstreams_command = {
    "upstreams", "show which models at providers are down, or call them again", help,
    upstreams_run};
