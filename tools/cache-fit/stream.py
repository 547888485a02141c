"""The stream protocol: insert every text_a of a set of pairs, ask every text_b that no stored text equals; the candidate with the best
score answers when the score reaches the threshold, rightly when it is of the question's cluster."""
import numpy

from data import fold_of

CANDIDATES = 8


class Stream:
    def __init__(self, pairs, program, models=()):
        clusters = {}
        for pair in pairs:
            clusters.setdefault(pair["text_a"], pair["cluster_a"])
        stored = list(clusters)
        self.queries = [pair for pair in pairs if pair["text_b"] not in clusters]
        self.rows = program.candidate_rows(stored, [pair["text_b"] for pair in self.queries], CANDIDATES, models)
        self.is_right = numpy.array([self.queries[q]["cluster_b"] == clusters[stored[t]] for q, t in zip(self.rows.query, self.rows.text)])
        self.folds = numpy.array([fold_of(self.queries[q]["cluster_b"]) for q in self.rows.query])
        there = set(clusters.values())
        self.answerable = sum(pair["cluster_b"] in there for pair in self.queries) / len(self.queries)

    def best(self, score):
        """Of each query its best candidate, highest score first: scores, and which are right."""
        order = numpy.lexsort((-score, self.rows.query))
        query = self.rows.query[order]
        best = order[numpy.concatenate([[True], query[1:] != query[:-1]])]
        best = best[numpy.argsort(-score[best], kind="stable")]
        return score[best], self.is_right[best]

    def hits(self, score, share_wrong):
        """Share of the queries answered rightly, and the threshold, when so many of the queries may be answered wrongly."""
        scores, right = self.best(score)
        at = numpy.searchsorted(numpy.cumsum(~right), share_wrong * len(self.queries), side="right") - 1
        return (numpy.cumsum(right)[at] / len(self.queries), scores[at]) if at >= 0 else (0.0, numpy.inf)

    def at_threshold(self, score, threshold):
        """Shares of the queries answered rightly and wrongly."""
        scores, right = self.best(score)
        return (right & (scores >= threshold)).sum() / len(self.queries), (~right & (scores >= threshold)).sum() / len(self.queries)
