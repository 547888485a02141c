/*
 * calls: every call to the simulator, written down as it begins and as it ends, so that a test can
 * prove for each job how often it was paid for, also when the simulator itself was killed in
 * between.
 *
 * Lines are JSON: {"at_ms", "call", "event": "began", "key", "account"}, later {"at_ms", "call",
 * "event": "answered" or "unanswered", "model", "fault"}. at_ms is CLOCK_MONOTONIC; call is unique
 * in the file; key is the Idempotency-Key; account is what the caller authorised itself with, "" if
 * with nothing. "answered" is written before the reply's last byte goes out. Several simulators,
 * and one after the other, may append to the same file.
 */
#pragma once
#include <stdint.h>
#include "common/attributes.h"

struct calls;

MUST_USE int calls_open(const char *path,
                        struct calls **ret_calls); /* Errors: errno of open(2), -ENOMEM */
void calls_close(struct calls **calls);

/* Returns the call's number. `key` and `authorization` (an Authorization header) may be NULL, and
 * so may `calls`. */
uint64_t calls_began(struct calls *calls, const char *key, const char *authorization);
/* `model` may be NULL, and so may `calls`. */
void calls_ended(struct calls *calls, uint64_t call, const char *event, const char *model,
                 const char *fault);
