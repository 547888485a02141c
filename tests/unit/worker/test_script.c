#include <criterion/criterion.h>
#include "worker/cache/script.h"

Test(script, is_that_of_most_letters)
{
    cr_assert_str_eq(script_of("How much is it?"), "latin");
    cr_assert_str_eq(script_of("Wieviel kostet das Fr\xc3\xbchst\xc3\xbc" "ck?"), "latin");
    cr_assert_str_eq(script_of("\xd0\xa1\xd0\xba\xd0\xbe\xd0\xbb\xd1\x8c\xd0\xba\xd0\xbe \xd1\x8d\xd1\x82\xd0\xbe GPT?"), "cyrillic");
    cr_assert_str_eq(script_of("\xe5\xa4\x9a\xe5\xb0\x91\xe9\x92\xb1"), "han");
    cr_assert_str_eq(script_of("\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x81\xaf"), "kana", "Han beside kana is Japanese");
    cr_assert_str_eq(script_of("\xec\x96\xbc\xeb\xa7\x88\xec\x98\x88\xec\x9a\x94"), "hangul");
    cr_assert_str_eq(script_of("\xd9\x83\xd9\x85"), "arabic");
}

Test(script, texts_without_letters_are_as_latin_ones)
{
    cr_assert_str_eq(script_of(""), "latin");
    cr_assert_str_eq(script_of("2 + 2 = ?"), "latin");
    cr_assert_str_eq(script_of("\xff\xfe\xc3"), "latin");
}
