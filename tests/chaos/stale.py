"""
stale: whether anything is served that was invalidated before, seen from the answers alone. Called by stale.sh, which documents the
arguments.

Prompts are about topics, and the simulator begins each answer with the topic and the version of its data (`POST /control/versions`).
When the data of some topics changes, their versions rise first and then they are invalidated, by one selector or another. So an answer
whose version is older than an invalidation that was confirmed before its job was handed in is a violation, wherever it came from;
and one from a cache that comes EFFECT_S after the broker was told is too, unless its worker was cut off or stopped meanwhile.
"""

import argparse
import collections
import contextlib
import itertools
import json
import os
import pathlib
import random
import shutil
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]

import harness  # noqa: E402
import proxy  # noqa: E402
import wire  # noqa: E402

EFFECT_S = 1.0
VERSIONS_MAX = 1_000_000  # of a topic; the simulator is told topic * VERSIONS_MAX + version
PLACES = ("Lisbon", "Turin", "Bergen", "Ghent", "Porto", "Krakow", "Tallinn", "Malaga")
NOUNS = ("harbour", "library", "bridge", "market", "castle", "garden", "museum", "station", "theatre", "prison", "lighthouse",
         "cathedral", "airport", "stadium", "hospital", "brewery")
VERBS = ("Describe", "Explain", "Draw", "Measure")
MODELS = ("sim-small", "sim-medium")
CACHED = ("hit", "near_hit", "stale_hit")
UNDER_WAY_MAX = 40  # of a group
NEVER = float("inf")


class Topic:
    """Something to ask about. One that is plain is asked about in one way only."""

    def __init__(self, number, group, noun):
        self.number, self.group = number, group
        self.subject = f"{noun} of {group.place}"
        self.text = f"{VERBS[number % len(VERBS)]} the {self.subject}"
        self.is_plain = number % 4 == 0
        self.version = 0
        self.invalidations = []  # in the order of their versions

    def prompt(self, dice):
        return self.text + "." if self.is_plain else dice.choice(
            (self.text + ".", self.text.upper() + "!", self.text.lower() + "?", self.text + " ..."))


class Group:
    """Topics whose jobs say the same of the cache, and the client that hands them in."""

    def __init__(self, number):
        self.number, self.place = number, PLACES[number]
        self.tenant = "blue" if number >= 6 else "red"
        self.names = {"cache_namespace": f"space-{number}", "tag": f"tag-{number // 2}", "document": f"document-{number}",
                      "template_version": f"v{number % 3}", "route": MODELS[number % 2], "model": MODELS[number % 2]}
        self.topics = [Topic(number * len(NOUNS) + i, self, noun) for i, noun in enumerate(NOUNS)]
        self.client = None
        self.under_way = 0

    def arguments(self):
        names = self.names
        return ("submit", "--file", "-", "--tenant", self.tenant, "--model", names["route"], "--cache-namespace", names["cache_namespace"],
                "--cache-tag", names["tag"], "--cache-tag", f"place-{self.place}", "--cache-document", names["document"],
                "--template-version", names["template_version"], "--window", str(2 * UNDER_WAY_MAX))


class Invalidation:
    def __init__(self, version, selector):
        self.version, self.selector = version, selector
        self.told_at, self.confirmed_at = time.monotonic(), NEVER


class Job:
    def __init__(self, topic, at):
        self.topic, self.at = topic, at


