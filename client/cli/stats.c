/* stats: what the broker has, and has done, as its admin HTTP tells it. */
#include <string.h>
#include "client/cli/cli.h"

static const char help[] =
    "Usage: tiermq stats [OPTIONS]\n"
    "\n"
    "Shows what the broker holds by tier, what became of jobs since it started, and its workers.\n"
    "\n"
    "Examples:\n"
    "  tiermq stats\n"
    "  tiermq stats --json | jq .tiers\n"
    "  tiermq stats --admin unix:/run/tiermq/admin.sock\n";

static json_int_t number(const json_t *object, const char *group, const char *key)
{
    const json_t *from = group == NULL ? object : json_object_get(object, group);
    return json_integer_value(json_object_get(from, key));
}

/* What waits for something other than a worker is shown in one column. */
static json_int_t waiting(const json_t *tier)
{
    return number(tier, "states", "backing_off") + number(tier, "states", "loading") +
           number(tier, "states", "following") + number(tier, "states", "parked");
}

static json_int_t rejected(const json_t *tier)
{
    json_int_t sum = 0;
    const char *reason = NULL;
    json_t *count = NULL;
    json_object_foreach (json_object_get(tier, "rejected"), reason, count) {
        sum += json_integer_value(count);
    }
    return sum;
}

static void print_tier(const json_t *tier)
{
    printf("%-12s %9lld %9lld %9lld %10lld %9lld %9lld %9lld %9lld %8.1f %12.6f %12.6f\n",
           json_string_value(json_object_get(tier, "name")),
           (long long)number(tier, "states", "queued"), (long long)waiting(tier),
           (long long)number(tier, "states", "leased"),
           (long long)number(tier, "concluded", "succeeded"),
           (long long)number(tier, "concluded", "dead"),
           (long long)number(tier, "concluded", "cancelled"),
           (long long)number(tier, "concluded", "expired"), (long long)rejected(tier),
           json_number_value(json_object_get(tier, "drain_per_s")),
           json_number_value(json_object_get(tier, "cost_usd")),
           json_number_value(json_object_get(tier, "saved_usd")));
}

static void print_pause(const json_t *pause)
{
    const char *reason = json_string_value(json_object_get(pause, "reason"));
    printf("%s %s: %s%s%s\n", json_string_value(json_object_get(pause, "kind")),
           json_string_value(json_object_get(pause, "name")),
           json_string_value(json_object_get(pause, "mode")),
           reason == NULL || reason[0] == '\0' ? "" : ": ", reason == NULL ? "" : reason);
}

static void print_table(const json_t *stats)
{
    printf("%-12s %9s %9s %9s %10s %9s %9s %9s %9s %8s %12s %12s\n", "tier", "queued", "waiting",
           "leased", "succeeded", "dead", "cancelled", "expired", "rejected", "per s", "cost USD",
           "saved USD");
    size_t i = 0;
    const json_t *tier = NULL;
    json_array_foreach (json_object_get(stats, "tiers"), i, tier) {
        print_tier(tier);
    }
    printf("%lld jobs pending; %lld workers with %lld of %lld slots free; %lld clients; %lld "
           "results kept; "
           "%lld dead letters%s%s\n",
           (long long)number(stats, NULL, "jobs"), (long long)number(stats, NULL, "workers"),
           (long long)number(stats, NULL, "slots_free"), (long long)number(stats, NULL, "slots"),
           (long long)number(stats, NULL, "clients"), (long long)number(stats, NULL, "results"),
           (long long)number(stats, NULL, "dead_letters"),
           json_is_true(json_object_get(stats, "draining")) ? "; draining" : "",
           json_is_false(json_object_get(json_object_get(stats, "store"), "up"))
               ? "; the store is down"
               : "");
    const json_t *pause = NULL;
    json_array_foreach (json_object_get(stats, "pauses"), i, pause) {
        print_pause(pause);
    }
}

/* A worker has a /v1/stats of its own, in which a broker's members are missing: all would be 0. */
static int show(struct cli *cli)
{
    json_t *stats = NULL;
    const int code = cli_admin(cli, "/v1/stats", NULL, &stats);
    if (code != EXIT_OK) {
        return code;
    }
    if (!json_is_array(json_object_get(stats, "tiers"))) {
        json_decref(stats);
        return cli_fail(cli, EXIT_UNREACHABLE,
                        "no broker's admin HTTP at %s: a worker answers there (--admin names "
                        "another address)",
                        cli->admin);
    }
    return cli_show(cli, stats, print_table);
}

static int stats_run(const struct command *command, int argc, char **argv)
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

const struct command stats_command = {"stats", "show queues, outcomes and workers", help,
                                      stats_run};
