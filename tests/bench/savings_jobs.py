"""The jobs of the savings benchmark: real prompts, asked as often as a Zipf law says, partly in other words, alone or within something larger.

Each is a line of `tiermq submit` with the second in which it is handed in. What is asked has a key (kind, prompt): jobs with one key want one answer.
"""
import bisect
import itertools
import json
import random

SEED = 20
ZIPF = 0.9
REWORDED = 0.4  # of the jobs that may be
PER_S = 150
MAX_TOKENS, MAX_TOKENS_BULK = 200, 60
BULK = 12  # jobs of the background that are handed in at once
POLITE = "please", "hello", "thanks", "kindly"  # on these no answer of the simulator hangs
TENANTS = ("alpha", 0.7), ("beta", 0.3)
SYSTEMS, TOOLS = 6, 5
#        kind           share  tiers, in equal parts
KINDS = (("question", 0.50, ("realtime", "realtime", "standard", "standard", "background")),
         ("assistant", 0.14, ("realtime", "standard")),
         ("passages", 0.09, ("standard", "background")),
         ("conversation", 0.09, ("standard",)),
         ("bulk question", 0.09, ("background", "standard")),
         ("bulk embedding", 0.09, ("background", "standard")))


def drawn(pairs, dice):
    return dice.choices([pair[0] for pair in pairs], [pair[1] for pair in pairs])[0]


class Popularity:
    """Draws numbers below `length`, the first most often."""

    def __init__(self, length):
        self.sums = list(itertools.accumulate(1 / (rank + 1) ** ZIPF for rank in range(length)))

    def draw(self, dice):
        return bisect.bisect(self.sums, dice.random() * self.sums[-1])


def reword(text, dice):
    """The same in cosmetically other words: politeness, case, punctuation, white space; one or two of them."""
    def polite(t):
        return dice.choice((f"Please: {t}", f"Hello! {t}", f"{t} Thanks.", f"{t}\nKindly, please!"))

    def case(t):
        if not t.isascii():
            return t  # whose case the simulator does not know
        return t[:1].swapcase() + t[1:] if "\n" in t or len(t) > 200 else dice.choice((t.lower(), t.upper()))

    def punctuation(t):
        return t[:-1] if t[-1:] in ".?!" else t + dice.choice(("?", ".", "!"))

    def space(t):
        return dice.choice((f"{t}  \n\n", f"  {t}", t.replace(". ", ".  ")))

    for change in dice.sample((polite, case, punctuation, space), dice.choice((1, 2))):
        text = change(text)
    return text


class Workload:
    """`rows`: of prompts.jsonl; the seed decides which of them are popular."""

    def __init__(self, rows, count, seed=SEED):
        self.dice = random.Random(seed)
        self.rows = list(rows)
        self.dice.shuffle(self.rows)
        self.short = [i for i, row in enumerate(self.rows) if len(row["text"]) <= 300]
        self.of_all, self.of_short = Popularity(len(self.rows)), Popularity(len(self.short))
        self.systems = [self.texts_of(f"system {i}", 5200) for i in range(SYSTEMS)]
        self.bulk_system = self.texts_of("bulk", 1600)
        self.jobs = list(itertools.islice(self.arrivals(), count))

    def texts_of(self, name, chars):
        """So many characters of other prompts, as rules of a house, always the same for the name."""
        dice, text = random.Random(f"{SEED} {name}"), f"Rules for {name}."
        while len(text) < chars:
            text += "\n- Of " + " ".join(dice.choice(self.rows)["text"].split())[:160]
        return text

    def others(self, name, count):
        dice = random.Random(f"{SEED} {name}")
        return [row["text"] for row in dice.choices(self.rows, k=count)]

    def arrivals(self):
        at = 0.0
        while True:
            name, _, tiers = drawn([(row, row[1]) for row in KINDS], self.dice)
            is_bulk = name.startswith("bulk")
            if is_bulk and self.dice.random() >= 1 / BULK:  # so that the share is of jobs, not of arrivals
                continue
            tier, tenant = self.dice.choice(tiers), drawn(TENANTS, self.dice)
            for _ in range(BULK if is_bulk else 1):
                at += self.dice.expovariate(PER_S) if not is_bulk else 1 / PER_S / BULK
                yield {"at": at, "kind": name, "tenant": tenant, **self.job(name, tier)}
            at += (BULK - 1) / PER_S if is_bulk else 0

    def job(self, kind, tier):
        number = self.short[self.of_short.draw(self.dice)] if kind.startswith("bulk") else self.of_all.draw(self.dice)
        row = self.rows[number]
        is_reworded = kind != "bulk embedding" and self.dice.random() < REWORDED
        text = reword(row["text"], self.dice) if is_reworded else row["text"]
        line, context = getattr(self, "line_of_" + kind.replace(" ", "_"))(number, text)
        return {"key": (kind, number, context), "row": row, "is_reworded": is_reworded, "line": {"tier": tier, "deadline": "300s", **line}}

    @staticmethod
    def chat(*messages, **more):
        return {"body": {"messages": [{"role": role, "content": text} for role, text in messages], **{"max_tokens": MAX_TOKENS, **more}}}

    def line_of_question(self, _, text):
        return self.chat(("user", text)), 0

    def line_of_assistant(self, number, text):
        """One of a few long system prompts; every other has tools, which its programs list in no certain order."""
        which = number % SYSTEMS
        tools = [{"type": "function", "function": {"name": f"tool_{i}", "parameters": {"type": "object"}}} for i in range(TOOLS)] if which % 2 else []
        self.dice.shuffle(tools)
        return self.chat(("system", self.systems[which]), ("user", text), **({"tools": tools} if tools else {})), which

    def line_of_passages(self, number, text):
        found = self.others(f"passages {number}", 16)
        documents = "".join(f'<document index="{i + 1}">\n{passage}\n</document>\n' for i, passage in enumerate(found))
        return self.chat(("user", f"{documents}\n{text}")), 0

    def line_of_conversation(self, number, text):
        """The turns so far are one of two."""
        which = self.dice.randrange(2)
        turns = [(("user", "assistant")[i % 2], said) for i, said in enumerate(self.others(f"turns {number} {which}", 24))]
        return self.chat(*turns, ("user", text)), which

    def line_of_bulk_question(self, _, text):
        return {**self.chat(("system", self.bulk_system), ("user", text), max_tokens=MAX_TOKENS_BULK), "batchable": True}, 0

    @staticmethod
    def line_of_bulk_embedding(_, text):
        return {"operation": "embeddings", "model": "sim-embed", "body": {"input": text}}, 0


def lines_of(workload, tenant, route, is_shared):
    """(second, line) of the tenant's jobs. Without `is_shared` none waits for an identical one that is under way."""
    for number, job in enumerate(workload.jobs):
        if job["tenant"] == tenant:
            line = {"id": f"j{number}", "model": route, **job["line"], **({} if is_shared else {"distinct": True})}
            yield job["at"], json.dumps(line) + "\n"
