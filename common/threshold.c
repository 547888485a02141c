/* Counting, adding up, and bytes. What follows from the counts: threshold_decide.c. */
#include "common/threshold.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <xxhash.h>

enum { PACKED_VERSION = 1, ONE = 256 /* 1 in fixed point */ };

void threshold_scale_even(double low, double high, struct threshold_scale *ret_scale)
{
    for (size_t i = 0; i < THRESHOLD_BINS - 1; i++) {
        ret_scale->edges[i] = (float)(low + (high - low) * (double)i / (THRESHOLD_BINS - 2));
    }
}

uint32_t threshold_scale_fingerprint(const struct threshold_scale *scale)
{
    return (uint32_t)XXH3_64bits(scale->edges, sizeof(scale->edges));
}

void threshold_init(const struct threshold_scale *scale, struct threshold_evidence *ret_evidence)
{
    *ret_evidence = (struct threshold_evidence){.scale = threshold_scale_fingerprint(scale)};
}

/* The number of edges at or below the score; a score that is no number is like none at all. */
static size_t bin_of(const struct threshold_scale *scale, double score)
{
    size_t low = 0;
    size_t high = THRESHOLD_BINS - 1;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (score >= (double)scale->edges[middle]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void count(uint32_t *counter, uint64_t more)
{
    const uint64_t sum = *counter + more;
    *counter = sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX;
}

/* Forgotten epochs become all zero, so that equal evidence is equal bytes. */
void threshold_advance(struct threshold_evidence *evidence, uint64_t epoch)
{
    if (epoch <= evidence->newest) {
        return;
    }
    evidence->newest = epoch;
    for (size_t i = 0; i < THRESHOLD_EPOCHS; i++) {
        struct threshold_epoch *slot = &evidence->epochs[i];
        if (epoch - slot->number >= THRESHOLD_EPOCHS) {
            *slot = (struct threshold_epoch){0};
        }
    }
}

/* NULL: it is no longer kept. */
static struct threshold_epoch *slot_of(struct threshold_evidence *evidence, uint64_t epoch)
{
    threshold_advance(evidence, epoch);
    if (evidence->newest - epoch >= THRESHOLD_EPOCHS) {
        return NULL;
    }
    struct threshold_epoch *slot = &evidence->epochs[epoch % THRESHOLD_EPOCHS];
    slot->number = epoch;
    return slot;
}

void threshold_add_lookup(struct threshold_evidence *evidence, const struct threshold_scale *scale,
                          uint64_t epoch, double score, bool is_served)
{
    struct threshold_epoch *slot = slot_of(evidence, epoch);
    if (slot != NULL) {
        count(&slot->bins[bin_of(scale, score)].seen, 1);
        slot->hits += is_served;
    }
}

static void count_audit(struct threshold_epoch *slot, bool is_right, uint32_t probability_permille)
{
    assert(probability_permille >= 1 && probability_permille <= 1000);
    const uint64_t weight = UINT64_C(1000) * ONE / probability_permille;
    slot->audits++;
    slot->weight += weight;
    slot->weight_square += weight * weight / ONE;
    if (!is_right) {
        slot->audits_wrong++;
        slot->weight_wrong += weight;
    }
}

void threshold_add(struct threshold_evidence *evidence, const struct threshold_scale *scale,
                   uint64_t epoch, double score, enum threshold_kind kind, bool is_right,
                   uint32_t probability_permille)
{
    struct threshold_epoch *slot = slot_of(evidence, epoch);
    if (slot == NULL) {
        return;
    }
    struct threshold_bin *bin = &slot->bins[bin_of(scale, score)];
    switch (kind) {
    case THRESHOLD_AUDIT:
        count_audit(slot, is_right, probability_permille);
        count(is_right ? &bin->right : &bin->wrong, 1);
        return;
    case THRESHOLD_MISS:
        count(is_right ? &bin->right : &bin->wrong, 1);
        return;
    case THRESHOLD_FEEDBACK:
        count(&bin->reported, is_right ? 0 : 1);
        return;
    }
}

static bool epoch_is_empty(const struct threshold_epoch *epoch)
{
    static const struct threshold_epoch none = {0};
    return memcmp(&epoch->hits, &none.hits,
                  sizeof(none) - offsetof(struct threshold_epoch, hits)) == 0;
}

static void add_epoch(struct threshold_epoch *into, const struct threshold_epoch *from)
{
    into->hits += from->hits;
    into->audits += from->audits;
    into->audits_wrong += from->audits_wrong;
    into->weight += from->weight;
    into->weight_wrong += from->weight_wrong;
    into->weight_square += from->weight_square;
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        count(&into->bins[i].seen, from->bins[i].seen);
        count(&into->bins[i].right, from->bins[i].right);
        count(&into->bins[i].wrong, from->bins[i].wrong);
        count(&into->bins[i].reported, from->bins[i].reported);
    }
}

int threshold_merge(struct threshold_evidence *into, const struct threshold_evidence *from)
{
    if (into->scale != from->scale) {
        return -EINVAL;
    }
    threshold_advance(into, from->newest);
    for (size_t i = 0; i < THRESHOLD_EPOCHS; i++) {
        const struct threshold_epoch *epoch = &from->epochs[i];
        struct threshold_epoch *slot = epoch_is_empty(epoch) ? NULL : slot_of(into, epoch->number);
        if (slot != NULL) {
            add_epoch(slot, epoch);
        }
    }
    return 0;
}

void threshold_restart(struct threshold_evidence *evidence)
{
    struct threshold_epoch all = {0};
    for (size_t i = 0; i < THRESHOLD_EPOCHS; i++) {
        add_epoch(&all, &evidence->epochs[i]);
    }
    *evidence = (struct threshold_evidence){.scale = evidence->scale, .epochs = {all}};
}

bool threshold_epoch_is_full(const struct threshold_evidence *evidence)
{
    const struct threshold_epoch *newest = &evidence->epochs[evidence->newest % THRESHOLD_EPOCHS];
    uint64_t seen = 0;
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        seen += newest->bins[i].seen;
    }
    return seen >= THRESHOLD_EPOCH_LOOKUPS;
}

