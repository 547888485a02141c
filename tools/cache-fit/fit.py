#!/usr/bin/python3
"""Fits what the built-in embedder decides by, and says how good it is. See README.md.

    tools/cache-fit/fit.py --data DIRECTORY [--build build] [--weights]
    tools/cache-fit/fit.py --data DIRECTORY [--build build] --clusters LIST --model FILE

Writes worker/cache/decision_builtin.inc and decision_counts.inc; with --weights first worker/cache/lexicon_weights.txt.
With --model it writes nothing of that but one line of bias and coefficients, fitted on the clusters of LIST (a name a line) alone.
"""
import argparse
import pathlib
import subprocess
import textwrap

import numpy

import monotone
import recipe
import weights
from data import FOLDS, Data, Program
from stream import Stream

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / "worker" / "cache"
COMMON_WEIGHT_MAX = 150  # of the lexicon: rarer words are worth an edit
FIRST_NO_GUARD, FIRST_FOR = "replaced", "shared"  # features before the one are guards, from the other on speak for
GUARD_LEAST = 1.0
RARE_GUARDS = {"order": 2.0, "symbols": 2.0}  # least of those that no source holds enough of: reversals, sums
BINS = 64  # THRESHOLD_BINS of common/threshold.h


def bounds_of(names):
    """A guard never speaks for, and always a little against: data that seldom makes it speak does not silence it."""
    first_for, guards = names.index(FIRST_FOR), names.index(FIRST_NO_GUARD)
    least = numpy.concatenate([numpy.full(first_for, -numpy.inf), numpy.zeros(len(names) - first_for)])
    most = numpy.concatenate([[-RARE_GUARDS.get(name, GUARD_LEAST) for name in names[:guards]], numpy.zeros(first_for - guards), numpy.full(len(names) - first_for, numpy.inf)])
    return least, most


def common_words():
    lines = (CACHE / "lexicon_weights.txt").read_text(encoding="ascii").splitlines()
    stems = {word for word, weight in (line.split() for line in lines if not line.startswith("#")) if int(weight) <= COMMON_WEIGHT_MAX}
    return lambda word: word.lower() in stems or len(word) < 2


def fit_rows(rows, names, chosen):
    model = monotone.fit(rows.features[chosen], rows.same[chosen], rows.weights[chosen], *bounds_of(names))
    model[0] += numpy.log(recipe.COST_OF_WRONG)  # so that a score is a logit again
    return model


def fold_models(rows, names):
    return [fit_rows(rows, names, rows.outside(fold)) for fold in range(FOLDS)]


def of_fold(scores, folds):
    return scores[numpy.arange(len(folds)), folds]


def edges_of(scores):
    """Ascending edges of BINS bins that hold about as many scores each; where scores tie, the widest bins are halved instead."""
    edges = numpy.unique(numpy.round(numpy.quantile(scores, numpy.arange(1, BINS) / BINS), 3))
    while len(edges) < BINS - 1:
        at = numpy.argmax(numpy.diff(edges))
        edges = numpy.insert(edges, at + 1, (edges[at] + edges[at + 1]) / 2)
    return edges


def counts_of(stream, score):
    """Edges of bins of the score, and right and wrong answers in each."""
    scores, right = stream.best(score)
    edges = edges_of(scores)
    bins = numpy.searchsorted(edges, scores, side="right")
    return edges, numpy.bincount(bins[right], minlength=BINS), numpy.bincount(bins[~right], minlength=BINS)


def write_model(model, names):
    with open(CACHE / "decision_builtin.inc", "w", encoding="ascii") as file:
        file.write("/* Made by tools/cache-fit; fitted coefficients of the built-in embedder. */\n")
        file.write(f".bias = {model[0]:.4f},\n.weights = {{\n")
        for name, value in zip(names, model[1:]):
            file.write(f"    [LIKENESS_{name.upper()}] = {value:.4f},\n")
        file.write("},\n")


def write_counts(edges, right, wrong):
    with open(CACHE / "decision_counts.inc", "w", encoding="ascii") as file:
        file.write("/* Made by tools/cache-fit: a threshold_seed (common/threshold.h) without its weight: best candidates of queries whose\n"
                   " * clusters the fit had not seen, by the built-in score. */\n")
        for name, values in ((".scale = {.edges", [f"{edge:.4f}F" for edge in edges]), (".right", right), (".wrong", wrong)):
            text = ", ".join(map(str, values))
            file.write(textwrap.fill(f"{name} = {{{text}}}" + ("}," if "edges" in name else ","), 100, subsequent_indent="    ") + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--weights", action="store_true", help="make the lexicon's weights first")
    parser.add_argument("--clusters", help="fit on these alone")
    parser.add_argument("--model", help="write the coefficients there, and nothing else")
    arguments = parser.parse_args()
    data, program = Data(arguments.data), Program(arguments.build)
    if arguments.clusters:
        data.keep_clusters(set(pathlib.Path(arguments.clusters).read_text(encoding="utf-8").splitlines()))
    if arguments.weights:
        words, sources = weights.write_weights(data, program, CACHE / "lexicon_weights.txt")
        print(f"lexicon: {words} words of {sources} sources")
        subprocess.run(["ninja", "-C", arguments.build, "--quiet", "tests/bench/bench-cache-quality"], check=True)
    names = program.names
    rows = recipe.training_rows(data, program, common_words())
    if arguments.model:
        model = fit_rows(rows, names, numpy.ones(len(rows.same), bool))
        pathlib.Path(arguments.model).write_text(" ".join(f"{value:.6f}" for value in model) + "\n", encoding="ascii")
        return
    models = fold_models(rows, names)
    stream = Stream(data.pairs, program, models)
    write_counts(*counts_of(stream, of_fold(stream.rows.scores, stream.folds)))
    model = fit_rows(rows, names, numpy.ones(len(rows.same), bool))
    write_model(model, names)
    for name, value in zip(["bias"] + names, model):
        print(f"{name:16} {value:8.3f}")


if __name__ == "__main__":
    main()
