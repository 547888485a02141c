"""Prompts with what a weak and a strong model made of them, and what common/complexity says of them (bench-complexity)."""
import hashlib
import json
import pathlib
import subprocess
import tempfile

import numpy

FOLDS = 5
SIMPLE, COMPLEX = "simple", "complex"  # the weak model was right; only the strong one was. "hard": neither
SOURCES = "mmlu", "gsm8k"  # whose labels are outcomes; elsewhere they are somebody's opinion of the whole source


def fold_of(name, seed):
    return int(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest(), 16) % FOLDS


class Prompts:
    """Rows of prompts.jsonl: of SOURCES, or of all."""

    def __init__(self, path, sources=None):
        with open(path, encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        self.rows = [row for row in rows if sources is None or row["source"] in sources]
        self.texts = [row["text"] for row in self.rows]
        self.source = numpy.array([row["source"] for row in self.rows])
        self.is_gain = numpy.array([row["complexity"] == COMPLEX for row in self.rows])
        self.is_weak_wrong = numpy.array([row["complexity"] != SIMPLE for row in self.rows])
        self.length = numpy.array([len(text.encode()) for text in self.texts], float)

    def folds(self, seed):
        return numpy.array([fold_of(row["id"], seed) for row in self.rows])


class Program:
    """bench-complexity of a build folder: features of the served code, so fit and serving cannot differ."""

    def __init__(self, build):
        self.path = pathlib.Path(build) / "tests" / "bench" / "bench-complexity"
        self.names = self._run("names").split()

    def _run(self, *arguments):
        return subprocess.run([str(self.path), *arguments], stdout=subprocess.PIPE, check=True, timeout=900, text=True).stdout

    def _with_requests(self, command, texts):
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            for text in texts:
                file.write(json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n")
            file.flush()
            return self._run(command, file.name)

    def features(self, texts):
        """Features from 0 to 1, and the score by the built-in weights."""
        lines = self._with_requests("features", texts).splitlines()
        values = numpy.array([line.split("\t") for line in lines], float)
        return values[:, :-1] / 255, values[:, -1]

    def speed(self, texts):
        return json.loads(self._with_requests("speed", texts))