/* ------------------------------------------------------------------------- bytes */

static uint8_t *put(uint8_t *at, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) {
        *at++ = (uint8_t)(value | 0x80);
    }
    *at++ = (uint8_t)value;
    return at;
}

static bool bin_is_empty(const struct threshold_bin *bin)
{
    return (bin->seen | bin->right | bin->wrong | bin->reported) == 0;
}

static uint8_t *put_epoch(uint8_t *at, const struct threshold_epoch *epoch, uint64_t age)
{
    const uint64_t totals[] = {
        age,           epoch->hits,         epoch->audits,       epoch->audits_wrong,
        epoch->weight, epoch->weight_wrong, epoch->weight_square};
    for (size_t i = 0; i < ARRAY_LENGTH(totals); i++) {
        at = put(at, totals[i]);
    }
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        const struct threshold_bin *bin = &epoch->bins[i];
        if (!bin_is_empty(bin)) {
            at = put(at, i);
            at = put(at, bin->seen);
            at = put(at, bin->right);
            at = put(at, bin->wrong);
            at = put(at, bin->reported);
        }
    }
    return put(at, THRESHOLD_BINS); /* ends the list of bins */
}

size_t threshold_pack(const struct threshold_evidence *evidence, uint8_t *ret_bytes)
{
    uint8_t *at = put(ret_bytes, PACKED_VERSION);
    at = put(at, evidence->scale);
    at = put(at, evidence->newest);
    for (uint64_t age = 0; age < THRESHOLD_EPOCHS && age <= evidence->newest; age++) {
        const struct threshold_epoch *epoch =
            &evidence->epochs[(evidence->newest - age) % THRESHOLD_EPOCHS];
        if (!epoch_is_empty(epoch)) {
            at = put_epoch(at, epoch, age);
        }
    }
    at = put(at, THRESHOLD_EPOCHS); /* ends the list of epochs */
    return (size_t)(at - ret_bytes);
}

struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool is_bad;
};

/* 0 once something was bad. */
static uint64_t take(struct reader *reader, uint64_t most)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && reader->at < reader->end; shift += 7) {
        const uint8_t byte = *reader->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            reader->is_bad = reader->is_bad || value > most || (shift == 63 && byte > 1);
            return reader->is_bad ? 0 : value;
        }
    }
    reader->is_bad = true;
    return 0;
}

static void take_bins(struct reader *reader, struct threshold_epoch *epoch)
{
    for (;;) {
        const uint64_t i = take(reader, THRESHOLD_BINS);
        if (reader->is_bad || i == THRESHOLD_BINS) {
            return;
        }
        struct threshold_bin *bin = &epoch->bins[i];
        reader->is_bad = !bin_is_empty(bin); /* twice */
        bin->seen = (uint32_t)take(reader, UINT32_MAX);
        bin->right = (uint32_t)take(reader, UINT32_MAX);
        bin->wrong = (uint32_t)take(reader, UINT32_MAX);
        bin->reported = (uint32_t)take(reader, UINT32_MAX);
    }
}

