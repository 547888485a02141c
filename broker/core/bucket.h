/*
 * bucket: a limit a minute, held in every minute: what a provider's key allows in requests or tokens.
 *
 * A token bucket whose capacity and refill together stay within the limit: in any 60 s it gives at most its capacity (a
 * twentieth of a second's worth, at least 1) and what flows in meanwhile, and that is the limit and no more. It begins empty, since what was given
 * before a restart is not known. More than there is is given as soon as one is there, and leaves a debt: so a large amount waits no
 * longer than small ones beside it, and a minute may get more than the limit by one such amount. Pure; times in monotonic
 * milliseconds.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct bucket {
    uint64_t per_min; /* 0: no limit */
    double capacity, level, per_ms;
    int64_t at_ms;    /* level is of then */
};

/* Begins, or changes the limit; what was in it stays, in proportion. 0: no limit. */
void bucket_set(struct bucket *bucket, uint64_t per_min, int64_t now_ms);
/* Milliseconds until `amount` can be taken; 0: now. */
int64_t bucket_wait_ms(struct bucket *bucket, double amount, int64_t now_ms);
/* Takes it, or gives back what was not used (negative). May leave a debt, of a minute's limit at most. */
void bucket_take(struct bucket *bucket, double amount, int64_t now_ms);
/* The provider says that no more than this is left. */
void bucket_lower(struct bucket *bucket, double left, int64_t now_ms);
