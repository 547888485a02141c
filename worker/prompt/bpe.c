#include "worker/prompt/bpe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "worker/prompt/bpe_build.h"

/* ---- tables ---- */

static size_t mask_for(size_t length)
{
    size_t slots = 16;
    while (slots < 2 * length) {
        slots *= 2;
    }
    return slots - 1;
}

static int grow(void **items, size_t *capacity, size_t wanted, size_t item_bytes)
{
    if (wanted <= *capacity) {
        return 0;
    }
    const size_t next = wanted > 2 * *capacity ? wanted + 64 : 2 * *capacity;
    void *grown = realloc(*items, next * item_bytes);
    if (grown == NULL) {
        return -ENOMEM;
    }
    *items = grown;
    *capacity = next;
    return 0;
}

int bpe_add_token(struct bpe *bpe, const char *text, size_t bytes, uint32_t rank)
{
    if (bytes == 0 || bytes > BPE_TOKEN_BYTES_MAX || bpe->tokens_length >= BPE_TOKENS_MAX ||
        bpe->text_bytes + bytes > BPE_FILE_BYTES_MAX) {
        return -EMSGSIZE;
    }
    void *room = bpe->text;
    int r = grow(&room, &bpe->text_capacity, bpe->text_bytes + bytes, 1);
    bpe->text = room;
    room = bpe->tokens;
    r = r < 0 ? r
              : grow(&room, &bpe->tokens_capacity, bpe->tokens_length + 1, sizeof(*bpe->tokens));
    bpe->tokens = room;
    if (r < 0) {
        return r;
    }
    memcpy(bpe->text + bpe->text_bytes, text, bytes);
    bpe->tokens[bpe->tokens_length++] = (struct bpe_token){
        .from = (uint32_t)bpe->text_bytes, .bytes = (uint32_t)bytes, .rank = rank};
    bpe->text_bytes += bytes;
    return 0;
}

/* Its slot, or the empty one where it belongs. */
static size_t slot_of(const struct bpe *bpe, const char *text, size_t bytes)
{
    size_t slot = XXH3_64bits(text, bytes) & bpe->by_text_mask;
    while (bpe->by_text[slot] != BPE_NONE) {
        const struct bpe_token *token = &bpe->tokens[bpe->by_text[slot]];
        if (token->bytes == bytes && memcmp(bpe->text + token->from, text, bytes) == 0) {
            break;
        }
        slot = (slot + 1) & bpe->by_text_mask;
    }
    return slot;
}

int bpe_index_tokens(struct bpe *bpe)
{
    bpe->by_text_mask = mask_for(bpe->tokens_length);
    bpe->by_text = malloc((bpe->by_text_mask + 1) * sizeof(*bpe->by_text));
    if (bpe->by_text == NULL) {
        return -ENOMEM;
    }
    memset(bpe->by_text, 0xff, (bpe->by_text_mask + 1) * sizeof(*bpe->by_text));
    for (size_t i = 0; i < bpe->tokens_length; i++) {
        const size_t slot = slot_of(bpe, bpe->text + bpe->tokens[i].from, bpe->tokens[i].bytes);
        if (bpe->by_text[slot] != BPE_NONE) {
            return -EEXIST;
        }
        bpe->by_text[slot] = (uint32_t)i;
    }
    return 0;
}

uint32_t bpe_find(const struct bpe *bpe, const char *text, size_t bytes)
{
    return bpe->by_text[slot_of(bpe, text, bytes)];
}

static size_t merge_slot(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    const uint32_t pair[] = {left, right};
    size_t slot = XXH3_64bits(pair, sizeof(pair)) & bpe->merges_mask;
    while (bpe->merges[slot].left != BPE_NONE &&
           (bpe->merges[slot].left != left || bpe->merges[slot].right != right)) {
        slot = (slot + 1) & bpe->merges_mask;
    }
    return slot;
}

