#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/unit/worker/dice.h"
#include "worker/prompt/space.h"
#include "worker/prompt/spans.h"

enum { TEXT_BYTES_MAX = 1 << 16 };

static void expect(const char *text, const char *wanted)
{
    struct bytes out = {.bytes_max = TEXT_BYTES_MAX};
    cr_assert_eq(space_tidy(text, strlen(text), &out), 0);
    cr_assert_str_eq(out.data == NULL ? "" : out.data, wanted);
    bytes_finish(&out);
}

static void expect_untouched(const char *text)
{
    expect(text, text);
}

Test(space, prose_loses_what_nobody_reads)
{
    expect("  \n Tell me   a story.  \n\n\n\nA  long one. \t\r\nPlease.\n\n",
           " Tell me a story.\n\nA long one.\nPlease.");
    expect("Title\n============\ntext", "Title\n===\ntext");
    expect("\xEF\xBB\xBFsoft\xC2\xADware", "software");
    expect("   ", "");
}

Test(space, code_stays)
{
    expect_untouched("Look:\n```\nint  x;\n\n\n\n  y  ;   \n```\nwell");
    expect_untouched("def f(a):\n    if a:\n        return  1\n\n\n\ndef g():\n    pass");
    expect_untouched("Why is `a  b` so");
    expect_untouched("~~~~\na   b\n```\nc   d\n~~~~\n");
}

Test(space, code_behind_what_is_never_closed_stays)
{
    expect_untouched("Type { first:\n\n```\n}\nx   y\n```\nwell");
    expect_untouched("Type { first:\n```\n}\nx   y\n```\nwell");
    expect_untouched("It is 5 \" wide.\n\n```\nprint(\"a\")\nx   y\n```\nwell");
    expect_untouched("He said “so.\n\n```\na”\nx   y\n```\nwell");
    expect_untouched("Type { first:\n\nfoo();\n} bar\nx   y\n\nwell");
    /* What looks like a fence in it may be none: the next one may be the first. */
    expect_untouched("So { be\n```\n} and\n\n```\nx   y\n```\nwell");
}

Test(space, only_fences_open_and_close)
{
    expect_untouched("```\na   b\n```python\nc   d\n```\nwell");
    expect_untouched("~~~ `a`\na   b\n~~~ \nwell");
    expect("```a b``` is in  line.\n\n```\nc   d\n```", "```a b``` is in line.\n\n```\nc   d\n```");
}

Test(space, code_beside_a_lone_backtick_stays)
{
    expect_untouched("Press ` and then `a  b` here.");
    expect_untouched("It`s this: `a  b` here.");
    expect_untouched("Call `a\nb   c` now.");
    expect("Call `a` or ``b `c`` now,  please", "Call `a` or ``b `c`` now, please");
}

Test(space, data_and_tables_stay)
{
    expect_untouched("Read {\"a\":  [1,   2], \"b\": \"x  y\"} now");
    expect_untouched("name   age   town\nAnn    31    Bonn");
    expect_untouched("a\tb\tc");
    expect_untouched("| a   | b |\n|-----|---|");
    expect_untouched("broken { \"a\":   1  and   on");
}

Test(space, quotations_numbers_and_addresses_stay)
{
    expect_untouched("He said \"so   what\" and left");
    expect_untouched("\xC2\xAB"
                     "deux   mots\xC2\xBB et");
    expect_untouched("the 'old   one' is");
    expect_untouched("in 1 000  000 cases");
    expect("well.  In 1 000  000 cases", "well. In 1 000  000 cases");
    expect_untouched("see http://a.b/c?d=1 .");
}

Test(space, quotations_beside_a_lone_mark_stay)
{
    expect_untouched("A 5 \" screen. He said \"so  what\" and left.");
    expect_untouched("He said \"a 5\" pipe,  please\" and left.");
    expect_untouched("\"It began so.\n\n\"And  ended so.\" He left.");
    expect_untouched("\"It began so.\n\nAnd  ended so.\" He left.");
    expect_untouched("五\"屏幕,他说\"好  的\"。");
    expect_untouched("A 5 \" x {\"a\":  \"b  c\",\n\n  \"d\":   2} end");
    expect("\"So,\" he said,  \"what?\"", "\"So,\" he said, \"what?\"");
}

Test(space, quotations_of_all_languages_stay)
{
    expect_untouched("Er sagt »so  was« und ‚so  was‘ und geht.");
    expect_untouched("Han sa ”så  där” och gick.");
    expect_untouched("Il dit ‹deux  mots› et 『二  つ』 et part.");
    expect_untouched("Un » deux. Il dit «deux  mots» et part.");
    expect_untouched("Er sagt »so «was  auch und geht.");
}

