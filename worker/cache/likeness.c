#include "worker/cache/likeness.h"

#include <math.h>
#include <string.h>

enum { NO_MATCH = 0xFF, TYPO_BYTES_MIN = 5 };

/*
 * What a content word is worth that matches only with a slip of the pen: of a known word, or of one
 * that may as well be another word ("abduction", "adduction").
 */
static const float TYPO_SHARE = 0.9F;
static const float DOUBTFUL_SHARE = 0.5F;

struct side {
    const struct profile *profile;
    uint8_t match[PROFILE_WORDS_MAX];    /* the other's word, or NO_MATCH */
    bool is_typo[PROFILE_WORDS_MAX];     /* it matches, but not to the letter */
    bool is_doubtful[PROFILE_WORDS_MAX]; /* and neither is a known word */
    uint8_t
        left[PROFILE_WORDS_MAX]; /* words that match none, in order: few, where texts are alike */
    size_t left_length;
};

static const struct profile_word *word_at(const struct side *side, size_t index)
{
    return &side->profile->words[index];
}

static float weight_of(const struct profile_word *word)
{
    return (float)profile_word_weight(word) / LEXICON_WEIGHT_UNKNOWN;
}

static bool is_content(const struct profile_word *word)
{
    return word->kind == PROFILE_CONTENT || word->kind == PROFILE_NUMBER;
}

/* ---- matching ---- */

static void match_equal(struct side *a, struct side *b)
{
    for (size_t i = 0; i < a->profile->length; i++) {
        const uint32_t hash = word_at(a, i)->hash;
        for (size_t j = 0; j < b->profile->length; j++) {
            if (word_at(b, j)->hash == hash && b->match[j] == NO_MATCH) {
                a->match[i] = (uint8_t)j;
                b->match[j] = (uint8_t)i;
                break;
            }
        }
    }
}

/* Whether the rests of two words after their common beginning differ by one slip. */
static bool rests_are_one_slip(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    if (a_bytes == b_bytes) {
        return memcmp(a + 1, b + 1, a_bytes - 1) == 0 ||
               (a_bytes >= 2 && a[0] == b[1] && a[1] == b[0] &&
                memcmp(a + 2, b + 2, a_bytes - 2) == 0);
    }
    return a_bytes > b_bytes ? memcmp(a + 1, b, b_bytes) == 0 : memcmp(a, b + 1, a_bytes) == 0;
}

static bool is_one_slip(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    size_t same = 0;
    if (a_bytes > b_bytes + 1 || b_bytes > a_bytes + 1) {
        return false;
    }
    while (same < a_bytes && same < b_bytes && a[same] == b[same]) {
        same++;
    }
    if (same == 0) {
        return false; /* who mistypes seldom mistypes the first letter; other words often differ so
                       */
    }
    if (same == a_bytes || same == b_bytes) {
        return true; /* one letter more at the end */
    }
    return rests_are_one_slip(a + same, a_bytes - same, b + same, b_bytes - same);
}

static bool may_have_a_typo(const struct profile_word *word)
{
    return word->kind == PROFILE_CONTENT && word->text_bytes >= TYPO_BYTES_MIN;
}

/*
 * A slip makes of a known word an unknown one. Two known words that are so near each other are two
 * words, and so are two names.
 */
static bool is_typo(const struct profile *a, const struct profile_word *x, const struct profile *b,
                    const struct profile_word *y)
{
    const bool are_words = may_have_a_typo(x) && may_have_a_typo(y);
    const bool are_known = x->entry != LEXICON_NONE && y->entry != LEXICON_NONE;
    const bool are_names = (x->marks & y->marks & (WORD_CAPITAL | WORD_QUOTED)) != 0;
    return are_words && !are_known && !are_names &&
           is_one_slip(profile_text(a) + x->text_at, x->text_bytes, profile_text(b) + y->text_at,
                       y->text_bytes);
}

static void find_left(struct side *side)
{
    side->left_length = 0;
    for (size_t i = 0; i < side->profile->length; i++) {
        if (side->match[i] == NO_MATCH) {
            side->left[side->left_length++] = (uint8_t)i;
        }
    }
}

