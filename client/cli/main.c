/* tiermq: the command line. One file for each command; this one only finds it. */
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include "client/cli/cli.h"

static const struct command *const commands[] = {
    &submit_command,  &wait_command,  &status_command,    &get_command,     &cancel_command,
    &dead_command,    &stats_command, &upstreams_command, &cache_command,   &pause_command,
    &resume_command,  &drain_command, &config_command,    &explain_command, &feedback_command,
    &quality_command, &route_command, &cost_command,
};

static void print_help(FILE *out)
{
    fprintf(out, "Usage: tiermq COMMAND [OPTIONS]\n\nCommands:\n");
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++) {
        fprintf(out, "  %-9s %s\n", commands[i]->name, commands[i]->summary);
    }
    fprintf(out, "\ntiermq COMMAND --help tells more, with examples.\n"
                 "\nExamples:\n"
                 "  tiermq submit --tier realtime 'What is a queue?'\n"
                 "  tiermq submit --file prompts.jsonl --tier background --out answers.jsonl\n"
                 "  tiermq stats\n");
}

static int run(const struct command *command, int argc, char **argv)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0) {
        fprintf(stderr, "tiermq: libcurl cannot be initialised\n");
        return EXIT_INTERNAL;
    }
    int code = command->run(command, argc, argv);
    curl_global_cleanup();
    /* Output that nobody took (a full disk) is a failure, also when all went well before it. */
    if (fflush(stdout) != 0 && code == EXIT_OK) {
        perror("tiermq: standard output");
        code = EXIT_INTERNAL;
    }
    return code;
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++) {
        if (strcmp(name, commands[i]->name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

static int refuse_unknown(const char *name)
{
    fprintf(stderr, "tiermq: unknown command \"%s\"; see tiermq --help\n", name);
    return EXIT_USAGE;
}

/* `tiermq help submit` is `tiermq submit --help`. */
static int help_of(char *name)
{
    char option[] = "--help";
    char *argv[] = {name, option, NULL};
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0) {
        print_help(stdout);
        return EXIT_OK;
    }
    const struct command *command = find(name);
    return command == NULL ? refuse_unknown(name) : run(command, 2, argv);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "help") == 0 && argc > 2) {
        return help_of(argv[2]);
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("tiermq %s\n", TIERMQ_VERSION);
        return EXIT_OK;
    }
    const struct command *command = find(argv[1]);
    if (command != NULL) {
        return run(command, argc - 1, argv + 1);
    }
    if (argv[1][0] == '-') {
        fprintf(stderr, "tiermq: \"%s\" stands before the command; write tiermq COMMAND %s …\n",
                argv[1], argv[1]);
        return EXIT_USAGE;
    }
    return refuse_unknown(argv[1]);
}
