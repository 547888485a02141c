/* cost: what was spent and saved, what is left of budgets, and what the cluster takes: the broker's
 * ledger. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "client/cli/cli.h"

enum { OPTION_BY = 1, OPTION_FROM, OPTION_TO, OPTION_CSV, OPTION_INFRASTRUCTURE };
enum { USD_BYTES = 40, BILLION = 1000000000 };

static const struct option own_options[] = {
    {"by", required_argument, NULL, OPTION_BY},
    {"from", required_argument, NULL, OPTION_FROM},
    {"to", required_argument, NULL, OPTION_TO},
    {"csv", no_argument, NULL, OPTION_CSV},
    {"infrastructure", no_argument, NULL, OPTION_INFRASTRUCTURE},
    {0}};

static const char help[] =
    "Usage: tiermq cost [OPTIONS]\n"
    "\n"
    "Shows what calls to models have cost, what was saved, and what is left of budgets.\n"
    "Money is in US dollars, exact to the nano-dollar; in JSON it is in whole nano-dollars.\n"
    "\n"
    "Options:\n"
    "  --by NAMES        some of day, tenant, tier, model, provider, separated by commas (tenant)\n"
    "  --from, --to DAY  of UTC, both included, such as 2026-01-31 (all that is kept)\n"
    "  --infrastructure  workers, GPUs, storage and traffic alone, by pool; of --by day counts\n"
    "  --csv             comma-separated values, with a line of names first\n"
    "  --json            as the broker says it\n"
    "\n"
    "Examples:\n"
    "  tiermq cost\n"
    "  tiermq cost --by day,model --from 2026-01-01 --csv >january.csv\n"
    "  tiermq cost --infrastructure --by day --csv\n"
    "  tiermq cost --by tier --json | jq '.total.cost_nanousd'\n";

struct choice {
    const char *by, *from, *to;
    bool csv, infrastructure;
};

/* ---- numbers ---- */

static json_int_t number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

/* All nine decimals: sums of what is shown are exact. */
static const char *usd(json_int_t nanousd, char ret_text[USD_BYTES])
{
    const uint64_t size = nanousd < 0 ? -(uint64_t)nanousd : (uint64_t)nanousd;
    snprintf(ret_text, USD_BYTES, "%s%" PRIu64 ".%09" PRIu64, nanousd < 0 ? "-" : "",
             size / BILLION, size % BILLION);
    return ret_text;
}

static json_int_t saved(const json_t *row)
{
    return number(row, "saved_cache_nanousd") + number(row, "saved_followers_nanousd") +
           number(row, "saved_prompt_cache_nanousd") + number(row, "saved_batching_nanousd") +
           number(row, "saved_optimising_nanousd") + number(row, "saved_routing_nanousd");
}

/* ---- the table ---- */

static void print_line(const char *name, const json_t *row)
{
    char cost[USD_BYTES];
    char estimated[USD_BYTES];
    char spared[USD_BYTES];
    printf("%-40s %10lld %14lld %14lld %10lld %18s %18s %18s\n", name,
           (long long)number(row, "calls"),
           (long long)(number(row, "input_tokens") + number(row, "cached_input_tokens") +
                       number(row, "cache_write_tokens") + number(row, "cache_write_long_tokens")),
           (long long)number(row, "output_tokens"), (long long)number(row, "cache_hits"),
           usd(number(row, "cost_nanousd"), cost), usd(number(row, "estimated_nanousd"), estimated),
           usd(saved(row), spared));
}

/* "2026-01-31 tenant-a"; what is not known is "-". */
static void write_name(const json_t *by, const json_t *row, char *ret_name, size_t bytes)
{
    size_t i = 0;
    size_t length = 0;
    const json_t *name = NULL;
    ret_name[0] = '\0';
    json_array_foreach (by, i, name) {
        const char *value = json_string_value(json_object_get(row, json_string_value(name)));
        const int added = snprintf(ret_name + length, bytes - length, "%s%s", i == 0 ? "" : " ",
                                   value == NULL || value[0] == '\0' ? "-" : value);
        length += added > 0 ? (size_t)added : 0;
        if (length >= bytes) {
            return;
        }
    }
}

