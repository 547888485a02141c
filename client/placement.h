/*
 * placement: which broker a tenant belongs to, by rendezvous hashing (highest random weight).
 *
 * Every client that knows the same endpoints comes to the same order, whatever order it was given them in, and one broker more
 * or less moves only the tenants that belong to it. Endpoints are compared as text: write them alike everywhere.
 */
#pragma once
#include <stddef.h>

/* Sorts `endpoints` best first for this tenant; the first is its home. */
void placement_sort(const char *tenant, char **endpoints, size_t endpoints_length);