int bpe_begin_merges(struct bpe *bpe, size_t length)
{
    bpe->has_merges = true;
    bpe->merges_mask = mask_for(length);
    bpe->merges = malloc((bpe->merges_mask + 1) * sizeof(*bpe->merges));
    if (bpe->merges == NULL) {
        return -ENOMEM;
    }
    memset(bpe->merges, 0xff, (bpe->merges_mask + 1) * sizeof(*bpe->merges));
    return 0;
}

void bpe_add_merge(struct bpe *bpe, uint32_t left, uint32_t right, uint32_t rank)
{
    const size_t slot = merge_slot(bpe, left, right);
    if (bpe->merges[slot].left == BPE_NONE) {
        bpe->merges[slot] = (struct bpe_merge){.left = left, .right = right, .rank = rank};
    }
}

/* ---- reading ---- */

int bpe_read(const char *data, size_t bytes, struct bpe **ret_bpe, char ret_error[REFUSAL_BYTES])
{
    if (bytes > BPE_FILE_BYTES_MAX) {
        return refusal_write(ret_error, "is larger than %d bytes", BPE_FILE_BYTES_MAX);
    }
    CLEANUP(bpe_destroy) struct bpe *bpe = calloc(1, sizeof(*bpe));
    if (bpe == NULL) {
        return -ENOMEM;
    }
    const bool is_json = bytes > 0 && data[0] == '{';
    json_t *file = is_json ? json_loadb(data, bytes, 0, NULL) : NULL;
    int r =
        is_json ? bpe_read_json(bpe, file, ret_error) : bpe_read_ranks(bpe, data, bytes, ret_error);
    json_decref(file);
    if (r < 0) {
        return r;
    }
    *ret_bpe = TAKE(bpe);
    return 0;
}

static void close_file(const int *file)
{
    if (*file >= 0) {
        (void)close(*file);
    }
}

/* Errors: -EIO the file is shorter than it was. */
static int read_whole(int file, char *data, size_t bytes)
{
    size_t done = 0;
    while (done < bytes) {
        const ssize_t length = read(file, data + done, bytes - done);
        if (length < 0 && errno == EINTR) {
            continue;
        }
        if (length <= 0) {
            return length < 0 ? -errno : -EIO;
        }
        done += (size_t)length;
    }
    return 0;
}

int bpe_read_file(const char *path, struct bpe **ret_bpe, char ret_error[REFUSAL_BYTES])
{
    struct stat about;
    CLEANUP(close_file) const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &about) < 0) {
        const int error = -errno;
        (void)refusal_write(ret_error, "%s", strerror(-error));
        return error;
    }
    if (!S_ISREG(about.st_mode) || about.st_size > BPE_FILE_BYTES_MAX) {
        // cppcheck-suppress resourceLeak // CLEANUP closes it
        return refusal_write(ret_error, "is no file of %d bytes at most", BPE_FILE_BYTES_MAX);
    }
    const size_t bytes = (size_t)about.st_size;
    char *data = malloc(bytes + 1);
    int r = data == NULL ? -ENOMEM : read_whole(file, data, bytes);
    if (r < 0) {
        (void)refusal_write(ret_error, "%s", strerror(-r));
    } else {
        r = bpe_read(data, bytes, ret_bpe, ret_error);
    }
    free(data);
    return r;
}

void bpe_destroy(struct bpe **bpe)
{
    struct bpe *old = TAKE(*bpe);
    if (old != NULL) {
        free(old->text);
        free(old->tokens);
        free(old->by_text);
        free(old->merges);
        free(old);
    }
}

uint32_t bpe_tokens(const struct bpe *bpe)
{
    return (uint32_t)bpe->tokens_length;
}

enum bpe_pattern bpe_pattern_of(const struct bpe *bpe)
{
    return bpe->pattern;
}

/* ---- counting ---- */

