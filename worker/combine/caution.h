/*
 * caution: upstreams at which shared calls have come to nothing.
 *
 * A model that is too weak for packed questions, or a server that rejects them, would cost a call
 * in vain for every group. After CAUTION_FAILURES in a row whose answer nobody could use none is
 * made there for CAUTION_MS; then one more decides. Knows the last CAUTION_UPSTREAMS that have
 * failed. Embedded by its user, zero at the start. No clock.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CAUTION_UPSTREAMS = 32, CAUTION_FAILURES = 3, CAUTION_MS = 60000 };

struct caution {
    struct {
        uint64_t upstream; /* 0: none */
        uint32_t failures; /* in a row */
        int64_t until_ms;
    } entries[CAUTION_UPSTREAMS];
    size_t next; /* to be replaced */
};

/* A name for what is asked there: questions, or embeddings. Never 0. */
uint64_t caution_upstream(bool are_questions, const char *provider, const char *model);
/* Times are monotonic. */
bool caution_forbids(const struct caution *caution, uint64_t upstream, int64_t now_ms);
/* Somebody could use the answer, or nobody. */
void caution_learn(struct caution *caution, uint64_t upstream, bool is_useful, int64_t now_ms);
