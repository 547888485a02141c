"""Texts, pairs and clusters of the data recipe, and what the cache's own code says of them (bench-cache-quality)."""
import collections
import hashlib
import json
import pathlib
import subprocess
import tempfile

import numpy

FOLDS = 5


def rows_of(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    names = lines[0].split("\t")
    return [dict(zip(names, line.split("\t"))) for line in lines[1:]]


def fold_of(cluster):
    """The same for ever, whatever else is in the data."""
    return int(hashlib.sha256(cluster.encode()).hexdigest(), 16) % FOLDS


class Data:
    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.pairs = rows_of(folder / "semcache_dev.tsv")
        for pair in self.pairs:
            pair["source"] = pair["id"].rsplit("-", 1)[0]
            pair["same"] = pair["same_answer"] == "1"
        self.texts = rows_of(folder / "train_clusters.tsv")
        with open(folder / "prompts.jsonl", encoding="utf-8") as lines:
            self.prompts = [json.loads(line) for line in lines]

    def keep_clusters(self, names):
        """Leaves out every text and pair that touches another cluster."""
        self.pairs = [pair for pair in self.pairs if pair["cluster_a"] in names and pair["cluster_b"] in names]
        self.texts = [row for row in self.texts if row["cluster"] in names]


class Program:
    """bench-cache-quality of a build folder: features of the served code, so fit and serving cannot differ."""

    def __init__(self, build):
        self.path = pathlib.Path(build) / "tests" / "bench" / "bench-cache-quality"
        self.names = self._run("names").decode().split()

    def _run(self, *arguments):
        return subprocess.run([str(self.path), *map(str, arguments)], stdout=subprocess.PIPE, check=True, timeout=900).stdout

    def _rows(self, arguments, models):
        """Index of query and text, whether strict mode allows, the built-in score, scores by models, features."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            for model in models:
                file.write(" ".join(repr(float(value)) for value in model) + "\n")
            file.flush()
            out = self._run(*arguments, *([file.name] if models else []))
        return Rows(numpy.frombuffer(out, dtype=numpy.float32).reshape(-1, 4 + len(models) + len(self.names)).astype(float), len(models))

    def words(self, texts):
        with texts_file(texts) as path:
            return [line.split() for line in self._run("words", path.name).decode(errors="replace").split("\n")[:len(texts)]]

    def pair_rows(self, pairs, models=()):
        with texts_file(f"{a}\t{b}" for a, b in pairs) as path:
            return self._rows(["pairs", path.name], models)

    def candidate_rows(self, texts, queries, count, models=()):
        with texts_file(texts) as texts_path, texts_file(queries) as queries_path:
            return self._rows(["candidates", texts_path.name, queries_path.name, count], models)

    def speed(self, texts):
        with texts_file(texts) as path:
            return json.loads(self._run("speed", path.name))


class Rows:
    def __init__(self, values, n_models):
        self.query = values[:, 0].astype(int)
        self.text = values[:, 1].astype(int)
        self.is_allowed = values[:, 2] > 0
        self.score = values[:, 3]
        self.scores = values[:, 4:4 + n_models]
        self.features = values[:, 4 + n_models:]


def texts_file(texts):
    file = tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8")
    for text in texts:
        file.write(text.replace("\n", " ").replace("\r", " ") + "\n")
    file.flush()
    return file


def by_key(rows, key):
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return groups
