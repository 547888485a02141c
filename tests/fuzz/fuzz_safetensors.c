/* A file of tensors: what is taken lies in the file, one after the other, and can be read whole. */
#include "tests/fuzz/fuzz.h"
#include "worker/cache/safetensors.h"

static void check_tensor(const struct tensor *tensor, const uint8_t *data, size_t bytes)
{
    size_t elements = 1;
    double sum = 0;
    must_hold(tensor->data >= data && tensor->data + tensor->bytes <= data + bytes);
    for (size_t i = 0; i < tensor->dimensions; i++) {
        elements *= tensor->shape[i];
    }
    must_hold(elements <= tensor->bytes);
    for (size_t i = 0; i < elements; i++) {
        sum += tensor_number(tensor, i);
    }
    float *sums = calloc(elements + 1, sizeof(float));
    must_hold(sums != NULL);
    tensor_add(tensor, 0, elements, (float)sum, sums);
    free(sums);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct safetensors file;
    char error[REFUSAL_BYTES] = "";
    if (safetensors_read(data, bytes, &file, error) < 0) {
        must_hold(error[0] != '\0');
        return 0;
    }
    for (size_t i = 0; i < file.length; i++) {
        must_hold(safetensors_find(&file, file.tensors[i].name) != NULL);
        check_tensor(&file.tensors[i], data, bytes);
    }
    safetensors_finish(&file);
    return 0;
}
