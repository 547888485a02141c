// bench-cache-hnsw: hnswlib beside our index of dense vectors, on the same clustered random vectors.
//
//   bench-cache-hnsw ENTRIES DIMENSIONS LOOKUPS
//
// hnswlib with its own defaults (M 16, ef_construction 200), inner products of normalised floats, ef
// raised until it finds 0.98 of what a scan finds; ours with int8. Then a tenth is deleted and as
// many are added. CPU time of the thread. One line of JSON.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <random>
#include <set>
#include <vector>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#include <hnswlib/hnswlib.h>
#pragma GCC diagnostic pop

extern "C" {
#include "worker/cache/vector_index.h"
}

namespace {

constexpr size_t hits_wanted = 8;
constexpr size_t clusters = 1000;
const uint8_t scope[VECTOR_SCOPE_BYTES] = {1};

double cpu_us()
{
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

size_t resident_bytes()
{
    size_t size = 0;
    size_t resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == nullptr || fscanf(file, "%zu %zu", &size, &resident) != 2) {
        exit(1);
    }
    fclose(file);
    return resident * 4096;
}

using vector_t = std::vector<float>;

struct world {
    std::mt19937_64 dice{1};
    std::normal_distribution<float> normal;
    std::vector<vector_t> centres;
    size_t dimensions;

    explicit world(size_t n) : dimensions(n)
    {
        for (size_t i = 0; i < clusters; i++) {
            centres.push_back(direction(nullptr));
        }
    }
    vector_t direction(const vector_t *centre)
    {
        vector_t values(dimensions);
        float square = 0;
        for (size_t i = 0; i < dimensions; i++) {
            values[i] = (centre == nullptr ? 0 : (*centre)[i]) +
                        normal(dice) * (centre == nullptr ? 1.0F : 0.7F) / std::sqrt(static_cast<float>(dimensions));
            square += values[i] * values[i];
        }
        for (float &value : values) {
            value /= std::sqrt(square);
        }
        return values;
    }
    // As it is with a byte a dimension: what is compared is indexes, not precision.
    vector_t some()
    {
        const vector_t exact = direction(&centres[dice() % clusters]);
        std::vector<int8_t> quantised(dimensions);
        float square = 0;
        if (!vector_quantise(exact.data(), dimensions, quantised.data())) {
            exit(1);
        }
        for (int8_t value : quantised) {
            square += static_cast<float>(value * value);
        }
        vector_t values;
        for (int8_t value : quantised) {
            values.push_back(static_cast<float>(value) / std::sqrt(square));
        }
        return values;
    }
};

void key_of(uint64_t number, uint8_t key[VECTOR_KEY_BYTES])
{
    const uint64_t halves[2] = {number * 0x9e3779b97f4a7c15U, number};
    memcpy(key, halves, sizeof(halves));
}

std::set<uint64_t> scan(const std::vector<vector_t> &vectors, size_t first, const vector_t &query)
{
    std::vector<std::pair<float, uint64_t>> all;
    for (size_t i = first; i < vectors.size(); i++) {
        float dot = 0;
        for (size_t d = 0; d < query.size(); d++) {
            dot += vectors[i][d] * query[d];
        }
        all.emplace_back(-dot, i);
    }
    std::partial_sort(all.begin(), all.begin() + hits_wanted, all.end());
    std::set<uint64_t> best;
    for (size_t i = 0; i < hits_wanted; i++) {
        best.insert(all[i].second);
    }
    return best;
}

struct outcome {
    double recall;
    double p50_us;
    double p99_us;
};

template <typename Search>
outcome measure(const std::vector<vector_t> &queries, const std::vector<std::set<uint64_t>> &wanted, Search search)
{
    size_t found = 0;
    std::vector<double> times;
    for (size_t i = 0; i < queries.size(); i++) {
        const double began = cpu_us();
        const std::vector<uint64_t> hits = search(queries[i]);
        times.push_back(cpu_us() - began);
        if (i < wanted.size()) {
            for (uint64_t hit : hits) {
                found += wanted[i].count(hit);
            }
        }
    }
    std::sort(times.begin(), times.end());
    return {static_cast<double>(found) / static_cast<double>(wanted.size() * hits_wanted), times[times.size() / 2],
            times[times.size() * 99 / 100]};
}

void print(const char *name, const outcome &outcome)
{
    printf(", \"%s_recall\": %.4f, \"%s_p50_us\": %.1f, \"%s_p99_us\": %.1f", name, outcome.recall, name, outcome.p50_us,
           name, outcome.p99_us);
}

std::vector<std::set<uint64_t>> scan_all(const std::vector<vector_t> &vectors, size_t first,
                                         const std::vector<vector_t> &queries)
{
    std::vector<std::set<uint64_t>> wanted;
    for (size_t i = 0; i < queries.size() && i < 200; i++) {
        wanted.push_back(scan(vectors, first, queries[i]));
    }
    return wanted;
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: bench-cache-hnsw ENTRIES DIMENSIONS LOOKUPS\n", stderr);
        return 2;
    }
    const size_t n = strtoul(argv[1], nullptr, 10);
    world world(strtoul(argv[2], nullptr, 10));
    std::vector<vector_t> vectors;
    std::vector<vector_t> queries;
    for (size_t i = 0; i < n + n / 10; i++) {
        vectors.push_back(world.some());
    }
    for (size_t i = strtoul(argv[3], nullptr, 10); i > 0; i--) {
        queries.push_back(world.some());
    }
    std::vector<vector_t> present(vectors.begin(), vectors.begin() + static_cast<long>(n));
    auto wanted = scan_all(present, 0, queries);

