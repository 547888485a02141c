#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "common/attributes.h"
#include "common/zmtp.h"

/* ---- greeting ---- */

static int read_greeting(const uint8_t *data, size_t bytes, const char **ret_reason)
{
    uint8_t minor = 9;
    *ret_reason = "";
    return zmtp_read_greeting(data, bytes, &minor, ret_reason);
}

Test(zmtp, greeting_is_that_of_version_3_1_without_security)
{
    uint8_t greeting[ZMTP_GREETING_BYTES];
    zmtp_write_greeting(greeting);
    const uint8_t begin[] = {0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 1, 'N', 'U', 'L', 'L', 0};
    cr_assert_eq(memcmp(greeting, begin, sizeof(begin)), 0);
    uint8_t minor = 9;
    const char *reason;
    cr_assert_eq(zmtp_read_greeting(greeting, sizeof(greeting), &minor, &reason), 0);
    cr_assert_eq(minor, 1);
    for (size_t bytes = 0; bytes < sizeof(greeting); bytes++) {
        cr_assert_eq(read_greeting(greeting, bytes, &reason), -EAGAIN, "%zu bytes", bytes);
    }
}

Test(zmtp, minor_version_counts_only_as_3_0_or_later)
{
    uint8_t greeting[ZMTP_GREETING_BYTES], minor = 9;
    const char *reason;
    zmtp_write_greeting(greeting);
    greeting[11] = 0;
    cr_assert_eq(zmtp_read_greeting(greeting, sizeof(greeting), &minor, &reason), 0);
    cr_assert_eq(minor, 0);
    greeting[10] = 4;
    cr_assert_eq(zmtp_read_greeting(greeting, sizeof(greeting), &minor, &reason), 0);
    cr_assert_eq(minor, 1, "a later version is spoken to as 3.1");
}

Test(zmtp, strangers_are_known_by_their_first_bytes)
{
    const char *reason;
    cr_assert_eq(read_greeting((const uint8_t *)"GET / HTTP", 1, &reason), -EPROTO);
    cr_assert_str_eq(reason, "it does not speak ZMTP");
    uint8_t greeting[ZMTP_GREETING_BYTES];
    zmtp_write_greeting(greeting);
    greeting[9] = 1;
    cr_assert_eq(read_greeting(greeting, 10, &reason), -EPROTO);
    zmtp_write_greeting(greeting);
    greeting[10] = 1;
    cr_assert_eq(read_greeting(greeting, 11, &reason), -EPROTO);
    cr_assert_str_eq(reason, "it speaks ZMTP of a version before 3.0");
    zmtp_write_greeting(greeting);
    memcpy(greeting + 12, "PLAIN", 5);
    cr_assert_eq(read_greeting(greeting, sizeof(greeting), &reason), -EPROTO);
    cr_assert_str_eq(reason, "it wants another security mechanism than NULL");
    zmtp_write_greeting(greeting);
    greeting[12 + 4] = 'X';
    cr_assert_eq(read_greeting(greeting, sizeof(greeting), &reason), -EPROTO);
}

/* ---- frames ---- */

Test(zmtp, headers_of_every_size_are_read_as_they_were_written)
{
    const size_t sizes[] = {0, 1, 255, 256, 65536, (size_t)1 << 40};
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        uint8_t header[ZMTP_HEADER_BYTES_MAX];
        const size_t bytes = zmtp_write_header(sizes[i], i % 2 == 0, header);
        cr_assert_eq(bytes, zmtp_header_bytes(sizes[i]));
        struct zmtp_frame frame;
        const char *reason;
        for (size_t part = 0; part < bytes; part++) {
            cr_assert_eq(zmtp_read_header(header, part, SIZE_MAX, &frame, &reason), -EAGAIN);
        }
        cr_assert_eq(zmtp_read_header(header, bytes, SIZE_MAX, &frame, &reason), 0);
        cr_assert_eq(frame.bytes, sizes[i]);
        cr_assert_eq(frame.header_bytes, bytes);
        cr_assert_eq(frame.has_more, i % 2 == 0);
        cr_assert_not(frame.is_command);
    }
}

Test(zmtp, sizes_are_bounded_and_flags_without_meaning_refused)
{
    const struct {
        uint8_t header[ZMTP_HEADER_BYTES_MAX];
        size_t bytes;
        int result;
    } cases[] = {
        {{0, 100}, 2, 0},
        {{0, 101}, 2, -EMSGSIZE},
        {{2, 0, 0, 0, 0, 0, 0, 0, 100}, 9, 0}, /* longer than it must be */
        {{2, 0x80, 0, 0, 0, 0, 0, 0, 0}, 9, -EMSGSIZE},
        {{4, 101}, 2, 0}, /* a command has a bound of its own */
        {{6, 0, 0, 0, 0, 0, 0, 0x10, 1}, 9, -EPROTO},
        {{5, 1}, 2, -EPROTO}, /* a command is never continued */
        {{8, 1}, 2, -EPROTO},
        {{0x80}, 1, -EPROTO},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct zmtp_frame frame;
        const char *reason = NULL;
        cr_assert_eq(zmtp_read_header(cases[i].header, cases[i].bytes, 100, &frame, &reason),
                     cases[i].result, "case %zu", i);
        cr_assert_eq(reason != NULL, cases[i].result < 0);
    }
}

