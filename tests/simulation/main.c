/*
 * tiermq-simulate: runs the broker's core through simulated worlds and checks its promises. See
 * simulation.h and oracle.h.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "common/exit_codes.h"
#include "tests/simulation/simulation.h"

enum { SEED_TEXT_BYTES = 160, JOBS_MAX = 10000000, WORKERS_MAX = 10000, MINUTES_MAX = 100000 };

static const char usage[] =
    "Usage: tiermq-simulate [OPTIONS]\n"
    "Drives the broker's core in virtual time through crashes, losses and delays, and checks its "
    "promises.\n"
    "\n"
    "  --seed N        the first seed (1); everything else follows from it\n"
    "  --seeds COUNT   so many seeds from there on (1)\n"
    "  --jobs N        jobs a run (2000)\n"
    "  --workers N     workers (50)\n"
    "  --minutes N     of virtual time in which things go wrong (30)\n"
    "  --trace         print every event\n"
    "  --plant NAME    plant a mistake around the core; succeeds when a seed finds it\n"
    "  --plants        print the names of the mistakes that can be planted\n"
    "  --help          print this\n"
    "\n"
    "Examples:\n"
    "  tiermq-simulate --seeds 1000\n"
    "  tiermq-simulate --seed 17 --trace | less\n"
    "\n"
    "Exits with 0 when every promise held, 1 when one was broken (the seed and the last events are "
    "printed).\n";

/* For the handler of a crash inside the core; the only state of the program outside main. */
static char dying_words[SEED_TEXT_BYTES];

static void on_crash(int number)
{
    (void)!write(STDERR_FILENO, dying_words, strlen(dying_words));
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static uint64_t parse_number(const char *text, uint64_t low, uint64_t high)
{
    char *end;
    errno = 0;
    const uint64_t number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || number < low ||
        number > high) {
        fprintf(stderr, "tiermq-simulate: \"%s\" is not a number from %" PRIu64 " to %" PRIu64 "\n",
                text, low, high);
        exit(EXIT_USAGE);
    }
    return number;
}

struct arguments {
    struct options options;
    uint64_t seeds;
    bool trace;
};

static void print_plants(void)
{
    for (enum plant plant = PLANT_NONE + 1; plant < PLANTS; plant++) {
        puts(plant_name(plant));
    }
}

static struct arguments parse_arguments(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'},    {"seeds", required_argument, NULL, 'n'},
        {"jobs", required_argument, NULL, 'j'},    {"workers", required_argument, NULL, 'w'},
        {"minutes", required_argument, NULL, 'm'}, {"trace", no_argument, NULL, 't'},
        {"plant", required_argument, NULL, 'p'},   {"plants", no_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},          {0},
    };
    struct arguments arguments = {
        .options = {.seed = 1, .jobs = 2000, .workers = 50, .minutes = 30}, .seeds = 1};
    int option;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case 's':
            arguments.options.seed = parse_number(optarg, 0, UINT64_MAX);
            break;
        case 'n':
            arguments.seeds = parse_number(optarg, 1, UINT64_MAX);
            break;
        case 'j':
            arguments.options.jobs = (uint32_t)parse_number(optarg, 1, JOBS_MAX);
            break;
        case 'w':
            arguments.options.workers = (uint32_t)parse_number(optarg, 1, WORKERS_MAX);
            break;
        case 'm':
            arguments.options.minutes = (uint32_t)parse_number(optarg, 1, MINUTES_MAX);
            break;
        case 't':
            arguments.trace = true;
            break;
        case 'p':
            if (plant_parse(optarg, &arguments.options.plant) < 0) {
                fprintf(stderr,
                        "tiermq-simulate: \"%s\" is no mistake that can be planted; see --plants\n",
                        optarg);
                exit(EXIT_USAGE);
            }
            break;
        case 'l':
            print_plants();
            exit(EXIT_OK);
        case 'h':
            fputs(usage, stdout);
            exit(EXIT_OK);
        default:
            exit(EXIT_USAGE);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "tiermq-simulate: unexpected argument \"%s\"; see --help\n", argv[optind]);
        exit(EXIT_USAGE);
    }
    return arguments;
}

static void print_command(char *text, size_t bytes, const struct options *options)
{
    (void)snprintf(text, bytes,
                   "tiermq-simulate --seed %" PRIu64
                   " --jobs %u --workers %u --minutes %u --plant %s --trace\n",
                   options->seed, options->jobs, options->workers, options->minutes,
                   plant_name(options->plant));
}

static void run(const struct options *options, enum trace_mode mode, struct outcome *ret_outcome)
{
    static const char head[] = "tiermq-simulate: crashed; run again with: ";
    memcpy(dying_words, head, sizeof(head));
    print_command(dying_words + sizeof(head) - 1, sizeof(dying_words) - sizeof(head), options);
    simulation_run(options, mode, ret_outcome);
}

/* A seed that fails is run again, now with the last events kept, and must fail in the same way. */
static void report(const struct options *options, const struct outcome *outcome)
{
    struct outcome again;
    char command[SEED_TEXT_BYTES];
    run(options, TRACE_TAIL, &again);
    printf("seed %" PRIu64 ": %s\n", options->seed, outcome->violation);
    if (again.hash != outcome->hash) {
        puts("and the second run of this seed differs from the first: something is not "
             "deterministic");
    }
    print_command(command, sizeof(command), options);
    printf("every event: %s", command);
}

static double seconds_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int run_seeds(const struct arguments *arguments)
{
    struct options options = arguments->options;
    uint64_t steps = 0, events = 0, acknowledged = 0, succeeded = 0;
    struct outcome outcome = {0};
    const double begun = seconds_now();
    for (uint64_t i = 0; i < arguments->seeds; i++, options.seed++) {
        run(&options, arguments->trace ? TRACE_PRINT : TRACE_HASH, &outcome);
        if (outcome.violation[0] != '\0' && options.plant != PLANT_NONE) {
            printf("%s is found by seed %" PRIu64 ": %s\n", plant_name(options.plant), options.seed,
                   outcome.violation);
            return EXIT_OK;
        }
        if (outcome.violation[0] != '\0') {
            report(&options, &outcome);
            return EXIT_INTERNAL;
        }
        steps += outcome.steps;
        events += outcome.events;
        acknowledged += outcome.acknowledged;
        succeeded += outcome.succeeded;
    }
    const double took = seconds_now() - begun;
    printf("%" PRIu64 " seeds: %" PRIu64 " jobs acknowledged, %" PRIu64 " succeeded, %" PRIu64
           " steps of the core, %" PRIu64 " events, last trace %016" PRIx64 "\n",
           arguments->seeds, acknowledged, succeeded, steps, events, outcome.hash);
    fprintf(stderr, "%.1f s, %.0f events/s\n", took, (double)events / took);
    if (options.plant != PLANT_NONE) {
        printf("%s was not found\n", plant_name(options.plant));
        return EXIT_INTERNAL;
    }
    puts("every promise was kept");
    return EXIT_OK;
}

int main(int argc, char **argv)
{
    const struct arguments arguments = parse_arguments(argc, argv);
    (void)signal(SIGABRT, on_crash);
    (void)signal(SIGSEGV, on_crash);
    return run_seeds(&arguments);
}
