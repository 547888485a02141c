/*
 * Reading a configuration when memory runs out, at each allocation in turn: it says so, and leaks nothing (which the
 * address sanitizer's build sees). A plain program, since the linker puts these allocators in place of the real ones.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"

static size_t n_allocations;
static size_t failing; /* the number of the one that fails; 0: none */

static bool fails(void)
{
    return ++n_allocations == failing;
}

void *__real_calloc(size_t n, size_t bytes);
void *__real_reallocarray(void *pointer, size_t n, size_t bytes);
char *__real_strdup(const char *text);
FILE *__real_open_memstream(char **text, size_t *bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_reallocarray(void *pointer, size_t n, size_t bytes);
char *__wrap_strdup(const char *text);
FILE *__wrap_open_memstream(char **text, size_t *bytes);

void *__wrap_calloc(size_t n, size_t bytes)
{
    return fails() ? NULL : __real_calloc(n, bytes);
}

void *__wrap_reallocarray(void *pointer, size_t n, size_t bytes)
{
    return fails() ? NULL : __real_reallocarray(pointer, n, bytes);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

FILE *__wrap_open_memstream(char **text, size_t *bytes)
{
    return fails() ? NULL : __real_open_memstream(text, bytes);
}

static int read_once(const char *text)
{
    struct config *config = NULL;
    struct config_errors errors;
    n_allocations = 0;
    const int r = config_read_text(text, strlen(text), "t.yaml", &config, &errors);
    if ((r == 0) != (config != NULL)) {
        fprintf(stderr, "%d, and a configuration at %p\n", r, (void *)config);
        exit(EXIT_FAILURE);
    }
    config_errors_finish(&errors);
    config_destroy(&config);
    return r;
}

static void run_out_everywhere(const char *text, int expected)
{
    failing = 0;
    const int r = read_once(text);
    const size_t n = n_allocations;
    if (r != expected || n < 100) {
        fprintf(stderr, "with all memory: %d after %zu allocations\n", r, n);
        exit(EXIT_FAILURE);
    }
    for (failing = 1; failing <= n; failing++) {
        const int without = read_once(text);
        if (without != -ENOMEM) {
            fprintf(stderr, "without allocation %zu of %zu: %d\n", failing, n, without);
            exit(EXIT_FAILURE);
        }
    }
    printf("ok: %zu allocations failed in turn\n", n);
}

int main(void)
{
    run_out_everywhere("", 0);
    run_out_everywhere("pools: [default, eu]\n"
                       "tiers: [{name: realtime, pool: eu}, {name: slow}]\n"
                       "routes: [{name: r, models: [sim-small], tiers: {slow: [sim-large, sim-small]}}]\n"
                       "client: {tenant: '${UNSET_HERE:-t}'}\n",
                       0);
    run_out_everywhere("bogus: 1\nbroker: {lease: x, leese: 5}\ntiers: [{name: a, pool: gone}, 5]\n", -EINVAL);
    return EXIT_SUCCESS;
}
