#include "common/zmtp.h"
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

enum {
    SIGNATURE_BYTES = 10,
    MAJOR_AT = 10,
    MINOR_AT = 11,
    MECHANISM_AT = 12,
    MECHANISM_BYTES = 20,
    MAJOR = 3,
    MINOR = 1,
    SIGNATURE_FIRST = 0xff,
    SIGNATURE_LAST = 0x7f,

    FLAG_MORE = 1,
    FLAG_LONG = 2,
    FLAG_COMMAND = 4,
    FLAGS = FLAG_MORE | FLAG_LONG | FLAG_COMMAND,

    TTL_BYTES = 2, /* of a PING: tenths of seconds */
    VALUE_SIZE_BYTES = 4,
};

static const char MECHANISM[MECHANISM_BYTES] = "NULL";

static int refuse(const char *reason, const char **ret_reason)
{
    *ret_reason = reason;
    return -EPROTO;
}

/* ---- greeting ---- */

void zmtp_write_greeting(uint8_t ret_greeting[ZMTP_GREETING_BYTES])
{
    memset(ret_greeting, 0, ZMTP_GREETING_BYTES);
    ret_greeting[0] = SIGNATURE_FIRST;
    ret_greeting[SIGNATURE_BYTES - 1] = SIGNATURE_LAST;
    ret_greeting[MAJOR_AT] = MAJOR;
    ret_greeting[MINOR_AT] = MINOR;
    memcpy(ret_greeting + MECHANISM_AT, MECHANISM, sizeof(MECHANISM));
}

int zmtp_read_greeting(const uint8_t *data, size_t bytes, uint8_t *ret_minor,
                       const char **ret_reason)
{
    if (bytes > 0 && data[0] != SIGNATURE_FIRST) {
        return refuse("it does not speak ZMTP", ret_reason);
    }
    if (bytes >= SIGNATURE_BYTES && data[SIGNATURE_BYTES - 1] != SIGNATURE_LAST) {
        return refuse("it does not speak ZMTP", ret_reason);
    }
    if (bytes > MAJOR_AT && data[MAJOR_AT] < MAJOR) {
        return refuse("it speaks ZMTP of a version before 3.0", ret_reason);
    }
    if (bytes < ZMTP_GREETING_BYTES) {
        return -EAGAIN;
    }
    if (memcmp(data + MECHANISM_AT, MECHANISM, sizeof(MECHANISM)) != 0) {
        return refuse("it wants another security mechanism than NULL", ret_reason);
    }
    *ret_minor = data[MAJOR_AT] > MAJOR || data[MINOR_AT] > 0 ? 1 : 0;
    return 0;
}

/* ---- frames ---- */

static uint64_t read_number(const uint8_t *data, size_t bytes)
{
    uint64_t number = 0;
    for (size_t i = 0; i < bytes; i++) {
        number = number << 8 | data[i];
    }
    return number;
}

static void write_number(uint64_t number, size_t bytes, uint8_t *ret_data)
{
    for (size_t i = bytes; i-- > 0;) {
        ret_data[i] = (uint8_t)number;
        number >>= 8;
    }
}

int zmtp_read_header(const uint8_t *data, size_t bytes, size_t part_bytes_max,
                     struct zmtp_frame *ret_frame, const char **ret_reason)
{
    if (bytes == 0) {
        return -EAGAIN;
    }
    const uint8_t flags = data[0];
    const bool is_command = (flags & FLAG_COMMAND) != 0;
    if ((flags & ~FLAGS) != 0 || (is_command && (flags & FLAG_MORE) != 0)) {
        return refuse("a frame has flags that mean nothing", ret_reason);
    }
    const size_t header_bytes = (flags & FLAG_LONG) != 0 ? ZMTP_HEADER_BYTES_MAX : 2;
    if (bytes < header_bytes) {
        return -EAGAIN;
    }
    const uint64_t body_bytes = read_number(data + 1, header_bytes - 1);
    if (is_command && body_bytes > ZMTP_COMMAND_BYTES_MAX) {
        return refuse("a command is too large", ret_reason);
    }
    if (!is_command && body_bytes > part_bytes_max) {
        *ret_reason = "a part of a message is too large";
        return -EMSGSIZE;
    }
    *ret_frame = (struct zmtp_frame){.bytes = body_bytes,
                                     .header_bytes = header_bytes,
                                     .has_more = (flags & FLAG_MORE) != 0,
                                     .is_command = is_command};
    return 0;
}

