"""
nemesis: what happens to a cluster in a campaign, decided by a seed. It plays cards from a deck that holds every kind of fault at
least once, shuffled; when the deck is empty it shuffles another. A card has one victim, which is left alone until it is well again.

What was done is in nemesis.jsonl, a line at the beginning of each fault and one ("healed", of: its number) at its end.
"""

import heapq
import itertools
import json
import signal
import time

import proxy
from harness import http_request

# Cards, and how many of each a deck has.
KILLS = {"kill_broker": 6, "kill_worker": 12}
OTHERS = {
    "kill_machine": 1, "kill_client": 3, "kill_simulator": 1, "term_broker": 1, "term_worker": 1,
    "stop_broker": 1, "stop_worker": 2, "stop_client": 1, "stop_simulator": 1,
    **{f"net_{fault}": 1 for fault in proxy.FAULTS}, "net_partition": 1,
    "sim_429": 1, "sim_500": 1, "sim_503": 1, "sim_hang": 1, "sim_reset": 1, "sim_truncated": 1, "sim_garbage": 1, "sim_empty": 1,
    "sim_error_in_200": 1, "sim_slow": 1, "sim_stall": 1, "sim_outage": 1,
}
DECK = {**KILLS, **OTHERS}
QUICK_DECK = {**{card: 1 for card in OTHERS}, "kill_broker": 4, "kill_worker": 8}
TERM_TIMEOUT_S = 20


def monotonic_ms():
    return time.monotonic_ns() // 1_000_000


