#!/usr/bin/python3
"""Which questions the cache's near matches answer, and how many wrongly. Called by cache_quality.sh.

    tests/bench/cache_quality.py --data DIRECTORY [--build build-release] [--json FILE]

The question: how well does the built-in embedder with its decision tell questions with the same answer from those that look alike?
Scores come from the served code (bench-cache-quality) under coefficients that were fitted without the clusters they judge: five folds by
cluster on semcache_dev.tsv. Stream: every text_a is stored, every text_b asked that no stored text equals.
Then the coefficients as shipped on the list of opposite questions (tests/data/opposite_questions.tsv): strict mode answers none of them.
"""
import argparse
import json
import pathlib
import sys

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "cache-fit"))

import fit  # noqa: E402
import monotone  # noqa: E402
import recipe  # noqa: E402
from data import Data, Program, fold_of  # noqa: E402
from stream import Stream  # noqa: E402


class Report:
    def __init__(self):
        self.rows, self.is_met = [], True

    def add(self, name, **values):
        self.rows.append({"name": name, **values})
        print(f"{name:34}" + "  ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()), flush=True)

    def bar(self, what, value, bar, at_least=True):
        is_met = value >= bar if at_least else value <= bar
        self.is_met = self.is_met and is_met
        self.rows.append({"name": "bar", "what": what, "value": float(value), "bar": bar, "is_met": bool(is_met)})
        print(f"{'met   ' if is_met else 'MISSED'} {what}: {value:.3f}, bar {bar}", flush=True)


def judge(report, name, pairs, program, models, score_of):
    """Of pairs, their AUC and what is found; of the stream over them, its hits."""
    rows = program.pair_rows([(pair["text_a"], pair["text_b"]) for pair in pairs], models)
    same = numpy.array([pairs[i]["same"] for i in rows.query])
    score = score_of(rows, numpy.array([fold_of(pairs[i]["cluster_a"]) for i in rows.query]))
    stream = Stream(pairs, program, models)
    stream_score = score_of(stream.rows, stream.folds)
    hits, threshold = stream.hits(stream_score, 0.01)
    allowed = rows.is_allowed
    values = {"auc": float(monotone.auc(score, same)), "tpr_1": float(monotone.share_found(score, same, 0.01)),
              "tpr_3": float(monotone.share_found(score, same, 0.03)), "hits_1": float(hits), "threshold": float(threshold),
              "answerable": stream.answerable, "strict_tpr": float(allowed[same].mean()), "strict_fpr": float(allowed[~same].mean())}
    report.add(name, **values)
    return values


def by_models(rows, folds):
    return fit.of_fold(rows.scores, folds)


def without_fold_of_clusters(report, data, program, rows):
    models = fit.fold_models(rows, program.names)
    values = judge(report, "dev, 5 folds by cluster", data.pairs, program, models, by_models)
    report.bar("AUC", values["auc"], 0.84)
    report.bar("TPR at 1 % FPR", values["tpr_1"], 0.26)
    report.bar("stream hits with 1 % of queries wrong", values["hits_1"], 0.12)


def without_dev(report, data, program, rows):
    """Fitted on train_clusters and edits alone."""
    is_train = numpy.array([source.startswith("train ") or source == "edits" for source in rows.source])
    model = fit.fit_rows(rows, program.names, is_train)
    judge(report, "dev, fitted on train_clusters", data.pairs, program, [model], lambda r, _: r.scores[:, 0])


def without_source(report, data, program, rows):
    """Each source by what the others taught."""
    for source in sorted({pair["source"] for pair in data.pairs}):
        pairs = [pair for pair in data.pairs if pair["source"] == source]
        if len({pair["same"] for pair in pairs}) < 2:
            continue
        others = ~numpy.isin(rows.source, [source, "train " + source])
        model = fit.fit_rows(rows, program.names, others)
        judge(report, f"{source}, fitted on the others", pairs, program, [model], lambda r, _: r.scores[:, 0])


def opposites(report, program):
    lines = (ROOT / "tests" / "data" / "opposite_questions.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if not line.startswith("#")]
    rows = program.pair_rows([(a, b) for _, a, b in pairs])
    for i in numpy.flatnonzero(rows.is_allowed):
        print("strict mode answers:", *pairs[rows.query[i]], sep="\n    ")
    report.add("opposite questions", pairs=len(pairs), strict_hits=int(rows.is_allowed.sum()), score_median=float(numpy.median(rows.score)),
               score_max=float(rows.score.max()))
    report.bar("opposite questions answered in strict mode", rows.is_allowed.sum(), 0, at_least=False)
    return rows.score


def speed(report, data, program):
    values = program.speed([pair["text_a"] for pair in data.pairs])
    report.add("speed", **values)
    report.bar("µs to profile and embed 50 bytes", (values["profile_ns"] + values["embed_ns"]) / 1000 * 50 / values["bytes"], 3.0, at_least=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--build", default=str(ROOT / "build-release"))
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true", help="neither transfer between sources nor speed")
    arguments = parser.parse_args()
    data, program, report = Data(arguments.data), Program(arguments.build), Report()
    rows = recipe.training_rows(data, program, fit.common_words())
    without_fold_of_clusters(report, data, program, rows)
    without_dev(report, data, program, rows)
    opposites(report, program)
    if not arguments.quick:
        without_source(report, data, program, rows)
        speed(report, data, program)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(report.rows, indent=1) + "\n", encoding="utf-8")
    return 0 if report.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