static size_t write_header(uint8_t flags, size_t body_bytes, uint8_t *ret_header)
{
    const size_t header_bytes = zmtp_header_bytes(body_bytes);
    ret_header[0] = header_bytes > 2 ? flags | FLAG_LONG : flags;
    write_number(body_bytes, header_bytes - 1, ret_header + 1);
    return header_bytes;
}

size_t zmtp_write_header(size_t body_bytes, bool has_more, uint8_t *ret_header)
{
    return write_header(has_more ? FLAG_MORE : 0, body_bytes, ret_header);
}

/* ---- reading commands ---- */

/* What is left of a command's body. */
struct rest {
    const uint8_t *data;
    size_t bytes;
};

/* Behind its size in `size_bytes` bytes. */
static bool take(struct rest *rest, size_t size_bytes, const uint8_t **ret_data, size_t *ret_bytes)
{
    if (rest->bytes < size_bytes) {
        return false;
    }
    const uint64_t bytes = read_number(rest->data, size_bytes);
    if (bytes > rest->bytes - size_bytes) {
        return false;
    }
    *ret_data = rest->data + size_bytes;
    *ret_bytes = (size_t)bytes;
    rest->data += size_bytes + bytes;
    rest->bytes -= size_bytes + bytes;
    return true;
}

static bool is_name(const uint8_t *data, size_t bytes, const char *name)
{
    return bytes == strlen(name) && memcmp(data, name, bytes) == 0;
}

/* Upper or lower case does not matter in names of properties. */
static bool is_property(const uint8_t *data, size_t bytes, const char *name)
{
    return bytes == strlen(name) && strncasecmp((const char *)data, name, bytes) == 0;
}

static enum zmtp_command_kind kind_of(const uint8_t *name, size_t bytes)
{
    static const char *const names[] = {
        [ZMTP_READY] = "READY", [ZMTP_ERROR] = "ERROR",         [ZMTP_PING] = "PING",
        [ZMTP_PONG] = "PONG",   [ZMTP_SUBSCRIBE] = "SUBSCRIBE", [ZMTP_CANCEL] = "CANCEL",
    };
    for (unsigned kind = 0; kind < ARRAY_LENGTH(names); kind++) {
        if (is_name(name, bytes, names[kind])) {
            return (enum zmtp_command_kind)kind;
        }
    }
    return ZMTP_UNKNOWN;
}

/* An identity that begins with a zero is reserved for names that the receiver gives. */
static int read_identity(struct zmtp_command *command, const uint8_t *value, size_t bytes,
                         const char **ret_reason)
{
    if (bytes > ZMTP_IDENTITY_BYTES_MAX || (bytes > 0 && value[0] == 0)) {
        return refuse("its identity is none that it may have", ret_reason);
    }
    command->identity = value;
    command->identity_bytes = bytes;
    return 0;
}

static int read_ready(struct rest rest, struct zmtp_command *command, const char **ret_reason)
{
    while (rest.bytes > 0) {
        const uint8_t *name, *value;
        size_t name_bytes, value_bytes;
        if (!take(&rest, 1, &name, &name_bytes) || name_bytes == 0 ||
            !take(&rest, VALUE_SIZE_BYTES, &value, &value_bytes)) {
            return refuse("READY is malformed", ret_reason);
        }
        if (is_property(name, name_bytes, "Socket-Type")) {
            command->socket_type = value;
            command->socket_type_bytes = value_bytes;
        } else if (is_property(name, name_bytes, "Identity")) {
            const int r = read_identity(command, value, value_bytes, ret_reason);
            if (r < 0) {
                return r;
            }
        }
    }
    return 0;
}

static int read_ping(struct rest rest, struct zmtp_command *command, const char **ret_reason)
{
    if (rest.bytes < TTL_BYTES || rest.bytes > TTL_BYTES + ZMTP_CONTEXT_BYTES_MAX) {
        return refuse("PING is malformed", ret_reason);
    }
    command->data = rest.data + TTL_BYTES;
    command->data_bytes = rest.bytes - TTL_BYTES;
    return 0;
}

