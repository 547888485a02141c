/*
 * bench-cache-redis: what a GET from Redis over loopback takes, beside the cache's index.
 *
 *   bench-cache-redis PORT KEYS LOOKUPS
 *
 * KEYS values of 1 KiB, then GETs of random ones on one connection, one after the other. By the
 * clock, since most of it happens elsewhere. One line of JSON.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { VALUE_BYTES = 1024, REPLY_BYTES = 4096 };

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "bench-cache-redis: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int dial(const char *port)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const int on = 1;
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0) {
        die("connecting");
    }
    return fd;
}

/* Sends a command and reads the reply, whose length is known. */
static void call(int fd, const char *command, size_t bytes, size_t reply_bytes)
{
    char reply[REPLY_BYTES];
    size_t had = 0;
    if (write(fd, command, bytes) != (ssize_t)bytes) {
        die("write");
    }
    while (had < reply_bytes) {
        const ssize_t more = read(fd, reply + had, sizeof(reply) - had);
        if (more <= 0) {
            die("read");
        }
        had += (size_t)more;
    }
    if (reply[0] != '+' && reply[0] != '$') {
        die("reply");
    }
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    char value[VALUE_BYTES + 1];
    char command[REPLY_BYTES];
    if (argc != 4) {
        fputs("usage: bench-cache-redis PORT KEYS LOOKUPS\n", stderr);
        return 2;
    }
    const int fd = dial(argv[1]);
    const size_t keys = strtoul(argv[2], NULL, 10);
    const size_t lookups = strtoul(argv[3], NULL, 10);
    double *times = calloc(lookups + 1, sizeof(double));
    if (keys == 0 || lookups == 0 || times == NULL) {
        die("arguments");
    }
    memset(value, 'v', VALUE_BYTES);
    value[VALUE_BYTES] = '\0';
    for (size_t i = 0; i < keys; i++) {
        const int bytes =
            snprintf(command, sizeof(command), "*3\r\n$3\r\nSET\r\n$16\r\n%016zu\r\n$%d\r\n%s\r\n",
                     i, VALUE_BYTES, value);
        call(fd, command, (size_t)bytes, strlen("+OK\r\n"));
    }
    uint64_t random = 1;
    for (size_t i = 0; i < lookups; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407U;
        const int bytes = snprintf(command, sizeof(command), "*2\r\n$3\r\nGET\r\n$16\r\n%016zu\r\n",
                                   (size_t)(random >> 33) % keys);
        const int64_t began = now_ns();
        call(fd, command, (size_t)bytes, strlen("$1024\r\n") + VALUE_BYTES + strlen("\r\n"));
        times[i] = (double)(now_ns() - began) / 1000;
    }
    qsort(times, lookups, sizeof(*times), by_size);
    printf("{\"keys\": %zu, \"get_clock_p50_us\": %.1f, \"get_clock_p99_us\": %.1f}\n", keys,
           times[lookups / 2], times[lookups * 99 / 100]);
    free(times);
    close(fd);
    return 0;
}
