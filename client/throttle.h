/*
 * throttle: what share of resubmissions to hold back while most of what is submitted is refused.
 *
 * The client-side throttling of Google's SRE book ("Handling Overload"): p = max(0, (requests - K * accepts) / (requests + 1))
 * with K = 2, so that refused attempts are soon no more than those that are accepted, however many clients there are and
 * whatever they have in hand. The first THROTTLE_FREE refusals hold nothing back: who has a job or two makes no storm. Both counts fade, so that it ends soon after the refusals do. Pure.
 */
#pragma once
#include <stdint.h>

enum { THROTTLE_FADE_MS = 30000, THROTTLE_ACCEPTS_FACTOR = 2, THROTTLE_FREE = 10, THROTTLE_ALL = 1000 };

/* Begins with zeros. */
struct throttle {
    double requests, accepts;
    int64_t at_ms; /* up to when they have faded */
};

/* A submission was sent, or held back. */
void throttle_note_request(struct throttle *throttle, int64_t now_ms);
void throttle_note_accept(struct throttle *throttle, int64_t now_ms);
/* How many of THROTTLE_ALL resubmissions to hold back now. */
uint32_t throttle_share(struct throttle *throttle, int64_t now_ms);