Test(space, indentation_stays)
{
    expect("- one\n  - two  \n    ", "- one\n  - two");
}

/*
 * Texts of pieces that matter, at random. Protected pieces must come out as they went in; twice is
 * once; nothing but white space, drawn lines and what is invisible goes.
 */
static const char *const prose[] = {" ",
                                    "  ",
                                    "\n",
                                    "\n\n\n",
                                    "word",
                                    "It",
                                    "\t",
                                    ".",
                                    "don't",
                                    "\xC3\xA9t\xC3\xA9",
                                    "\xE4\xB8\xAD",
                                    "-------------",
                                    "\xEF\xBB\xBF",
                                    "\r\n",
                                    "  - ",
                                    "'",
                                    "(",
                                    ")"};
static const char *const kept[] = {"\"a   b\"",     "`x   y`", "{\"k\":   1}",
                                   "[1,   2]",      "3  4",    "\n```\na   b\n\n\n\nc\n```\n",
                                   "https://x.y/z", "<a  b>"};

static void append(char *text, const char *piece)
{
    (void)strcat(text, piece); /* NOLINT: bounded by the number of pieces */
}

Test(space, protected_pieces_come_out_as_they_went_in)
{
    struct dice dice = {.state = 11};
    for (size_t round = 0; round < 3000; round++) {
        char text[4096] = "";
        struct bytes out = {.bytes_max = TEXT_BYTES_MAX};
        struct bytes again = {.bytes_max = TEXT_BYTES_MAX};
        size_t counts[ARRAY_LENGTH(kept)] = {0};
        for (size_t i = dice_below(&dice, 24); i > 0; i--) {
            if (dice_below(&dice, 4) == 0) {
                const size_t which = dice_below(&dice, ARRAY_LENGTH(kept));
                append(text, kept[which]);
                append(text, " ");
                counts[which]++;
            } else {
                append(text, prose[dice_below(&dice, ARRAY_LENGTH(prose))]);
            }
        }
        cr_assert_eq(space_tidy(text, strlen(text), &out), 0);
        const char *tidied = out.data == NULL ? "" : out.data;
        for (size_t i = 0; i < ARRAY_LENGTH(kept); i++) {
            size_t found = 0;
            for (const char *at = tidied; (at = strstr(at, kept[i])) != NULL; at++) {
                found++;
            }
            cr_assert_geq(found, counts[i], "%s is gone from: %s", kept[i], text);
        }
        cr_assert_leq(out.length, strlen(text));
        cr_assert_eq(space_tidy(tidied, out.length, &again), 0);
        cr_assert_eq(again.length, out.length);
        bytes_finish(&out);
        bytes_finish(&again);
    }
}

Test(spans, are_in_order_and_within_the_text)
{
    static const char text[] = "a \"b\" 12 `c` {d} <e> 'f";
    struct spans spans = {.items = NULL};
    cr_assert_eq(spans_find(text, strlen(text), &spans), 0);
    size_t at = 0;
    for (size_t i = 0; i < spans.length; i++) {
        cr_assert_geq(spans.items[i].from, at);
        cr_assert_gt(spans.items[i].to, spans.items[i].from);
        at = spans.items[i].to;
    }
    cr_assert_leq(at, strlen(text));
    cr_assert_eq(spans.length, 5);
    cr_assert(spans_has_code(&spans, 10, 20));
    cr_assert_not(spans_has_code(&spans, 0, 8));
    spans_finish(&spans);
}

/* A sentence of 1,000 bytes and more, with two blanks in it, between these. */
static void stays_between(const char *opening, const char *closing)
{
    char text[2048] = "";
    char inside[1200] = "He said: ";
    for (size_t i = 0; i < 50; i++) {
        strcat(inside, i == 25 ? "two  blanks as they were. " : "and so it went on. ");
    }
    (void)snprintf(text, sizeof(text), "It began so. %s%s%s That was it.", opening, inside,
                   closing);
    expect_untouched(text);
}

Test(spans, long_quotations_stay)
{
    stays_between("\"", "\"");
    stays_between("“", "”");
    stays_between("„", "“");
    stays_between("«", "»");
    stays_between("‘", "’");
    stays_between("'", "'");
    stays_between("「", "」");
    stays_between("\"\nFirst line,\n", "\nlast line\"");
}

Test(spans, long_quotation_may_be_of_any_two_marks_of_its_paragraph)
{
    char text[3000] = "A mark \" and more. ";
    for (size_t i = 0; i < 40; i++) {
        strcat(text, "and so it went on, as long as it takes. ");
    }
    strcat(text, "\n\"He said  so.\" So be it.");
    expect_untouched(text);
}

