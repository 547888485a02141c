#include "broker/store/wal.h"
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BLOCK_BYTES = 32 << 10, /* a log is a sequence of these; no fragment crosses their bounds */
    HEAD_BYTES = 7,         /* of a fragment: checksum (4), length (2), type (1); little-endian */
    BATCH_HEAD_BYTES = 12,  /* of a record: number of its first change (8), how many (4) */
    LOGS_MAX = 4096,
};
enum fragment { FRAGMENT_NONE, FRAGMENT_FULL, FRAGMENT_FIRST, FRAGMENT_MIDDLE, FRAGMENT_LAST };

/* Of one log at a time. */
struct reader {
    struct wal_report *report;
    uint32_t crc_table[256];
    uint64_t next; /* number of the change that must follow; 0: any */
    const char *name;
    uint64_t block_at; /* offset in the file */
    bool is_in_record;
    uint8_t *record; /* what there is of it: all when it is visited, else no more than its head */
    size_t record_length, record_capacity;
    wal_visit_fn *visit; /* NULL: nobody */
    void *context;
    int error; /* ends the reading */
    uint8_t block[BLOCK_BYTES];
};

/* ---- fragments ---- */

/* CRC-32C, reflected: RFC 3720, appendix B.4. */
static void make_crc_table(uint32_t *table)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
        }
        table[i] = crc;
    }
}

/* As stored: rotated, so that a checksum over data with checksums is none of them. */
static uint32_t masked_crc(const uint32_t *table, const uint8_t *data, size_t bytes)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < bytes; i++) {
        crc = crc >> 8 ^ table[(crc ^ data[i]) & 0xff];
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8;
}

static uint32_t read_u32(const uint8_t *data)
{
    uint32_t value;
    memcpy(&value, data, sizeof(value));
    return le32toh(value);
}

/* The fragment's length without its head, or -1 when there is no whole one. */
static int fragment_length(const struct reader *reader, size_t at, size_t length)
{
    const uint8_t *head = reader->block + at;
    if (length - at < HEAD_BYTES || head[6] < FRAGMENT_FULL || head[6] > FRAGMENT_LAST) {
        return -1;
    }
    const size_t bytes = (size_t)head[4] | (size_t)head[5] << 8;
    if (bytes > length - at - HEAD_BYTES ||
        masked_crc(reader->crc_table, head + 6, bytes + 1) != read_u32(head)) {
        return -1;
    }
    return (int)bytes;
}

/* ---- records ---- */

static void note_place(struct reader *reader, size_t at, const char *what)
{
    if (reader->report->place[0] == '\0') {
        snprintf(reader->report->place, WAL_PLACE_BYTES, "%.24s at byte %" PRIu64 ": %s",
                 reader->name, reader->block_at + at, what);
    }
}

static void end_record(struct reader *reader, size_t at)
{
    struct wal_report *report = reader->report;
    uint64_t first;
    reader->is_in_record = false;
    if (reader->record_length < BATCH_HEAD_BYTES) {
        note_place(reader, at, "a record without a head");
        return;
    }
    memcpy(&first, reader->record, sizeof(first));
    first = le64toh(first);
    const uint32_t changes = read_u32(reader->record + sizeof(first));
    if (reader->next != 0 && first > reader->next) {
        note_place(reader, at, "records before this one are missing");
        report->missing += first - reader->next;
    }
    if (reader->next == 0 && report->place[0] != '\0') {
        report->missing++; /* damage before the first: how many there were cannot be told */
    }
    report->records++;
    if (first + changes > reader->next) {
        reader->next = first + changes;
        report->last = reader->next - 1;
        report->gapless = report->missing == 0 ? report->last : report->gapless;
    }
    if (reader->visit != NULL && report->place[0] != '\0') {
        reader->error =
            reader->visit(reader->context, first, reader->record, reader->record_length);
    }
}

static void append(struct reader *reader, const uint8_t *data, size_t bytes)
{
    if (reader->visit == NULL && bytes > BATCH_HEAD_BYTES - reader->record_length) {
        bytes = BATCH_HEAD_BYTES - reader->record_length;
    }
    if (reader->record_length + bytes > reader->record_capacity) {
        const size_t capacity = 2 * (reader->record_length + bytes);
        uint8_t *grown = realloc(reader->record, capacity);
        if (grown == NULL) {
            reader->error = -ENOMEM;
            return;
        }
        reader->record = grown;
        reader->record_capacity = capacity;
    }
    memcpy(reader->record + reader->record_length, data, bytes);
    reader->record_length += bytes;
}

static void take_fragment(struct reader *reader, size_t at, size_t bytes)
{
    const uint8_t *head = reader->block + at;
    const enum fragment type = (enum fragment)head[6];
    const bool is_begin = type == FRAGMENT_FULL || type == FRAGMENT_FIRST;
    if (is_begin == reader->is_in_record) {
        note_place(reader, at, "a part of a record is missing");
        reader->is_in_record = false;
        if (!is_begin) {
            return;
        }
    }
    if (is_begin) {
        reader->is_in_record = true;
        reader->record_length = 0;
    }
    append(reader, head + HEAD_BYTES, bytes);
    if (reader->error == 0 && (type == FRAGMENT_FULL || type == FRAGMENT_LAST)) {
        end_record(reader, at);
    }
}

