#include "worker/cache/invalidations.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t KEY[INVALIDATIONS_KEY_BYTES] = {1, 2, 3};
static struct invalidations *invalidations;

static size_t texts_read;

static int read_text(const char *text, void **ret_text)
{
    texts_read++;
    *ret_text = strdup(text);
    return 0;
}

/* As near as the share of their first bytes that are the same. */
static double cosine_of(const void *left, const void *right)
{
    const char *text = left, *other = right;
    size_t same = 0;
    while (text[same] != '\0' && text[same] == other[same]) {
        same++;
    }
    return (double)same / (double)strlen(text);
}

static const struct nearness nearness = {.read = read_text, .cosine = cosine_of};

static void start(void)
{
    cr_assert_eq(invalidations_create(&nearness, &invalidations), 0);
}

static void stop(void)
{
    invalidations_destroy(&invalidations);
}

TestSuite(invalidations, .init = start, .fini = stop);

static char *tags[] = {"prices", "eu"};
static char *documents[] = {"doc-7"};
static uint8_t scope[16] = {9};

static Record__CacheAbout an_entry(void)
{
    Record__CacheAbout about = RECORD__CACHE_ABOUT__INIT;
    about.tenant = "shop";
    about.cache_namespace = "faq";
    about.route = "auto";
    about.model = "small";
    about.template_version = "v3";
    about.tags = tags;
    about.n_tags = 2;
    about.documents = documents;
    about.n_documents = 1;
    about.scope = (ProtobufCBinaryData){sizeof(scope), scope};
    about.text = "what does it cost";
    about.filled_unix_ms = 100000;
    return about;
}

static bool fits(const Wire__CacheSelector *message)
{
    const Record__CacheAbout about = an_entry();
    struct selector selector;
    cr_assert_eq(selector_init(&selector, message, 200000, &nearness), 0);
    const bool does_fit = selector_fits(&selector, KEY, &about);
    selector_finish(&selector);
    return does_fit;
}

#define FITS(field, value)                                                                         \
    do {                                                                                           \
        Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;                                 \
        selector.field = value;                                                                    \
        cr_expect(fits(&selector), #field " " #value);                                             \
    } while (0)
#define FITS_NOT(field, value)                                                                     \
    do {                                                                                           \
        Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;                                 \
        selector.field = value;                                                                    \
        cr_expect(!fits(&selector), #field " " #value);                                            \
    } while (0)

Test(invalidations, each_field_selects)
{
    FITS(tenant, "shop");
    FITS_NOT(tenant, "sho");
    FITS(tag, "eu");
    FITS_NOT(tag, "us");
    FITS(document, "doc-7");
    FITS_NOT(document, "doc-70");
    FITS(route, "auto");
    FITS_NOT(route, "small");
    FITS(model, "small");
    FITS_NOT(model, "large");
    FITS(template_version, "v3");
    FITS_NOT(template_version, "v2");
    FITS(text_prefix, "what does");
    FITS_NOT(text_prefix, "What does");
    FITS_NOT(has_namespace, true); /* the empty one */
    FITS(older_than_ms, 99999);
    FITS_NOT(older_than_ms, 100000);
}

Test(invalidations, bytes_and_nearness_select)
{
    uint8_t other[16] = {8};
    FITS(key, ((ProtobufCBinaryData){sizeof(KEY), (uint8_t *)KEY}));
    FITS_NOT(key, ((ProtobufCBinaryData){sizeof(other), other}));
    FITS(scope, ((ProtobufCBinaryData){sizeof(scope), scope}));
    FITS_NOT(scope, ((ProtobufCBinaryData){sizeof(other), other}));
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.near_text = "what does it weigh";
    selector.near_cosine_min = 0.7;
    cr_assert(fits(&selector));
    selector.near_cosine_min = 0.8;
    cr_assert_not(fits(&selector));
}

Test(invalidations, all_fields_have_to_fit)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    cr_assert(fits(&selector), "nothing is asked for");
    selector.tenant = "shop";
    selector.tag = "prices";
    selector.has_namespace = true;
    selector.cache_namespace = "faq";
    cr_assert(fits(&selector));
    selector.model = "large";
    cr_assert_not(fits(&selector));
}

static bool is_invalid(uint64_t born)
{
    const Record__CacheAbout about = an_entry();
    return invalidations_fit(invalidations, KEY, &about, born);
}

static void invalidate_of(char *tenant, char *tag, uint64_t swept)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.tenant = tenant;
    selector.tag = tag;
    cr_assert_eq(invalidations_add(invalidations, &selector, swept, 200000), 0);
}

static void invalidate(char *tag)
{
    invalidate_of("", tag, 0);
}

Test(invalidations, what_began_before_is_taken_away_and_what_began_later_is_not)
{
    cr_assert_not(is_invalid(0));
    invalidate("prices");
    cr_assert(is_invalid(0));
    cr_assert_not(is_invalid(1));
    invalidate("us");
    cr_assert(is_invalid(0));
    cr_assert_not(is_invalid(1));
    cr_assert_eq(invalidations_add(invalidations, NULL, 0, 200000), 0);
    cr_assert(is_invalid(2), "everything");
    cr_assert_not(is_invalid(3));
}

