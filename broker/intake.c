#include "broker/intake.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include "broker/broker.h"
#include "broker/telemetry.h"
#include "common/link.h"

enum { TEXT_MAX = 256, ERROR_BYTES_MAX = 512 };

/* Both envelopes have the error in a field of their own; everything else of them stays empty. */
static size_t pack_error(enum peer_side side, Wire__ProtocolError *error, uint8_t *ret_bytes)
{
    if (side == PEER_CLIENT) {
        Wire__BrokerToClient envelope = WIRE__BROKER_TO_CLIENT__INIT;
        envelope.error = error;
        frame_write_header(FRAME_BROKER_TO_CLIENT, ret_bytes);
        return FRAME_HEADER_BYTES +
               wire__broker_to_client__pack(&envelope, ret_bytes + FRAME_HEADER_BYTES);
    }
    Wire__BrokerToWorker envelope = WIRE__BROKER_TO_WORKER__INIT;
    envelope.error = error;
    frame_write_header(FRAME_BROKER_TO_WORKER, ret_bytes);
    return FRAME_HEADER_BYTES +
           wire__broker_to_worker__pack(&envelope, ret_bytes + FRAME_HEADER_BYTES);
}

int64_t intake_jittered(int64_t retry_after_ms)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random)) {
        return retry_after_ms;
    }
    return retry_after_ms + random % (retry_after_ms / 4 + 1);
}

static void refuse(const struct intake *intake, Wire__ProtocolError__Code code,
                   int64_t retry_after_ms, char *text)
{
    struct broker *broker = intake->broker;
    Wire__ProtocolError error = WIRE__PROTOCOL_ERROR__INIT;
    error.code = code;
    error.text = text;
    error.retry_after_ms = (uint64_t)retry_after_ms;
    uint8_t bytes[ERROR_BYTES_MAX];
    const size_t length = pack_error(intake->side, &error, bytes);
    struct link *link = intake->side == PEER_CLIENT ? broker->clients : broker->workers;
    /* A sender that is gone, or takes nothing, is told nothing. */
    (void)!link_send(link, intake->id, intake->id_bytes, bytes, length, NULL, 0);
    telemetry_protocol_error(broker->telemetry, intake->side, code, text);
}

void intake_refuse(const struct intake *intake, Wire__ProtocolError__Code code, const char *format,
                   ...)
{
    char text[TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    refuse(intake, code, 0, text);
}

void intake_refuse_for_now(const struct intake *intake, int64_t retry_after_ms, const char *format,
                           ...)
{
    char text[TEXT_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_REFUSED, intake_jittered(retry_after_ms),
           text);
}

int intake_open(struct intake *intake)
{
    size_t bytes = 0;
    const uint8_t *head = link_message_part(intake->message, 0, &bytes);
    if (head == NULL) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_TOO_LARGE,
                      "a message may have %d parts at most; send fewer items at once",
                      FRAME_PARTS_MAX);
        return -EBADMSG;
    }
    uint8_t version = 0;
    const int r = frame_read_header(head, bytes, &intake->kind, &version);
    if (r == -EPROTONOSUPPORT) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_VERSION,
                      "protocol version %u is not spoken here, this broker speaks %d; use programs "
                      "of one release",
                      version, FRAME_VERSION);
        return -EBADMSG;
    }
    if (r < 0) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "a message of %zu bytes does not begin with the header \"TQ\", version, kind",
                      bytes);
        return -EBADMSG;
    }
    const size_t skipped = intake->kind == FRAME_CHUNK ? 0 : FRAME_HEADER_BYTES;
    intake->envelope = head + skipped;
    intake->envelope_bytes = bytes - skipped;
    if (intake->envelope_bytes > FRAME_ENVELOPE_BYTES_MAX) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_TOO_LARGE,
                      "an envelope of %zu bytes is above the limit of %d; send fewer items at once",
                      intake->envelope_bytes, FRAME_ENVELOPE_BYTES_MAX);
        return -EBADMSG;
    }
    return 0;
}

struct peer *intake_peer(const struct intake *intake)
{
    struct broker *broker = intake->broker;
    struct peer *peer = peers_find(broker->peers, intake->side, intake->id, intake->id_bytes);
    if (peer == NULL || peer->is_lost) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_HELLO_REQUIRED,
                      "this connection is not known here; say hello first, then repeat");
        return NULL;
    }
    peers_touch(broker->peers, peer, broker_time(broker).now_ms);
    return peer;
}

int intake_id(const struct intake *intake, const ProtobufCBinaryData *data, const char *field,
              struct id *ret_id)
{
    if (id_from_bytes(data->data, data->len, ret_id) < 0) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "%s has %zu bytes or is zero; an id is 16 bytes, not all zero", field,
                      data->len);
        return -EBADMSG;
    }
    return 0;
}

void intake_expect(const struct intake *intake, const ProtobufCBinaryData *job_id)
{
    struct id id;
    if (id_from_bytes(job_id->data, job_id->len, &id) == 0) { /* else it is refused when it is taken */
        core_expect(intake->broker->core, &id);
    }
}
