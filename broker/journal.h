/* journal: the records of a turn as one batch, and what the store answers as events. */
#pragma once
#include "common/exit_codes.h"
#include "common/attributes.h"

struct broker;

/* Opens the store and restores what is in it. What goes wrong is logged in words. */
MUST_USE enum exit_code journal_open(struct broker *broker);
/*
 * Hands this turn's record changes to the store, then asks for the records that the core wants to
 * see.
 */
void journal_commit(struct broker *broker);
