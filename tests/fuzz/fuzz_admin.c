/*
 * A broker's admin HTTP, whoever speaks to it: paths, queries and bodies, of which filters of dead
 * letters, rates and pauses have the most to say. It lives on, and whatever it says in JSON is JSON.
 *
 * The input is what arrives on one connection. The broker has a job that waits, and a dead letter
 * (ids below), so that there is something to find, to requeue and to drop.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "broker/broker.h"
#include "broker/clients.h"
#include "broker/workers.h"
#include "common/config.h"
#include "common/http_admin.h"
#include "common/id.h"
#include "common/log.h"
#include "common/loop.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/links.h"

enum {
    ANSWER_BYTES_MAX = 4 << 20,
    IDLE_TURNS_MAX = 50, /* an inquiry waits for the store, a turn of a millisecond or two */
};

/* From the end of this century, since a broker refuses what it may have forgotten. */
static const char DEAD_ID[] = "03bb2cc3-d800-759c-bacf-5e8a6ecaee7d";
static const char WAITING_ID[] = "03bb2cc3-d800-759c-bacf-5e8a6ecaee7e";

/* ---- the broker, and what happened to it before ---- */

static void send_to(struct broker *broker, enum frame_kind kind, const ProtobufCMessage *envelope,
                    bool has_payload)
{
    const size_t bytes = FRAME_HEADER_BYTES + protobuf_c_message_get_packed_size(envelope);
    uint8_t *head = malloc(bytes);
    uint8_t payload[] = "payload";
    must_hold(head != NULL);
    frame_write_header(kind, head);
    (void)protobuf_c_message_pack(envelope, head + FRAME_HEADER_BYTES);
    struct link_message message = {
        .parts = {{head, bytes}, {payload, sizeof(payload)}},
        .length = has_payload ? 2 : 1,
    };
    if (kind == FRAME_CLIENT_TO_BROKER) {
        clients_receive(broker, "c", 1, &message);
    } else {
        workers_receive(broker, "w", 1, &message);
    }
    must_hold(loop_turn(broker->loop, 0) == 0);
    free(head);
}

static void submit(struct broker *broker, const struct id *job_id)
{
    Wire__ClientMessage message = WIRE__CLIENT_MESSAGE__INIT;
    Wire__ClientHello hello = WIRE__CLIENT_HELLO__INIT;
    Wire__Submit submission = WIRE__SUBMIT__INIT;
    Wire__Submit *submissions[] = {&submission};
    hello.tenant = "default";
    submission.job_id = (ProtobufCBinaryData){ID_BYTES, (uint8_t *)job_id->bytes};
    submission.tier = "realtime";
    submission.route = "auto";
    submission.has_payload = true;
    message.hello = &hello;
    message.submit = submissions;
    message.n_submit = 1;
    send_to(broker, FRAME_CLIENT_TO_BROKER, &message.base, true);
}

/* A worker that takes one job, which can never succeed. */
static void let_die(struct broker *broker, const struct id *job_id)
{
    static char pool[] = "default";
    char *pools[] = {pool};
    Wire__WorkerHello hello = WIRE__WORKER_HELLO__INIT;
    Wire__WorkerMessage message = WIRE__WORKER_MESSAGE__INIT;
    hello.name = "w";
    hello.pools = pools;
    hello.n_pools = 1;
    hello.slots = 1;
    message.hello = &hello;
    message.credit_total = 1;
    send_to(broker, FRAME_WORKER_TO_BROKER, &message.base, false);

    Wire__AttemptResult result = WIRE__ATTEMPT_RESULT__INIT;
    Wire__AttemptResult *results[] = {&result};
    Wire__WorkerMessage answer = WIRE__WORKER_MESSAGE__INIT;
    result.job_id = (ProtobufCBinaryData){ID_BYTES, (uint8_t *)job_id->bytes};
    result.attempt = 1;
    result.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED;
    result.error_code = "rejected";
    result.error_text = "too long";
    answer.result = results;
    answer.n_result = 1;
    send_to(broker, FRAME_WORKER_TO_BROKER, &answer.base, false);
}

static void make_history(struct broker *broker)
{
    struct id dead, waiting;
    struct core_dead_view view;
    must_hold(id_parse(DEAD_ID, &dead) == 0 && id_parse(WAITING_ID, &waiting) == 0);
    submit(broker, &dead);
    let_die(broker, &dead);
    submit(broker, &waiting);
    must_hold(loop_turn(broker->loop, 0) == 0);
    must_hold(core_view_dead(broker->core, &dead, &view) == 0);
}

