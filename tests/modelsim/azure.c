#include "tests/modelsim/azure.h"

static const char safe[] = "\"hate\":{\"filtered\":false,\"severity\":\"safe\"},\"self_harm\":{\"filtered\":false,\"severity\":\"safe\"},"
                           "\"sexual\":{\"filtered\":false,\"severity\":\"safe\"}";

void azure_write_prompt_filter(FILE *out)
{
    fprintf(out, ",\"prompt_filter_results\":[{\"prompt_index\":0,\"content_filter_results\":{%s,"
            "\"violence\":{\"filtered\":false,\"severity\":\"safe\"}}}]", safe);
}

void azure_write_choice_filter(const struct reply *reply, FILE *out)
{
    fprintf(out, ",\"content_filter_results\":{%s,\"violence\":{\"filtered\":%s,\"severity\":\"%s\"}}", safe,
            reply->is_filtered ? "true" : "false", reply->is_filtered ? "high" : "safe");
}

void azure_write_begin(FILE *out)
{
    fprintf(out, "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\"");
    azure_write_prompt_filter(out);
    fprintf(out, "}\n\n");
}

/* A code is a number in a text, but for deployments. */
void azure_write_error(int status, const char *quoted_text, FILE *out)
{
    if (status == 404) {
        fprintf(out, "{\"error\":{\"code\":\"DeploymentNotFound\",\"message\":%s}}", quoted_text);
    } else {
        fprintf(out, "{\"error\":{\"code\":\"%d\",\"message\":%s}}", status, quoted_text);
    }
}
