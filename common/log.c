/*
 * A line is composed on the stack and never exceeds PIPE_BUF, because only then does a pipe take it
 * whole or not at all. What does not fit is left out field by field and marked "truncated". Whether
 * standard error takes a line is asked with poll(): O_NONBLOCK would be set for everybody who
 * shares the descriptor.
 */
#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

enum {
    LINE_BYTES_MAX = PIPE_BUF,
    TAIL_BYTES = 80, /* kept free for "truncated", "lines_lost" and the closing brace */
    MESSAGES_COUNTED =
        64, /* distinct messages whose rate is known; two in one slot share its allowance */
    MESSAGE_BYTES_KEPT = 96,
};

/* How often one message was written in one second. */
struct burst {
    char message[MESSAGE_BYTES_KEPT]; /* its beginning */
    int64_t second;                   /* Unix time of the counts */
    uint32_t n_written;
    uint64_t n_suppressed; /* not yet reported */
};

struct log {
    char *component;
    int fd;
    _Atomic(int) level;
    pthread_mutex_t lock; /* for what follows */
    struct burst bursts[MESSAGES_COUNTED];
    size_t n_bursts_suppressed; /* bursts that have something to report */
    uint64_t n_lost;            /* lines the descriptor did not take, not yet reported */
};

struct line {
    char text[LINE_BYTES_MAX];
    size_t length;
    bool truncated;
};

static const char *level_name(enum log_level level)
{
    switch (level) {
    case LOG_ERROR:
        return "error";
    case LOG_WARN:
        return "warn";
    case LOG_INFO:
        return "info";
    case LOG_DEBUG:
        return "debug";
    }
    return "error";
}

static bool line_has_room(const struct line *line, size_t bytes)
{
    return line->length + bytes + TAIL_BYTES <= sizeof(line->text);
}

static void line_append(struct line *line, const char *text, size_t bytes)
{
    memcpy(line->text + line->length, text, bytes);
    line->length += bytes;
}