    printf("{\"entries\": %zu, \"dimensions\": %zu", n, world.dimensions);
    const vector_index_options options = {world.dimensions, static_cast<uint32_t>(2 * n), SIZE_MAX};
    vector_index *index = nullptr;
    if (vector_index_create(&options, &index) < 0) {
        return 1;
    }
    std::vector<int8_t> quantised(world.dimensions);
    auto add = [&](uint64_t i) {
        uint8_t key[VECTOR_KEY_BYTES];
        key_of(i, key);
        if (!vector_quantise(vectors[i].data(), world.dimensions, quantised.data()) ||
            vector_index_add(index, scope, key, quantised.data(), &i, sizeof(i)) < 0) {
            exit(1);
        }
    };
    auto ours = [&](const vector_t &query) {
        vector_hit hits[VECTOR_HITS_MAX];
        size_t length = 0;
        std::vector<uint64_t> found;
        if (!vector_quantise(query.data(), world.dimensions, quantised.data()) ||
            vector_index_best(index, scope, quantised.data(), -1, hits_wanted, hits, &length) < 0) {
            exit(1);
        }
        for (size_t i = 0; i < length; i++) {
            uint64_t number;
            memcpy(&number, hits[i].note, sizeof(number));
            found.push_back(number);
        }
        return found;
    };
    double began = cpu_us();
    for (uint64_t i = 0; i < n; i++) {
        add(i);
    }
    printf(", \"ours_fill_us\": %.1f", (cpu_us() - began) / static_cast<double>(n));
    vector_index_stats stats;
    vector_index_read_stats(index, &stats);
    printf(", \"ours_bytes_per_entry\": %.0f", static_cast<double>(stats.bytes) / static_cast<double>(n));
    print("ours", measure(queries, wanted, ours));

    const size_t before = resident_bytes();
    hnswlib::InnerProductSpace space(world.dimensions);
    auto graph = std::make_unique<hnswlib::HierarchicalNSW<float>>(&space, n + n / 10, 16, 200);
    auto theirs = [&](const vector_t &query) {
        auto queue = graph->searchKnn(query.data(), hits_wanted);
        std::vector<uint64_t> found;
        for (; !queue.empty(); queue.pop()) {
            found.push_back(queue.top().second);
        }
        return found;
    };
    began = cpu_us();
    for (uint64_t i = 0; i < n; i++) {
        graph->addPoint(vectors[i].data(), i);
    }
    printf(", \"hnswlib_fill_us\": %.1f, \"hnswlib_bytes_per_entry\": %.0f", (cpu_us() - began) / static_cast<double>(n),
           static_cast<double>(resident_bytes() - before) / static_cast<double>(n));
    size_t ef = 16;
    outcome of_theirs = {0, 0, 0};
    for (; of_theirs.recall < 0.98 && ef < 4096; ef *= 2) {
        graph->setEf(ef);
        of_theirs = measure(queries, wanted, theirs);
    }
    printf(", \"hnswlib_ef\": %zu", ef / 2);
    print("hnswlib", of_theirs);

    for (uint64_t i = 0; i < n / 10; i++) {
        uint8_t key[VECTOR_KEY_BYTES];
        key_of(i, key);
        (void)vector_index_remove(index, key);
        add(n + i);
        graph->markDelete(i);
        graph->addPoint(vectors[n + i].data(), n + i);
    }
    wanted = scan_all(vectors, n / 10, queries);
    print("ours_after_deletes", measure(queries, wanted, ours));
    print("hnswlib_after_deletes", measure(queries, wanted, theirs));
    printf("}\n");
    vector_index_destroy(&index);
    return 0;
}
