/* azure: what is special about Azure OpenAI's form of replies. Internal to protocol.c. */
#pragma once
#include "tests/modelsim/protocol.h"

/* What the filter found in the prompt, as members behind others (with a comma before them). */
void azure_write_prompt_filter(FILE *out);
/* What it found in a choice, likewise; of a chat with an answer that it cut, why. */
void azure_write_choice_filter(const struct reply *reply, FILE *out);
/* The first event of a stream, which has no choice. */
void azure_write_begin(FILE *out);
void azure_write_error(int status, const char *quoted_text, FILE *out);
