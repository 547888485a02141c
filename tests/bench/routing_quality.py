"""How well common/complexity tells which prompts a strong model answers rightly and a weak one does not, and what it costs.

--texts: prompts.jsonl, whose rows of mmlu and gsm8k say what a weak and a strong model really got right. Within each source prompts are
sent to the strong model in the order of their scores: the curve of answers that are right, over the share that is sent. Scores come from the
served code's features by weights, and settings of the fit, that know nothing of the prompt's fold. Beside it: no order at all (random, the diagonal), the
longer first, the words of the text (a ridge on their hashes, the best of several in hindsight: no more is to be had from so few texts' vocabulary),
and the best order there is.
Complexity is judged by the mean over five ways to cut the folds.
Area: the mean height of the curve above the diagonal, in percent of all prompts. Intervals: 95 %, paired bootstrap over prompts; weights
are not fitted anew in it. Prompts that the weak model got right are taken to be right with the strong one as well: the data do not say.
"""
import collections
import hashlib
import pathlib
import re
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools" / "route-fit"))

import model  # noqa: E402
from data import FOLDS, SOURCES, Program, Prompts  # noqa: E402

SEEDS = range(5)  # of the folds; where one is enough, the first
RESAMPLES, RESAMPLES_QUICK = 2000, 200
SHARES = 0.1, 0.2, 0.3, 0.5, 0.7
WORD_BUCKETS, WORD_RIDGES = 4096, (0.1, 1.0, 10.0, 100.0)
P99_US_MAX = 50


def curve(order_by, is_gain, weights):
    """Share sent and share gained, from none to all, highest first; equals go together. `weights`: how often a row counts."""
    values, place = numpy.unique(-order_by, return_inverse=True)
    sent = numpy.bincount(place, weights, len(values))
    gained = numpy.bincount(place, weights * is_gain, len(values))
    total = weights.sum()
    return numpy.concatenate([[0], numpy.cumsum(sent) / total]), numpy.concatenate([[0], numpy.cumsum(gained) / total])


def area(order_by, is_gain, weights=None):
    """Between curve and diagonal, in percent of the prompts."""
    sent, gained = curve(order_by, is_gain, numpy.ones(len(is_gain)) if weights is None else weights)
    return 100 * (numpy.trapz(gained, sent) - gained[-1] / 2)


def mean_area(orders, is_gain, weights=None):
    return float(numpy.mean([area(order, is_gain, weights) for order in orders]))


