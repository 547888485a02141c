/* A worker's link and a broker whose name takes its time to be looked up. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/frame.h"
#include "common/link.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/metrics.h"
#include "proto/wire.pb-c.h"
#include "tests/unit/slow_name.h"
#include "worker/broker_link.h"
#include "worker/telemetry.h"

enum { PATIENCE_MS = 20000, ENDPOINT_BYTES = 128 };

static struct loop *loop;
static struct log *log_of_test;
static FILE *log_file;
static struct metrics *metrics;
static struct telemetry *telemetry;
static struct link *broker;
static struct broker_link *worker;
static char endpoint[ENDPOINT_BYTES];

/* Whatever comes is a hello. */
static void welcome(void *context, const void *peer, size_t peer_bytes, struct link_message *parts)
{
    (void)context;
    (void)parts;
    uint8_t packed[256];
    Wire__WorkerWelcome welcome = WIRE__WORKER_WELCOME__INIT;
    Wire__BrokerToWorker message = WIRE__BROKER_TO_WORKER__INIT;
    welcome.broker = (char *)"played";
    welcome.incarnation = 1;
    welcome.heartbeat_ms = 60000;
    message.welcome = &welcome;
    frame_write_header(FRAME_BROKER_TO_WORKER, packed);
    const size_t bytes =
        FRAME_HEADER_BYTES + wire__broker_to_worker__pack(&message, packed + FRAME_HEADER_BYTES);
    cr_assert_eq(link_send(broker, peer, peer_bytes, packed, bytes, NULL, 0), 0);
}

static void start(void)
{
    const struct link_options options = {.kind = LINK_ROUTER,
                                         .endpoint = "tcp://127.0.0.1:*",
                                         .bind = true,
                                         .part_bytes_max = 1 << 20};
    log_file = tmpfile();
    cr_assert_not_null(log_file);
    cr_assert_eq(log_create("test", LOG_WARN, fileno(log_file), &log_of_test), 0);
    cr_assert_eq(loop_create(&loop), 0);
    cr_assert_eq(metrics_create(&metrics), 0);
    cr_assert_eq(telemetry_create(metrics, &telemetry), 0);
    cr_assert_eq(link_create(loop, &options, welcome, NULL, &broker), 0);
    (void)snprintf(endpoint, sizeof(endpoint), "tcp://%s:%s", NAME,
                   strrchr(link_endpoint(broker), ':') + 1);
}

static void stop(void)
{
    broker_link_destroy(&worker);
    link_destroy(&broker);
    telemetry_destroy(&telemetry);
    metrics_destroy(&metrics);
    loop_destroy(&loop);
    log_destroy(&log_of_test);
    (void)fclose(log_file);
}

static void open_worker(int takes_ms)
{
    static const struct broker_handler handler = {0}; /* it is told of nothing */
    const struct broker_link_options options = {.endpoint = endpoint,
                                                .worker_name = "w",
                                                .slots = 1,
                                                .brokers = 1,
                                                .part_bytes_max = 1 << 20};
    lookup_ms = takes_ms;
    cr_assert_eq(
        broker_link_create(loop, log_of_test, telemetry, &options, &handler, NULL, &worker), 0);
}

/* Returns how long that took. */
static int64_t run_until_joined(void)
{
    const int64_t began_ms = clock_monotonic_ms();
    while (!broker_link_is_joined(worker)) {
        cr_assert_lt(clock_monotonic_ms() - began_ms, PATIENCE_MS);
        cr_assert_eq(loop_turn(loop, 10), 0);
    }
    return clock_monotonic_ms() - began_ms;
}

TestSuite(broker_link, .init = start, .fini = stop, .timeout = 60);

Test(broker_link, lookup_that_takes_longer_than_the_next_try_is_waited_for)
{
    enum { TAKES_MS = BROKER_LINK_RETRY_FIRST_MS + 1500 };
    open_worker(TAKES_MS);
    cr_assert_lt(run_until_joined(), TAKES_MS + 1000);
    cr_assert_eq(lookups, 1);
}

Test(broker_link, lookup_without_end_is_given_up_and_begun_anew)
{
    struct stat before, after;
    open_worker(5000);
    cr_assert_eq(loop_turn(loop, 10), 0);
    cr_assert_eq(fstat(fileno(log_file), &before), 0);
    ahead_ms = BROKER_LINK_LOOKUP_MS;
    lookup_ms = 0;
    cr_assert_lt(run_until_joined(), 4000);
    cr_assert_eq(lookups, 2);
    cr_assert_eq(fstat(fileno(log_file), &after), 0);
    cr_assert_gt(after.st_size, before.st_size, "the log says so");
}
