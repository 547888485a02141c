"""What the coefficients are fitted on: rows of features with their label, weight and clusters.

- pairs of semcache_dev.tsv, and as many random pairs of its texts (different answers): who fits on mined negatives alone learns how
  they were mined;
- of train_clusters.tsv each source's same number of texts, and for each its nearest texts by cosine, which is what the cache will decide
  on: the same answer when they are of one cluster;
- controlled edits of texts of train_clusters.tsv (edits.py).
"""
import pathlib
import random

import numpy

import edits
from data import by_key, fold_of

LEXICON = pathlib.Path(__file__).resolve().parents[2] / "worker" / "cache" / "lexicon.txt"
SEED = 20
QUERIES_PER_SOURCE = 500
CANDIDATES = 6
EDITS_PER_SOURCE = 250
WEIGHT_PAIRS, WEIGHT_RANDOM, WEIGHT_CANDIDATES, WEIGHT_EDITS = 1.0, 0.5, 0.3, 0.3
COST_OF_WRONG = 20.0  # a wrong hit costs as much as so many hits that were missed


class Rows:
    """Features, label, weight, the folds that a row touches (bits), and its source."""

    def __init__(self, features, same, weights, folds, source):
        self.features, self.same, self.weights, self.folds, self.source = features, same, weights, folds, source

    def outside(self, fold):
        return (self.folds >> fold & 1) == 0


def join(parts):
    return Rows(*(numpy.concatenate([getattr(part, name) for part in parts]) for name in ("features", "same", "weights", "folds", "source")))


def folds_of(*clusters):
    return sum({1 << fold_of(cluster) for cluster in clusters})


def made(rows, same, folds, sources, total):
    count = len(rows.query)
    return Rows(rows.features, numpy.array(same, bool), numpy.full(count, total / count), numpy.array(folds, int), numpy.array(sources))


def dev_rows(data, program):
    rows = program.pair_rows([(pair["text_a"], pair["text_b"]) for pair in data.pairs])
    kept = [data.pairs[i] for i in rows.query]
    return made(rows, [p["same"] for p in kept], [folds_of(p["cluster_a"], p["cluster_b"]) for p in kept], [p["source"] for p in kept], WEIGHT_PAIRS)


def random_rows(data, program):
    others = data.pairs[:]
    random.Random(SEED).shuffle(others)
    both = [(a, b) for a, b in zip(data.pairs, others) if a["cluster_a"] != b["cluster_b"]]
    rows = program.pair_rows([(a["text_a"], b["text_b"]) for a, b in both])
    kept = [both[i] for i in rows.query]
    return made(rows, [False] * len(kept), [folds_of(a["cluster_a"], b["cluster_b"]) for a, b in kept], ["random"] * len(kept), WEIGHT_RANDOM)


def sample_per_source(data, count):
    rng = random.Random(SEED)
    sample = []
    for _, rows in sorted(by_key(data.texts, "source").items()):
        texts = {row["text"]: row for row in rows}
        sample += rng.sample(list(texts.values()), min(count, len(texts)))
    return sample


def candidate_rows(data, program):
    texts = {row["text"]: row for row in data.texts}
    stored = list(texts)
    queries = sample_per_source(data, QUERIES_PER_SOURCE)
    rows = program.candidate_rows(stored, [row["text"] for row in queries], CANDIDATES)
    same = [queries[q]["cluster"] == texts[stored[t]]["cluster"] for q, t in zip(rows.query, rows.text)]
    sources = ["train " + queries[q]["source"] for q in rows.query]
    return made(rows, same, [0] * len(same), sources, WEIGHT_CANDIDATES)


def edit_rows(data, program, is_common):
    rng = random.Random(SEED + 1)
    sample = sample_per_source(data, EDITS_PER_SOURCE)
    others = sorted({word[2] for row in sample for word in edits.words_of(row["text"]) if len(word[2]) > 3 and not is_common(word[2])})
    opposites = edits.opposites_of(LEXICON)
    pairs, same = [], []
    for row in sample:
        text = row["text"]
        kept = [edits.keep(text, rng) for _ in range(3)]
        changed = [edits.swap(text, rng, is_common), edits.replace(text, rng, is_common, others), edits.negate(text, rng),
                   edits.turn(text, rng, opposites)]
        for other, is_same in [(edit, True) for edit in kept] + [(edits.dress(edit, rng), False) for edit in changed if edit is not None]:
            if other != text:
                pairs.append((text, other))
                same.append(is_same)
    rows = program.pair_rows(pairs)
    return made(rows, [same[i] for i in rows.query], [0] * len(rows.query), ["edits"] * len(rows.query), WEIGHT_EDITS)


def training_rows(data, program, is_common):
    rows = join([dev_rows(data, program), random_rows(data, program), candidate_rows(data, program), edit_rows(data, program, is_common)])
    rows.weights = numpy.where(rows.same, rows.weights, rows.weights * COST_OF_WRONG)
    return rows
