#include "worker/cache/profile.h"

#include <string.h>

/* A preposition reaches this many content words: "from New York City". */
enum { ROLE_WORDS_MAX = 3 };

struct maker {
    struct profile *profile;
    char text[PROFILE_TEXT_BYTES_MAX];
    bool keeps_fillers;   /* the text is nothing but politeness */
    bool is_introduction; /* all words so far may introduce a question */
    uint8_t role;
    uint8_t role_words;
    size_t letters;  /* words of letters */
    size_t capitals; /* of them, with a capital */
};

static enum profile_kind kind_of(const struct word *word, const struct lexicon_entry *entry)
{
    if (word->form != WORD_LETTERS) {
        return word->form == WORD_NUMBER ? PROFILE_NUMBER : PROFILE_SYMBOL;
    }
    switch (entry == NULL ? LEXICON_CONTENT : (enum lexicon_kind)entry->kind) {
    case LEXICON_FUNCTION:
    case LEXICON_FILLER:
        return PROFILE_FUNCTION;
    case LEXICON_JOINER:
        return PROFILE_JOINER;
    case LEXICON_QUESTION:
        return PROFILE_QUESTION;
    case LEXICON_NEGATION:
        return PROFILE_NEGATION;
    case LEXICON_NUMBER:
        return PROFILE_NUMBER;
    case LEXICON_CONTENT:
        break;
    }
    return PROFILE_CONTENT;
}

/* What all words that ask for yes or no are. */
static const uint32_t ASKING_HASH = 0x3F1C7A55;

static void restart(struct maker *maker)
{
    maker->profile->length = 0;
    maker->profile->text_bytes = 0;
    maker->role = 0;
    maker->letters = maker->capitals = 0;
}

/* What the word does to the role of those after it, and its own role. */
static uint8_t take_role(struct maker *maker, const struct word *word, enum profile_kind kind,
                         const struct lexicon_detail *detail)
{
    if ((word->marks & WORD_PAUSE) != 0 || kind == PROFILE_QUESTION) {
        maker->role = 0;
    }
    if (detail != NULL && detail->role != 0) {
        maker->role = detail->role;
        maker->role_words = 0;
        return 0;
    }
    if (kind != PROFILE_CONTENT && kind != PROFILE_NUMBER) {
        return 0;
    }
    return maker->role_words++ < ROLE_WORDS_MAX ? maker->role : 0;
}

static void add_word(struct maker *maker, const struct word *word, uint16_t index)
{
    struct profile *profile = maker->profile;
    const struct lexicon_entry *entry = index == LEXICON_NONE ? NULL : lexicon_at(index);
    const struct lexicon_detail *detail = lexicon_detail_at(index);
    const bool is_start = profile->length == 0 || (word->marks & WORD_PAUSE) != 0;
    const bool is_asking = detail != NULL && detail->is_asking && is_start;
    const enum profile_kind kind = is_asking ? PROFILE_QUESTION : kind_of(word, entry);
    profile->words[profile->length++] = (struct profile_word){
        .hash = is_asking        ? ASKING_HASH
                : detail != NULL ? detail->canonical_hash
                                 : word->hash,
        .entry = index,
        .text_at = profile->text_bytes,
        .text_bytes = word->bytes,
        .kind = (uint8_t)kind,
        .role = take_role(maker, word, kind, detail),
        .marks = word->marks & (WORD_CAPITAL | WORD_QUOTED),
    };
    memcpy(maker->text + profile->text_bytes, word->text, word->bytes);
    profile->text_bytes = (uint16_t)(profile->text_bytes + word->bytes);
    maker->letters += word->form == WORD_LETTERS ? 1 : 0;
    maker->capitals += (word->marks & WORD_CAPITAL) != 0 ? 1 : 0;
}