static int read_error(struct rest rest, struct zmtp_command *command, const char **ret_reason)
{
    if (!take(&rest, 1, &command->data, &command->data_bytes)) {
        return refuse("ERROR is malformed", ret_reason);
    }
    return 0;
}

int zmtp_read_command(const uint8_t *body, size_t bytes, struct zmtp_command *ret_command,
                      const char **ret_reason)
{
    struct rest rest = {.data = body, .bytes = bytes};
    const uint8_t *name;
    size_t name_bytes;
    if (!take(&rest, 1, &name, &name_bytes) || name_bytes == 0) {
        return refuse("a command has no name", ret_reason);
    }
    *ret_command = (struct zmtp_command){
        .kind = kind_of(name, name_bytes), .data = rest.data, .data_bytes = rest.bytes};
    switch (ret_command->kind) {
    case ZMTP_READY:
        return read_ready(rest, ret_command, ret_reason);
    case ZMTP_ERROR:
        return read_error(rest, ret_command, ret_reason);
    case ZMTP_PING:
        return read_ping(rest, ret_command, ret_reason);
    case ZMTP_PONG:
    case ZMTP_SUBSCRIBE:
    case ZMTP_CANCEL:
    case ZMTP_UNKNOWN:
        return 0;
    }
    return 0;
}

/* ---- writing commands ---- */

/* Returns where the next bytes go. */
static size_t append(uint8_t *ret_frame, size_t at, const void *data, size_t bytes)
{
    if (bytes > 0) {
        memcpy(ret_frame + at, data, bytes);
    }
    return at + bytes;
}

/* The frame's header and the command's name; what follows it has `data_bytes`. */
static size_t write_name(const char *name, size_t data_bytes, uint8_t *ret_frame)
{
    const size_t name_bytes = strlen(name);
    const size_t body_bytes = 1 + name_bytes + data_bytes;
    assert(2 + body_bytes <= ZMTP_WRITTEN_BYTES_MAX);
    size_t at = write_header(FLAG_COMMAND, body_bytes, ret_frame);
    ret_frame[at++] = (uint8_t)name_bytes;
    return append(ret_frame, at, name, name_bytes);
}

size_t zmtp_write_ready(const char *socket_type, uint8_t *ret_frame)
{
    static const char property[] = "Socket-Type";
    const size_t property_bytes = sizeof(property) - 1;
    const size_t type_bytes = strlen(socket_type);
    size_t at = write_name("READY", 1 + property_bytes + VALUE_SIZE_BYTES + type_bytes, ret_frame);
    ret_frame[at++] = (uint8_t)property_bytes;
    at = append(ret_frame, at, property, property_bytes);
    write_number(type_bytes, VALUE_SIZE_BYTES, ret_frame + at);
    at += VALUE_SIZE_BYTES;
    return append(ret_frame, at, socket_type, type_bytes);
}

size_t zmtp_write_error(const char *reason, uint8_t *ret_frame)
{
    const size_t reason_bytes_max = ZMTP_WRITTEN_BYTES_MAX - sizeof("hhsERRORs");
    size_t bytes = strlen(reason);
    bytes = bytes < reason_bytes_max ? bytes : reason_bytes_max;
    size_t at = write_name("ERROR", 1 + bytes, ret_frame);
    ret_frame[at++] = (uint8_t)bytes;
    return append(ret_frame, at, reason, bytes);
}

size_t zmtp_write_ping(unsigned ttl_ms, uint8_t *ret_frame)
{
    const size_t at = write_name("PING", TTL_BYTES, ret_frame);
    write_number(ttl_ms / 100, TTL_BYTES, ret_frame + at);
    return at + TTL_BYTES;
}

size_t zmtp_write_pong(const uint8_t *context, size_t bytes, uint8_t *ret_frame)
{
    assert(bytes <= ZMTP_CONTEXT_BYTES_MAX);
    return append(ret_frame, write_name("PONG", bytes, ret_frame), context, bytes);
}

size_t zmtp_write_subscribe_all(uint8_t minor, uint8_t *ret_frame)
{
    if (minor > 0) {
        return write_name("SUBSCRIBE", 0, ret_frame);
    }
    const size_t at = write_header(0, 1, ret_frame);
    ret_frame[at] = 1;
    return at + 1;
}
