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
    struct seen of_system, of_user;
    bool is_system; /* what is read now is the system's */
    struct spans spans;
    uint64_t saved;
};

/* ---- messages ---- */

/* Of system messages only the latest counts: another one between may have said the contrary. */
static void drop_messages(json_t *messages, const struct bpe *bpe, uint64_t *saved)
{
    const json_t *system = NULL;
    for (size_t i = 0; i < json_array_size(messages);) {
        json_t *message = json_array_get(messages, i);
        const json_t *next = json_array_get(messages, i + 1);
        const bool is_system = message_is_system(message);
        const json_t *same = is_system ? system : message_is(message, "user") ? next : NULL;
        if (same != NULL && json_equal(message, same) != 0) {
            *saved += message_tokens(message, bpe);
            (void)json_array_remove(messages, i);
        } else {
            system = is_system ? message : system;
            i++;
        }
    }
}

/* ---- blocks ---- */

/* Its own, or the empty one where it would be. */
static XXH128_hash_t *slot_of(const struct seen *seen, XXH128_hash_t hash)
{
    size_t slot = hash.high64 % SEEN_SLOTS;
    while (seen->slots[slot].low64 != 0 && XXH128_isEqual(seen->slots[slot], hash) == 0) {
        slot = (slot + 1) % SEEN_SLOTS;
    }
    return &seen->slots[slot];
}

/* Whether it has stood before; if not, it has from now on. */
static bool seen_before(struct seen *seen, XXH128_hash_t hash)
{
    XXH128_hash_t *slot = slot_of(seen, hash);
    if (slot->low64 != 0) {
        return true;
    }
    if (seen->length < REPEAT_BLOCKS_MAX) {
        *slot = hash;
        seen->length++;
    }
    return false;
}

/* Some providers get the system's messages first, so these refer to one another alone. */
static bool stood_above(struct dropper *dropper, const char *block, size_t bytes)
{
    XXH128_hash_t hash = XXH3_128bits(block, bytes);
    hash.low64 |= 1;
    if (dropper->is_system) {
        return seen_before(&dropper->of_system, hash);
    }
    return slot_of(&dropper->of_system, hash)->low64 != 0 || seen_before(&dropper->of_user, hash);
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
           stood_above(dropper, text + from, to - from);
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
        dropper->is_system = message_is_system(message);
        if (r == 0 && (dropper->is_system || message_is(message, "user"))) {
            r = message_each_text(message, drop_blocks_of_text, dropper);
        }
    }
    return r;
}

int repeats_drop(json_t *messages, const struct bpe *bpe, uint64_t *ret_saved)
{
    struct dropper dropper = {.bpe = bpe};
    *ret_saved = 0;
    XXH128_hash_t *slots = calloc((size_t)2 * SEEN_SLOTS, sizeof(*slots));
    if (slots == NULL) {
        return -ENOMEM;
    }
    dropper.of_system.slots = slots;
    dropper.of_user.slots = slots + SEEN_SLOTS;
    drop_messages(messages, bpe, &dropper.saved);
    int r = drop_blocks(&dropper, messages);
    *ret_saved = dropper.saved;
    spans_finish(&dropper.spans);
    free(slots);
    return r;
}
