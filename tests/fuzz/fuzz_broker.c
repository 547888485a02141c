/*
 * Messages to a whole broker, whoever sends them: it lives on, and each answer is an envelope that
 * can be read and owns as many payloads as it says.
 *
 * The input is a list of messages (links.h), each behind a byte of flags: side, sender, whether the
 * right header is put in front, whether answers can be sent, whether the turn ends.
 */
#include <fcntl.h>
#include <unistd.h>
#include "broker/broker.h"
#include "broker/clients.h"
#include "broker/workers.h"
#include "common/config.h"
#include "common/log.h"
#include "common/loop.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/links.h"

enum {
    FLAG_WORKER = 1,
    FLAG_SENDER = 6, /* one of four */
    FLAG_HEADER = 8,
    FLAG_CHUNK = 16,
    FLAG_FULL = 32, /* answers cannot be sent */
    FLAG_TURN = 64,
};

static enum frame_kind kind_of(uint8_t flags)
{
    return (flags & FLAG_CHUNK) != 0    ? FRAME_CHUNK
           : (flags & FLAG_WORKER) != 0 ? FRAME_WORKER_TO_BROKER
                                        : FRAME_CLIENT_TO_BROKER;
}

static void send_one(struct broker *broker, struct input *input)
{
    const uint8_t flags = input_byte(input);
    const uint8_t sender = flags & FLAG_SENDER;
    struct link_message message;
    links_take_message(input, kind_of(flags), (flags & FLAG_HEADER) != 0, &message);
    links_set_full((flags & FLAG_FULL) != 0);
    if ((flags & FLAG_WORKER) != 0) {
        workers_receive(broker, &sender, 1, &message);
    } else {
        clients_receive(broker, &sender, 1, &message);
    }
    links_message_finish(&message);
    if ((flags & FLAG_TURN) != 0) {
        must_hold(loop_turn(broker->loop, 0) == 0);
    }
}

/* ---- the broker ---- */

static struct config *read_config(void)
{
    static const char text[] = "broker: {store: memory, admin: \"127.0.0.1:0\"}";
    struct config *config = NULL;
    struct config_errors errors = {0};
    must_hold(config_read_text(text, sizeof(text) - 1, "fuzz", &config, &errors) == 0);
    config_errors_finish(&errors);
    return config;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct config *config = read_config();
    struct log *log = NULL;
    struct broker *broker = NULL;
    const int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
    must_hold(log_create("fuzz", LOG_DEBUG, quiet, &log) == 0);
    must_hold(broker_create(&config, NULL, false, log, &broker) == EXIT_OK);
    struct input input = {.data = data, .bytes = bytes};
    while (input.bytes > 0) {
        send_one(broker, &input);
    }
    links_set_full(false);
    must_hold(loop_turn(broker->loop, 0) == 0);
    must_hold(loop_turn(broker->loop, 0) == 0);
    broker_destroy(&broker);
    log_destroy(&log);
    (void)close(quiet);
    return 0;
}