/*
 * Where the damage at `at` begins, a whole fragment may follow anywhere: a damaged length says
 * nothing. Returns the end of the block when none does.
 */
static size_t next_fragment(const struct reader *reader, size_t at, size_t length)
{
    while (at + HEAD_BYTES <= length && fragment_length(reader, at, length) < 0) {
        at++;
    }
    return at + HEAD_BYTES <= length ? at : length;
}

static bool is_zero(const uint8_t *data, size_t bytes)
{
    while (bytes > 0 && *data == 0) {
        data++, bytes--;
    }
    return bytes == 0;
}

static void read_block(struct reader *reader, size_t length)
{
    for (size_t at = 0; at < length && reader->error == 0;) {
        const int bytes = fragment_length(reader, at, length);
        if (bytes >= 0) {
            take_fragment(reader, at, (size_t)bytes);
            at += HEAD_BYTES + (size_t)bytes;
            continue;
        }
        const bool is_filling = BLOCK_BYTES - at < HEAD_BYTES;
        if (is_filling && is_zero(reader->block + at, length - at)) {
            return;
        }
        note_place(reader, at, "damaged, or never written to its end");
        reader->is_in_record = false;
        at = next_fragment(reader, at + 1, length);
    }
}

/* ---- logs ---- */

static int read_log(struct reader *reader, int fd)
{
    reader->block_at = 0;
    reader->is_in_record = false;
    for (;;) {
        size_t length = 0;
        ssize_t more = 1;
        while (length < BLOCK_BYTES && more > 0) {
            more = pread(fd, reader->block + length, BLOCK_BYTES - length,
                         (off_t)(reader->block_at + length));
            if (more < 0) {
                return -errno;
            }
            length += (size_t)more;
        }
        read_block(reader, length);
        if (reader->error < 0) {
            return reader->error;
        }
        if (length < BLOCK_BYTES) {
            if (reader->is_in_record) {
                note_place(reader, length, "the last record has no end");
            }
            return 0;
        }
        reader->block_at += length;
    }
}

static int open_and_read(struct reader *reader, const char *directory, uint64_t number)
{
    char name[32], path[PATH_MAX];
    snprintf(name, sizeof(name), "%06llu.log", (unsigned long long)number);
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    reader->name = name;
    reader->report->files++;
    const int r = read_log(reader, fd);
    close(fd);
    return r;
}

static int compare_numbers(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static int list_logs(const char *directory, uint64_t number_min, uint64_t *numbers,
                     size_t *ret_length)
{
    DIR *listed = opendir(directory);
    size_t length = 0;
    if (listed == NULL) {
        return -errno;
    }
    const struct dirent *entry;
    while ((entry = readdir(listed)) != NULL && length < LOGS_MAX) {
        char *end;
        const uint64_t number = strtoull(entry->d_name, &end, 10);
        if (end != entry->d_name && strcmp(end, ".log") == 0 && number >= number_min) {
            numbers[length++] = number;
        }
    }
    closedir(listed);
    qsort(numbers, length, sizeof(*numbers), compare_numbers);
    *ret_length = length;
    return 0;
}

int wal_check(const char *directory, uint64_t number_min, struct wal_report *ret_report)
{
    return wal_visit(directory, number_min, NULL, NULL, ret_report);
}

int wal_visit(const char *directory, uint64_t number_min, wal_visit_fn *visit, void *context,
              struct wal_report *ret_report)
{
    *ret_report = (struct wal_report){0};
    struct reader *reader = calloc(1, sizeof(*reader));
    uint64_t *numbers = calloc(LOGS_MAX, sizeof(*numbers));
    size_t length = 0;
    int r = reader == NULL || numbers == NULL ? -ENOMEM
                                              : list_logs(directory, number_min, numbers, &length);
    if (r == 0) {
        reader->report = ret_report;
        reader->visit = visit;
        reader->context = context;
        make_crc_table(reader->crc_table);
    }
    for (size_t i = 0; r == 0 && i < length; i++) {
        r = open_and_read(reader, directory, numbers[i]);
    }
    free(numbers);
    if (reader != NULL) {
        free(reader->record);
    }
    free(reader);
    return r == -ENOENT ? 0 : r;
}

int wal_newest(const char *directory, uint64_t *ret_number)
{
    uint64_t *numbers = calloc(LOGS_MAX, sizeof(*numbers));
    size_t length = 0;
    const int r = numbers == NULL ? -ENOMEM : list_logs(directory, 0, numbers, &length);
    if (r == 0) {
        *ret_number = length == 0 ? 0 : numbers[length - 1];
    }
    free(numbers);
    return r;
}
