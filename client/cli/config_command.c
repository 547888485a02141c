/* config: check and show the one configuration file, and print the reference of its keys. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "client/cli/cli.h"
#include "common/config.h"

static const char help[] =
    "Usage: tiermq config check [FILE]\n"
    "       tiermq config show [FILE]\n"
    "       tiermq config reference\n"
    "\n"
    "check says what is wrong with a configuration file, each with line, column, key, value and "
    "remedy, and which default tiers\n"
    "a list of tiers leaves out. show prints every key with the value that is in force, as a file "
    "that can be read again; keys\n"
    "of providers are hidden.\n"
    "reference prints every key with its type, unit, default and meaning.\n"
    "\n"
    "Examples:\n"
    "  tiermq config check deploy/tiermq.yaml\n"
    "  tiermq config show\n"
    "  tiermq config reference | less\n";

static int fail_write(struct cli *cli, int error)
{
    return cli_fail(cli, EXIT_INTERNAL, "cannot write: %s", strerror(-error));
}

static int show_reference(struct cli *cli)
{
    int r = config_write_reference(stdout);
    return r < 0 ? fail_write(cli, r) : EXIT_OK;
}

/* A given list of tiers replaces the default set, which surprises whoever meant to change
 * one of them. */
static void note_tiers(const struct config *config)
{
    struct config *defaults = NULL;
    struct config_errors errors = {0};
    size_t n_gone = 0;
    int r = config_read(NULL, &defaults, &errors);
    config_errors_finish(&errors);
    if (r < 0) {
        return; /* no memory, and it is a note */
    }
    for (size_t i = 0; i < defaults->tiers_length; i++) {
        const char *name = defaults->tiers[i].name;
        if (config_find_tier(config, name) == NULL) {
            printf("%s%s",
                   n_gone++ == 0 ? "note: `tiers` replaces the default set: without " : ", ", name);
        }
    }
    if (n_gone > 0) {
        printf("; to keep one, give it by its name alone: - {name: …}\n");
    }
    config_destroy(&defaults);
}

static int act_on_file(struct cli *cli, const char *action, const char *path)
{
    struct config *config = NULL;
    struct config_errors errors = {0};
    int r = config_read(path, &config, &errors);
    for (size_t i = 0; i < errors.length; i++) {
        fprintf(stderr, "%s\n", errors.items[i].text);
    }
    const size_t n_errors = errors.length;
    config_errors_finish(&errors);
    if (r < 0) {
        return cli_fail(cli, EXIT_CONFIG, "%s: %zu error%s", path == NULL ? "defaults" : path,
                        n_errors, n_errors == 1 ? "" : "s");
    }
    if (strcmp(action, "show") == 0) {
        r = config_write(config, stdout);
    } else {
        printf("%s: no errors\n", path == NULL ? "no file found; defaults" : path);
        note_tiers(config);
    }
    config_destroy(&config);
    return r < 0 ? fail_write(cli, r) : EXIT_OK;
}

static bool check(struct cli *cli, int argc, char **argv)
{
    const char *verb = argc > 0 ? argv[0] : NULL;
    const bool is_reference = verb != NULL && strcmp(verb, "reference") == 0;
    const bool is_known =
        is_reference || (verb != NULL && (strcmp(verb, "check") == 0 || strcmp(verb, "show") == 0));
    if (!is_known) {
        return cli_refuse_verb(cli, verb, "check, show, reference");
    }
    const int most = is_reference ? 1 : 2;
    return argc <= most || cli_refuse(cli, "%s takes no \"%s\"", verb, argv[most]);
}

static int act(struct cli *cli, int argc, char **argv)
{
    if (!check(cli, argc, argv)) {
        return cli->exit_code;
    }
    if (strcmp(argv[0], "reference") == 0) {
        return show_reference(cli);
    }
    char *path = NULL;
    int r = config_locate(argc == 2 ? argv[1] : cli->config_path, &path);
    if (r < 0) {
        return cli_fail(cli, EXIT_INTERNAL, "%s", strerror(-r));
    }
    const int code = act_on_file(cli, argv[0], path);
    free(path);
    return code;
}

static int config_run(const struct command *command, int argc, char **argv)
{
    struct cli cli = {0};
    cli_parse(&cli, command, argc, argv, NULL, NULL, NULL);
    return cli.is_done ? cli.exit_code : act(&cli, argc - optind, argv + optind);
}

const struct command config_command = {"config", "check and show the configuration", help,
                                       config_run};
