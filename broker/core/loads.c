#include "broker/core/loads.h"
#include <errno.h>
#include <stdlib.h>

int loads_init(struct loads *loads)
{
    *loads = (struct loads){.slots = calloc(LOADS_MAX, sizeof(struct load))};
    if (loads->slots == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < LOADS_MAX; i++) {
        loads->slots[i].next_free = (uint16_t)(i + 1);
        loads->slots[i].generation = 1;
    }
    return 0;
}

void loads_finish(struct loads *loads)
{
    free(loads->slots);
    *loads = (struct loads){0};
}

uint64_t loads_open(struct loads *loads, enum load_kind kind, const struct id *job_id,
                    uint64_t peer)
{
    if (loads->first_free == LOADS_MAX) {
        return 0;
    }
    const uint16_t index = loads->first_free;
    struct load *load = &loads->slots[index];
    loads->first_free = load->next_free;
    loads->open++;
    load->job_id = *job_id;
    load->peer = peer;
    load->kind = (uint8_t)kind;
    load->is_open = true;
    return (uint64_t)load->generation << 16 | index;
}

bool loads_close(struct loads *loads, uint64_t token, struct load *ret_load)
{
    const uint16_t index = (uint16_t)token;
    if (index >= LOADS_MAX) {
        return false;
    }
    struct load *load = &loads->slots[index];
    if (!load->is_open || load->generation != token >> 16) {
        return false;
    }
    *ret_load = *load;
    load->is_open = false;
    load->generation++;
    load->next_free = loads->first_free;
    loads->first_free = index;
    loads->open--;
    return true;
}
