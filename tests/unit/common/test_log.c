/* log: each line is one JSON object, bounded, and nothing that is not written goes unsaid. */
#include "common/log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A log into a pipe. */
struct fixture {
    struct log *log;
    int read_fd, write_fd;
};

static struct fixture start(enum log_level level)
{
    int fds[2];
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    cr_assert_eq(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    struct fixture fixture = {.read_fd = fds[0], .write_fd = fds[1]};
    cr_assert_eq(log_create("test", level, fds[1], &fixture.log), 0);
    return fixture;
}

static void finish(struct fixture *fixture)
{
    log_destroy(&fixture->log);
    cr_expect_null(fixture->log);
    close(fixture->read_fd);
    close(fixture->write_fd);
}

/* All that was written so far; to be freed. */
static char *take(const struct fixture *fixture)
{
    size_t bytes = 0;
    char *text = malloc(1 << 20);
    ssize_t n;
    while ((n = read(fixture->read_fd, text + bytes, (1 << 20) - 1 - bytes)) > 0) {
        bytes += (size_t)n;
    }
    text[bytes] = '\0';
    return text;
}

/* Parses the first line of the text and moves on to the next; NULL at the end. */
static json_t *next_line(char **text)
{
    char *end = strchr(*text, '\n');
    if (end == NULL) {
        cr_assert_str_empty(*text, "a line without an end: %s", *text);
        return NULL;
    }
    *end = '\0';
    json_error_t error;
    json_t *line = json_loads(*text, JSON_REJECT_DUPLICATES, &error);
    cr_assert_not_null(line, "%s in: %s", error.text, *text);
    *text = end + 1;
    return line;
}

static const char *text_of(const json_t *line, const char *key)
{
    const char *text = json_string_value(json_object_get(line, key));
    return text == NULL ? "(none)" : text;
}

Test(log, a_line_is_one_object_with_its_fields)
{
    struct fixture fixture = start(LOG_INFO);
    struct id id;
    memset(id.bytes, 0xAB, sizeof(id.bytes));
    log_at(fixture.log, LOG_WARN, "lease lost", log_job(&id), log_text("worker", "w1"), log_text("absent", NULL),
           log_int("n", -7), log_real("share", 0.25), log_real("ratio", NAN));
    char *const text = take(&fixture);
    char *at = text;
    json_t *line = next_line(&at);
    cr_expect_str_eq(text_of(line, "level"), "warn");
    cr_expect_str_eq(text_of(line, "component"), "test");
    cr_expect_str_eq(text_of(line, "message"), "lease lost");
    cr_expect_str_eq(text_of(line, "job"), "abababab-abab-abab-abab-abababababab");
    cr_expect_str_eq(text_of(line, "worker"), "w1");
    cr_expect_null(json_object_get(line, "absent"));
    cr_expect_eq(json_integer_value(json_object_get(line, "n")), -7);
    cr_expect_float_eq(json_real_value(json_object_get(line, "share")), 0.25, 1e-9);
    cr_expect(json_is_null(json_object_get(line, "ratio")));
    cr_expect_eq(strlen(text_of(line, "time")), strlen("2026-11-24T10:00:00.123Z"));
    cr_expect_null(next_line(&at));
    json_decref(line);
    free(text);
    finish(&fixture);
}

Test(log, messages_below_the_level_are_not_written)
{
    struct fixture fixture = start(LOG_WARN);
    log_at(fixture.log, LOG_INFO, "quiet");
    log_at(fixture.log, LOG_ERROR, "loud");
    log_set_level(fixture.log, LOG_DEBUG);
    log_at(fixture.log, LOG_DEBUG, "now heard");
    char *const text = take(&fixture);
    char *at = text;
    static const char *const messages[] = {"loud", "now heard"};
    for (size_t i = 0; i < ARRAY_LENGTH(messages); i++) {
        json_t *line = next_line(&at);
        cr_expect_str_eq(text_of(line, "message"), messages[i]);
        json_decref(line);
    }
    cr_expect_null(next_line(&at));
    free(text);
    finish(&fixture);
}

Test(log, foreign_text_cannot_break_a_line)
{
    static const char *const values[] = {"quote\" back\\slash", "line\nbreak\ttab\x01", "umlaut \xC3\xA4 snowman \xE2\x98\x83",
                                         "\xF0\x9F\x98\x80", ""};
    struct fixture fixture = start(LOG_INFO);
    for (size_t i = 0; i < ARRAY_LENGTH(values); i++) {
        log_at(fixture.log, LOG_INFO, "value", log_text("value", values[i]));
    }
    char *const text = take(&fixture);
    char *at = text;
    for (size_t i = 0; i < ARRAY_LENGTH(values); i++) {
        json_t *line = next_line(&at);
        cr_expect_str_eq(text_of(line, "value"), values[i]);
        json_decref(line);
    }
    free(text);
    finish(&fixture);
}

Test(log, bytes_that_are_no_utf8_are_replaced)
{
    static const char *const values[] = {"\xFF", "\xC3", "\xC0\x80", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xE2\x98"};
    struct fixture fixture = start(LOG_INFO);
    for (size_t i = 0; i < ARRAY_LENGTH(values); i++) {
        log_at(fixture.log, LOG_INFO, "value", log_text("value", values[i]));
    }
    char *const text = take(&fixture);
    char *at = text;
    for (size_t i = 0; i < ARRAY_LENGTH(values); i++) {
        json_t *line = next_line(&at);
        cr_expect_not_null(strstr(text_of(line, "value"), "\xEF\xBF\xBD"));
        json_decref(line);
    }
    free(text);
    finish(&fixture);
}

Test(log, a_line_fits_a_pipe_whatever_its_fields)
{
    char *large = malloc(100001);
    for (size_t filler = 0; filler < 2; filler++) {
        memset(large, "a\x01"[filler], 100000); /* a control character takes six bytes */
        large[100000] = '\0';
        struct fixture fixture = start(LOG_INFO);
        log_at(fixture.log, LOG_INFO, large, log_text("a", large), log_text("b", large), log_text("c", "short"),
               log_int("d", INT64_MIN));
        char *const text = take(&fixture);
        cr_expect_leq(strlen(text), PIPE_BUF);
        char *at = text;
        json_t *line = next_line(&at);
        cr_expect_leq(strlen(text_of(line, "a")), LOG_VALUE_BYTES_MAX);
        cr_expect_gt(strlen(text_of(line, "message")), 0);
        json_decref(line);
        free(text);
        finish(&fixture);
    }
    free(large);
}

Test(log, fields_that_do_not_fit_are_said_to_be_missing)
{
    char value[LOG_VALUE_BYTES_MAX];
    memset(value, 'x', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    struct fixture fixture = start(LOG_INFO);
    log_at(fixture.log, LOG_INFO, "m", log_text("a", value), log_text("b", value), log_text("c", value));
    char *const text = take(&fixture);
    char *at = text;
    json_t *line = next_line(&at);
    cr_expect(json_is_true(json_object_get(line, "truncated")));
    json_decref(line);
    free(text);
    finish(&fixture);
}

Test(log, equal_messages_beyond_the_burst_are_counted_and_reported)
{
    enum { N_MESSAGES = 1000 };
    struct fixture fixture = start(LOG_INFO);
    for (int i = 0; i < N_MESSAGES; i++) {
        log_at(fixture.log, LOG_INFO, "again", log_int("i", i));
    }
    log_at(fixture.log, LOG_INFO, "another");
    log_destroy(&fixture.log); /* reports what is still unsaid */
    char *const text = take(&fixture);
    char *at = text;
    json_int_t n_written = 0;
    json_int_t n_suppressed = 0;
    bool has_another = false;
    for (json_t *line; (line = next_line(&at)) != NULL; json_decref(line)) {
        n_written += strcmp(text_of(line, "message"), "again") == 0;
        has_another |= strcmp(text_of(line, "message"), "another") == 0;
        n_suppressed += json_integer_value(json_object_get(line, "n_suppressed"));
    }
    cr_expect_eq(n_written + n_suppressed, N_MESSAGES);
    /* The loop may cross into a second or two more on a slow machine. */
    cr_expect_geq(n_written, LOG_BURST);
    cr_expect_lt(n_written, N_MESSAGES);
    cr_expect(has_another);
    free(text);
    finish(&fixture);
}

/* Different messages, so that no burst holds them back. */
static void write_numbered(struct log *log, int number)
{
    char message[64];
    snprintf(message, sizeof(message), "%d is another message than all others", number);
    log_at(log, LOG_INFO, message);
}

Test(log, lines_that_a_full_pipe_does_not_take_are_counted, .timeout = 20)
{
    struct fixture fixture = start(LOG_INFO);
    for (int i = 0; i < 10000; i++) {
        write_numbered(fixture.log, i);
    }
    char *text = take(&fixture);
    char *at = text;
    json_int_t n_lines = 0;
    for (json_t *line; (line = next_line(&at)) != NULL; json_decref(line)) {
        n_lines++;
    }
    free(text);
    cr_expect_lt(n_lines, 10000, "a pipe holds 64 KiB");
    log_at(fixture.log, LOG_ERROR, "room again");
    text = take(&fixture);
    at = text;
    json_int_t n_lost = 0;
    for (json_t *line; (line = next_line(&at)) != NULL; json_decref(line)) {
        n_lost += json_integer_value(json_object_get(line, "lines_lost"));
    }
    cr_expect_eq(n_lines + n_lost, 10000, "every line is written or counted");
    free(text);
    finish(&fixture);
}

enum { THREADS = 4, LINES_A_THREAD = 15 };

static void *write_lines(void *context)
{
    static const char *const messages[] = {"one", "two", "three"};
    char value[600];
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    for (int i = 0; i < LINES_A_THREAD; i++) {
        log_at((struct log *)context, LOG_INFO, messages[i % 3], log_text("value", value));
    }
    return NULL;
}

Test(log, lines_of_threads_do_not_mix)
{
    struct fixture fixture = start(LOG_INFO);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, write_lines, fixture.log), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    char *const text = take(&fixture);
    char *at = text;
    int n_lines = 0;
    for (json_t *line; (line = next_line(&at)) != NULL; json_decref(line)) {
        n_lines++;
        cr_expect_eq(strlen(text_of(line, "value")), 599);
    }
    cr_expect_eq(n_lines, THREADS * LINES_A_THREAD);
    free(text);
    finish(&fixture);
}

Test(log, a_noisy_message_does_not_silence_another)
{
    struct fixture fixture = start(LOG_INFO);
    for (int i = 0; i < 200; i++) {
        log_at(fixture.log, LOG_INFO, "noise");
    }
    for (int i = 0; i < 60; i++) {
        write_numbered(fixture.log, i);
    }
    char *const text = take(&fixture);
    char *at = text;
    int n_others = 0;
    for (json_t *line; (line = next_line(&at)) != NULL; json_decref(line)) {
        n_others += strstr(text_of(line, "message"), "is another message") != NULL;
    }
    cr_expect_eq(n_others, 60);
    free(text);
    finish(&fixture);
}
