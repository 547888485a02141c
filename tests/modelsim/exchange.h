/* exchange: one request to the simulator, from its first byte to the last of its reply. Internal to server.c. */
#pragma once
#include <microhttpd.h>
#include <stdbool.h>
#include "common/attributes.h"
#include "common/list.h"
#include "tests/modelsim/bill.h"
#include "tests/modelsim/calls.h"
#include "tests/modelsim/counters.h"
#include "tests/modelsim/prefixes.h"
#include "tests/modelsim/server.h"

struct loop_timer;

/* What exchanges share; owned by the server. */
struct shared {
    struct loop *loop;
    struct server_options options;
    struct counters counters;
    struct bill bill;
    struct calls *calls; /* NULL: none are written down */
    struct rates rates;
    struct prefixes *prefixes; /* NULL: none are kept */
    struct list exchanges;
};

struct exchange;

MUST_USE int exchange_create(struct shared *shared, struct MHD_Connection *connection, const char *method, const char *path,
                             struct exchange **ret_exchange);
/* Counts it and releases everything. */
void exchange_destroy(struct exchange **exchange);
struct exchange *exchange_from_link(struct list_link *link);

/* Takes some of the body. MHD_NO: too large, the connection is closed. */
enum MHD_Result exchange_take_body(struct exchange *exchange, const char *data, size_t bytes);
/* Called by libmicrohttpd when the body is complete, and again after each resumption. */
enum MHD_Result exchange_go_on(struct exchange *exchange);
/* Wakes a suspended connection, so that the server can be closed. */
void exchange_abort(struct exchange *exchange);