class Nemesis:
    """
    `campaign` has: current(name) the running Process, restart(name), links and proxy, names of "broker", "simulator", workers and
    clients, after_kill(name), and crashes, a list of sentences.
    """

    def __init__(self, campaign, random, path, deck, say):
        self.campaign, self.random, self.deck, self.say = campaign, random, deck, say
        self._log = open(path, "a", buffering=1)
        self._numbers = itertools.count(1)
        self._later = []  # heap of (time, number, function)
        self._busy = set()
        self._hand = []
        self._sim_faults = {}  # number: (fault of a script, end in monotonic ms)
        self.played = set()
        self.kills = 0
        self._began_ms = monotonic_ms()

    # ------------------------------------------------------------------------------------------- time

    def later(self, delay_s, function):
        heapq.heappush(self._later, (time.monotonic() + delay_s, next(self._numbers), function))

    def run_due(self):
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()

    def finish(self):
        """Lets everything that was begun end, now."""
        while self._later:
            heapq.heappop(self._later)[2]()

    # -------------------------------------------------------------------------------------------- log

    def write(self, fault, target, **more):
        number = next(self._numbers)
        line = {"at_ms": monotonic_ms(), "number": number, "fault": fault, "target": target, **more}
        self._log.write(json.dumps(line) + "\n")
        details = " ".join(f"{key}={value}" for key, value in more.items())
        self.say(f"{(line['at_ms'] - self._began_ms) / 1000:8.2f} s  {fault} {target} {details}".rstrip())
        return number

    def write_healed(self, number, target):
        self._log.write(json.dumps({"at_ms": monotonic_ms(), "number": next(self._numbers), "fault": "healed", "target": target,
                                    "of": number}) + "\n")

    def close(self):
        self._log.close()

    # ------------------------------------------------------------------------------------------- cards

    def has_played_all(self):
        return set(self.deck) <= self.played

    def play(self):
        """The next card for which there is a victim."""
        if not self._hand:
            self._hand = [card for card, count in self.deck.items() for _ in range(count)]
            self.random.shuffle(self._hand)
        for position, card in enumerate(self._hand):
            if self._play(card):
                self.played.add(card)
                del self._hand[position]
                return

    def _play(self, card):
        deed, _, what = card.partition("_")
        if card == "kill_machine":
            return self._kill_machine(card)
        if deed == "net":
            return self._net(card, what)
        if deed == "sim":
            return self._sim(card, what)
        victim = self._victim({"broker": ["broker"], "simulator": ["simulator"], "worker": self.campaign.workers,
                               "client": self.campaign.clients}[what])
        if victim is None:
            return False
        {"kill": self._kill, "term": self._term, "stop": self._stop}[deed](card, victim)
        return True

    def _victim(self, names):
        free = [name for name in names if name not in self._busy]
        return self.random.choice(free) if free else None

    def _well_again(self, number, victim):
        self.write_healed(number, victim)
        self._busy.discard(victim)

    # --------------------------------------------------------------------------------------- processes

    def _kill(self, card, victim):
        self._busy.add(victim)
        number = self.write(card, victim)
        self.kills += card in KILLS
        self.campaign.current(victim).kill()
        self.campaign.after_kill(victim)
        self.later(self.random.choice((0, 0, 0.1, 0.5, 1.5)), lambda: self._restart(number, victim))

    def _kill_machine(self, card):
        """The broker and the workers beside it, in one moment."""
        victims = [name for name in ("broker", *self.campaign.workers) if name not in self._busy]
        number = self.write(card, "machine")
        for victim in victims:
            self._kill("kill_broker" if victim == "broker" else "kill_worker", victim)
        self.write_healed(number, "machine")
        return bool(victims)

    def _restart(self, number, victim):
        self.campaign.restart(victim)
        if victim == "simulator":
            self._set_sim_faults()
        self._well_again(number, victim)

    def _term(self, card, victim):
        self._busy.add(victim)
        number = self.write(card, victim)
        process = self.campaign.current(victim)
        process.was_killed = True  # whether it ends in good order is seen to here
        process.signal(signal.SIGTERM)
        self._await_end(number, victim, process, time.monotonic() + TERM_TIMEOUT_S)

    def _await_end(self, number, victim, process, end):
        code = process.popen.poll()
        if code is None and time.monotonic() < end:
            time.sleep(0.01)  # only matters when finish() hurries
            self.later(0.05, lambda: self._await_end(number, victim, process, end))
            return
        if code is None:
            self.campaign.crashes.append(f"{victim} did not end within {TERM_TIMEOUT_S} s of SIGTERM")
            process.kill()
        elif code == -signal.SIGTERM and not process.lines:
            pass  # it had only just been started, and had no handler yet
        elif code != 0:
            self.campaign.crashes.append(f"{victim} ended with {code} after SIGTERM:\n{process.output()[-2000:]}")
        self._restart(number, victim)

    def _stop(self, card, victim):
        self._busy.add(victim)
        number = self.write(card, victim)
        process = self.campaign.current(victim)
        process.signal(signal.SIGSTOP)

        def go_on():
            process.signal(signal.SIGCONT)
            self._well_again(number, victim)

        self.later(self.random.choice((0.2, 1, 2.5, 5)), go_on)

    # ----------------------------------------------------------------------------------------- network

    def _net(self, card, fault):
        if fault == "partition":
            return self._partition(card)
        link = self._victim_link(self.campaign.links)
        if link is None:
            return False
        self._fail_link(card, link, fault, self.random.uniform(0.3, 4))
        return True

    def _victim_link(self, links):
        free = [link for link in links if f"link {link.name}" not in self._busy]
        return self.random.choice(free) if free else None

    def _fail_link(self, card, link, fault, lasts_s):
        self._busy.add(f"link {link.name}")
        number = self.write(card, link.peer, link=link.name)
        self.campaign.proxy.fail(link, fault)
        cut = self.random.random() < 0.5

        def heal():
            self.campaign.proxy.heal(link, cut)
            self._busy.discard(f"link {link.name}")
            self.write_healed(number, link.peer)

        self.later(0 if fault == "cut" else lasts_s, heal)

    def _partition(self, card):
        """The broker hears nobody for a while, and nobody hears it."""
        lasts_s = self.random.uniform(0.5, 3)
        links = [link for link in self.campaign.links if f"link {link.name}" not in self._busy]
        for link in links:
            self._fail_link(card, link, "blackhole", lasts_s)
        return bool(links)

    # --------------------------------------------------------------------------------------- simulator

    def _sim(self, card, what):
        retry = {"retry_after_ms": self.random.choice((200, 1000, 2000)),
                 "retry_after": self.random.choice(("header", "date", "ms_header", "body", "none"))}
        fault = {
            "429": {"kind": "status", "status": 429, "rate": 0.7, **retry},
            "500": {"kind": "status", "status": 500, "rate": 0.7},
            "503": {"kind": "status", "status": 503, "rate": 0.7, **retry},
            "hang": {"kind": "hang", "rate": 0.3, "hang_ms": 5000},
            "slow": {"kind": "slow", "rate": 0.5, "factor": 30},
            "stall": {"kind": "stall", "rate": 0.7, "hang_ms": 1500},
            "outage": self.random.choice(({"kind": "status", "status": 503}, {"kind": "reset"})),
        }.get(what, {"kind": what, "rate": 0.6})
        lasts_s = self.random.uniform(1, 3)
        number = self.write(card, "simulator fault", script=fault, lasts_s=round(lasts_s, 2))
        self._sim_faults[number] = (fault, monotonic_ms() + lasts_s * 1000)
        self._set_sim_faults()

        def heal():
            del self._sim_faults[number]
            self._set_sim_faults()
            self.write_healed(number, "simulator fault")

        self.later(lasts_s, heal)
        return True

    def _set_sim_faults(self):
        now = monotonic_ms()
        script = [{**fault, "until_ms": max(1, int(end - now))} for fault, end in self._sim_faults.values()]
        try:
            http_request(self.campaign.simulator_http, "/control/faults", {"faults": script}, timeout_s=0.5)
        except OSError:
            pass  # it is dead or stopped now; the script is set when it starts again
