#!/usr/bin/python3
"""Fits what the built-in embedder decides by, and says how good it is. See README.md.

    tools/cache-fit/fit.py --data DIRECTORY [--build build] [--weights]
    tools/cache-fit/fit.py --data DIRECTORY [--build build] --side fit|stream --model FILE

Writes worker/cache/decision_builtin.inc and decision_counts.inc; with --weights first worker/cache/lexicon_weights.txt.
With --model it writes nothing of that but one line of bias and coefficients, fitted on one side's clusters alone.
"""
import argparse
import pathlib
import subprocess
import tempfile

import numpy

import monotone
import recipe
import weights
from data import FOLDS, Data, Program

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / "worker" / "cache"
COMMON_WEIGHT_MAX = 150  # of the lexicon: rarer words are worth an edit
FIRST_NO_GUARD, FIRST_FOR = "replaced", "shared"  # features before the one are guards, from the other on speak for
GUARD_LEAST = 1.0
RARE_GUARDS = {"order": 2.0, "symbols": 2.0}  # least of those that no source holds enough of: reversals, sums
SIDES = "fit", "stream"  # halves of the clusters, of bench-cache-stream
COUNT_QUERIES = 20000


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


def model_line(model):
    return " ".join(f"{value:.6f}" for value in model) + "\n"


def fit_side(arguments, names, program, side):
    data = Data(arguments.data)
    data.keep_clusters(set(stream_program(arguments, "clusters", arguments.data, side).splitlines()))
    rows = recipe.training_rows(data, program, common_words())
    return fit_rows(rows, names, numpy.ones(len(rows.same), bool))


def stream_program(arguments, *words):
    path = pathlib.Path(arguments.build) / "tests" / "bench" / "bench-cache-stream"
    return subprocess.run([str(path), *map(str, words)], stdout=subprocess.PIPE, check=True, timeout=900).stdout.decode()


def write_model(model, names):
    with open(CACHE / "decision_builtin.inc", "w", encoding="ascii") as file:
        file.write("/* Made by tools/cache-fit; fitted coefficients of the built-in embedder. */\n")
        file.write(f".bias = {model[0]:.4f},\n.weights = {{\n")
        for name, value in zip(names, model[1:]):
            file.write(f"    [LIKENESS_{name.upper()}] = {value:.4f},\n")
        file.write("},\n")


def write_counts(arguments, names, program):
    """Each side of the stream benchmark's clusters, scored by coefficients fitted on the other."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / side for side in SIDES]
        for side, path in zip(SIDES, paths):
            path.write_text(model_line(fit_side(arguments, names, program, side)), encoding="ascii")
        counts = stream_program(arguments, "counts", arguments.data, *paths, COUNT_QUERIES)
    (CACHE / "decision_counts.inc").write_text(counts, encoding="ascii")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--weights", action="store_true", help="make the lexicon's weights first")
    parser.add_argument("--side", choices=SIDES, default="fit", help="of the clusters; with --model")
    parser.add_argument("--model", help="write the coefficients there, and nothing else")
    arguments = parser.parse_args()
    data, program = Data(arguments.data), Program(arguments.build)
    if arguments.weights:
        words, sources = weights.write_weights(data, program, CACHE / "lexicon_weights.txt")
        print(f"lexicon: {words} words of {sources} sources")
        subprocess.run(["ninja", "-C", arguments.build, "--quiet", "tests/bench/bench-cache-quality", "tests/bench/bench-cache-stream"], check=True)
    names = program.names
    if arguments.model:
        pathlib.Path(arguments.model).write_text(model_line(fit_side(arguments, names, program, arguments.side)), encoding="ascii")
        return
    rows = recipe.training_rows(data, program, common_words())
    model = fit_rows(rows, names, numpy.ones(len(rows.same), bool))
    write_model(model, names)
    write_counts(arguments, names, program)
    for name, value in zip(["bias"] + names, model):
        print(f"{name:16} {value:8.3f}")


if __name__ == "__main__":
    main()