/* The length of the UTF-8 character at `text`; 0 when it is none. Ends at the NUL by itself. */
static size_t utf8_length(const unsigned char *text)
{
    size_t n = text[0] < 0x80                      ? 1
               : text[0] >= 0xC2 && text[0] < 0xE0 ? 2
               : text[0] >= 0xE0 && text[0] < 0xF0 ? 3
               : text[0] >= 0xF0 && text[0] < 0xF5 ? 4
                                                   : 0;
    for (size_t i = 1; i < n; i++) {
        if ((text[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    const bool overlong =
        (text[0] == 0xE0 && text[1] < 0xA0) || (text[0] == 0xF0 && text[1] < 0x90);
    const bool outside =
        (text[0] == 0xED && text[1] >= 0xA0) || (text[0] == 0xF4 && text[1] >= 0x90);
    return overlong || outside ? 0 : n;
}

/* One character in JSON's spelling, NUL-terminated. Returns how many bytes of `text` it stands for.
 */
static size_t escape_character(const unsigned char *text, char ret_escaped[8])
{
    const size_t n = utf8_length(text);
    if (n == 0) {
        strcpy(ret_escaped,
               "\xEF\xBF\xBD"); /* U+FFFD: foreign bytes must not make the line unreadable */
        return 1;
    }
    if (text[0] == '"' || text[0] == '\\') {
        ret_escaped[0] = '\\';
        ret_escaped[1] = (char)text[0];
        ret_escaped[2] = '\0';
        return 1;
    }
    if (text[0] < 0x20) {
        snprintf(ret_escaped, 8, "\\u%04x", text[0]);
        return 1;
    }
    memcpy(ret_escaped, text, n);
    ret_escaped[n] = '\0';
    return n;
}

static void line_append_text(struct line *line, const char *text)
{
    static const char ellipsis[] = "\xE2\x80\xA6";
    const size_t end = line->length + LOG_VALUE_BYTES_MAX - (sizeof(ellipsis) - 1);

    line_append(line, "\"", 1);
    const unsigned char *at = (const unsigned char *)text;
    while (*at != '\0') {
        char escaped[8];
        const size_t taken = escape_character(at, escaped);
        const size_t bytes = strlen(escaped);
        if (line->length + bytes > end || !line_has_room(line, bytes + sizeof(ellipsis))) {
            line_append(line, ellipsis, sizeof(ellipsis) - 1);
            break;
        }
        line_append(line, escaped, bytes);
        at += taken;
    }
    line_append(line, "\"", 1);
}

/* The longest number, id, or bracket of a text value. */
enum { SHORT_VALUE_BYTES = 48 };

static void line_append_field(struct line *line, const struct log_field *field)
{
    if (field->type == LOG_TEXT && field->value.text == NULL) {
        return;
    }
    if (!line_has_room(line, strlen(field->key) + SHORT_VALUE_BYTES)) {
        line->truncated = true;
        return;
    }
    line_append(line, ",\"", 2);
    line_append(line, field->key, strlen(field->key));
    line_append(line, "\":", 2);

    char number[SHORT_VALUE_BYTES];
    switch (field->type) {
    case LOG_TEXT:
        line_append_text(line, field->value.text);
        return;
    case LOG_INTEGER:
        snprintf(number, sizeof(number), "%" PRId64, field->value.integer);
        break;
    case LOG_ID:
        number[0] = '"';
        id_format(field->value.id, number + 1);
        strcat(number, "\"");
        break;
    case LOG_REAL:
        /* JSON knows no infinities. */
        snprintf(number, sizeof(number), isfinite(field->value.real) ? "%.9g" : "null",
                 field->value.real);
        break;
    }
    line_append(line, number, strlen(number));
}

static void line_begin(struct line *line, const struct log *log, enum log_level level,
                       int64_t now_unix_ms, const char *message)
{
    const time_t seconds = (time_t)(now_unix_ms / 1000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    line->length =
        strftime(line->text, sizeof(line->text), "{\"time\":\"%Y-%m-%dT%H:%M:%S", &parts);
    line->length +=
        (size_t)snprintf(line->text + line->length, sizeof(line->text) - line->length,
                         ".%03dZ\",\"level\":\"%s\"", (int)(now_unix_ms % 1000), level_name(level));
    line_append_field(line, &log_text("component", log->component));
    line_append_field(line, &log_text("message", message));
}

static bool fd_takes(int fd, const char *text, size_t bytes)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    if (poll(&poll_fd, 1, 0) != 1 || (poll_fd.revents & POLLOUT) == 0) {
        return false;
    }
    ssize_t n;
    do {
        n = write(fd, text, bytes);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)bytes;
}

static void line_write(struct line *line, struct log *log)
{
    char tail[TAIL_BYTES] = "";
    if (log->n_lost > 0) {
        snprintf(tail, sizeof(tail), ",\"lines_lost\":%" PRIu64, log->n_lost);
    }
    strcat(tail, line->truncated ? ",\"truncated\":true}\n" : "}\n");
    line_append(line, tail, strlen(tail));
    if (fd_takes(log->fd, line->text, line->length)) {
        log->n_lost = 0;
    } else {
        log->n_lost++;
    }
}

/* The message's count of this second, or a free one; NULL: more messages than are counted. */
static struct burst *burst_of(struct log *log, const char *message, int64_t second)
{
    struct burst *free_burst = NULL;
    for (size_t i = 0; i < MESSAGES_COUNTED; i++) {
        struct burst *burst = &log->bursts[i];
        if (burst->second != second) {
            free_burst =
                burst; /* nothing in it is unsaid: bursts_report() was called for this second */
        } else if (strncmp(burst->message, message, sizeof(burst->message) - 1) == 0) {
            return burst;
        }
    }
    if (free_burst != NULL) {
        *free_burst = (struct burst){.second = second};
        snprintf(free_burst->message, sizeof(free_burst->message), "%s", message);
    }
    return free_burst;
}

static void burst_report(struct log *log, struct burst *burst, int64_t now_unix_ms)
{
    struct line line = {.length = 0};
    line_begin(&line, log, LOG_WARN, now_unix_ms, "messages suppressed");
    line_append_field(&line, &log_text("suppressed_message", burst->message));
    line_append_field(&line, &log_int("n_suppressed", burst->n_suppressed));
    line_write(&line, log);
    burst->n_suppressed = 0;
    log->n_bursts_suppressed--;
}

/* Reports what was suppressed in seconds other than `second`; -1 for all. */
static void bursts_report(struct log *log, int64_t second, int64_t now_unix_ms)
{
    for (size_t i = 0; i < MESSAGES_COUNTED && log->n_bursts_suppressed > 0; i++) {
        if (log->bursts[i].n_suppressed > 0 && log->bursts[i].second != second) {
            burst_report(log, &log->bursts[i], now_unix_ms);
        }
    }
}

/* Counts the message; false when it is to be suppressed. */
static bool burst_allows(struct log *log, const char *message, int64_t second)
{
    struct burst *burst = burst_of(log, message, second);
    if (burst == NULL) {
        return true;
    }
    if (burst->n_written < LOG_BURST) {
        burst->n_written++;
        return true;
    }
    log->n_bursts_suppressed += burst->n_suppressed == 0;
    burst->n_suppressed++;
    return false;
}

int log_create(const char *component, enum log_level level, int fd, struct log **ret_log)
{
    CLEANUP(log_destroy) struct log *log = calloc(1, sizeof(*log));
    if (log == NULL) {
        return -ENOMEM;
    }
    pthread_mutex_init(&log->lock, NULL); /* cannot fail with default attributes */
    log->fd = fd;
    log->level = (int)level;
    log->component = strdup(component);
    if (log->component == NULL) {
        return -ENOMEM;
    }
    *ret_log = TAKE(log);
    return 0;
}

void log_destroy(struct log **log)
{
    if (*log == NULL) {
        return;
    }
    bursts_report(*log, -1, clock_unix_ms());
    pthread_mutex_destroy(&(*log)->lock);
    free((*log)->component);
    free(*log);
    *log = NULL;
}

void log_set_level(struct log *log, enum log_level level)
{
    log->level = (int)level;
}

bool log_is_on(const struct log *log, enum log_level level)
{
    return (int)level <= log->level;
}

void log_write(struct log *log, enum log_level level, const char *message,
               const struct log_field *fields)
{
    if (!log_is_on(log, level)) {
        return;
    }
    const int64_t now_unix_ms = clock_unix_ms();
    pthread_mutex_lock(&log->lock);
    bursts_report(log, now_unix_ms / 1000, now_unix_ms);
    if (burst_allows(log, message, now_unix_ms / 1000)) {
        struct line line = {.length = 0};
        line_begin(&line, log, level, now_unix_ms, message);
        for (const struct log_field *field = fields; field->key != NULL; field++) {
            line_append_field(&line, field);
        }
        line_write(&line, log);
    }
    pthread_mutex_unlock(&log->lock);
}