static void match_typos(struct side *a, struct side *b)
{
    for (size_t x = 0; x < a->left_length; x++) {
        const size_t i = a->left[x];
        if (!may_have_a_typo(word_at(a, i))) {
            continue;
        }
        for (size_t y = 0; a->match[i] == NO_MATCH && y < b->left_length; y++) {
            const size_t j = b->left[y];
            if (b->match[j] == NO_MATCH &&
                is_typo(a->profile, word_at(a, i), b->profile, word_at(b, j))) {
                a->match[i] = (uint8_t)j;
                b->match[j] = (uint8_t)i;
                a->is_typo[i] = b->is_typo[j] = true;
                a->is_doubtful[i] = b->is_doubtful[j] =
                    word_at(a, i)->entry == LEXICON_NONE && word_at(b, j)->entry == LEXICON_NONE;
            }
        }
    }
}

static void match(struct side *a, struct side *b)
{
    match_equal(a, b);
    find_left(a);
    find_left(b);
    match_typos(a, b);
    find_left(a);
    find_left(b);
}

static void side_init(struct side *side, const struct profile *profile)
{
    side->profile = profile;
    memset(side->match, NO_MATCH, profile->length);
    memset(side->is_typo, 0, profile->length);
    memset(side->is_doubtful, 0, profile->length);
}

/* ---- guards ---- */

static size_t count_unmatched(const struct side *side, enum profile_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < side->left_length; i++) {
        n += word_at(side, side->left[i])->kind == kind ? 1 : 0;
    }
    return n;
}

static size_t count_unmatched_marked(const struct side *side, enum word_mark mark)
{
    size_t n = 0;
    for (size_t i = 0; i < side->left_length; i++) {
        const struct profile_word *word = word_at(side, side->left[i]);
        n += (word->marks & mark) != 0 && is_content(word) ? 1 : 0;
    }
    return n;
}

static void set_both_or_one(float *features, enum likeness_feature both, size_t a, size_t b)
{
    features[both] = a > 0 && b > 0 ? 1 : 0;
    features[both + 1] = (a > 0) != (b > 0) ? 1 : 0;
}

static bool negations_differ(const struct side *a, const struct side *b)
{
    size_t n = 0;
    for (size_t i = 0; i < a->profile->length; i++) {
        n += word_at(a, i)->kind == PROFILE_NEGATION ? 1 : 0;
    }
    for (size_t i = 0; i < b->profile->length; i++) {
        n += word_at(b, i)->kind == PROFILE_NEGATION ? 1 : 0;
    }
    return n % 2 != 0;
}

static bool questions_differ(const struct side *a, const struct side *b)
{
    return count_unmatched(a, PROFILE_QUESTION) > 0 && count_unmatched(b, PROFILE_QUESTION) > 0;
}

/* Whether two words exclude each other; *ret_is_choice: as a weekday excludes another. */
static bool exclude_each_other(const struct lexicon_detail *a, const struct lexicon_detail *b,
                               bool *ret_is_choice)
{
    for (size_t i = 0; i < a->groups_length; i++) {
        for (size_t j = 0; j < b->groups_length; j++) {
            if (a->groups[i].group == b->groups[j].group &&
                a->groups[i].side != b->groups[j].side) {
                *ret_is_choice = (a->groups[i].side & LEXICON_SIDE_OF_CHOICE) != 0;
                return true;
            }
        }
    }
    return false;
}

static bool is_turning_prefix(const char *text, size_t bytes)
{
    static const char *const prefixes[] = {"un",  "in",  "im", "il",  "ir",
                                           "dis", "non", "de", "anti"};
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        if (strlen(prefixes[i]) == bytes && memcmp(text, prefixes[i], bytes) == 0) {
            return true;
        }
    }
    return false;
}

enum { PREFIX_BYTES_MIN = 2, PREFIX_BYTES_MAX = 4, STEM_BYTES_MIN = 3 };

/* "legal" and "illegal", "known" and "unknown": one is the other with a prefix that turns it. */
static bool is_turned_by_prefix(const struct side *a, size_t i, const struct side *b, size_t j)
{
    const struct profile_word *x = word_at(a, i);
    const struct profile_word *y = word_at(b, j);
    const bool is_x_longer = x->text_bytes > y->text_bytes;
    const size_t stem_bytes = is_x_longer ? y->text_bytes : x->text_bytes;
    const size_t prefix_bytes = (is_x_longer ? x->text_bytes : y->text_bytes) - stem_bytes;
    if (prefix_bytes < PREFIX_BYTES_MIN || prefix_bytes > PREFIX_BYTES_MAX ||
        stem_bytes < STEM_BYTES_MIN) {
        return false;
    }
    const char *x_text = profile_text(a->profile) + x->text_at;
    const char *y_text = profile_text(b->profile) + y->text_at;
    const char *longer = is_x_longer ? x_text : y_text;
    const char *shorter = is_x_longer ? y_text : x_text;
    return longer[prefix_bytes] == shorter[0] && /* hardly ever: so the rest costs nothing */
           memcmp(longer + prefix_bytes, shorter, stem_bytes) == 0 &&
           is_turning_prefix(longer, prefix_bytes);
}