/* ---- commands ---- */

/* The body of a frame that was written. */
static int read_frame(const uint8_t *data, size_t bytes, struct zmtp_command *ret_command)
{
    struct zmtp_frame frame;
    const char *reason;
    cr_assert_eq(zmtp_read_header(data, bytes, 0, &frame, &reason), 0);
    cr_assert(frame.is_command);
    cr_assert_eq(frame.header_bytes + frame.bytes, bytes);
    return zmtp_read_command(data + frame.header_bytes, frame.bytes, ret_command, &reason);
}

static void assert_data(const struct zmtp_command *command, const char *text)
{
    cr_assert_eq(command->data_bytes, strlen(text));
    cr_assert_eq(memcmp(command->data, text, strlen(text)), 0);
}

Test(zmtp, what_is_written_is_read_the_same)
{
    uint8_t frame[ZMTP_WRITTEN_BYTES_MAX];
    struct zmtp_command command;
    cr_assert_eq(read_frame(frame, zmtp_write_ready("DEALER", frame), &command), 0);
    cr_assert_eq(command.kind, ZMTP_READY);
    cr_assert_eq(command.socket_type_bytes, 6);
    cr_assert_eq(memcmp(command.socket_type, "DEALER", 6), 0);
    cr_assert_eq(command.identity_bytes, 0);

    cr_assert_eq(read_frame(frame, zmtp_write_ping(20000, frame), &command), 0);
    cr_assert_eq(command.kind, ZMTP_PING);
    assert_data(&command, "");
    cr_assert_eq(command.data[-1], 200, "tenths of seconds");

    cr_assert_eq(read_frame(frame, zmtp_write_pong((const uint8_t *)"0123456789abcdef", 16, frame),
                            &command),
                 0);
    cr_assert_eq(command.kind, ZMTP_PONG);
    assert_data(&command, "0123456789abcdef");

    cr_assert_eq(read_frame(frame, zmtp_write_error("no", frame), &command), 0);
    cr_assert_eq(command.kind, ZMTP_ERROR);
    assert_data(&command, "no");

    cr_assert_eq(read_frame(frame, zmtp_write_subscribe_all(1, frame), &command), 0);
    cr_assert_eq(command.kind, ZMTP_SUBSCRIBE);
    assert_data(&command, "");
    cr_assert_eq(zmtp_write_subscribe_all(0, frame), 3);
    cr_assert_eq(memcmp(frame, "\0\1\1", 3), 0, "a message of one part");
}

Test(zmtp, reason_that_is_too_long_is_cut)
{
    char reason[200];
    uint8_t frame[ZMTP_WRITTEN_BYTES_MAX];
    struct zmtp_command command;
    memset(reason, 'r', sizeof(reason) - 1);
    reason[sizeof(reason) - 1] = '\0';
    cr_assert_eq(read_frame(frame, zmtp_write_error(reason, frame), &command), 0);
    cr_assert_gt(command.data_bytes, 40);
}

#define READ(text) zmtp_read_command((const uint8_t *)(text), sizeof(text) - 1, &command, &reason)

Test(zmtp, properties_are_found_in_any_order_and_case)
{
    struct zmtp_command command;
    const char *reason;
    cr_assert_eq(READ("\5READY"
                      "\4X-up\0\0\0\3abc"
                      "\10IDENTITY\0\0\0\2me"
                      "\13socket-type\0\0\0\3REQ"),
                 0);
    cr_assert_eq(memcmp(command.socket_type, "REQ", 3), 0);
    cr_assert_eq(command.identity_bytes, 2);
    cr_assert_eq(memcmp(command.identity, "me", 2), 0);
}

Test(zmtp, malformed_commands_are_refused)
{
    struct zmtp_command command;
    const char *reason;
    cr_assert_eq(READ(""), -EPROTO);
    cr_assert_eq(READ("\0"), -EPROTO);
    cr_assert_eq(READ("\6READY"), -EPROTO, "the name is longer than the command");
    cr_assert_eq(READ("\5READY\0"), -EPROTO, "a property without a name");
    cr_assert_eq(READ("\5READY\4"), -EPROTO);
    cr_assert_eq(READ("\5READY\1a\0\0\0"), -EPROTO);
    cr_assert_eq(READ("\5READY\1a\0\0\0\2x"), -EPROTO);
    cr_assert_eq(READ("\5READY\1a\xff\xff\xff\xff"), -EPROTO);
    cr_assert_eq(READ("\5READY\10Identity\0\0\0\2\0x"), -EPROTO, "reserved for names given here");
    cr_assert_eq(READ("\4PING\0"), -EPROTO);
    cr_assert_eq(READ("\4PING\0\0"
                      "0123456789abcdefg"),
                 -EPROTO);
    cr_assert_eq(READ("\5ERROR\5no"), -EPROTO);
    cr_assert_eq(READ("\7WHATEVER"), 0);
    cr_assert_eq(command.kind, ZMTP_UNKNOWN);
}
