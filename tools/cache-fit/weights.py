"""How rare each common word is: worker/cache/lexicon_weights.txt.

A word's share of the texts is taken in each source by itself, and its logarithm averaged over the sources: what is common in one
subject alone ("card" in a bank's) stays a word that tells questions apart.
"""
import collections
import math

SHARE_LEAST = 1e-3  # rarer is as rare as unknown
SOURCE_TEXTS_MIN = 100
WORDS_MIN = 4  # texts that hold a word; one that few hold may be a slip of the pen


def sources_of(data):
    sources = collections.defaultdict(list)
    for row in data.texts:
        sources[row["source"]].append(row["text"])
    for row in data.prompts:
        sources["prompts " + row["source"]].append(row["text"])
    return {name: sorted(set(texts)) for name, texts in sources.items() if len(set(texts)) >= SOURCE_TEXTS_MIN}


def write_weights(data, program, path):
    shares = collections.defaultdict(dict)
    texts_with = collections.Counter()
    sources = sources_of(data)
    for name, texts in sources.items():
        counts = collections.Counter(word for words in program.words(texts) for word in set(words))
        texts_with.update(counts)
        for word, count in counts.items():
            shares[word][name] = count / len(texts)
    lines = []
    for word, by_source in shares.items():
        if not (word.isascii() and word.isalpha()) or texts_with[word] < WORDS_MIN or (len(by_source) < 2 and texts_with[word] < 3 * WORDS_MIN):
            continue
        mean = sum(-math.log(max(by_source.get(name, 0), SHARE_LEAST)) for name in sources) / len(sources)
        lines.append((word, round(255 * mean / -math.log(SHARE_LEAST))))
    with open(path, "w", encoding="ascii") as file:
        file.write("# How rare a word's stem is: 255 is once in a thousand texts or less. Made by tools/cache-fit; change it there.\n")
        for word, weight in sorted(lines):
            file.write(f"{word} {weight}\n")
    return len(lines), len(sources)