Test(spans, inches_open_no_quotation)
{
    expect_untouched("A pipe of 5\" and more. \"He said  so.\" So be it.");
    expect_untouched("It is 3\"\n\n\"He said  so.\" So be it.");
    expect_untouched("In \"1984\" and \"Room  101\" it is so.");
    expect_untouched("Ask for=\"2  of\" them.");
}

Test(spans, data_in_what_may_be_no_quotation_is_data)
{
    char text[2048] = "A mark \" and ";
    struct spans spans = {.items = NULL};
    for (size_t i = 0; i < 40; i++) {
        strcat(text, i == 30 ? "{\"a\": 1} " : "and so it went on, ");
    }
    cr_assert_eq(spans_find(text, strlen(text), &spans), 0);
    cr_assert(spans_has_code(&spans, 0, strlen(text)));
    spans_finish(&spans);
}

/* So many signs with nothing that ends them take twice as long as half of them. */
static double seconds_of(const char *part, size_t parts)
{
    const size_t bytes = strlen(part);
    struct spans spans = {.items = NULL};
    struct timespec begin;
    struct timespec end;
    char *text = malloc(parts * bytes + 1);
    cr_assert_not_null(text);
    for (size_t i = 0; i < parts; i++) {
        memcpy(text + i * bytes, part, bytes + 1);
    }
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
    cr_assert_eq(spans_find(text, parts * bytes, &spans), 0);
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    spans_finish(&spans);
    free(text);
    return (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
}

Test(spans, ends_that_never_come_are_looked_for_once)
{
    enum { PARTS = 80 * 1024 }; /* looked for each time to the end: minutes */
    static const char *const parts[] = {"<a ", "</b ", "“a ", "«a "};
    for (size_t i = 0; i < ARRAY_LENGTH(parts); i++) {
        const double seconds = seconds_of(parts[i], PARTS);
        cr_assert_lt(seconds, 1, "%s: %f s", parts[i], seconds);
    }
}

/* With many signs it is some tens of times what a text without any takes, not thousands. */
Test(spans, ends_are_looked_for_in_proportion_to_the_text)
{
    enum { PARTS = 800 * 1024, TIMES = 50 };
    static const char *const parts[] = {"'a ", "‘a ", "` ", "'a\n\n", "a' \"b "};
    const double most = 0.2 + TIMES * seconds_of("xa ", PARTS);
    for (size_t i = 0; i < ARRAY_LENGTH(parts); i++) {
        const double seconds = seconds_of(parts[i], PARTS);
        cr_assert_lt(seconds, most, "%s: %f s of %f", parts[i], seconds, most);
    }
}

Test(spans, code_is_looked_for_where_it_is_asked_about)
{
    enum { PARTS = 64 * 1024, ASKED = 4096, STEP = 16 };
    char *text = calloc(PARTS + 1, 4);
    struct spans spans = {.items = NULL};
    cr_assert_not_null(text);
    for (size_t i = 0; i < PARTS; i++) {
        memcpy(text + 4 * i, i == PARTS / 2 ? "`a` " : "1 a ", 5);
    }
    cr_assert_eq(spans_find(text, (size_t)4 * PARTS, &spans), 0);
    const clock_t begin = clock();
    size_t found = 0;
    for (size_t i = 0; i < ASKED; i++) {
        found += spans_has_code(&spans, i * 4 * STEP, (i + 1) * 4 * STEP) ? 1 : 0;
    }
    const double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    cr_assert_eq(found, 1);
    cr_assert_lt(seconds, 0.1, "%f s",
                 seconds); /* from the first span on each time: 0.3 s and more */
    spans_finish(&spans);
    free(text);
}

Test(spans, code_at_the_beginning_is_code)
{
    struct spans spans = {.items = NULL};
    cr_assert_eq(spans_find("`a b` and c", 11, &spans), 0);
    cr_assert_eq(spans.length, 1);
    cr_assert_eq(spans.items[0].from, 0);
    cr_assert_eq(spans.items[0].to, 5);
    cr_assert_eq(spans.items[0].kind, SPAN_CODE);
    spans_finish(&spans);
}

Test(spans, tag_ends_on_its_line_however_long_it_is)
{
    char text[4096] = "<a ";
    struct spans spans = {.items = NULL};
    memset(text + 3, 'x', 3000);
    strcat(text, "> <b\nand <c>");
    cr_assert_eq(spans_find(text, strlen(text), &spans), 0);
    cr_assert_eq(spans.length, 2);
    cr_assert_eq(spans.items[0].to, 3004);
    cr_assert_eq(spans.items[1].from, strlen(text) - 3);
    spans_finish(&spans);
}
