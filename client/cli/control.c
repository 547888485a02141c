/* pause, resume, drain: what an operator holds, of a route, a tier, a tenant or a worker. */
#include <string.h>
#include "client/cli/cli.h"

enum { OPTION_REASON = 1 };

static const struct option own_options[] = {{"reason", required_argument, NULL, OPTION_REASON},
                                            {0}};

#define SUBJECTS                                                                                   \
    "\nKINDs are route, tier, tenant and worker. Answers on the broker's admin HTTP, which takes " \
    "this from the same machine only.\n"

static const char pause_help[] =
    "Usage: tiermq pause [OPTIONS] KIND NAME\n"
    "\n"
    "Holds jobs: they are accepted and kept, but not dispatched until resume.\n" SUBJECTS "\n"
    "  --reason TEXT      for the log and for whoever asks\n"
    "\n"
    "Examples:\n"
    "  tiermq pause route sim-large --reason 'price change'\n"
    "  tiermq pause tier background\n";

static const char resume_help[] = "Usage: tiermq resume [OPTIONS] KIND NAME\n"
                                  "\n"
                                  "Takes back a pause or a drain.\n" SUBJECTS "\n"
                                  "Examples:\n"
                                  "  tiermq resume route sim-large\n";

static const char drain_help[] =
    "Usage: tiermq drain [OPTIONS] KIND NAME\n"
    "\n"
    "Lets it run empty: new jobs are refused, those that wait are done. A worker finishes what it "
    "runs and gets no more.\n" SUBJECTS "\n"
    "  --reason TEXT      for the log and for whoever asks\n"
    "\n"
    "Examples:\n"
    "  tiermq drain worker worker-2 --reason 'kernel update'\n"
    "  tiermq drain tenant acme\n";

static bool take_option(void *context, struct cli *cli, int code, const char *argument)
{
    (void)cli, (void)code;
    const char **reason = context;
    *reason = argument;
    return true;
}

static bool is_kind(const char *kind)
{
    static const char *const kinds[] = {"route", "tier", "tenant", "worker"};
    for (size_t i = 0; i < ARRAY_LENGTH(kinds); i++) {
        if (strcmp(kind, kinds[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool check(struct cli *cli, int argc, char **argv)
{
    if (argc < 2) {
        return cli_refuse(cli, "needs a kind and a name, such as tier background");
    }
    if (argc > 2) {
        return cli_refuse(cli, "takes a kind and a name, and no \"%s\"", argv[2]);
    }
    return is_kind(argv[0]) ||
           cli_refuse(cli, "\"%s\" is none of route, tier, tenant, worker", argv[0]);
}

static int send(struct cli *cli, const char *kind, const char *name, const char *reason)
{
    char path[32];
    snprintf(path, sizeof(path), "/v1/%s", cli->command->name);
    json_t *body = json_pack("{s:s,s:s,s:s}", "kind", kind, "name", name, "reason", reason);
    if (body == NULL) {
        return cli_fail(cli, EXIT_USAGE, "kind, name and reason must be UTF-8");
    }
    json_t *answer = NULL;
    const int code = cli_admin(cli, path, body, &answer);
    if (code == EXIT_OK && cli->json) {
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
    } else if (code == EXIT_OK) {
        printf("%s %s: %s\n", kind, name,
               strcmp(cli->command->name, "pause") == 0   ? "paused"
               : strcmp(cli->command->name, "drain") == 0 ? "draining"
                                                          : "resumed");
    }
    json_decref(answer);
    json_decref(body);
    return code;
}

static int control_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    const char *reason = "";
    cli_parse(&cli, command, argc, argv, own_options, take_option, &reason);
    char **rest = argv + optind;
    const bool is_good = !cli.is_done && check(&cli, argc - optind, rest) && cli_configure(&cli);
    const int code = is_good ? send(&cli, rest[0], rest[1], reason) : cli.exit_code;
    cli_finish(&cli);
    return code;
}

const struct command pause_command = {"pause", "hold a route, tier, tenant or worker", pause_help,
                                      control_run};
const struct command resume_command = {"resume", "take back a pause or a drain", resume_help,
                                       control_run};
const struct command drain_command = {"drain", "let a route, tier, tenant or worker run empty",
                                      drain_help, control_run};
