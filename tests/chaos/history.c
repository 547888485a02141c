#include "tests/chaos/history.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct history {
    int fd;
};

static void write_or_die(int fd, const char *text, size_t bytes)
{
    if (write(fd, text, bytes) != (ssize_t)bytes) {
        perror("history");
        exit(EXIT_FAILURE);
    }
}

static void end_last_line(int fd)
{
    char last = '\n';
    const off_t bytes = lseek(fd, 0, SEEK_END);
    if (bytes > 0 && pread(fd, &last, 1, bytes - 1) == 1 && last != '\n') {
        write_or_die(fd, "\n", 1);
    }
}

int history_open(const char *path, struct history **ret_history)
{
    struct history *history = calloc(1, sizeof(*history));
    if (history == NULL) {
        return -ENOMEM;
    }
    history->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (history->fd < 0) {
        const int error = errno;
        free(history);
        return -error;
    }
    end_last_line(history->fd);
    *ret_history = history;
    return 0;
}

void history_close(struct history **history)
{
    if (*history != NULL) {
        close((*history)->fd);
        free(*history);
        *history = NULL;
    }
}

static json_int_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void history_append(struct history *history, json_t *event)
{
    char *text = NULL;
    if (event != NULL && json_object_set_new(event, "at_ms", json_integer(now_ms())) == 0) {
        text = json_dumps(event, JSON_COMPACT);
    }
    json_decref(event);
    char *line = NULL;
    if (text == NULL || asprintf(&line, "%s\n", text) < 0) {
        fprintf(stderr, "history: out of memory, or an answer that is not UTF-8\n");
        exit(EXIT_FAILURE);
    }
    write_or_die(history->fd, line, strlen(line));
    free(line);
    free(text);
}

void history_read(const char *path, history_fn *visit, void *context)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return;
    }
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, file) > 0) {
        json_t *event = json_loads(line, 0, NULL);
        if (json_is_object(event)) {
            visit(context, event);
        }
        json_decref(event);
    }
    free(line);
    fclose(file);
}