static void print_limit(const json_t *budget, const char *window, const char *spent_key,
                        const char *limit_key)
{
    char spent[USD_BYTES];
    char limit[USD_BYTES];
    if (json_is_integer(json_object_get(budget, limit_key))) {
        printf("  %s: %s of %s", window, usd(number(budget, spent_key), spent),
               usd(number(budget, limit_key), limit));
    }
}

static void print_budget(const json_t *budget)
{
    const char *tenant = json_string_value(json_object_get(budget, "tenant"));
    const char *tier = json_string_value(json_object_get(budget, "tier"));
    char reserved[USD_BYTES];
    printf("budget of %s%s%s%s%s", tenant == NULL || tenant[0] == '\0' ? "" : "tenant ",
           tenant == NULL ? "" : tenant,
           tenant != NULL && tenant[0] != '\0' && tier != NULL && tier[0] != '\0' ? ", " : "",
           tier == NULL || tier[0] == '\0' ? "" : "tier ", tier == NULL ? "" : tier);
    print_limit(budget, "today", "day_nanousd", "daily_nanousd");
    print_limit(budget, "this month", "month_nanousd", "monthly_nanousd");
    printf("  reserved: %s%s\n", usd(number(budget, "reserved_nanousd"), reserved),
           json_is_true(json_object_get(budget, "soft")) ? "  (cheaper models are taken)" : "");
}

/* ---- infrastructure ---- */

/* Milliseconds as hours, bytes as gigabytes. */
static void print_upkeep_line(const char *name, const json_t *row)
{
    char cost[USD_BYTES];
    printf("%-40s %14.3f %14.3f %18.3f %14.6f %18s\n", name,
           (double)number(row, "worker_ms") / 3.6e6, (double)number(row, "gpu_ms") / 3.6e6,
           (double)number(row, "storage_byte_hours") / 1e9,
           (double)number(row, "traffic_bytes") / 1e9, usd(number(row, "cost_nanousd"), cost));
}

static void print_upkeep(const json_t *answer)
{
    const json_t *infrastructure = json_object_get(answer, "infrastructure");
    size_t i = 0;
    const json_t *row = NULL;
    printf("%-40s %14s %14s %18s %14s %18s\n", "infrastructure", "worker hours", "GPU hours",
           "storage GB hours", "traffic GB", "cost USD");
    json_array_foreach (json_object_get(infrastructure, "rows"), i, row) {
        const char *pool = json_string_value(json_object_get(row, "pool"));
        const char *day = json_string_value(json_object_get(row, "day"));
        char name[256];
        snprintf(name, sizeof(name), "%s%s%s%s", day == NULL ? "" : day, day == NULL ? "" : " ",
                 pool == NULL || pool[0] == '\0' ? "" : "pool ",
                 pool == NULL || pool[0] == '\0' ? "broker" : pool);
        print_upkeep_line(name, row);
    }
    print_upkeep_line("total", json_object_get(infrastructure, "total"));
}

static void print_table(const json_t *answer)
{
    const json_t *by = json_object_get(answer, "by");
    char name[256];
    size_t i = 0;
    const json_t *item = NULL;
    printf("%-40s %10s %14s %14s %10s %18s %18s %18s\n", "", "calls", "input tokens",
           "output tokens", "cache hits", "cost USD", "estimated USD", "saved USD");
    json_array_foreach (json_object_get(answer, "rows"), i, item) {
        write_name(by, item, name, sizeof(name));
        print_line(name, item);
    }
    print_line("total", json_object_get(answer, "total"));
    json_array_foreach (json_object_get(answer, "budgets"), i, item) {
        print_budget(item);
    }
    if (json_array_size(json_object_get(json_object_get(answer, "infrastructure"), "rows")) > 0) {
        print_upkeep(answer);
    }
}

/* ---- CSV ---- */

