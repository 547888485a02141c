#include <getopt.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "broker/broker.h"
#include "common/config.h"
#include "common/log.h"

static const char HELP[] =
    "usage: tiermq-broker [--config FILE] [--salvage]\n"
    "\n"
    "Keeps the queues of a tiermq cluster: takes jobs from clients, hands them to workers, keeps "
    "what was accepted.\n"
    "\n"
    "  --config FILE  read this configuration; otherwise $TIERMQ_CONFIG, ./tiermq.yaml, "
    "/etc/tiermq/tiermq.yaml, or\n"
    "                 the defaults (`tiermq config reference` lists every key)\n"
    "  --salvage      when the data directory is damaged: before it starts, copy what can be read "
    "into a new\n"
    "                 database, put the damaged one aside, and say what is lost\n"
    "  --help         this text\n"
    "  --version      the version\n"
    "\n"
    "Signals: SIGHUP reads the configuration again; SIGTERM and SIGINT stop it after a grace time "
    "for running jobs\n"
    "(broker.drain_timeout), and at once when sent twice.\n"
    "Exit codes: 0 stopped, 1 failure, 2 wrong arguments, 3 configuration errors, 4 an address "
    "cannot be bound,\n"
    "5 the data directory is in use, unwritable, damaged, or of a later version.\n";

/*
 * One loop allocates nearly everything and the threads of the store free part of it:
 * arenas of their own would only keep apart what could be used again. A threshold that is set does
 * not grow: otherwise RocksDB's write buffers end up on the heap and keep it large (measured after
 * a million jobs: 104 MB resident, against 82 MB).
 */
static void bound_memory(void)
{
    (void)mallopt(M_ARENA_MAX, 2);
    (void)mallopt(M_TRIM_THRESHOLD, 4 << 20);
    (void)mallopt(M_MMAP_THRESHOLD, 128 << 10);
}

/* Each client and worker is a descriptor. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* what was allowed before is then what there is */
    }
}

static void print_errors(const struct config_errors *errors)
{
    for (size_t i = 0; i < errors->length; i++) {
        fprintf(stderr, "%s\n", errors->items[i].text);
    }
    fprintf(stderr, "tiermq-broker: %zu error%s in the configuration\n", errors->length,
            errors->length == 1 ? "" : "s");
}

static enum exit_code read_config(const char *path, struct config **ret_config)
{
    CLEANUP(config_errors_finish) struct config_errors errors = {0};
    const int r = config_read(path, ret_config, &errors);
    if (r < 0) {
        print_errors(&errors);
    }
    return r < 0 ? EXIT_CONFIG : EXIT_OK;
}

static enum exit_code serve(struct config **config, const char *path, bool salvages)
{
    CLEANUP(log_destroy) struct log *log = NULL;
    if (log_create("broker", (enum log_level)(*config)->log.level, STDERR_FILENO, &log) < 0) {
        return EXIT_INTERNAL;
    }
    CLEANUP(broker_destroy) struct broker *broker = NULL;
    const enum exit_code code = broker_create(config, path, salvages, log, &broker);
    return code != EXIT_OK ? code : broker_run(broker);
}

static enum exit_code locate_and_serve(const char *argument, bool salvages)
{
    char *path = NULL;
    if (config_locate(argument, &path) < 0) {
        return EXIT_INTERNAL;
    }
    CLEANUP(config_destroy) struct config *config = NULL;
    enum exit_code code = read_config(path, &config);
    if (code == EXIT_OK) {
        code = serve(&config, path, salvages);
    }
    free(path);
    return code;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"salvage", no_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    const char *config_path = NULL;
    bool salvages = false;
    for (int option = 0; (option = getopt_long(argc, argv, "c:hv", options, NULL)) != -1;) {
        switch (option) {
        case 'c':
            config_path = optarg;
            break;
        case 's':
            salvages = true;
            break;
        case 'h':
            fputs(HELP, stdout);
            return EXIT_OK;
        case 'v':
            puts("tiermq-broker " TIERMQ_VERSION);
            return EXIT_OK;
        default:
            fputs("tiermq-broker: see --help\n", stderr);
            return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "tiermq-broker: \"%s\" is not understood; see --help\n", argv[optind]);
        return EXIT_USAGE;
    }
    bound_memory();
    raise_descriptor_limit();
    return locate_and_serve(config_path, salvages);
}