/* Most pairs have nothing to do with each other, and say so by two pointers and two lengths. */
static void compare_pair(const struct side *a, size_t i, const struct lexicon_detail *here,
                         const struct side *b, size_t j, const struct lexicon_detail *there,
                         float *features)
{
    bool is_choice = false;
    if (here != NULL && there != NULL && exclude_each_other(here, there, &is_choice)) {
        features[is_choice ? LIKENESS_CHOICE_BOTH : LIKENESS_OPPOSITE] = 1;
    } else if (is_turned_by_prefix(a, i, b, j)) {
        features[LIKENESS_OPPOSITE] = 1;
    }
}

static void compare_unmatched(const struct side *a, const struct side *b, float *features)
{
    const struct lexicon_detail *there[PROFILE_WORDS_MAX];
    for (size_t j = 0; j < b->left_length; j++) {
        there[j] = lexicon_detail_at(word_at(b, b->left[j])->entry);
    }
    for (size_t i = 0; i < a->left_length; i++) {
        const struct lexicon_detail *here = lexicon_detail_at(word_at(a, a->left[i])->entry);
        for (size_t j = 0; j < b->left_length; j++) {
            compare_pair(a, a->left[i], here, b, b->left[j], there[j], features);
        }
    }
}

static bool is_choice(const struct profile_word *word)
{
    const struct lexicon_detail *detail = lexicon_detail_at(word->entry);
    for (size_t i = 0; detail != NULL && word->kind == PROFILE_CONTENT && i < detail->groups_length;
         i++) {
        if ((detail->groups[i].side & LEXICON_SIDE_OF_CHOICE) != 0) {
            return true;
        }
    }
    return false;
}

static bool has_unmatched_choice(const struct side *side)
{
    for (size_t i = 0; i < side->left_length; i++) {
        if (is_choice(word_at(side, side->left[i]))) {
            return true;
        }
    }
    return false;
}

/*
 * "from A to B" and "from B to A", "A better than B" and "B better than A": one shared word has a
 * preposition here only, and another shared word has the same one there only.
 */
static bool roles_are_swapped(const struct side *a, const struct side *b)
{
    uint32_t only_here = 0;
    uint32_t only_there = 0;
    for (size_t i = 0; i < a->profile->length; i++) {
        if (a->match[i] != NO_MATCH && is_content(word_at(a, i))) {
            const uint32_t here = UINT32_C(1) << word_at(a, i)->role;
            const uint32_t there = UINT32_C(1) << word_at(b, a->match[i])->role;
            only_here |= here & ~there;
            only_there |= there & ~here;
        }
    }
    return (only_here & only_there & ~UINT32_C(1)) != 0;
}

/*
 * Three shared words in reverse order, the outer two of content: "does A cause B", "does B cause
 * A". Moving a phrase to the front never makes one of these; nor is it one when only "and" stands
 * between.
 */
static bool order_is_reversed(const struct side *a)
{
    int latest[PROFILE_WORDS_MAX]; /* the last place there of content words up to here */
    int farthest = -1;
    for (size_t i = 0; i < a->profile->length; i++) {
        latest[i] = farthest;
        const int there = a->match[i];
        if (there != NO_MATCH && is_content(word_at(a, i)) && there > farthest) {
            farthest = there;
        }
    }
    int nearest = PROFILE_WORDS_MAX;
    for (size_t i = a->profile->length; i-- > 0;) {
        const int there = a->match[i];
        if (there == NO_MATCH) {
            continue;
        }
        if (word_at(a, i)->kind != PROFILE_JOINER && latest[i] > there && nearest < there) {
            return true;
        }
        if (is_content(word_at(a, i)) && there < nearest) {
            nearest = there;
        }
    }
    return false;
}

