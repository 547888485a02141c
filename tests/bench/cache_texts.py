"""Prompts for the benchmark of the cache's index: as many as are asked for, all different, 5 to 20 words.

    tests/bench/cache_texts.py N OUT [FILE ...]

FILEs hold real prompts: .tsv with columns whose names begin with "text", or .jsonl with "text". Each prompt is a template: some of its
content words are slots, filled with words that stand after the same word in other prompts, as often as they do. Without FILEs prompts
are made of made-up words, whose frequencies fall as Zipf's law says, in a few thousand templates. The seed is fixed.
"""
import bisect
import collections
import csv
import itertools
import json
import random
import sys

WORDS_MIN, WORDS_MAX = 5, 20
MADE_UP_WORDS, MADE_UP_TEMPLATES, MADE_UP_LENGTH_MAX = 30000, 4000, 14


def read(path):
    with open(path, newline="", encoding="utf-8") as lines:
        if path.endswith(".jsonl"):
            yield from (json.loads(line)["text"] for line in lines)
            return
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield from (text for name, text in row.items() if name and name.startswith("text") and text)


class Choice:
    """What follows a word, as often as it does."""

    def __init__(self, counts):
        self.words = list(counts)
        self.sums = list(itertools.accumulate(counts.values()))

    def draw(self, dice):
        return self.words[bisect.bisect(self.sums, dice.random() * self.sums[-1])]


def made_up(dice):
    syllables = [a + b for a in "b c d f g h k l m n p r s t v w st tr pl gr".split() for b in "a e i o u ai ea en or in".split()]
    words = list(dict.fromkeys("".join(dice.choices(syllables, k=1 + (i > 60) + (i > 3000))) for i in range(MADE_UP_WORDS)))
    zipf = Choice({word: 1 / (rank + 3) for rank, word in enumerate(words)})
    for _ in range(MADE_UP_TEMPLATES):
        yield " ".join(zipf.draw(dice) for _ in range(dice.randint(WORDS_MIN, MADE_UP_LENGTH_MAX)))


def prompts(n, files, dice):
    templates = [text.split() for text in (itertools.chain(*map(read, files)) if files else made_up(dice))]
    templates = [words for words in templates if WORDS_MIN <= len(words) <= WORDS_MAX]
    after, all_words = collections.defaultdict(collections.Counter), collections.Counter()
    for words in templates:
        for before, word in zip(["", *words], words):
            all_words[word] += 1
            if len(word) >= 4:
                after[before.lower()][word] += 1
    anything = Choice({word: count for word, count in all_words.items() if len(word) >= 4})
    follows = {before: Choice(counts) for before, counts in after.items() if len(counts) >= 8}
    seen = set()
    while len(seen) < n:
        words = list(dice.choice(templates))
        slots = [i for i, word in enumerate(words) if len(word) >= 4 or word.isdigit()] or [len(words) - 1]
        for i in dice.sample(slots, min(len(slots), dice.randint(1, 3))):
            if words[i].isdigit():
                words[i] = str(dice.randint(1, 999))
            else:
                words[i] = follows.get(words[i - 1].lower() if i else "", anything).draw(dice)
        text = " ".join(words)
        if text not in seen:
            seen.add(text)
            yield text


def main():
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        for text in prompts(int(sys.argv[1]), sys.argv[3:], random.Random(1)):
            out.write(text.replace("\n", " ") + "\n")


if __name__ == "__main__":
    main()
