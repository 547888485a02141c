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
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include "common/exit_codes.h"
#include "tests/simulation/crew.h"
#include "tests/simulation/faults.h"
#include "tests/simulation/simulation.h"

enum {
    SEED_TEXT_BYTES = 160,
    JOBS_MAX = 10000000,
    WORKERS_MAX = 10000,
    MINUTES_MAX = 100000,
    FAILURES_PRINTED_MAX = 100,
};

static const char usage[] =
    "Usage: tiermq-simulate [OPTIONS]\n"
    "Drives the broker's core in virtual time through crashes, losses and delays, and checks its "
    "promises.\n"
    "\n"
    "  --seed N        the first seed (1); everything else follows from it\n"
    "  --seeds COUNT   so many seeds from there on (1)\n"
    "  --processes N   run so many seeds at a time (1)\n"
    "  --keep-going    go on after a seed that fails, and sum up at the end\n"
    "  --progress N    say after every N seeds how far it is\n"
    "  --jobs N        jobs a run (2000)\n"
    "  --workers N     workers (50)\n"
    "  --minutes N     of virtual time in which things go wrong (30)\n"
    "  --trace         print every event\n"
    "  --plant NAME    plant a mistake around the core; succeeds when a seed finds it\n"
    "  --plants        print the names of the mistakes that can be planted\n"
    "  --help          print this\n"
    "\n"
    "Examples:\n"
    "  tiermq-simulate --seeds 1000 --processes 2\n"
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
    uint64_t seeds, progress; /* progress 0: none */
    uint32_t processes;
    bool trace, keep_going;
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
        {"seed", required_argument, NULL, 's'},
        {"seeds", required_argument, NULL, 'n'},
        {"jobs", required_argument, NULL, 'j'},
        {"workers", required_argument, NULL, 'w'},
        {"minutes", required_argument, NULL, 'm'},
        {"trace", no_argument, NULL, 't'},
        {"plant", required_argument, NULL, 'p'},
        {"plants", no_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {"processes", required_argument, NULL, 'P'},
        {"keep-going", no_argument, NULL, 'k'},
        {"progress", required_argument, NULL, 'g'},
        {0},
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
        case 'P':
            arguments.processes = (uint32_t)parse_number(optarg, 1, PROCESSES_MAX);
            break;
        case 'k':
            arguments.keep_going = true;
            break;
        case 'g':
            arguments.progress = parse_number(optarg, 1, UINT64_MAX);
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

/* What this process and those that have ended have used. */
static double processor_seconds(void)
{
    static const int whose[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
    double seconds = 1e-6; /* never none */
    for (size_t i = 0; i < sizeof(whose) / sizeof(whose[0]); i++) {
        struct rusage used;
        (void)getrusage(whose[i], &used);
        seconds += (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                   (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    }
    return seconds;
}

/* What all seeds came to. */
struct sum {
    uint64_t seeds, failures, steps, events, acknowledged, succeeded, hash;
    uint64_t faults_least;
    struct tally tally;
    double begun;
};

static void add(struct sum *sum, const struct outcome *outcome)
{
    const uint64_t faults = tally_faults(&outcome->tally);
    sum->faults_least = sum->seeds == 0 || faults < sum->faults_least ? faults : sum->faults_least;
    sum->seeds++;
    sum->steps += outcome->steps;
    sum->events += outcome->events;
    sum->acknowledged += outcome->acknowledged;
    sum->succeeded += outcome->succeeded;
    sum->hash = sum->hash * 31 + outcome->hash;
    for (int kind = 0; kind < FAULTS; kind++) {
        sum->tally.faults[kind] += outcome->tally.faults[kind];
    }
    sum->tally.lost += outcome->tally.lost;
    sum->tally.duplicated += outcome->tally.duplicated;
    sum->tally.overtaken += outcome->tally.overtaken;
    sum->tally.undeliverable += outcome->tally.undeliverable;
    sum->tally.downs += outcome->tally.downs;
    sum->tally.pauses += outcome->tally.pauses;
    sum->tally.probes += outcome->tally.probes;
    sum->tally.retries += outcome->tally.retries;
    sum->tally.spared += outcome->tally.spared;
    sum->tally.hedges_granted += outcome->tally.hedges_granted;
    sum->tally.hedges_given_back += outcome->tally.hedges_given_back;
    sum->tally.fair_tenants += outcome->tally.fair_tenants;
    sum->tally.invalidated += outcome->tally.invalidated;
    sum->tally.caught_up += outcome->tally.caught_up;
    sum->tally.behind += outcome->tally.behind;
    sum->tally.deltas += outcome->tally.deltas;
    sum->tally.sums += outcome->tally.sums;
    sum->tally.made += outcome->tally.made;
    sum->tally.picky += outcome->tally.picky;
    sum->tally.hopeless += outcome->tally.hopeless;
    sum->tally.given_up += outcome->tally.given_up;
    sum->tally.both_billed += outcome->tally.both_billed;
    sum->tally.over_budget += outcome->tally.over_budget;
    sum->tally.fair_tiers += outcome->tally.fair_tiers;
    sum->tally.fair_slots += outcome->tally.fair_slots;
    sum->tally.loads_failed += outcome->tally.loads_failed;
}

static void print_faults(const struct sum *sum)
{
    printf("faults: %" PRIu64 ", at least %" PRIu64 " a seed:", tally_faults(&sum->tally),
           sum->faults_least);
    for (enum fault_kind kind = 0; kind < FAULTS; kind++) {
        printf("%s%" PRIu64 " %s",
               kind == 0                     ? " "
               : kind == FAULTS_OF_OPERATORS ? "; by operators: "
                                             : ", ",
               sum->tally.faults[kind], faults_name(kind));
    }
    printf("; messages: %" PRIu64 " lost, %" PRIu64 " duplicated, %" PRIu64 " overtaken; %" PRIu64
           " dispatches undeliverable, %" PRIu64 " loads failed\n",
           sum->tally.lost, sum->tally.duplicated, sum->tally.overtaken, sum->tally.undeliverable,
           sum->tally.loads_failed);
    printf("degradation: %" PRIu64 " breakers opened, %" PRIu64 " queues paused, %" PRIu64
           " probes, %" PRIu64 " retries, %" PRIu64 " attempts spared; %" PRIu64
           " second calls granted, %" PRIu64 " given back\n",
           sum->tally.downs, sum->tally.pauses, sum->tally.probes, sum->tally.retries,
           sum->tally.spared, sum->tally.hedges_granted, sum->tally.hedges_given_back);
    printf("cost: %" PRIu64 " attempts with two calls that cost something, %" PRIu64
           " jobs refused for a budget\n",
           sum->tally.both_billed, sum->tally.over_budget);
    printf("fairness: %" PRIu64 " comparisons of tenants, %" PRIu64 " of tiers; %" PRIu64
           " times a job waited for a load beside a free slot\n",
           sum->tally.fair_tenants, sum->tally.fair_tiers, sum->tally.fair_slots);
    printf("cache: %" PRIu64 " invalidations, %" PRIu64 " workers caught up, %" PRIu64
           " were behind; %" PRIu64 " deltas of evidence, %" PRIu64 " sums told; %" PRIu64
           " jobs made by workers\n",
           sum->tally.invalidated, sum->tally.caught_up, sum->tally.behind, sum->tally.deltas,
           sum->tally.sums, sum->tally.made);
    printf("choice: %" PRIu64 " dispatches of jobs that some candidates could not answer, %" PRIu64
           " refusals of what none could, %" PRIu64 " dead letters of that\n",
           sum->tally.picky, sum->tally.hopeless, sum->tally.given_up);
}

static void print_sum(const struct arguments *arguments, const struct sum *sum)
{
    const double took = seconds_now() - sum->begun;
    print_faults(sum);
    printf("%" PRIu64 " seeds: %" PRIu64 " jobs acknowledged, %" PRIu64 " succeeded, %" PRIu64
           " steps of the core, %" PRIu64 " events, traces %016" PRIx64 "\n",
           sum->seeds, sum->acknowledged, sum->succeeded, sum->steps, sum->events, sum->hash);
    fprintf(stderr, "%.1f s, %.0f events/s, %.0f for each second of a processor\n", took,
            (double)sum->events / took, (double)sum->events / processor_seconds());
    if (arguments->keep_going) {
        printf("seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64 " of them failed\n",
               arguments->options.seed, arguments->options.seed + arguments->seeds - 1,
               sum->failures);
    } else if (sum->failures == 0) {
        puts("every promise was kept");
    }
}

static void print_progress(const struct arguments *arguments, const struct sum *sum)
{
    if (arguments->progress == 0 || sum->seeds % arguments->progress != 0) {
        return;
    }
    const double took = seconds_now() - sum->begun;
    const double left = took / (double)sum->seeds * (double)(arguments->seeds - sum->seeds);
    fprintf(stderr,
            "%" PRIu64 " of %" PRIu64 " seeds (next: --seed %" PRIu64 "), %" PRIu64
            " failed, %.0f events/s, %.0f s left\n",
            sum->seeds, arguments->seeds, arguments->options.seed + sum->seeds, sum->failures,
            (double)sum->events / took, left);
}

/* True: that is enough. */
static bool see_failure(const struct arguments *arguments, struct sum *sum, uint64_t seed,
                        const struct outcome *outcome)
{
    struct options options = arguments->options;
    options.seed = seed;
    sum->failures++;
    if (options.plant != PLANT_NONE) {
        printf("%s is found by seed %" PRIu64 ": %s\n", plant_name(options.plant), seed,
               outcome->violation);
        return true;
    }
    if (arguments->keep_going) {
        if (sum->failures <= FAILURES_PRINTED_MAX) {
            printf("seed %" PRIu64 ": %s\n", seed, outcome->violation);
            (void)fflush(stdout);
        }
        return false;
    }
    if (outcome->has_crashed) { /* it has said so itself */
        printf("seed %" PRIu64 ": %s\n", seed, outcome->violation);
    } else {
        report(&options, outcome);
    }
    return true;
}

static int run_seeds(const struct arguments *arguments)
{
    struct sum sum = {.begun = seconds_now()};
    struct outcome outcome;
    struct crew crew;
    bool is_enough = false;
    crew_begin(&crew, &arguments->options, arguments->seeds, arguments->processes,
               arguments->trace ? TRACE_PRINT : TRACE_HASH, run);
    while (!is_enough && sum.seeds < arguments->seeds) {
        const uint64_t seed = crew_next(&crew, &outcome);
        add(&sum, &outcome);
        if (outcome.violation[0] != '\0') {
            is_enough = see_failure(arguments, &sum, seed, &outcome);
        }
        print_progress(arguments, &sum);
    }
    crew_end(&crew);
    if (is_enough) {
        return arguments->options.plant == PLANT_NONE ? EXIT_INTERNAL : EXIT_OK;
    }
    print_sum(arguments, &sum);
    if (arguments->options.plant != PLANT_NONE) {
        printf("%s was not found\n", plant_name(arguments->options.plant));
        return EXIT_INTERNAL;
    }
    return sum.failures == 0 ? EXIT_OK : EXIT_INTERNAL;
}

int main(int argc, char **argv)
{
    const struct arguments arguments = parse_arguments(argc, argv);
    (void)signal(SIGABRT, on_crash);
    (void)signal(SIGSEGV, on_crash);
    return run_seeds(&arguments);
}