/* Far from overflow, whatever is added to it. */
static const uint64_t TOTAL_MAX = UINT64_C(1) << 48;

/* False: the list has ended, or is bad. */
static bool take_epoch(struct reader *reader, struct threshold_evidence *evidence)
{
    const uint64_t age = take(reader, THRESHOLD_EPOCHS);
    if (reader->is_bad || age == THRESHOLD_EPOCHS) {
        return false;
    }
    if (age > evidence->newest) {
        reader->is_bad = true;
        return false;
    }
    const uint64_t number = evidence->newest - age;
    struct threshold_epoch *epoch = &evidence->epochs[number % THRESHOLD_EPOCHS];
    reader->is_bad = !epoch_is_empty(epoch); /* twice */
    epoch->number = number;
    epoch->hits = take(reader, TOTAL_MAX);
    epoch->audits = take(reader, TOTAL_MAX);
    epoch->audits_wrong = take(reader, epoch->audits);
    epoch->weight = take(reader, TOTAL_MAX);
    epoch->weight_wrong = take(reader, epoch->weight);
    epoch->weight_square = take(reader, TOTAL_MAX);
    take_bins(reader, epoch);
    return !reader->is_bad;
}

int threshold_unpack(const uint8_t *bytes, size_t length, struct threshold_evidence *ret_evidence)
{
    struct reader reader = {.at = bytes, .end = bytes + length};
    struct threshold_evidence evidence = {0};
    if (take(&reader, UINT64_MAX) != PACKED_VERSION) {
        return -EBADMSG;
    }
    evidence.scale = (uint32_t)take(&reader, UINT32_MAX);
    evidence.newest = take(&reader, TOTAL_MAX);
    while (take_epoch(&reader, &evidence)) {
    }
    if (reader.is_bad || reader.at != reader.end) {
        return -EBADMSG;
    }
    *ret_evidence = evidence;
    return 0;
}

/* ------------------------------------------------------------------------- the seed */

static uint8_t *put_u32(uint8_t *at, uint32_t value)
{
    const uint32_t little = htole32(value);
    memcpy(at, &little, sizeof(little));
    return at + sizeof(little);
}

static uint32_t take_u32(const uint8_t **at)
{
    uint32_t little;
    memcpy(&little, *at, sizeof(little));
    *at += sizeof(little);
    return le32toh(little);
}

void threshold_pack_seed(const struct threshold_seed *seed, uint8_t ret_bytes[THRESHOLD_SEED_BYTES])
{
    uint8_t *at = ret_bytes;
    *at++ = PACKED_VERSION;
    for (size_t i = 0; i < THRESHOLD_BINS - 1; i++) {
        uint32_t bits;
        memcpy(&bits, &seed->scale.edges[i], sizeof(bits));
        at = put_u32(at, bits);
    }
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        at = put_u32(at, seed->right[i]);
        at = put_u32(at, seed->wrong[i]);
    }
    uint64_t weight;
    memcpy(&weight, &seed->weight, sizeof(weight));
    at = put_u32(at, (uint32_t)weight);
    (void)put_u32(at, (uint32_t)(weight >> 32));
}

static bool seed_is_good(const struct threshold_seed *seed)
{
    bool is_good = isfinite(seed->weight) && seed->weight >= 0;
    for (size_t i = 0; i < THRESHOLD_BINS - 1; i++) {
        is_good = is_good && isfinite(seed->scale.edges[i]) &&
                  (i == 0 || seed->scale.edges[i - 1] <= seed->scale.edges[i]);
    }
    return is_good;
}

int threshold_unpack_seed(const uint8_t *bytes, size_t length, struct threshold_seed *ret_seed)
{
    if (length != THRESHOLD_SEED_BYTES || bytes[0] != PACKED_VERSION) {
        return -EBADMSG;
    }
    struct threshold_seed seed;
    const uint8_t *at = bytes + 1;
    for (size_t i = 0; i < THRESHOLD_BINS - 1; i++) {
        const uint32_t bits = take_u32(&at);
        memcpy(&seed.scale.edges[i], &bits, sizeof(bits));
    }
    for (size_t i = 0; i < THRESHOLD_BINS; i++) {
        seed.right[i] = take_u32(&at);
        seed.wrong[i] = take_u32(&at);
    }
    const uint64_t low = take_u32(&at);
    const uint64_t weight = (uint64_t)take_u32(&at) << 32 | low;
    memcpy(&seed.weight, &weight, sizeof(weight));
    if (!seed_is_good(&seed)) {
        return -EBADMSG;
    }
    *ret_seed = seed;
    return 0;
}