/* The rank of joining [from, middle) and [middle, to); BPE_NONE: they may not be joined. */
static uint32_t rank_of_pair(const struct bpe *bpe, const char *text, size_t from, size_t middle,
                             size_t to)
{
    if (!bpe->has_merges) {
        const uint32_t whole = bpe_find(bpe, text + from, to - from);
        return whole == BPE_NONE ? BPE_NONE : bpe->tokens[whole].rank;
    }
    const uint32_t left = bpe_find(bpe, text + from, middle - from);
    const uint32_t right = bpe_find(bpe, text + middle, to - middle);
    if (left == BPE_NONE || right == BPE_NONE) {
        return BPE_NONE;
    }
    const struct bpe_merge *merge = &bpe->merges[merge_slot(bpe, left, right)];
    return merge->left == BPE_NONE ? BPE_NONE : merge->rank;
}

/* Parts of a piece: where each begins, and the rank of joining it with the next. */
struct parts {
    size_t from[BPE_PIECE_BYTES_MAX + 1]; /* one more than there are: the end */
    uint32_t rank[BPE_PIECE_BYTES_MAX];
    size_t length;
};

static void parts_rank(const struct bpe *bpe, const char *text, struct parts *parts, size_t at)
{
    parts->rank[at] =
        at + 1 < parts->length
            ? rank_of_pair(bpe, text, parts->from[at], parts->from[at + 1], parts->from[at + 2])
            : BPE_NONE;
}

static void parts_join(struct parts *parts, size_t at)
{
    const size_t behind = parts->length - at - 2;
    memmove(&parts->from[at + 1], &parts->from[at + 2], (behind + 1) * sizeof(parts->from[0]));
    memmove(&parts->rank[at + 1], &parts->rank[at + 2], behind * sizeof(parts->rank[0]));
    parts->length--;
}

/* The pair of the lowest rank is joined, the first of equals, until none may be. */
static uint64_t count_piece(const struct bpe *bpe, const char *text, size_t bytes)
{
    if (bpe_find(bpe, text, bytes) != BPE_NONE) {
        return 1;
    }
    struct parts parts = {.length = bytes};
    for (size_t i = 0; i <= bytes; i++) {
        parts.from[i] = i;
    }
    for (size_t i = 0; i < bytes; i++) {
        parts_rank(bpe, text, &parts, i);
    }
    while (parts.length > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < parts.length; i++) {
            best = parts.rank[i] < parts.rank[best] ? i : best;
        }
        if (parts.rank[best] == BPE_NONE) {
            break;
        }
        parts_join(&parts, best);
        parts_rank(bpe, text, &parts, best);
        if (best > 0) {
            parts_rank(bpe, text, &parts, best - 1);
        }
    }
    return parts.length;
}

/* A piece that is too long is cut where no character is torn. */
static size_t part_bytes(const char *text, size_t bytes)
{
    size_t end = bytes;
    if (bytes > BPE_PIECE_BYTES_MAX) {
        end = BPE_PIECE_BYTES_MAX;
        while (end > BPE_PIECE_BYTES_MAX - 4 && ((unsigned char)text[end] & 0xC0) == 0x80) {
            end--;
        }
    }
    return end;
}

/* bpe_splitter_next() looks no further than this, so that endless white space is not quadratic. */
enum { LOOK_BYTES_MAX = 4096 };

uint64_t bpe_count(const struct bpe *bpe, const char *text, size_t bytes)
{
    uint64_t count = 0;
    for (size_t at = 0; at < bytes;) {
        const size_t ahead = bytes - at < LOOK_BYTES_MAX ? bytes - at : LOOK_BYTES_MAX;
        size_t piece = bpe_splitter_next(bpe->pattern, text + at, ahead);
        while (piece > 0) {
            const size_t part = part_bytes(text + at, piece);
            count += count_piece(bpe, text + at, part);
            at += part;
            piece -= part;
        }
    }
    return count;
}