Test(invalidations, forgotten_ones_do_not_count)
{
    invalidate("prices");
    invalidate("us");
    invalidations_forget(invalidations, 1);
    cr_assert_not(is_invalid(0));
    cr_assert_eq(invalidations_length(invalidations), 1);
    cr_assert_eq(invalidations_latest(invalidations), 2);
}

Test(invalidations, time_says_which_had_come)
{
    cr_assert_eq(invalidations_before(invalidations, 300000), 0);
    for (int i = 1; i <= 3; i++) {
        cr_assert_eq(invalidations_add(invalidations, NULL, 0, i * 1000), 0);
    }
    cr_assert_eq(invalidations_before(invalidations, 3001), 3);
    cr_assert_eq(invalidations_before(invalidations, 3000), 2);
    cr_assert_eq(invalidations_before(invalidations, 1), 0);
    invalidations_forget(invalidations, 2);
    cr_assert_eq(invalidations_before(invalidations, 3001), 3);
    cr_assert_lt(invalidations_before(invalidations, 2500), invalidations_forgotten(invalidations),
                 "it is not known");
}

Test(invalidations, beyond_the_bound_swept_ones_are_forgotten)
{
    invalidate("us");
    for (uint64_t i = 1; i < INVALIDATIONS_MAX + 5; i++) {
        invalidate_of("", "us", i);
    }
    cr_assert_eq(invalidations_length(invalidations), INVALIDATIONS_MAX);
    cr_assert_eq(invalidations_forgotten(invalidations), 5);
    cr_assert_not(is_invalid(0), "it was swept");
}

Test(invalidations, beyond_the_bound_unswept_ones_take_all_of_their_tenant_alone)
{
    invalidate_of("bar", "us", 0);
    for (int i = 0; i < INVALIDATIONS_MAX + 5; i++) {
        invalidate_of("cafe", "us", 0);
    }
    cr_assert_eq(invalidations_length(invalidations), INVALIDATIONS_MAX);
    cr_assert(is_invalid(0), "of bar there was none to take it");
    cr_assert_not(is_invalid(1), "of shop none came");
    for (int i = 0; i < INVALIDATIONS_MAX + 5; i++) {
        invalidate_of("shop", "us", 0);
    }
    cr_assert_eq(invalidations_length(invalidations), INVALIDATIONS_MAX);
    cr_assert(is_invalid(INVALIDATIONS_MAX + 6));
    cr_assert_not(is_invalid(invalidations_latest(invalidations) - 10), "the latest are known");
}

Test(invalidations, one_that_names_an_entry_takes_the_place_of_an_earlier_one)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.key = (ProtobufCBinaryData){sizeof(KEY), (uint8_t *)KEY};
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(invalidations_add(invalidations, &selector, 0, 200000), 0);
    }
    cr_assert_eq(invalidations_length(invalidations), 1);
    cr_assert(is_invalid(2));
    cr_assert_not(is_invalid(3));
    selector.tag = "us";
    cr_assert_eq(invalidations_add(invalidations, &selector, 0, 200000), 0);
    selector.tag = "";
    selector.tenant = "shop";
    cr_assert_eq(invalidations_add(invalidations, &selector, 0, 200000), 0);
    cr_assert_eq(invalidations_length(invalidations), 3, "they ask for something else");
}

static void invalidate_near(char *text)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.near_text = text;
    selector.near_cosine_min = 0.8;
    cr_assert_eq(invalidations_add(invalidations, &selector, 0, 200000), 0);
}

Test(invalidations, a_text_that_others_are_near_to_is_read_when_it_comes_and_never_again)
{
    invalidate_near("how much is it");
    invalidate_near("what is it worth");
    invalidate_near("where is it sold");
    cr_assert_eq(texts_read, 3);
    for (int i = 0; i < 10; i++) {
        cr_assert_not(is_invalid(0));
    }
    cr_assert_eq(texts_read, 3 + 10, "the entry's, once each time");
    cr_assert_not(is_invalid(3));
    cr_assert_eq(texts_read, 3 + 10, "nothing came since");
}

Test(invalidations, a_selector_by_itself_reads_its_text_once)
{
    const Record__CacheAbout about = an_entry();
    Wire__CacheSelector message = WIRE__CACHE_SELECTOR__INIT;
    struct selector selector;
    message.near_text = "how much is it";
    message.near_cosine_min = 0.8;
    cr_assert_eq(selector_init(&selector, &message, 200000, &nearness), 0);
    for (int i = 0; i < 10; i++) {
        cr_assert_not(selector_fits(&selector, KEY, &about));
    }
    cr_assert_eq(texts_read, 1 + 10, "and the entry's each time");
    message.tenant = "bar";
    cr_assert_not(selector_fits(&selector, KEY, &about));
    cr_assert_eq(texts_read, 1 + 10, "another field says no before");
    selector_finish(&selector);
}