class Ledger:
    """What was handed in, invalidated, disturbed and answered; and what is wrong with that."""

    def __init__(self, topics):
        self.topics = topics
        self.lock = threading.Lock()
        self.jobs = {}
        self.disturbed = collections.defaultdict(list)  # worker: [begin, end]
        self.answers, self.by_worker, self.outcomes = collections.Counter(), collections.Counter(), collections.Counter()
        self.effect_s, self.disturbed_effect_s = 0.0, 0.0
        self.violations = []

    def was_disturbed(self, worker, since, until):
        return any(begin <= until and end >= since for begin, end in self.disturbed[worker])

    def take(self, answer, at):
        with self.lock:
            job = self.jobs.pop(answer["id"])
            job.topic.group.under_way -= 1
            self.outcomes[answer["outcome"]] += 1
            if answer["outcome"] != "succeeded":
                return
            kind = "led" if "led_by" in answer else answer["cache"]
            self.answers[kind] += 1
            self.by_worker[answer.get("worker"), kind in CACHED] += 1
            self._judge(job, kind, answer, at)

    def _judge(self, job, kind, answer, at):
        told = int(answer["text"].split()[0].removeprefix("v"))
        topic, version = self.topics[told // VERSIONS_MAX], told % VERSIONS_MAX
        for invalidation in topic.invalidations:
            if invalidation.version <= version:
                continue
            if invalidation.confirmed_at <= job.at:
                self._violated("handed in after the invalidation", job, kind, answer, at, invalidation)
            elif kind in CACHED:
                self._measure(job, kind, answer, at, invalidation)
            return

    def _measure(self, job, kind, answer, at, invalidation):
        effect_s = at - invalidation.told_at
        if self.was_disturbed(answer.get("worker"), job.at, at):
            self.disturbed_effect_s = max(self.disturbed_effect_s, effect_s)
            return
        self.effect_s = max(self.effect_s, effect_s)
        if effect_s > EFFECT_S:
            self._violated(f"answered {effect_s:.2f} s after the invalidation", job, kind, answer, at, invalidation)

    def _violated(self, what, job, kind, answer, at, invalidation):
        self.violations.append(
            f"{what}: {kind} by {answer.get('worker')} of {job.topic.text!r}: {answer['text'].split()[0]} is older than {invalidation.version} by "
            f"{invalidation.selector}; told {invalidation.told_at:.3f}, confirmed {invalidation.confirmed_at:.3f}, handed in {job.at:.3f}, answered {at:.3f}, job {answer['job']}")


class Load:
    """Hands in jobs about random topics, until it is stopped."""

    def __init__(self, campaign, rate):
        self.campaign, self.rate, self.dice = campaign, rate, random.Random(campaign.options.seed)
        self.is_over = threading.Event()
        self.numbers = itertools.count(1)
        self.readers = []
        for group in campaign.groups:
            group.client = campaign.cluster.cli_start(*group.arguments())
            self.readers.append(threading.Thread(target=self._read, args=(group.client,), daemon=True))
            self.readers[-1].start()
        self.writer = threading.Thread(target=self._write, daemon=True)
        self.writer.start()

    def _read(self, client):
        for line in client.stdout:
            self.campaign.ledger.take(json.loads(line), time.monotonic())

    def _hand_in(self, group):
        ledger, topic, number = self.campaign.ledger, self.dice.choice(group.topics), next(self.numbers)
        line = json.dumps({"id": number, "prompt": topic.prompt(self.dice)}) + "\n"
        with ledger.lock:
            group.under_way += 1
            ledger.jobs[number] = Job(topic, time.monotonic())
        group.client.stdin.write(line)
        group.client.stdin.flush()

    def _write(self):
        while not self.is_over.wait(1 / self.rate):
            group = self.dice.choice(self.campaign.groups)
            if group.under_way < UNDER_WAY_MAX:
                self._hand_in(group)

    def finish(self, timeout_s):
        """Returns what went wrong with clients."""
        self.is_over.set()
        self.writer.join()
        wrong, end = [], time.monotonic() + timeout_s
        for group in self.campaign.groups:
            group.client.stdin.close()
        for group, reader in zip(self.campaign.groups, self.readers):
            reader.join(max(0, end - time.monotonic()))
            if reader.is_alive():
                wrong.append(f"client of {group.place} did not end")
                group.client.kill()
            group.client.wait()
        return wrong


class Invalidator:
    """Changes the data of some topics, and invalidates what was answered about them."""

    def __init__(self, campaign):
        self.campaign, self.dice = campaign, random.Random(campaign.options.seed + 1)
        self.versions = itertools.count(1)
        self.made = collections.Counter()

    def _choose(self, kind):
        """(selector, tenant or None for an operator's, topics)."""
        group = self.dice.choice(self.campaign.groups)
        topic = self.dice.choice([topic for topic in group.topics if topic.is_plain])
        of = lambda name: [t for g in self.campaign.groups if g.tenant == group.tenant and g.names[name] == group.names[name] for t in g.topics]
        if kind in ("tag", "document", "route", "model", "template_version"):
            return {kind: group.names[kind]}, group.tenant, of(kind)
        if kind == "namespace":
            return {"cache_namespace": group.names["cache_namespace"], "has_namespace": True}, group.tenant, group.topics
        if kind == "tenant":
            return {"tenant": group.tenant}, group.tenant, [t for g in self.campaign.groups if g.tenant == group.tenant for t in g.topics]
        if kind == "text_prefix":
            return {"text_prefix": topic.text}, group.tenant, [topic]
        if kind == "near_text":
            topic = self.dice.choice(group.topics)
            return {"near_text": topic.text, "near_cosine_min": 0.9}, group.tenant, [topic]
        if kind in ("key", "scope"):
            found = self._entry_of(topic)
            return (None, None, []) if found is None else ({kind: bytes.fromhex(found[kind])}, group.tenant,
                                                           [topic] if kind == "key" else group.topics)
        return {"all": True}, None, self.campaign.topics

    def _entry_of(self, topic):
        status, text = self.campaign.cluster.broker.admin(f"/v1/cache/top?limit=200&namespace={topic.group.names['cache_namespace']}")
        entries = [e for w in json.loads(text)["workers"] for e in w.get("answer", {}).get("entries", ())] if status == 200 else []
        return next((e for e in entries if e["text"] == topic.text + "."), None)

    def _tell_versions(self):
        versions = [{"text": t.subject, "version": t.number * VERSIONS_MAX + t.version} for t in self.campaign.topics]
        status, text = harness.http_request(self.campaign.cluster.modelsim.ready["http"], "/control/versions", {"versions": versions})
        assert status == 200, text

    def begin(self):
        self._tell_versions()

    def invalidate(self, kind, meanwhile=None):
        """`meanwhile` is called between the sending and its confirmation."""
        selector, tenant, topics = self._choose(kind)
        if selector is None:
            return
        version = next(self.versions)
        for topic in topics:
            topic.version = version
        self._tell_versions()
        invalidation = Invalidation(version, selector)
        with self.campaign.ledger.lock:
            for topic in topics:
                topic.invalidations.append(invalidation)
        if not self.campaign.options.silent:
            (self._by_operator if tenant is None else self._by_client)(selector, tenant, version, meanwhile)
        with self.campaign.ledger.lock:
            invalidation.confirmed_at = time.monotonic()
        self.made[kind] += 1

    def _by_client(self, selector, tenant, number, meanwhile):
        message = wire.pb.CacheInvalidate(number=number, selector=wire.pb.CacheSelector(**selector), reason="data changed")
        with wire.Client(self.campaign.cluster.broker, tenant) as client:
            client.send(wire.pb.ClientMessage(cache_invalidate=[message]))
            if meanwhile is not None:
                meanwhile()
            answer, _ = client.wait("cache_invalidated", lambda item: item.number == number)
        assert answer.error == "", answer.error

    def _by_operator(self, selector, _tenant, _number, meanwhile):
        """Answered when all workers have confirmed, or five seconds later; meanwhile others go on."""
        if meanwhile is not None:
            meanwhile()
        status, text = self.campaign.cluster.broker.admin("/v1/cache/invalidate", selector)
        assert status == 200, text


KINDS = ("tag", "tag", "document", "document", "document", "namespace", "namespace", "text_prefix", "text_prefix", "text_prefix", "near_text",
         "near_text", "near_text", "key", "key", "scope", "template_version", "route", "model", "tenant", "all")


class Faults:
    """What is done to workers, one after the other."""

    def __init__(self, campaign):
        self.campaign, self.dice = campaign, random.Random(campaign.options.seed + 2)
        self.played = collections.Counter()

    def _disturb(self, name):
        """Returns the span; its end is set by _undisturb()."""
        span = [time.monotonic(), NEVER]
        with self.campaign.ledger.lock:
            self.campaign.ledger.disturbed[name].append(span)
        return span

    def play(self, card):
        name = self.dice.choice(self.campaign.names)
        self.campaign.say(f"{card} {name}")
        span = self._disturb(name)
        getattr(self, card)(name)
        self.played[card] += 1
        span[1] = time.monotonic() + 0.2  # what was held back arrives

    def kill(self, name):
        self.campaign.workers[name].kill()
        self.campaign.pause(self.dice.uniform(0, 1))
        self.campaign.start_again(name)

    def stop(self, name):
        process = self.campaign.workers[name]
        process.signal(harness.signal.SIGSTOP)
        self.campaign.pause(self.dice.uniform(0.3, 4.5))  # a lease lasts 3 s
        process.signal(harness.signal.SIGCONT)

    def cut(self, name):
        self.campaign.proxy.fail(self.campaign.links[name], "cut")
        self.campaign.wait_joined(name)

    def part(self, name):
        self.campaign.proxy.fail(self.campaign.links[name], "blackhole")
        self.campaign.pause(self.dice.uniform(0.3, 4.5))
        self.campaign.proxy.heal(self.campaign.links[name], cut=self.dice.random() < 0.5)

    def lose(self, name):
        """The connection is cut just as it is told of an invalidation."""
        def cut():
            time.sleep(self.dice.uniform(0, 0.003))  # somewhere on its way: nothing is waited for
            self.campaign.proxy.fail(self.campaign.links[name], self.dice.choice(("cut", "truncate_down")))
        self.campaign.invalidator.invalidate(self.dice.choice(("tag", "document", "namespace", "tenant")), cut)
        self.campaign.wait_joined(name)

    def lose_and_kill(self, name):
        """It is killed just as it is told of an invalidation."""
        self.campaign.invalidator.invalidate(self.dice.choice(("tag", "document", "namespace", "tenant")), self.campaign.workers[name].kill)
        self.campaign.start_again(name)

    # ---- damage

    def _tables(self, name):
        return sorted((self.campaign.cluster.directory / name / "cache").glob("*.sst"))

    def _damage(self, path):
        if not path.exists():
            return  # merged into another one since it was listed
        length = path.stat().st_size
        if self.dice.random() < 0.3:
            os.truncate(path, length // 2)
            return
        with open(path, "r+b") as file:
            for at in range(self.dice.randrange(64), length, 128):  # in each block, also of a young database
                file.seek(at)
                byte = file.read(1)
                file.seek(at)
                file.write(bytes((byte[0] ^ 1 << self.dice.randrange(8),)))

    def _is_set_aside(self, name, since):
        """A rebuild reads all that RocksDB does not hold in memory."""
        lines = self.campaign.workers[name].lines[since:]
        if any(isinstance(line, dict) and "set aside" in line.get("message", "") for line in lines):
            return True
        self.campaign.cluster.broker.admin("/v1/cache/rebuild", {}, method="POST")
        return False

    def _await_set_aside(self, name):
        """From its start on."""
        harness.wait_for(lambda: self._is_set_aside(name, 0), f"the database of {name} to be set aside")

    def _sees_damage(self, name, since):
        """Not when its database is so young that all of it is in memory, where it is whole."""
        end = time.monotonic() + 5
        while not self._is_set_aside(name, since):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def damage_down(self, name):
        self._make_tables(name)
        for path in self._tables(name):
            self._damage(path)
        self.campaign.start_again(name)
        self._await_set_aside(name)

    def damage_running(self, name):
        self._make_tables(name)
        self.campaign.start_again(name)
        since = len(self.campaign.workers[name].lines)
        for path in self._tables(name):
            self._damage(path)
        if not self._sees_damage(name, since):
            self.campaign.workers[name].kill()
            self.campaign.start_again(name)
            self._await_set_aside(name)

    def _make_tables(self, name):
        """Kills it, and leaves it so. What was written lately is only in the log until it opens it again."""
        self.campaign.workers[name].kill()
        if not self._tables(name):
            self.campaign.start_again(name)
            harness.wait_for(lambda: self._tables(name), f"tables of {name}")
            self.campaign.workers[name].kill()


DECK = ("kill",) * 6 + ("stop",) * 3 + ("cut",) * 3 + ("part",) * 3 + ("lose",) * 4 + ("lose_and_kill",) * 2 + ("damage_down", "damage_running")
QUICK_DECK = ("kill", "kill", "stop", "cut", "part", "lose", "lose_and_kill", "damage_down", "damage_running")


class Campaign:
    def __init__(self, options):
        self.options, self.say = options, lambda text: print(f"  {text}", flush=True) if options.verbose else None
        self.groups = [Group(number) for number in range(len(PLACES))]
        self.topics = [topic for group in self.groups for topic in group.topics]
        self.ledger = Ledger(self.topics)
        self.names = [f"worker-{i}" for i in range(1, 5)]
        self.workers, self.links, self.crashes = {}, {}, []
        self.is_over, self.turn = threading.Event(), threading.Lock()
        self.proxy = proxy.Proxy()
        patient = {"attempts_max": 1000, "backoff_first": "50ms", "backoff_max": "500ms"}
        self.cluster = harness.Cluster({
            "log": {"level": "info"}, "cache": {"mode": "near", "lookup_timeout": "2s", "rocksdb_block_cache_bytes": "1MiB"},
            "tenants": [{"name": "red"}, {"name": "blue"}],
            "tiers": [{"name": "standard", **patient}, {"name": "background", **patient}]})

    def pause(self, seconds):
        """How long a fault lasts; cut short when all is over."""
        self.is_over.wait(seconds)

    # ---- processes

    def start(self):
        self.cluster.start_modelsim("--first-token-ms", "150", "--jitter", "80")
        self.cluster.start_broker(broker={"lease": "3s", "heartbeat": "300ms", "reclaim": "500ms", "losses_max": 1000})
        host, port = self.cluster.broker.ready["workers"].removeprefix("tcp://").rsplit(":", 1)
        for name in self.names:
            self.links[name] = self.proxy.link(name, (host, int(port)))
            self.workers[name] = self.cluster.start_worker(name, worker={"brokers": [f"tcp://127.0.0.1:{self.links[name].port}"], "slots": 16})
        self.invalidator = Invalidator(self)
        self.invalidator.begin()
        self.faults = Faults(self)
        self.load = Load(self, self.options.rate)

    def start_again(self, name):
        self.workers[name] = self.cluster.run(name, self.workers[name].argv)
        self.wait_joined(name)

    def _joined(self):
        return [w["name"] for w in self.cluster.broker.admin_json("/v1/workers")["workers"]]

    def wait_joined(self, name):
        harness.wait_for(lambda: name in self._joined(), f"{name} to join")

    # ---- the campaign

    def _is_open(self):
        classes = self.cluster.broker.admin_json("/v1/cache/evidence")["classes"]
        return any(c["tenant"] == "red" and c["state"] == "open" for c in classes)

    def warm_up(self):
        """Until near hits are served."""
        harness.wait_for(lambda: self._is_open() and self.ledger.answers["near_hit"] > 0, "near hits", timeout_s=3 * harness.TIMEOUT_S)

    def _invalidate_always(self):
        dice = random.Random(self.options.seed + 3)
        try:
            while not self.is_over.wait(dice.expovariate(self.options.invalidations)):
                with self.turn:
                    self.invalidator.invalidate(dice.choice(KINDS))
        except Exception as error:  # pylint: disable=broad-except
            self.crashes.append(f"invalidating ended: {error!r}")

    def disturb(self):
        """One thread invalidates, this one plays faults; a fault that invalidates too waits for its turn."""
        always = threading.Thread(target=self._invalidate_always, daemon=True)
        always.start()
        end = time.monotonic() + self.options.seconds
        dice = random.Random(self.options.seed + 4)
        cards = dice.sample(QUICK_DECK, len(QUICK_DECK)) if self.options.quick else iter(lambda: dice.choice(DECK), None)
        for card in cards:
            with self.turn if card in ("lose", "lose_and_kill") else contextlib.nullcontext():
                self.faults.play(card)
            self._look_for_crashes()
            self.pause(0.2)
            if time.monotonic() > end:
                break
        self.is_over.set()
        always.join()

    def _look_for_crashes(self):
        for name, process in self.workers.items():
            if not process.is_running() and not process.was_killed:
                self.crashes.append(f"{name} ended by itself with {process.popen.returncode}:\n{process.output()[-3000:]}")
                process.was_killed = True
                self.start_again(name)

    def finish(self):
        """All serve again, and everything that was handed in is answered."""
        for name in self.names:
            self.wait_joined(name)
        before = dict(self.ledger.by_worker)
        harness.wait_for(lambda: all(self.ledger.by_worker[name, True] > before.get((name, True), 0) for name in self.names),
                         "hits of every worker after the faults")
        self.crashes += self.load.finish(60)
        self._look_for_crashes()
        stats = self.cluster.broker.admin_json("/v1/cache/stats")
        self.crashes += [f"{w['worker']}: {w}" for w in stats["workers"] if "error" in w or w["answer"]["broken"]]

    def close(self):
        self.is_over.set()
        self.load.is_over.set()
        for group in self.groups:
            group.client.poll() is None and group.client.kill()
        self.cluster.stop(check=False)
        self.proxy.close()
        self.crashes += [f"{p.name}: {report}" for p in self.cluster.processes for report in p.sanitizer_reports()]

    def set_aside(self):
        return sum(1 for p in self.cluster.processes for line in p.lines
                   if isinstance(line, dict) and "set aside" in line.get("message", "") and "cannot" not in line["message"])

    def report(self):
        """Returns whether all is well."""
        ledger = self.ledger
        lookups = sum(count for kind, count in ledger.answers.items() if kind in (*CACHED, "miss"))
        print(f"invalidations {sum(self.invalidator.made.values())}: {dict(self.invalidator.made)}")
        print(f"lookups {lookups}, hits {sum(ledger.answers[kind] for kind in CACHED)}: {dict(ledger.answers)}; outcomes {dict(ledger.outcomes)}")
        print(f"faults {sum(self.faults.played.values())}: {dict(self.faults.played)}; databases set aside {self.set_aside()}")
        print(f"greatest time to effect {1000 * ledger.effect_s:.0f} ms; of workers that were cut off or stopped {1000 * ledger.disturbed_effect_s:.0f} ms")
        print(f"violations {len(ledger.violations)}; other findings {len(self.crashes)}")
        for finding in (ledger.violations + self.crashes)[:20]:
            print(f"  {finding}")
        failed = set(ledger.outcomes) - {"succeeded"}
        return not (ledger.violations or self.crashes or failed or ledger.jobs)


def read_options():
    comment = itertools.takewhile(lambda line: line.startswith("#"), (HERE / "stale.sh").read_text().split("\n\n", 1)[1].splitlines())
    parser = argparse.ArgumentParser(prog="tests/chaos/stale.sh", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description="\n".join(line.removeprefix("#").removeprefix(" ") for line in comment))
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big") + 1)
    parser.add_argument("--seconds", type=float, default=300, help="of faults (300)")
    parser.add_argument("--quick", action="store_true", help="each card of a small deck once")
    parser.add_argument("--rate", type=float, default=120, help="jobs a second (120)")
    parser.add_argument("--invalidations", type=float, default=3, help="a second (3)")
    parser.add_argument("--silent", action="store_true", help="change data without invalidating: must fail")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="name each fault as it is made")
    return parser.parse_args()


def main():
    options = read_options()
    campaign = Campaign(options)
    began = time.monotonic()
    print(f"stale: seed {options.seed}, directory {campaign.cluster.directory}, load average {os.getloadavg()[0]:.1f}", flush=True)
    is_whole = False
    try:
        campaign.start()
        campaign.warm_up()
        print(f"stale: near hits after {time.monotonic() - began:.0f} s", flush=True)
        campaign.disturb()
        campaign.finish()
        is_whole = True
    finally:
        campaign.close()
        is_well = campaign.report() and is_whole
        print(f"stale: {'ok' if is_well else 'FAILED'}: seed {options.seed}, {time.monotonic() - began:.0f} s"
              + ("" if is_well and not options.keep else f"; kept in {campaign.cluster.directory}"))
    if is_well and not options.keep:
        shutil.rmtree(campaign.cluster.directory, ignore_errors=True)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
