/* stream: a blocking TCP connection to 127.0.0.1 with a buffer for what was read. For one thread that reads and one that writes. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct stream;

struct stream *stream_open(int port);
void stream_write(struct stream *stream, const void *data, size_t bytes);
/* The next `bytes`, which stay until the next call. A connection that is closed ends the thread. */
char *stream_read(struct stream *stream, size_t bytes);
/* The next line without its CRLF, NUL-terminated; the same. */
char *stream_read_line(struct stream *stream);