static void compare_guards(const struct side *a, const struct side *b, float *features)
{
    set_both_or_one(features, LIKENESS_NUMBERS_BOTH, count_unmatched(a, PROFILE_NUMBER),
                    count_unmatched(b, PROFILE_NUMBER));
    set_both_or_one(features, LIKENESS_NAMES_BOTH, count_unmatched_marked(a, WORD_CAPITAL),
                    count_unmatched_marked(b, WORD_CAPITAL));
    set_both_or_one(features, LIKENESS_QUOTED_BOTH, count_unmatched_marked(a, WORD_QUOTED),
                    count_unmatched_marked(b, WORD_QUOTED));
    features[LIKENESS_NEGATION] = negations_differ(a, b) ? 1 : 0;
    features[LIKENESS_QUESTION] = questions_differ(a, b) ? 1 : 0;
    features[LIKENESS_SYMBOLS] =
        count_unmatched(a, PROFILE_SYMBOL) + count_unmatched(b, PROFILE_SYMBOL) > 0 ? 1 : 0;
    compare_unmatched(a, b, features);
    features[LIKENESS_CHOICE_ONE] =
        features[LIKENESS_CHOICE_BOTH] == 0 && (has_unmatched_choice(a) || has_unmatched_choice(b));
    features[LIKENESS_ROLES] = roles_are_swapped(a, b) ? 1 : 0;
    features[LIKENESS_ORDER] = order_is_reversed(a) ? 1 : 0;
}

/* ---- how much is shared ---- */

struct missing {
    float sum;
    float rarest;
    float shared; /* weight of matched content words */
    float total;
    size_t n_content;
};

static float share_of(const struct side *side, size_t index)
{
    return side->match[index] == NO_MATCH ? 0
           : side->is_doubtful[index]     ? DOUBTFUL_SHARE
           : side->is_typo[index]         ? TYPO_SHARE
                                          : 1;
}

static struct missing missing_of(const struct side *side)
{
    struct missing missing = {0};
    for (size_t i = 0; i < side->profile->length; i++) {
        const struct profile_word *word = word_at(side, i);
        const float weight = weight_of(word);
        const float share = share_of(side, i);
        if (!is_content(word)) {
            continue;
        }
        missing.n_content++;
        missing.total += weight;
        missing.shared += share * weight;
        if (share < TYPO_SHARE) {
            missing.sum += (1 - share) * weight;
            missing.rarest = fmaxf(missing.rarest, (1 - share) * weight);
        }
    }
    return missing;
}

/* Whether the words before (step −1) or after are each other's, or both texts end there. */
static bool neighbours_match(const struct side *a, size_t i, const struct side *b, size_t j,
                             int step)
{
    const size_t x = i + (size_t)step; /* wraps at the beginning, and is then beyond the length */
    const size_t y = j + (size_t)step;
    if (x >= a->profile->length || y >= b->profile->length) {
        return x >= a->profile->length && y >= b->profile->length;
    }
    return a->match[x] == y;
}

static float replaced(const struct side *a, const struct side *b)
{
    float most = 0;
    for (size_t x = 0; x < a->left_length; x++) {
        const size_t i = a->left[x];
        for (size_t y = 0; is_content(word_at(a, i)) && y < b->left_length; y++) {
            const size_t j = b->left[y];
            if (is_content(word_at(b, j)) && neighbours_match(a, i, b, j, -1) &&
                neighbours_match(a, i, b, j, 1)) {
                most = fmaxf(most, fminf(weight_of(word_at(a, i)), weight_of(word_at(b, j))));
            }
        }
    }
    return most;
}

/* Share of the pairs of matched words that stand in the other order there. */
static float disorder(const struct side *side, size_t n_matched)
{
    uint8_t there[PROFILE_WORDS_MAX];
    size_t length = 0;
    size_t n_inverted = 0;
    for (size_t i = 0; i < side->profile->length; i++) {
        if (side->match[i] == NO_MATCH) {
            continue;
        }
        for (size_t j = 0; j < length; j++) {
            n_inverted += there[j] > side->match[i] ? 1 : 0;
        }
        there[length++] = side->match[i];
    }
    return n_matched > 1 ? 2 * (float)n_inverted / (float)(n_matched * (n_matched - 1)) : 0;
}

