/*
 * lexicon-build: makes lexicon.inc of lexicon.txt and lexicon_weights.txt while the cache is built.
 *
 *   lexicon-build LEXICON_TXT WEIGHTS_TXT > lexicon.inc
 *
 * In C, so that words are cut and hashed by the code that reads questions.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/lexicon.h"
#include "worker/cache/words.h"

enum { ENTRIES_MAX = 16384, DETAILS_MAX = 4096, LINE_BYTES_MAX = 4096, START_BITS = 12 };

struct build {
    struct lexicon_entry entries[ENTRIES_MAX];
    size_t entries_length;
    struct lexicon_detail details[DETAILS_MAX];
    size_t details_length;
    uint8_t groups; /* so far */
    uint32_t version;
    const char *path;
    size_t line;
};

static _Noreturn void die(const struct build *build, const char *what)
{
    fprintf(stderr, "lexicon-build: %s:%zu: %s\n", build->path, build->line, what);
    exit(1);
}

static struct lexicon_entry *entry_of(struct build *build, uint32_t hash)
{
    for (size_t i = 0; i < build->entries_length; i++) {
        if (build->entries[i].hash == hash) {
            return &build->entries[i];
        }
    }
    if (build->entries_length == ENTRIES_MAX) {
        die(build, "too many words");
    }
    struct lexicon_entry *entry = &build->entries[build->entries_length++];
    *entry = (struct lexicon_entry){
        .hash = hash, .weight = LEXICON_WEIGHT_UNKNOWN, .detail = LEXICON_NONE};
    return entry;
}

static struct lexicon_detail *detail_of(struct build *build, struct lexicon_entry *entry)
{
    if (entry->detail == LEXICON_NONE) {
        if (build->details_length == DETAILS_MAX) {
            die(build, "too many words with a meaning");
        }
        entry->detail = (uint16_t)build->details_length++;
        build->details[entry->detail] = (struct lexicon_detail){.canonical_hash = entry->hash};
    }
    return &build->details[entry->detail];
}

static void join_group(struct build *build, struct lexicon_detail *detail, uint8_t group,
                       uint8_t side)
{
    for (size_t i = 0; i < detail->groups_length; i++) {
        if (detail->groups[i].group == group) {
            return; /* two forms with one stem */
        }
    }
    if (detail->groups_length == LEXICON_GROUPS_MAX) {
        die(build, "a word in too many groups");
    }
    detail->groups[detail->groups_length++] =
        (struct lexicon_membership){.group = group, .side = side};
}

static enum lexicon_kind kind_of(const struct build *build, const char *name)
{
    static const struct {
        const char *name;
        enum lexicon_kind kind;
    } kinds[] = {
        {"function", LEXICON_FUNCTION}, {"filler", LEXICON_FILLER},     {"joiner", LEXICON_JOINER},
        {"question", LEXICON_QUESTION}, {"negation", LEXICON_NEGATION}, {"number", LEXICON_NUMBER},
        {"role", LEXICON_FUNCTION},     {"wrapper", LEXICON_CONTENT},   {"asking", LEXICON_CONTENT},
        {"choice", LEXICON_CONTENT},    {"opposite", LEXICON_CONTENT},
    };
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            return kinds[i].kind;
        }
    }
    die(build, "no such kind");
}

/* One word of a line; the first of its side gives the others its hash where they are the same. */
static void add_word(struct build *build, const char *kind, const char *word, uint8_t side,
                     uint32_t canonical_hash)
{
    struct lexicon_entry *entry = entry_of(build, words_hash(word));
    const enum lexicon_kind word_kind = kind_of(build, kind);
    entry->kind = word_kind == LEXICON_CONTENT ? entry->kind : (uint8_t)word_kind;
    struct lexicon_detail *detail = detail_of(build, entry);
    if (strcmp(kind, "role") == 0) {
        detail->role = side + 1;
    } else if (strcmp(kind, "wrapper") == 0) {
        detail->is_wrapper = 1;
    } else if (strcmp(kind, "asking") == 0) {
        detail->is_asking = 1;
    } else if (strcmp(kind, "choice") == 0 || strcmp(kind, "opposite") == 0) {
        join_group(build, detail, build->groups,
                   side | (strcmp(kind, "choice") == 0 ? LEXICON_SIDE_OF_CHOICE : 0));
    }
    if (canonical_hash != 0 && strcmp(kind, "role") != 0 && strcmp(kind, "opposite") != 0) {
        detail->canonical_hash = canonical_hash;
    }
}

