#include "tests/simulation/mistakes.h"
#include <stdio.h>
#include <string.h>
#include "common/exit_codes.h"

static const char usage[] =
    "Usage: tiermq-simulate-planted --mistakes | --mistake NAME [OPTIONS of tiermq-simulate]\n"
    "\n"
    "Succeeds when a seed finds the mistake.\n";

#define MISTAKE_TEXTS(value, name, does) [MISTAKE_##value] = {name, does},
static const struct {
    const char *name, *does;
} texts[MISTAKES_LENGTH] = {[MISTAKE_NONE] = {"none", "nothing is wrong"}, MISTAKES(MISTAKE_TEXTS)};
#undef MISTAKE_TEXTS

/* What is replaced in the core has no parameter for it. */
static enum mistake planted = MISTAKE_NONE;

bool mistake_is_on(enum mistake mistake)
{
    return planted == mistake;
}

static int print_mistakes(void)
{
    for (enum mistake mistake = MISTAKE_NONE + 1; mistake < MISTAKES_LENGTH; mistake++) {
        printf("%-30s %s\n", texts[mistake].name, texts[mistake].does);
    }
    return EXIT_OK;
}

static enum mistake parse(const char *name)
{
    enum mistake mistake = MISTAKE_NONE;
    while (mistake < MISTAKES_LENGTH && strcmp(texts[mistake].name, name) != 0) {
        mistake++;
    }
    return mistake;
}

int __real_main(int argc, char **argv);
int __wrap_main(int argc, char **argv);

static int run(int argc, char **argv)
{
    argv[2] = argv[0];
    const int r = __real_main(argc - 2, argv + 2);
    if (planted == MISTAKE_NONE || (r != EXIT_OK && r != EXIT_INTERNAL)) {
        return r;
    }
    const bool is_found = r == EXIT_INTERNAL;
    printf("%s %s\n", texts[planted].name, is_found ? "is found" : "was not found");
    return is_found ? EXIT_OK : EXIT_INTERNAL;
}

int __wrap_main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--mistakes") == 0) {
        return print_mistakes();
    }
    if (argc < 3 || strcmp(argv[1], "--mistake") != 0) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    planted = parse(argv[2]);
    if (planted == MISTAKES_LENGTH) {
        fprintf(stderr, "tiermq-simulate-planted: \"%s\" is no mistake; see --mistakes\n", argv[2]);
        return EXIT_USAGE;
    }
    return run(argc, argv);
}
