/*
 * damage: records that a disk has spoilt, read at a start beside the good ones.
 *
 * Each is made from a good record, cut short or with one field out of its bounds, so that the core
 * has to refuse it (-EBADMSG) and may lose nothing by that.
 */
#pragma once
#include "tests/simulation/simulation.h"

/* What was read for this EFFECT_LOAD is spoilt: its value is changed, or there is none. */
void damage_load(struct simulation *simulation, const struct effect *effect,
                 struct message *message);
/* After this record of the store was read. */
void damage_restore(struct simulation *simulation, enum store_family family, const void *key,
                    size_t key_bytes, const struct blob *value);