static struct config *read_config(const char *directory)
{
    char text[256];
    struct config *config = NULL;
    struct config_errors errors = {0};
    const int length = snprintf(text, sizeof(text),
                                "broker: {store: memory, admin: \"unix:%s/admin\"}", directory);
    must_hold(config_read_text(text, (size_t)length, "fuzz", &config, &errors) == 0);
    config_errors_finish(&errors);
    return config;
}

/* ---- a connection ---- */

struct talk {
    int fd;
    const uint8_t *data; /* to be sent */
    size_t bytes;
    char *said;
    size_t said_bytes;
    bool is_over;
};

static int connect_to(const char *directory)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/admin", directory);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must_hold(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    return fd;
}

/* Returns whether anything moved. */
static bool talk_once(struct talk *talk)
{
    const size_t before = talk->bytes + talk->said_bytes;
    if (talk->bytes > 0) {
        const ssize_t sent = send(talk->fd, talk->data, talk->bytes, MSG_NOSIGNAL);
        if (sent > 0) {
            talk->data += sent;
            talk->bytes -= (size_t)sent;
        } else if (errno != EAGAIN) {
            talk->bytes = 0; /* it was thrown out, and may have been told why */
        }
        if (talk->bytes == 0) {
            (void)shutdown(talk->fd, SHUT_WR);
        }
        return true;
    }
    const ssize_t got =
        recv(talk->fd, talk->said + talk->said_bytes, ANSWER_BYTES_MAX - talk->said_bytes, 0);
    talk->is_over = got == 0 || (got < 0 && errno != EAGAIN);
    talk->said_bytes += got > 0 ? (size_t)got : 0;
    return talk->bytes + talk->said_bytes != before;
}

static void talk_with(struct broker *broker, struct talk *talk)
{
    for (int idle = 0; !talk->is_over && idle < IDLE_TURNS_MAX; idle++) {
        if (talk_once(talk)) {
            idle = 0;
        }
        must_hold(loop_turn(broker->loop, idle == 0 ? 0 : 1) == 0);
    }
}

/* ---- what was said ---- */

static bool has_header(const char *head, const char *end, const char *line)
{
    const char *found = memmem(head, (size_t)(end - head), line, strlen(line));
    return found != NULL;
}

static size_t length_of(const char *head, const char *end)
{
    static const char name[] = "\r\nContent-Length: ";
    const char *found = memmem(head, (size_t)(end - head), name, sizeof(name) - 1);
    return found == NULL ? 0 : strtoul(found + sizeof(name) - 1, NULL, 10);
}

/* Answers one after the other; those to HEAD have a length and no body. */
static void check_said(const char *said, size_t bytes)
{
    const char *at = said;
    const char *const end = said + bytes;
    while (at < end) {
        must_hold(end - at > 9 && strncmp(at, "HTTP/1.", 7) == 0);
        const char *stop = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
        if (stop == NULL) {
            return; /* cut */
        }
        const char *body = stop + 4;
        size_t length = length_of(at, stop + 2);
        if (length > (size_t)(end - body) || strncmp(body, "HTTP/1.", 7) == 0) {
            length = 0;
        }
        if (length > 0 && has_header(at, stop + 2, "Content-Type: application/json")) {
            json_t *value = json_loadb(body, length, JSON_ALLOW_NUL, NULL);
            must_hold(value != NULL);
            json_decref(value);
        }
        at = body + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static char directory[] = "/tmp/tiermq-fuzz-admin-XXXXXX";
    static char *said;
    if (said == NULL) {
        must_hold(mkdtemp(directory) != NULL);
        said = malloc(ANSWER_BYTES_MAX + 1);
        must_hold(said != NULL);
    }
    struct config *config = read_config(directory);
    struct log *log = NULL;
    struct broker *broker = NULL;
    const int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
    must_hold(log_create("fuzz", LOG_DEBUG, quiet, &log) == 0);
    must_hold(broker_create(&config, NULL, false, log, &broker) == EXIT_OK);
    make_history(broker);
    struct talk talk = {.fd = connect_to(directory), .data = data, .bytes = bytes, .said = said};
    talk_with(broker, &talk);
    said[talk.said_bytes] = '\0';
    check_said(said, talk.said_bytes);
    (void)close(talk.fd);
    broker_destroy(&broker);
    log_destroy(&log);
    (void)close(quiet);
    return 0;
}
