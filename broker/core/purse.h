/*
 * purse: what was spent in the running day and month of a scope (a tenant, a tier, a tenant's
 * tier), what is reserved for attempts that run, and what may be spent.
 *
 * Days and months are UTC's. A window that is over is forgotten by the first look after it; what is
 * reserved stays, and is spent in the window in which it is settled, so that no change of windows
 * loses or doubles anything. Time never runs backwards here: with a clock that was set back the
 * later window goes on. Integer nano-dollars; sums saturate. Pure; no clock.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct purse {
    int32_t day, month; /* since 1970: of the windows that the next two belong to */
    uint64_t day_nanousd, month_nanousd; /* spent */
    uint64_t reserved_nanousd;
    uint64_t daily_max_nanousd, monthly_max_nanousd; /* UINT64_MAX: no limit */
    uint32_t soft_permille; /* of either, from which on cheaper models are taken */
    bool is_soft;           /* as was noted last */
};

int32_t purse_day_of(int64_t unix_ms);
int32_t purse_month_of(int64_t unix_ms);
int64_t purse_day_begins_unix_ms(int32_t day);
int64_t purse_month_begins_unix_ms(int32_t month);

/* Nothing spent, no limits. */
void purse_init(struct purse *purse);
bool purse_is_limited(const struct purse *purse);
/* Forgets windows that are over. All below do so first. */
void purse_roll(struct purse *purse, int64_t unix_ms);
void purse_spend(struct purse *purse, uint64_t nanousd, int64_t unix_ms);
/* What was spent in the windows of `day` was an estimate, and too much. */
void purse_refund(struct purse *purse, uint64_t nanousd, int32_t day, int64_t unix_ms);
void purse_reserve(struct purse *purse, uint64_t nanousd);
void purse_release(struct purse *purse, uint64_t nanousd);

/* What is left of the tighter limit, whatever is reserved; UINT64_MAX: there is none. */
uint64_t purse_left_nanousd(struct purse *purse, int64_t unix_ms);
/* The same, without what is reserved. */
uint64_t purse_free_nanousd(struct purse *purse, int64_t unix_ms);
/* So much has been spent that cheaper models are taken; what is reserved counts as spent. */
bool purse_spares(struct purse *purse, int64_t unix_ms);
/* When so much will be left again: the end of the windows that have too little. INT64_MAX: never, a
 * limit is smaller. */
int64_t purse_refills_unix_ms(struct purse *purse, uint64_t nanousd, int64_t unix_ms);
