#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "common/id.h"

static struct id_source make_source(void)
{
    struct id_source source;
    cr_assert_eq(id_source_init(&source), 0);
    return source;
}

Test(id, ids_grow_even_when_the_clock_goes_back)
{
    struct id_source source = make_source();
    struct id before = id_make(&source, 1000);
    for (int i = 0; i < 100000; i++) {
        const struct id id = id_make(&source, 1000 + (i * 7919) % 500 - 250);
        cr_assert_gt(memcmp(id.bytes, before.bytes, ID_BYTES), 0);
        before = id;
    }
}

Test(id, carries_its_time_version_and_variant)
{
    struct id_source source = make_source();
    const int64_t now_ms = 1790000000123;
    const struct id id = id_make(&source, now_ms);
    cr_assert_eq(id_unix_ms(&id), now_ms);
    cr_assert_eq(id.bytes[6] >> 4, 7);
    cr_assert_eq(id.bytes[8] >> 6, 2);
}

Test(id, nonsensical_clocks_still_give_different_ids)
{
    struct id_source source = make_source();
    const struct id first = id_make(&source, 0);
    const struct id second = id_make(&source, -5);
    const struct id third = id_make(&source, INT64_MAX);
    cr_assert_not(id_equal(&first, &second));
    cr_assert_not(id_equal(&second, &third));
    cr_assert_not(id_is_zero(&first));
}

Test(id, sources_do_not_meet)
{
    struct id_source one = make_source(), two = make_source();
    const struct id a = id_make(&one, 5000), b = id_make(&two, 5000);
    cr_assert_not(id_equal(&a, &b));
}

Test(id, text_reads_back_in_both_forms_and_cases)
{
    struct id_source source = make_source();
    const struct id id = id_make(&source, 1790000000123);
    char text[ID_TEXT_BYTES], plain[33], upper[ID_TEXT_BYTES];
    id_format(&id, text);
    cr_assert_eq(strlen(text), 36);
    size_t length = 0;
    for (size_t i = 0; i < sizeof(text); i++) {
        upper[i] = (char)(text[i] >= 'a' ? text[i] - 32 : text[i]);
        if (text[i] != '-') {
            plain[length++] = text[i];
        }
    }
    const char *forms[] = {text, plain, upper};
    for (size_t i = 0; i < 3; i++) {
        struct id read = {{0}};
        cr_assert_eq(id_parse(forms[i], &read), 0, "%s", forms[i]);
        cr_assert(id_equal(&read, &id));
    }
}

Test(id, other_texts_are_refused)
{
    const char *texts[] = {"",
                           "0",
                           "0192a6c8-1234-7abc-8def-0123456789a",
                           "0192a6c8-1234-7abc-8def-0123456789abc",
                           "0192a6c81-234-7abc-8def-0123456789ab",
                           "0192a6c8-1234-7abc-8def-0123456789ag",
                           "0192a6c8123-47abc-8def-0123456789ab12",
                           "0192a6c812347abc8def0123456789a ",
                           ("0192a6c8\xc3\xa9"
                            "2347abc8def0123456789ab")};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct id id;
        cr_assert_eq(id_parse(texts[i], &id), -EINVAL, "%s", texts[i]);
    }
}

Test(id, wire_bytes_have_one_length_and_are_not_all_zero)
{
    uint8_t bytes[ID_BYTES + 1] = {0};
    struct id id;
    cr_assert_eq(id_from_bytes(bytes, ID_BYTES, &id), -EINVAL);
    bytes[3] = 1;
    cr_assert_eq(id_from_bytes(bytes, ID_BYTES, &id), 0);
    cr_assert_eq(id.bytes[3], 1);
    cr_assert_eq(id_from_bytes(bytes, ID_BYTES - 1, &id), -EINVAL);
    cr_assert_eq(id_from_bytes(bytes, ID_BYTES + 1, &id), -EINVAL);
    cr_assert_eq(id_from_bytes(NULL, 0, &id), -EINVAL);
}

/* Exactly sized heap copies, so that AddressSanitizer sees a read past the end. */
Test(id, random_texts_are_read_within_their_bounds)
{
    const unsigned seed = 99;
    srand(seed);
    static const char letters[] = "0123456789abcdefABCDEF-gz ";
    for (int round = 0; round < 20000; round++) {
        const size_t length = (size_t)rand() % 50;
        char *text = malloc(length + 1);
        for (size_t i = 0; i < length; i++) {
            text[i] = letters[(size_t)rand() % (rand() % 20 == 0 ? sizeof(letters) - 1 : 22)];
        }
        text[length] = '\0';
        struct id id;
        if (id_parse(text, &id) == 0) {
            char formatted[ID_TEXT_BYTES];
            struct id again;
            id_format(&id, formatted);
            cr_assert_eq(id_parse(formatted, &again), 0, "seed %u", seed);
            cr_assert(id_equal(&id, &again), "seed %u", seed);
        }
        free(text);
    }
}

Test(id, hash_depends_on_the_secret)
{
    struct id_source source = make_source();
    const struct id id = id_make(&source, 1000);
    cr_assert_neq(id_hash(&id, 1), id_hash(&id, 2));
    cr_assert_eq(id_hash(&id, 1), id_hash(&id, 1));
}
