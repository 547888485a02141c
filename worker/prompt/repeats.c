#include "worker/prompt/repeats.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "worker/bytes.h"
#include "worker/prompt/messages.h"
#include "worker/prompt/spans.h"
#include "worker/prompt/token_count.h"

enum { NOTE_WORDS_BYTES = 48, TEXT_BYTES_MAX = 8 << 20 };

/* Blocks that have stood, by the hash of 128 bits of their text: open addressing. */
struct seen {
    XXH128_hash_t *slots; /* all zero: empty */
    size_t length;
};
enum { SEEN_SLOTS = 2 * REPEAT_BLOCKS_MAX };

struct dropper {
    const struct bpe *bpe;
    struct seen seen;
    struct spans spans;
    uint64_t saved;
};

/* ---- messages ---- */

static bool is_said_before(const json_t *messages, size_t index)
{
    const json_t *message = json_array_get(messages, index);
    for (size_t i = 0; i < index; i++) {
        const json_t *earlier = json_array_get(messages, i);
        if (message_is_system(earlier) && json_equal(earlier, message) != 0) {
            return true;
        }
    }
    return false;
}

enum { SYSTEM_MESSAGES_MAX = 64 }; /* each is compared with all before it */

static void drop_messages(json_t *messages, const struct bpe *bpe, uint64_t *saved)
{
    size_t systems = 0;
    for (size_t i = 0; i < json_array_size(messages);) {
        json_t *message = json_array_get(messages, i);
        const json_t *next = json_array_get(messages, i + 1);
        const bool is_system = message_is_system(message);
        systems += is_system ? 1 : 0;
        const bool is_again =
            is_system
                ? systems <= SYSTEM_MESSAGES_MAX && is_said_before(messages, i)
                : message_is(message, "user") && next != NULL && json_equal(message, next) != 0;
        if (is_again && json_array_size(messages) > 1) {
            *saved += message_tokens(message, bpe);
            (void)json_array_remove(messages, i);
        } else {
            i++;
        }
    }
}

/* ---- blocks ---- */

/* Whether it has stood before; if not, it has from now on. */
static bool seen_before(struct seen *seen, const char *block, size_t bytes)
{
    XXH128_hash_t hash = XXH3_128bits(block, bytes);
    hash.low64 |= 1;
    size_t slot = hash.high64 % SEEN_SLOTS;
    while (seen->slots[slot].low64 != 0) {
        if (XXH128_isEqual(seen->slots[slot], hash) != 0) {
            return true;
        }
        slot = (slot + 1) % SEEN_SLOTS;
    }
    if (seen->length < REPEAT_BLOCKS_MAX) {
        seen->slots[slot] = hash;
        seen->length++;
    }
    return false;
}

/* Where the block that begins at `at` ends: before a blank line, or at the end. */
static size_t block_end(const char *text, size_t bytes, size_t at)
{
    const char *end = memmem(text + at, bytes - at, "\n\n", 2);
    return end == NULL ? bytes : (size_t)(end - text);
}

/* As many whole words of a block as the note tells. */
static size_t words_told(const char *block, size_t bytes)
{
    size_t end = bytes < NOTE_WORDS_BYTES ? bytes : NOTE_WORDS_BYTES;
    while (end < bytes && end > 0 && block[end] != ' ' && block[end] != '\n') {
        end--;
    }
    if (end == 0) { /* a script without blanks: at a character */
        end = NOTE_WORDS_BYTES;
        while (end > 0 && ((unsigned char)block[end] & 0xC0) == 0x80) {
            end--;
        }
    }
    return end;
}

static int note_write(const char *block, size_t bytes, size_t blocks, struct bytes *out)
{
    int r = bytes_append_text(
        out, blocks == 1 ? "[The same paragraph as above, which begins: "
                         : "[The same paragraphs as above, the first of which begins: ");
    r = r < 0 ? r : bytes_append(out, block, words_told(block, bytes));
    return r < 0 ? r : bytes_append_text(out, " \xE2\x80\xA6]");
}

/* Repeated blocks that lie side by side: they become one note. */
struct run {
    size_t from, to;
    size_t first_bytes; /* of its first block */
    size_t blocks;
};

