#include "tests/modelsim/bill.h"

#include <string.h>

void bill_add(struct bill *bill, const struct server_options *options, const struct model_request *request, bool is_answered,
              uint64_t output_tokens)
{
    for (size_t i = 0; i < options->models_length; i++) {
        if (strcmp(options->models[i], request->model) == 0) {
            struct bill_sum *sum = is_answered ? &bill->rows[i].answered : &bill->rows[i].cut;
            sum->calls++;
            sum->input_tokens += request->input_tokens;
            sum->cached_tokens += request->cached_tokens;
            sum->cache_write_tokens += request->cache_write_tokens;
            sum->output_tokens += output_tokens;
        }
    }
}

static json_t *describe_sum(const struct bill_sum *sum)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "calls", (json_int_t)sum->calls, "input_tokens", (json_int_t)sum->input_tokens,
                     "cached_tokens", (json_int_t)sum->cached_tokens, "cache_write_tokens", (json_int_t)sum->cache_write_tokens,
                     "output_tokens", (json_int_t)sum->output_tokens);
}

json_t *bill_describe(const struct bill *bill, const struct server_options *options)
{
    json_t *models = json_object();
    for (size_t i = 0; i < options->models_length; i++) {
        json_object_set_new(models, options->models[i],
                            json_pack("{s:o, s:o}", "answered", describe_sum(&bill->rows[i].answered), "cut",
                                      describe_sum(&bill->rows[i].cut)));
    }
    return json_pack("{s:o}", "models", models);
}