/* "kind: word word | word": sides are numbered from 0. */
static void add_line(struct build *build, char *line)
{
    char *rest = strchr(line, ':');
    if (rest == NULL) {
        die(build, "no colon");
    }
    *rest++ = '\0';
    char *value = strchr(line, ' ');
    if (value != NULL) {
        *value++ = '\0'; /* "number 7" */
    }
    const bool has_sides = strchr(rest, '|') != NULL;
    uint8_t side = 0;
    uint32_t canonical_hash = value != NULL ? words_hash(value) : 0;
    char *left = NULL;
    for (char *word = strtok_r(rest, " \n", &left); word != NULL; word = strtok_r(NULL, " \n", &left)) {
        if (strcmp(word, "|") == 0) {
            side++;
            canonical_hash = 0;
            continue;
        }
        if (has_sides && canonical_hash == 0) {
            canonical_hash = words_hash(word);
        }
        add_word(build, line, word, side, canonical_hash);
    }
    build->groups += has_sides ? 1 : 0;
}

static void add_weight(struct build *build, const char *line)
{
    char word[LINE_BYTES_MAX];
    unsigned weight = 0;
    // cppcheck-suppress invalidscanf // no word is longer than its line
    if (sscanf(line, "%s %u", word, &weight) != 2 || weight > LEXICON_WEIGHT_UNKNOWN) {
        die(build, "no word with its weight");
    }
    struct lexicon_entry *entry = entry_of(build, words_hash(word));
    entry->weight = (uint8_t)weight;
}

static void read_file(struct build *build, const char *path, bool is_weights)
{
    char line[LINE_BYTES_MAX];
    build->path = path;
    build->line = 0;
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        die(build, "cannot be read");
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        build->line++;
        for (const char *c = line; *c != '\0'; c++) {
            build->version = (build->version ^ (uint8_t)*c) * 0x01000193U;
        }
        if (line[0] == '#' || line[0] == '\n') {
            continue;
        }
        if (is_weights) {
            add_weight(build, line);
        } else {
            add_line(build, line);
        }
    }
    (void)fclose(file);
}

static int by_hash(const void *a, const void *b)
{
    const struct lexicon_entry *first = a;
    const struct lexicon_entry *second = b;
    return first->hash < second->hash ? -1 : first->hash > second->hash;
}

static void write_details(const struct build *build)
{
    printf("static const struct lexicon_detail lexicon_details[] = {\n");
    for (size_t i = 0; i < build->details_length; i++) {
        const struct lexicon_detail *detail = &build->details[i];
        printf("    {%uU, %u, %u, %u, %u, {", detail->canonical_hash, detail->role,
               detail->is_wrapper, detail->is_asking, detail->groups_length);
        for (size_t g = 0; g < LEXICON_GROUPS_MAX; g++) {
            printf("{%u, %u}, ", detail->groups[g].group, detail->groups[g].side);
        }
        printf("}},\n");
    }
    printf("};\n");
}

static void write_entries(const struct build *build)
{
    printf("static const struct lexicon_entry lexicon_entries[] = {\n");
    for (size_t i = 0; i < build->entries_length; i++) {
        const struct lexicon_entry *entry = &build->entries[i];
        printf("    {%uU, %u, %u, %u},\n", entry->hash, entry->weight, entry->kind, entry->detail);
    }
    printf("};\nstatic const uint16_t lexicon_starts[] = {");
    size_t at = 0;
    for (uint32_t slot = 0; slot <= 1U << START_BITS; slot++) {
        while (at < build->entries_length && build->entries[at].hash >> (32 - START_BITS) < slot) {
            at++;
        }
        printf("%zu,%s", at, slot % 16 == 0 ? "\n    " : " ");
    }
    printf("};\n");
}

int main(int argc, char **argv)
{
    static struct build build;
    if (argc != 3) {
        fprintf(stderr, "usage: lexicon-build LEXICON_TXT WEIGHTS_TXT\n");
        return 2;
    }
    read_file(&build, argv[1], false);
    read_file(&build, argv[2], true);
    qsort(build.entries, build.entries_length, sizeof(build.entries[0]), by_hash);
    printf("/* Made by lexicon-build; change lexicon.txt or lexicon_weights.txt instead. */\n"
           "enum { LEXICON_START_BITS = %d, LEXICON_VERSION = %u };\n",
           START_BITS, build.version >> 16 ^ (build.version & 0xFFFF));
    write_details(&build);
    write_entries(&build);
    return fflush(stdout) == 0 && ferror(stdout) == 0 ? 0 : 1;
}