static void compare_order(const struct side *a, const struct side *b, float *features)
{
    const size_t n_all = (size_t)a->profile->length + b->profile->length;
    const size_t n_all_pairs = n_all - 2; /* no profile is empty */
    size_t n_matched = 0;
    size_t n_pairs = 0;
    for (size_t i = 0; i < a->profile->length; i++) {
        n_matched += a->match[i] != NO_MATCH ? 1 : 0;
        n_pairs += i > 0 && a->match[i] != NO_MATCH && a->match[i - 1] != NO_MATCH &&
                           a->match[i] == a->match[i - 1] + 1
                       ? 1
                       : 0;
    }
    features[LIKENESS_DISORDER] = disorder(a, n_matched);
    features[LIKENESS_WORDS] = (float)n_matched / (float)(n_all - n_matched);
    features[LIKENESS_PAIRS] = n_all_pairs > 0 ? (float)n_pairs / (float)(n_all_pairs - n_pairs)
                                               : features[LIKENESS_WORDS];
}

static void compare_content(const struct side *a, const struct side *b, float *features)
{
    const struct missing x = missing_of(a);
    const struct missing y = missing_of(b);
    const size_t n_shorter = x.n_content < y.n_content ? x.n_content : y.n_content;
    const float shared = (x.shared + y.shared) / 2;
    const float either = x.total + y.total - shared;
    const float less = fminf(x.total, y.total);
    features[LIKENESS_REPLACED] = replaced(a, b);
    features[LIKENESS_MISSING_BOTH] = fminf(fminf(x.sum, y.sum), 2);
    features[LIKENESS_MISSING_MOST] = fminf(fmaxf(x.sum, y.sum), 3);
    features[LIKENESS_RARE_BOTH] = fminf(x.rarest, y.rarest);
    features[LIKENESS_RARE_MOST] = fmaxf(x.rarest, y.rarest);
    features[LIKENESS_INVERSE_LENGTH] = n_shorter > 0 ? 1.0F / (float)n_shorter : 2;
    features[LIKENESS_SHARED] = either > 0 ? shared / either : 0;
    features[LIKENESS_SHARED_MOST] = fmaxf(0, features[LIKENESS_SHARED] - 0.6F) * 2.5F;
    features[LIKENESS_COVERED] = less > 0 ? fminf(shared / less, 1) : 0;
}

void likeness_of(const struct profile *a, const struct profile *b, double cosine,
                 struct likeness *ret_likeness)
{
    struct side first;
    struct side second;
    float *features = ret_likeness->features;
    memset(features, 0, sizeof(ret_likeness->features));
    side_init(&first, a);
    side_init(&second, b);
    match(&first, &second);
    compare_guards(&first, &second, features);
    compare_content(&first, &second, features);
    compare_order(&first, &second, features);
    features[LIKENESS_COSINE] = (float)cosine;
    features[LIKENESS_COSINE_MOST] = fmaxf(0, (float)cosine - 0.7F) / 0.3F;
}

const char *likeness_feature_name(enum likeness_feature feature)
{
    static const char *const names[LIKENESS_FEATURES] = {
        [LIKENESS_NUMBERS_BOTH] = "numbers_both",
        [LIKENESS_NUMBERS_ONE] = "numbers_one",
        [LIKENESS_NAMES_BOTH] = "names_both",
        [LIKENESS_NAMES_ONE] = "names_one",
        [LIKENESS_NEGATION] = "negation",
        [LIKENESS_OPPOSITE] = "opposite",
        [LIKENESS_CHOICE_BOTH] = "choice_both",
        [LIKENESS_CHOICE_ONE] = "choice_one",
        [LIKENESS_QUESTION] = "question",
        [LIKENESS_QUOTED_BOTH] = "quoted_both",
        [LIKENESS_QUOTED_ONE] = "quoted_one",
        [LIKENESS_SYMBOLS] = "symbols",
        [LIKENESS_ROLES] = "roles",
        [LIKENESS_ORDER] = "order",
        [LIKENESS_REPLACED] = "replaced",
        [LIKENESS_MISSING_BOTH] = "missing_both",
        [LIKENESS_MISSING_MOST] = "missing_most",
        [LIKENESS_RARE_BOTH] = "rare_both",
        [LIKENESS_RARE_MOST] = "rare_most",
        [LIKENESS_INVERSE_LENGTH] = "inverse_length",
        [LIKENESS_DISORDER] = "disorder",
        [LIKENESS_SHARED] = "shared",
        [LIKENESS_SHARED_MOST] = "shared_most",
        [LIKENESS_COVERED] = "covered",
        [LIKENESS_WORDS] = "words",
        [LIKENESS_PAIRS] = "pairs",
        [LIKENESS_COSINE] = "cosine",
        [LIKENESS_COSINE_MOST] = "cosine_most",
    };
    return names[feature];
}
