/*
 * log: one JSON object a line, on standard error.
 *
 *   {"time":"2026-11-24T10:00:00.123Z","level":"info","component":"broker","message":"…","job":"…","tenant":"…"}
 *
 * Values are escaped and bounded (LOG_VALUE_BYTES_MAX each). A line is written with one write(2), so lines of
 * threads do not mix. Lines that standard error does not take are counted, not waited for. Rate-limited per
 * message: after LOG_BURST equal messages a second the rest are counted and reported once.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/id.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum { LOG_VALUE_BYTES_MAX = 2048, LOG_BURST = 20 };

struct log;

/* fd is not owned. Errors: -ENOMEM. */
MUST_USE int log_create(const char *component, enum log_level level, int fd, struct log **ret_log);
void log_destroy(struct log **log);
void log_set_level(struct log *log, enum log_level level);
bool log_is_on(const struct log *log, enum log_level level);

/* Field lists end with log_end(). Made by the functions below; valid only within the call they are used in. */
struct log_field {
    const char *key; /* NULL ends the list */
    enum { LOG_TEXT, LOG_INTEGER, LOG_ID, LOG_REAL } type;
    union {
        const char *text; /* NULL is left out */
        int64_t integer;
        const struct id *id;
        double real;
    } value;
};

#define log_text(k, v) ((struct log_field){.key = (k), .type = LOG_TEXT, .value.text = (v)})
#define log_int(k, v)  ((struct log_field){.key = (k), .type = LOG_INTEGER, .value.integer = (int64_t)(v)})
#define log_real(k, v) ((struct log_field){.key = (k), .type = LOG_REAL, .value.real = (v)})
#define log_job(v)     ((struct log_field){.key = "job", .type = LOG_ID, .value.id = (v)})

void log_write(struct log *log, enum log_level level, const char *message, const struct log_field *fields);

/*
 * The first entry is an empty text, which is left out: so the list may be empty without __VA_OPT__, which cppcheck 2.10
 * cannot read.
 * log_at(log, LOG_INFO, "lease lost", log_job(&id), log_text("worker", name));
 */
#define log_at(log, level, message, ...)                                                     \
    do {                                                                                     \
        if (log_is_on((log), (level))) {                                                     \
            log_write((log), (level), (message),                                             \
                      (const struct log_field[]){{.key = ""}, ##__VA_ARGS__, {.key = NULL}}); \
        }                                                                                    \
    } while (0)
