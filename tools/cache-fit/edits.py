"""Controlled edits of texts: those that keep the answer (a slip of the pen, politeness, case) and those that change it (two words change
places, one is replaced or turned into its opposite, a number is another, a "not"). They teach what no source of the data holds enough of."""
import re

WRAPPERS = ["please {}", "hi, {}", "could you tell me: {}", "hey! {} thanks", "{} please", "I would like to know: {}", "Dear all, {}"]
CONNECTIVES = {"to", "from", "than", "before", "after", "into", "over", "under", "by", "for", "with", "of", "in", "on"}
WORD = re.compile(r"[A-Za-z]+|\d+")


def words_of(text):
    return [(match.start(), match.end(), match.group()) for match in WORD.finditer(text)]


def slip(text, rng):
    long_words = [word for word in words_of(text) if len(word[2]) >= 6 and word[2].isalpha() and word[2].islower()]
    if not long_words:
        return None
    start, end, word = rng.choice(long_words)
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        changed = word[:at] + word[at + 1:]
    elif kind == 1:
        changed = word[:at] + word[at] + word[at:]
    else:
        changed = word[:at] + word[at + 1] + word[at] + word[at + 2:]
    return text[:start] + changed + text[end:] if changed != word else None


def dress(text, rng):
    text = text.lower() if rng.random() < 0.5 else text
    text = text.rstrip(" ?.!") if rng.random() < 0.5 else text
    return rng.choice(WRAPPERS).format(text) if rng.random() < 0.6 else text


def keep(text, rng):
    slipped = slip(text, rng) if rng.random() < 0.5 else None
    return dress(slipped or text, rng)


def swap(text, rng, is_common):
    """The words around a connective, or the outer two of three, change places."""
    words = words_of(text)
    places = [(i - 1, i + 1) for i in range(1, len(words) - 1) if words[i][2].lower() in CONNECTIVES]
    places = [(i, j) for i, j in places if not is_common(words[i][2]) and not is_common(words[j][2]) and words[i][2].lower() != words[j][2].lower()]
    if not places:
        return None
    i, j = rng.choice(places)
    (a, b, first), (c, d, second) = words[i], words[j]
    return text[:a] + second + text[b:c] + first + text[d:]


def replace(text, rng, is_common, others):
    places = [word for word in words_of(text) if not is_common(word[2]) and len(word[2]) > 2]
    if not places:
        return None
    start, end, word = rng.choice(places)
    other = str(int(word) + rng.randrange(1, 20)) if word.isdigit() and len(word) < 9 else rng.choice(others)
    return text[:start] + other + text[end:] if other.lower() != word.lower() else None


def negate(text, rng):
    match = re.search(r"\b(is|are|was|were|can|could|do|does|did|should|will|would|to)\b", text, re.IGNORECASE)
    if match is None:
        return None
    return text[:match.end()] + " not" + text[match.end():]


def opposites_of(lexicon_path):
    """Of each word with opposites or other choices in the lexicon, those of one of its groups."""
    others = {}
    for line in lexicon_path.read_text(encoding="utf-8").splitlines():
        kind, _, rest = line.partition(":")
        if kind not in ("opposite", "choice"):
            continue
        sides = [side.split() for side in rest.split("|")]
        for side in sides:
            for word in side:
                others.setdefault(word, [other for there in sides if there is not side for other in there])
    return others


def turn(text, rng, opposites):
    places = [word for word in words_of(text) if word[2].lower() in opposites]
    if not places:
        return None
    start, end, word = rng.choice(places)
    return text[:start] + rng.choice(opposites[word.lower()]) + text[end:]