/* RFC 4180. */
static void print_quoted(const char *text)
{
    if (strpbrk(text, ",\"\r\n") == NULL) {
        fputs(text, stdout);
        return;
    }
    putchar('"');
    for (; *text != '\0'; text++) {
        printf(*text == '"' ? "\"\"" : "%c", *text);
    }
    putchar('"');
}

static void print_value(const char *key, const json_t *value)
{
    const size_t bytes = strlen(key);
    const bool is_money = bytes > 8 && strcmp(key + bytes - 8, "_nanousd") == 0;
    char text[USD_BYTES];
    if (json_is_string(value)) {
        print_quoted(json_string_value(value));
    } else if (is_money) {
        fputs(usd(json_integer_value(value), text), stdout);
    } else {
        printf("%lld", (long long)json_integer_value(value));
    }
}

static void print_csv_names(const json_t *row)
{
    const char *key = NULL;
    const char *separator = "";
    json_t *value = NULL;
    json_object_foreach ((json_t *)row, key, value) {
        const size_t bytes = strlen(key);
        const bool is_money = bytes > 8 && strcmp(key + bytes - 8, "_nanousd") == 0;
        printf("%s%.*s%s", separator, (int)(is_money ? bytes - 7 : bytes), key,
               is_money ? "usd" : "");
        separator = ",";
    }
    putchar('\n');
}

static void print_csv_rows(const json_t *rows)
{
    size_t i = 0;
    const json_t *row = NULL;
    if (json_array_size(rows) > 0) {
        print_csv_names(json_array_get(rows, 0));
    }
    json_array_foreach (rows, i, row) {
        const char *key = NULL;
        const char *separator = "";
        json_t *value = NULL;
        json_object_foreach ((json_t *)row, key, value) {
            fputs(separator, stdout);
            print_value(key, value);
            separator = ",";
        }
        putchar('\n');
    }
}

static void print_csv(const json_t *answer)
{
    print_csv_rows(json_object_get(answer, "rows"));
}

static void print_upkeep_csv(const json_t *answer)
{
    print_csv_rows(json_object_get(json_object_get(answer, "infrastructure"), "rows"));
}

/* ---- the command ---- */

static bool take_option(void *context, struct cli *cli, int code, const char *argument)
{
    (void)cli;
    struct choice *choice = context;
    switch (code) {
    case OPTION_BY:
        choice->by = argument;
        break;
    case OPTION_FROM:
        choice->from = argument;
        break;
    case OPTION_TO:
        choice->to = argument;
        break;
    case OPTION_INFRASTRUCTURE:
        choice->infrastructure = true;
        break;
    default:
        choice->csv = true;
        break;
    }
    return true;
}

static int show(struct cli *cli, const struct choice *choice)
{
    json_t *parameters = json_object();
    const char *const pairs[][2] = {{"by", choice->by}, {"from", choice->from}, {"to", choice->to}};
    for (size_t i = 0; i < ARRAY_LENGTH(pairs); i++) {
        if (pairs[i][1] != NULL) {
            (void)json_object_set_new(parameters, pairs[i][0], json_string(pairs[i][1]));
        }
    }
    char *path = cli_admin_path("/v1/cost", parameters);
    json_decref(parameters);
    if (path == NULL) {
        return cli_fail(cli, EXIT_INTERNAL, "out of memory");
    }
    const int code =
        cli_admin_show(cli, path, NULL,
                       choice->infrastructure ? (choice->csv ? print_upkeep_csv : print_upkeep)
                       : choice->csv          ? print_csv
                                              : print_table);
    free(path);
    return code;
}

static int cost_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    struct choice choice = {.csv = false};
    cli_parse(&cli, command, argc, argv, own_options, take_option, &choice);
    const bool is_good =
        !cli.is_done && (argc == optind || cli_refuse(&cli, "takes no \"%s\"", argv[optind])) &&
        (!choice.csv || !cli.json || cli_refuse(&cli, "--csv and --json exclude each other")) &&
        cli_configure(&cli);
    const int code = is_good ? show(&cli, &choice) : cli.exit_code;
    cli_finish(&cli);
    return code;
}

const struct command cost_command = {"cost", "show what was spent and saved, and budgets", help,
                                     cost_run};