/* False: there is no room for it. */
static bool take_word(struct maker *maker, const struct word *word)
{
    const uint16_t index = lexicon_find(word->hash);
    const struct lexicon_detail *detail = lexicon_detail_at(index);
    const enum lexicon_kind kind =
        index == LEXICON_NONE ? LEXICON_CONTENT : (enum lexicon_kind)lexicon_at(index)->kind;
    if (maker->is_introduction && (word->marks & WORD_COLON) != 0) {
        restart(maker);
    }
    maker->is_introduction =
        maker->is_introduction && (kind == LEXICON_FILLER || kind == LEXICON_FUNCTION ||
                                   (detail != NULL && detail->is_wrapper));
    if (kind == LEXICON_FILLER && !maker->keeps_fillers) {
        return true;
    }
    if (maker->profile->length == PROFILE_WORDS_MAX) {
        return false;
    }
    add_word(maker, word, index);
    return true;
}

/* In a Title or in SHOUTING capitals mean nothing. */
static void forget_capitals_of_titles(struct maker *maker)
{
    struct profile *profile = maker->profile;
    if (maker->letters >= 4 && maker->capitals * 10 > maker->letters * 6) {
        for (size_t i = 0; i < profile->length; i++) {
            profile->words[i].marks &= (uint8_t)~WORD_CAPITAL;
        }
    }
}

/* Returns false when the text has too many words. */
static bool read_text(struct maker *maker, const char *text, size_t bytes)
{
    struct words words;
    struct word word;
    maker->is_introduction = !maker->keeps_fillers;
    maker->role_words = 0;
    restart(maker);
    words_init(&words, text, bytes);
    while (words_next(&words, &word)) {
        if (!take_word(maker, &word)) {
            return false;
        }
    }
    return true;
}

size_t profile_make(const char *text, size_t bytes, union profile_buffer *ret_buffer)
{
    struct profile *profile = &ret_buffer->profile;
    struct maker maker;
    maker.profile = profile;
    maker.keeps_fillers = false;
    bool is_short = read_text(&maker, text, bytes);
    if (is_short && profile->length == 0) {
        maker.keeps_fillers = true;
        is_short = read_text(&maker, text, bytes);
    }
    if (!is_short) {
        return PROFILE_WORDS_MAX + 1;
    }
    forget_capitals_of_titles(&maker);
    memcpy(profile->words + profile->length, maker.text, profile->text_bytes);
    profile->version = profile_version();
    profile->bytes = (uint16_t)(sizeof(*profile) + profile->length * sizeof(profile->words[0]) +
                                profile->text_bytes);
    return profile->length;
}

uint8_t profile_word_weight(const struct profile_word *word)
{
    return word->entry != LEXICON_NONE ? lexicon_at(word->entry)->weight : LEXICON_WEIGHT_UNKNOWN;
}

const char *profile_text(const struct profile *profile)
{
    return (const char *)(profile->words + profile->length);
}

uint16_t profile_version(void)
{
    return (uint16_t)(lexicon_version() + PROFILE_FORMAT);
}

static bool word_is_valid(const struct profile *profile, const struct profile_word *word)
{
    return word->text_bytes <= WORD_BYTES_MAX && word->kind <= PROFILE_SYMBOL &&
           word->text_at + word->text_bytes <= profile->text_bytes &&
           (word->entry == LEXICON_NONE || word->entry < lexicon_length());
}

bool profile_is_valid(const void *blob, size_t bytes)
{
    const struct profile *profile = blob;
    if (bytes < sizeof(*profile) || profile->bytes != bytes || profile->length == 0 ||
        profile->length > PROFILE_WORDS_MAX || profile->version != profile_version() ||
        bytes !=
            sizeof(*profile) + profile->length * sizeof(profile->words[0]) + profile->text_bytes) {
        return false;
    }
    for (size_t i = 0; i < profile->length; i++) {
        if (!word_is_valid(profile, &profile->words[i])) {
            return false;
        }
    }
    return true;
}
