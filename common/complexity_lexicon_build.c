/*
 * complexity-lexicon-build FILE: complexity_lexicon.txt as C tables on standard output; a part of
 * the build, of our own text.
 *
 * Entries are sorted by hash; complexity_starts holds the first entry of each value of the hash's
 * highest COMPLEXITY_START_BITS.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/complexity_lexicon.h"

enum { ENTRIES_MAX = 8192, LINE_BYTES_MAX = 4096 };

static const char *const class_names[CLASSES] = {
    [CLASS_STEPS] = "steps",
    [CLASS_CONSTRAINTS] = "constraints",
    [CLASS_QUESTION] = "question",
    [CLASS_EXTRACTION] = "extraction",
    [CLASS_SHORT_ANSWER] = "short_answer",
    [CLASS_NEGATION] = "negation",
    [CLASS_RELATIONS] = "relations",
    [CLASS_MATHS] = "maths",
    [CLASS_SCIENCE] = "science",
    [CLASS_LAW] = "law",
    [CLASS_MEDICINE] = "medicine",
    [CLASS_HUMANITIES] = "humanities",
    [CLASS_BUSINESS] = "business",
    [CLASS_COMPUTING] = "computing",
};

struct built_entry {
    struct complexity_entry entry;
    char word[48];
};

static struct built_entry entries[ENTRIES_MAX];
static size_t entries_length;

static void fail(const char *why, const char *what)
{
    fprintf(stderr, "complexity-lexicon-build: %s: %s\n", why, what);
    exit(1);
}

static uint32_t hash_word(const char *word, size_t bytes)
{
    uint32_t hash = COMPLEXITY_HASH_BEGIN;
    for (size_t i = 0; i < bytes; i++) {
        hash = complexity_hash_add(hash, (uint8_t)word[i]);
    }
    return complexity_hash_end(hash);
}

static void add(const char *word, size_t bytes, uint32_t hash, uint32_t classes)
{
    for (size_t i = 0; i < entries_length; i++) {
        struct built_entry *entry = &entries[i];
        if (entry->entry.hash != hash) {
            continue;
        }
        if (strlen(entry->word) != bytes || memcmp(entry->word, word, bytes) != 0) {
            fail("two words have one hash", word);
        }
        entry->entry.classes |= classes;
        return;
    }
    if (entries_length == ENTRIES_MAX || bytes >= sizeof(entries[0].word)) {
        fail("too many, or too long", word);
    }
    struct built_entry *entry = &entries[entries_length++];
    entry->entry = (struct complexity_entry){.hash = hash, .classes = classes};
    memcpy(entry->word, word, bytes);
}

/* "at_least" is two words. */
static void add_word(const char *word, uint32_t classes)
{
    const char *gap = strchr(word, '_');
    if (gap == NULL) {
        add(word, strlen(word), hash_word(word, strlen(word)), classes);
        return;
    }
    const uint32_t first = hash_word(word, (size_t)(gap - word));
    if (strchr(gap + 1, '_') != NULL) {
        fail("more than two words", word);
    }
    add(word, (size_t)(gap - word), first, 1u << CLASS_BEGINS_PHRASE);
    add(word, strlen(word), complexity_hash_pair(first, hash_word(gap + 1, strlen(gap + 1))),
        classes);
}

static uint32_t class_bit(const char *name)
{
    for (size_t i = 0; i < CLASSES; i++) {
        if (strcmp(class_names[i], name) == 0) {
            return 1u << i;
        }
    }
    fail("no such class", name);
    return 0;
}

static void read_line(char *line)
{
    char *at = NULL;
    char *colon = strchr(line, ':');
    if (line[0] == '#' || line[0] == '\n') {
        return;
    }
    if (colon == NULL || strchr(line, '\n') == NULL) {
        fail("no class, or too long a line", line);
        return;
    }
    *colon = '\0';
    const uint32_t classes = class_bit(line);
    for (char *word = strtok_r(colon + 1, " \n", &at); word != NULL;
         word = strtok_r(NULL, " \n", &at)) {
        add_word(word, classes);
    }
}

static int by_hash(const void *a, const void *b)
{
    const uint32_t x = ((const struct built_entry *)a)->entry.hash;
    const uint32_t y = ((const struct built_entry *)b)->entry.hash;
    return (x > y) - (x < y);
}

static void write_tables(void)
{
    qsort(entries, entries_length, sizeof(entries[0]), by_hash);
    printf("static const struct complexity_entry complexity_entries[] = {\n");
    for (size_t i = 0; i < entries_length; i++) {
        printf("{0x%08x, 0x%x},\n", entries[i].entry.hash, entries[i].entry.classes);
    }
    printf("};\nstatic const uint16_t complexity_starts[] = {\n");
    size_t at = 0;
    for (size_t slot = 0; slot <= 1u << COMPLEXITY_START_BITS; slot++) {
        while (at < entries_length &&
               entries[at].entry.hash >> (32 - COMPLEXITY_START_BITS) < slot) {
            at++;
        }
        printf("%zu,\n", at);
    }
    printf("};\n");
}

int main(int argc, char **argv)
{
    static char line[LINE_BYTES_MAX];
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (file == NULL) {
        fail("cannot read", argc == 2 ? argv[1] : "FILE");
        return 1;
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        read_line(line);
    }
    (void)fclose(file);
    write_tables();
    return fflush(stdout) == 0 ? 0 : 1;
}
