/* tiermq-worker: answers jobs of one or several brokers. */
#include <curl/curl.h>
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/exit_codes.h"
#include "common/log.h"
#include "common/loop.h"
#include "worker/worker.h"

static const char help[] =
    "Usage: tiermq-worker [--config FILE]\n"
    "\n"
    "Takes jobs from the brokers, answers them from its cache or by calling a model.\n"
    "\n"
    "  --config FILE  the configuration; else $TIERMQ_CONFIG, ./tiermq.yaml, "
    "/etc/tiermq/tiermq.yaml, or the defaults\n"
    "  --help         this text\n"
    "  --version      the version\n"
    "\n"
    "SIGTERM: takes no more jobs, finishes those it has, leaves. Again: leaves at once. SIGHUP: "
    "reads the\n"
    "configuration again (prices, models, routes, cache times, log level).\n"
    "\n"
    "Exit codes: 0 left in good order, 1 internal, 2 usage, 3 configuration, 4 address in use.\n";

/* -1: go on; else the exit code. *ret_path is what --config names. */
static int read_arguments(int argc, char **argv, const char **ret_path)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            *ret_path = optarg;
            break;
        case 'h':
            return fputs(help, stdout) < 0 ? EXIT_INTERNAL : EXIT_OK;
        case 'v':
            return puts("tiermq-worker " TIERMQ_VERSION) < 0 ? EXIT_INTERNAL : EXIT_OK;
        default:
            (void)fputs("tiermq-worker: see --help\n", stderr);
            return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        (void)fprintf(stderr, "tiermq-worker: \"%s\" is not an option; see --help\n", argv[optind]);
        return EXIT_USAGE;
    }
    return -1;
}

/* Errors are printed, each on a line. */
static struct config *read_config(const char *path)
{
    struct config *config = NULL;
    CLEANUP(config_errors_finish) struct config_errors errors = {.items = NULL};
    int r = config_read(path, &config, &errors);
    for (size_t i = 0; i < errors.length; i++) {
        (void)fprintf(stderr, "%s\n", errors.items[i].text);
    }
    if (r < 0 && errors.length == 0) {
        (void)fprintf(stderr, "tiermq-worker: %s: %s\n", path == NULL ? "configuration" : path,
                      strerror(-r));
    }
    return config;
}

static void signal_arrived(void *context, int signal_number)
{
    struct worker *worker = *(struct worker **)context;
    if (signal_number == SIGHUP) {
        worker_reload(worker);
    } else {
        worker_drain(worker);
    }
}

static int serve(struct log *log, struct config **config, const char *path)
{
    CLEANUP(loop_destroy) struct loop *loop = NULL;
    CLEANUP(worker_destroy) struct worker *worker = NULL;
    char error[WORKER_ERROR_BYTES] = "";
    int r = loop_create(&loop);
    r = r < 0 ? r : loop_watch_signals(loop, signal_arrived, &worker);
    if (r < 0) {
        log_at(log, LOG_ERROR, "cannot start", log_text("error", strerror(-r)));
        return EXIT_INTERNAL;
    }
    r = worker_create(loop, log, config, path, &worker, error);
    if (r < 0) {
        log_at(log, LOG_ERROR, "cannot start", log_text("error", error));
        return r == -EADDRINUSE || r == -EACCES || r == -EINVAL || r == -EADDRNOTAVAIL
                   ? EXIT_ADDRESS
                   : EXIT_INTERNAL;
    }
    worker_announce(worker);
    r = loop_run(loop);
    return r < 0 ? EXIT_INTERNAL : EXIT_OK;
}

int main(int argc, char **argv)
{
    const char *argument = NULL;
    CLEANUP(config_destroy) struct config *config = NULL;
    CLEANUP(log_destroy) struct log *log = NULL;
    char *path = NULL;
    int code = read_arguments(argc, argv, &argument);
    if (code >= 0) {
        return code;
    }
    /*
     * Threads of the libraries would each keep an arena of their own; what they allocate is small.
     */
    (void)mallopt(M_ARENA_MAX, 2);
    if (config_locate(argument, &path) < 0 || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        (void)fputs("tiermq-worker: out of memory\n", stderr);
        return EXIT_INTERNAL;
    }
    config = read_config(path);
    if (config == NULL) {
        free(path);
        return EXIT_CONFIG;
    }
    if (log_create("worker", (enum log_level)config->log.level, STDERR_FILENO, &log) < 0) {
        free(path);
        return EXIT_INTERNAL;
    }
    code = serve(log, &config, path);
    curl_global_cleanup();
    free(path);
    return code;
}