def hashed_words(texts):
    rows = numpy.zeros((len(texts), WORD_BUCKETS))
    for row, text in zip(rows, texts):
        for word in set(re.findall(r"[a-z]+", text.lower())):
            row[int(hashlib.sha256(word.encode()).hexdigest(), 16) % WORD_BUCKETS] = 1
    rows *= numpy.log(len(texts) / numpy.maximum(rows.sum(axis=0), 1))
    return rows / numpy.maximum(numpy.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def word_scores_of(words, gain, folds, ridge):
    """By a ridge regression of the gain on the words, on the other folds."""
    scores = numpy.zeros(len(folds))
    for fold in range(FOLDS):
        train = folds != fold
        centre = words[train].mean(axis=0)
        near, far = words[train] - centre, words[~train] - centre
        pull = numpy.linalg.solve(near @ near.T + ridge * numpy.eye(len(near)), gain[train] - gain[train].mean())
        scores[~train] = far @ (near.T @ pull)
    return scores


def word_scores(prompts, folds):
    """Within each source, with the ridge that proves best."""
    scores = numpy.zeros(len(folds))
    for name in SOURCES:
        rows = prompts.source == name
        words, is_gain = hashed_words([text for text, is_of in zip(prompts.texts, rows) if is_of]), prompts.is_gain[rows]
        tried = [word_scores_of(words, is_gain.astype(float), folds[rows], ridge) for ridge in WORD_RIDGES]
        scores[rows] = max(tried, key=lambda values: area(values, is_gain))
    return scores


def other_source_scores(names, features, prompts):
    """Each source by weights that were fitted on the other alone."""
    scores = numpy.zeros(len(prompts.rows))
    for name in SOURCES:
        train = prompts.source != name
        settings = model.choose(names, features, prompts, train, prompts.folds(SEEDS[0]))
        scores[~train] = features[~train] @ model.fit(names, features, prompts, train, settings)
    return scores


def interval(values):
    return [round(float(value), 3) for value in numpy.percentile(values, [2.5, 97.5])]


class Judge:
    """Areas of several orders of one source's prompts, over the same resamples. An order is some orders whose mean is judged."""

    def __init__(self, orders, prompts, name, resamples):
        rows = prompts.source == name
        self.orders = {order: [values[rows] for values in several] for order, several in orders.items()}
        self.is_gain, self.is_weak_wrong = prompts.is_gain[rows], prompts.is_weak_wrong[rows]
        dice = numpy.random.default_rng(SEEDS[0])
        count = len(self.is_gain)
        draws = [numpy.bincount(dice.integers(0, count, count), minlength=count).astype(float) for _ in range(resamples)]
        self.resampled = {order: numpy.array([mean_area(several, self.is_gain, draw) for draw in draws]) for order, several in self.orders.items()}

    def right_pct(self, order):
        """At each of SHARES."""
        gained = [numpy.interp(SHARES, *curve(values, self.is_gain, numpy.ones(len(values)))) for values in self.orders[order]]
        return 100 * (1 - self.is_weak_wrong.mean() + numpy.mean(gained, axis=0))

    def sent_pct_as_half(self, order):
        """How many are sent until as many are right as when half of all are sent at random."""
        curves = [curve(values, self.is_gain, numpy.ones(len(values))) for values in self.orders[order]]
        return 100 * float(numpy.mean([numpy.interp(gained[-1] / 2, gained, sent) for sent, gained in curves]))

    def row(self, order):
        aucs = [round(model.auc(values, self.is_gain), 3) for values in self.orders[order]]
        return {"order": order, "area": round(mean_area(self.orders[order], self.is_gain), 3), "area_95": interval(self.resampled[order]),
                "auc": round(float(numpy.mean(aucs)), 3), "aucs": aucs,
                "sent_pct_as_half": round(self.sent_pct_as_half(order), 1),
                "right_pct": {share: round(float(right), 1) for share, right in zip(SHARES, self.right_pct(order))}}

    def beyond(self, order, other):
        """By how much the one order's area is more than the other's."""
        return interval(self.resampled[order] - self.resampled[other])


def print_row(row):
    right = " ".join(f"{value:5.1f}" for value in row["right_pct"].values())
    print(f"  {row['source']:6} {row['order']:20} area {row['area']:6.2f} [{row['area_95'][0]:5.2f}, {row['area_95'][1]:5.2f}]  "
          f"AUC {row['auc']:.3f} ({min(row['aucs'])}-{max(row['aucs'])})  as half {row['sent_pct_as_half']:4.1f}  right {right}", flush=True)


def judge_source(bench, orders, prompts, name, resamples):
    judge = Judge(orders, prompts, name, resamples)
    for order in orders:
        row = {"source": name, **judge.row(order)}
        bench.rows.append({"name": "routing_quality", **row})
        print_row(row)
    better = max("longer first", "shorter first", key=lambda order: mean_area(judge.orders[order], judge.is_gain))
    for other in ("longer first", "better length in hindsight"):
        known = better if other != "longer first" else other
        low, high = judge.beyond("complexity", known)
        print(f"  {name:6} complexity - {other} ({known}): [{low:.2f}, {high:.2f}]")
        bench.rows.append({"name": "routing_quality difference", "source": name, "to": other, "is": known, "area_95": [low, high]})
    # What is below for certain is a fault; what is above is no promise that so few prompts could bear.
    bench.bar(f"{name}: area over random, upper bound", interval(judge.resampled["complexity"])[1], 0)
    bench.bar(f"{name}: area over longer first, upper bound", judge.beyond("complexity", "longer first")[1], 0)
    return judge


def routing_quality(bench):
    """Which prompts need the strong model: complexity beside chance and length, within each source."""
    if not bench.texts:
        raise SystemExit("routing_quality needs --texts prompts.jsonl")
    program = Program(bench.build)
    prompts = Prompts(bench.texts[0], SOURCES)
    features, builtin = program.features(prompts.texts)
    seeds = SEEDS[:1] if bench.quick else SEEDS
    nested = [model.nested_scores(program.names, features, prompts, seed) for seed in seeds]
    print("  chosen, by fold: " + str(collections.Counter(settings for _, chosen in nested for settings in chosen)))
    orders = {"best there is": [prompts.is_gain.astype(float)], "complexity": [scores for scores, _ in nested], "longer first": [prompts.length],
              "shorter first": [-prompts.length], "words, hashed": [word_scores(prompts, prompts.folds(SEEDS[0]))],
              "fitted on the other": [other_source_scores(program.names, features, prompts)], "built-in, in sample": [builtin]}
    judges = [judge_source(bench, orders, prompts, name, RESAMPLES_QUICK if bench.quick else RESAMPLES) for name in SOURCES]
    together = sum(judge.resampled["complexity"] for judge in judges) / len(judges)
    by_length = sum(judge.resampled["longer first"] for judge in judges) / len(judges)
    print(f"  mean of the sources: area over random {interval(together)}, over longer first {interval(together - by_length)}")
    bench.bar("mean of the sources: area over random, lower bound", interval(together)[0], 0)
    speed(bench, program, bench.texts[0])


def speed(bench, program, path):
    row = program.speed(Prompts(path).texts)
    bench.add("complexity speed", row)
    bench.bar("complexity of a real prompt, p99 µs", row["p99_ns"] / 1000, P99_US_MAX, at_least=False)