struct rewrite {
    const char *text;
    size_t at; /* copied up to here */
    struct run run;
    struct bytes note, out;
};

static int run_write(struct dropper *dropper, struct rewrite *rewrite)
{
    struct run *run = &rewrite->run;
    if (run->blocks == 0) {
        return 0;
    }
    const char *blocks = rewrite->text + run->from;
    const size_t blocks_bytes = run->to - run->from;
    bytes_clear(&rewrite->note);
    int r = note_write(blocks, run->first_bytes, run->blocks, &rewrite->note);
    const uint64_t before = token_count(dropper->bpe, blocks, blocks_bytes);
    const uint64_t after =
        r < 0 ? before : token_count(dropper->bpe, rewrite->note.data, rewrite->note.length);
    if (after < before) {
        r = bytes_append(&rewrite->out, rewrite->text + rewrite->at, run->from - rewrite->at);
        r = r < 0 ? r : bytes_append(&rewrite->out, rewrite->note.data, rewrite->note.length);
        rewrite->at = run->to;
        dropper->saved += before - after;
    }
    *run = (struct run){.blocks = 0};
    return r;
}

static bool is_repeat(struct dropper *dropper, const char *text, size_t from, size_t to)
{
    return to - from >= REPEAT_BYTES_MIN && !spans_has_code(&dropper->spans, from, to) &&
           seen_before(&dropper->seen, text + from, to - from);
}

static int rewrite_blocks(struct dropper *dropper, struct rewrite *rewrite, size_t bytes)
{
    int r = 0;
    for (size_t from = 0; r == 0 && from < bytes;) {
        const size_t to = block_end(rewrite->text, bytes, from);
        if (is_repeat(dropper, rewrite->text, from, to)) {
            struct run *run = &rewrite->run;
            run->from = run->blocks == 0 ? from : run->from;
            run->first_bytes = run->blocks == 0 ? to - from : run->first_bytes;
            run->to = to;
            run->blocks++;
        } else if (to > from) {
            r = run_write(dropper, rewrite);
        }
        from = to < bytes ? to + 2 : bytes;
    }
    return r < 0 ? r : run_write(dropper, rewrite);
}

static int drop_blocks_of_text(void *context, const struct message_text *text)
{
    struct dropper *dropper = context;
    const size_t bytes = json_string_length(text->text);
    struct rewrite rewrite = {.text = json_string_value(text->text),
                              .note = {.bytes_max = TEXT_BYTES_MAX},
                              .out = {.bytes_max = TEXT_BYTES_MAX}};
    if (bytes < REPEAT_BYTES_MIN) {
        return 0;
    }
    int r = spans_find(rewrite.text, bytes, &dropper->spans);
    r = r < 0 ? r : rewrite_blocks(dropper, &rewrite, bytes);
    if (r == 0 && rewrite.at > 0) {
        r = bytes_append(&rewrite.out, rewrite.text + rewrite.at, bytes - rewrite.at);
        r = r < 0 ? r : message_set_text(text, rewrite.out.data, rewrite.out.length);
    }
    bytes_finish(&rewrite.note);
    bytes_finish(&rewrite.out);
    return r;
}

static int drop_blocks(struct dropper *dropper, json_t *messages)
{
    size_t i;
    json_t *message;
    int r = 0;
    json_array_foreach (messages, i, message) {
        if (r == 0 && (message_is(message, "user") || message_is_system(message))) {
            r = message_each_text(message, drop_blocks_of_text, dropper);
        }
    }
    return r;
}

int repeats_drop(json_t *messages, const struct bpe *bpe, uint64_t *ret_saved)
{
    struct dropper dropper = {.bpe = bpe};
    *ret_saved = 0;
    dropper.seen.slots = calloc(SEEN_SLOTS, sizeof(*dropper.seen.slots));
    if (dropper.seen.slots == NULL) {
        return -ENOMEM;
    }
    drop_messages(messages, bpe, &dropper.saved);
    int r = drop_blocks(&dropper, messages);
    *ret_saved = dropper.saved;
    spans_finish(&dropper.spans);
    free(dropper.seen.slots);
    return r;
}
