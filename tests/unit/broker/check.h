/* check: the assertion of tests that are plain programs. */
#pragma once
#include <stdio.h>
#include <stdlib.h>

/* Ends the program with exit code 1 when `fact` is false; `why` is a text that tells more. */
#define CHECK_SAYING(fact, why)                                                                    \
    do {                                                                                           \
        if (!(fact)) {                                                                             \
            fprintf(stderr, "%s:%d: not so: %s; %s\n", __FILE__, __LINE__, #fact, (why));          \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define CHECK(fact) CHECK_SAYING(fact, "")
