/*
 * script: in which writing most of a text's letters are, so that no question is answered by one in another.
 *
 * By ranges of Unicode's blocks, not by its script property: enough to tell writings apart, not languages. Texts of two languages in
 * one writing are the same here. Pure.
 */
#pragma once
#include <stddef.h>

/*
 * A word in lower case; "latin" for texts without letters, too, so that figures alone may be asked either way. Static. What is
 * not UTF-8 counts as no letter.
 */
const char *script_of(const char *text);
