/* The library and a broker whose name takes its time to be looked up. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "client/connection.h"
#include "client/tiermq.h"
#include "common/clock.h"
#include "tests/unit/client/fake_broker.h"
#include "tests/unit/slow_name.h"

enum { PATIENCE_MS = 20000 };

static struct fake_broker broker;
static struct tiermq *client;

static void open_client(int takes_ms)
{
    char endpoint[128];
    lookup_ms = takes_ms;
    (void)snprintf(endpoint, sizeof(endpoint), "tcp://%s:%s", NAME,
                   strrchr(broker.endpoint, ':') + 1);
    cr_assert_eq(tiermq_connect(&(struct tiermq_options){.brokers = endpoint}, &client), 0);
}

static void setup(void)
{
    fake_broker_start(&broker);
}

static void teardown(void)
{
    tiermq_close(&client);
    fake_broker_finish(&broker);
}

static void turn(void)
{
    cr_assert_eq(tiermq_dispatch(client, 10), 0);
    fake_broker_settle(&broker, client);
}

/* Returns how long that took. */
static int64_t run_until_connected(void)
{
    const int64_t began_ms = clock_monotonic_ms();
    while (!tiermq_is_connected(client)) {
        cr_assert_lt(clock_monotonic_ms() - began_ms, PATIENCE_MS, "%s",
                     tiermq_connection_error(client));
        turn();
    }
    return clock_monotonic_ms() - began_ms;
}

static bool says(const char *words)
{
    return strstr(tiermq_connection_error(client), words) != NULL;
}

TestSuite(client_lookup, .init = setup, .fini = teardown, .timeout = 60);

Test(client_lookup, a_lookup_that_takes_longer_than_an_answer_may_is_waited_for)
{
    enum { TAKES_MS = CONNECTION_GREETING_MS + 1000 };
    open_client(TAKES_MS);
    turn();
    cr_assert(says(NAME) && says("looked up"), "%s", tiermq_connection_error(client));
    cr_assert_lt(run_until_connected(), TAKES_MS + 2000);
    cr_assert_eq(lookups, 1);
    cr_assert_str_eq(tiermq_connection_error(client), "");
}

Test(client_lookup, a_call_whose_time_is_over_says_that_the_name_is_being_looked_up)
{
    struct tiermq_answer *answer = NULL;
    open_client(1000);
    cr_assert_eq(tiermq_wait(client, &(tiermq_id){.bytes = {1}}, 100, &answer), -ETIMEDOUT);
    cr_assert_not_null(strstr(tiermq_last_error(client), "its name is being looked up"), "%s",
                       tiermq_last_error(client));
}

Test(client_lookup, a_broker_has_its_time_to_answer_once_its_name_is_known)
{
    open_client(200);
    ahead_ms = CONNECTION_LOOKUP_MS - 1000; /* most of the lookup's time is over */
    (void)run_until_connected();
    cr_assert_eq(lookups, 1);
}

Test(client_lookup, a_lookup_without_end_is_given_up_and_begun_anew)
{
    open_client(5000);
    turn();
    ahead_ms = CONNECTION_LOOKUP_MS;
    lookup_ms = 0;
    cr_assert_eq(tiermq_dispatch(client, 0), 0);
    cr_assert(says("could not be looked up within"), "%s", tiermq_connection_error(client));
    cr_assert_lt(run_until_connected(), 4000);
    cr_assert_eq(lookups, 2);
}
