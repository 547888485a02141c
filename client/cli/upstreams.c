/* upstreams: the models at providers as the broker sees them: which are down, limited, slow to start. */
#include <string.h>
#include "client/cli/cli.h"

static const char help[] =
    "Usage: tiermq upstreams [OPTIONS]\n"
    "\n"
    "Shows each model at each provider: whether it is called (closed), down (open), being probed "
    "(half_open) or filling again (slow_start), its limits, and what came of its calls.\n"
    "\n"
    "Examples:\n"
    "  tiermq upstreams\n"
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
    json_array_foreach(json_object_get(answer, "upstreams"), i, upstream)
    {
        printf("%-16s %-20s %-10s %-16s %10lld %8.1f %10lld %9lld %11lld %12lld %7lld %7lld\n",
               text(upstream, "provider"), text(upstream, "model"), text(upstream, "state"),
               text(upstream, "error"), number(upstream, "blocked_ms"),
               json_number_value(json_object_get(upstream, "pace_per_s")),
               number(upstream, "requests_per_min"), number(upstream, "answered"),
               number(upstream, "unavailable"), number(upstream, "rate_limited"),
               number(upstream, "probes"), number(upstream, "opened"));
    }
}

static int show(struct cli *cli)
{
    json_t *answer = NULL;
    int code = cli_admin(cli, "/v1/upstreams", NULL, &answer);
    if (code != EXIT_OK) {
        return code;
    }
    if (!cli->json) {
        print_table(answer);
    } else if (json_dumpf(answer, stdout, JSON_COMPACT) < 0 || putchar('\n') == EOF) {
        code = cli_fail(cli, EXIT_INTERNAL, "cannot write");
    }
    json_decref(answer);
    return code;
}

static int upstreams_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    cli_parse(&cli, command, argc, argv, NULL, NULL, NULL);
    if (!cli.is_done && optind < argc) {
        cli_refuse(&cli, "takes no \"%s\"", argv[optind]);
    }
    const int code = !cli.is_done && cli_configure(&cli) ? show(&cli) : cli.exit_code;
    cli_finish(&cli);
    return code;
}

const struct command upstreams_command = {"upstreams", "show which models at providers are down",
                                          help, upstreams_run};
