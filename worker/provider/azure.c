/*
 * Azure OpenAI: OpenAI's form behind a path that names the deployment. Source:
 * learn.microsoft.com/azure/ai-services/openai/reference (2024-10-21).
 *
 * What its filters found (prompt_filter_results, content_filter_results) passes through as it
 * comes; a prompt that they refuse is a 400, which outcome.h knows.
 */
#include "worker/provider/openai.h"

#include "worker/provider/address.h"

/* Responses have no deployment in their path, and only the v1 address in every version. */
static int azure_write_path(const struct provider_request *request, struct bytes *out)
{
    if (request->operation == OPERATION_RESPONSES) {
        return bytes_append_text(out, "/openai/v1/responses?api-version=v1");
    }
    int r = bytes_append_text(out, "/openai/deployments/");
    r = r < 0 ? r : address_append_encoded(out, request->model);
    return r < 0 ? r : openai_write_path(request, out);
}

static struct curl_slist *azure_add_headers(struct curl_slist *headers, const char *api_key)
{
    return protocol_add_key(headers, "api-key", api_key);
}

const struct protocol protocol_azure = {
    .write_path = azure_write_path,
    .write_body = openai_write_body,
    .add_headers = azure_add_headers,
    .read_event = openai_read_event,
};
