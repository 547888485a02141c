#!/usr/bin/python3
"""
check: judges what a chaos campaign left in its directory (chaos.py), and can be run on it again:

    tests/chaos/check.py DIRECTORY

It believes nobody: what clients saw is in their histories, what was done to the processes in nemesis.jsonl, what was paid in the
simulator's calls.jsonl, what the right answers are it asks a simulator of its own. It reports

    lost         a job that was acknowledged on a durable tier and has no outcome, or whose outcome is no longer known
    duplicated   two different outcomes of one job, or a job that runs again after its outcome
    stuck        no outcome although all faults are over, and the process that should have one
    wrong        an outcome that this job cannot have: another answer than its prompt's, expired too early, cancelled by nobody,
                 dead with attempts left, refused without a reason; another tenant's job seen
    money        a call that was paid again without a fault that explains it, or a second call beside it (a hedge) that its
                 answer speaks of; an answer that nobody paid for
    crashed      a process that ended by itself
    proves_little  the campaign did not do what it was asked for

Exit code 0: none of these. 1: some, each printed with its job and the lines of history. 2: the directory cannot be read.
"""

import argparse
import collections
import dataclasses
import functools
import http.client
import json
import os
import pathlib
import subprocess
import sys

KINDS = ("lost", "duplicated", "stuck", "wrong", "money", "crashed", "proves_little")
CONCLUSIONS = ("succeeded", "dead", "cancelled", "expired")
# Refusals that a fault or a short deadline explains; any other means that the submission itself was at fault, and none was.
REFUSALS = ("draining", "storage", "queue_full")
PENDING = ("queued", "backing_off", "loading", "leased", "following", "parked")
BROKER_DEATHS = ("kill_broker", "term_broker")
NOT_REACHED = "no broker could be reached"  # what the library says when it could not even ask: no broker's word, so no conclusion
ID_LENGTH = 36
CLOCK_SLACK_MS = 20  # milliseconds are rounded on their way from client to broker and back
SLACK_AFTER_FAULT_MS = 500
HEDGE_RACE_MS = 500  # an answer that the simulator has written, and a worker without a processor for so long has not read
LINES_SHOWN = 12


@dataclasses.dataclass
class Finding:
    kind: str
    job: str
    why: str
    lines: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Job:
    id: str
    client: str
    tenant: str
    submit: dict  # the first one
    lines: list = dataclasses.field(default_factory=list)
    accepted: list = dataclasses.field(default_factory=list)
    outcomes: list = dataclasses.field(default_factory=list)
    cancels: list = dataclasses.field(default_factory=list)
    failures: list = dataclasses.field(default_factory=list)

    @property
    def conclusions(self):
        return [event for event in self.outcomes if event["state"] in CONCLUSIONS]

    @property
    def is_alias(self):
        """Accepted as an earlier job under the same key: the broker does not know it by its own id."""
        return bool(self.submit["key"]) and any(event["duplicate"] for event in self.accepted)


def read_lines(path):
    """(line number, object) of each whole line; one that a kill cut off says nothing."""
    if not path.exists():
        return
    with path.open(errors="replace") as lines:
        for number, text in enumerate(lines, 1):
            try:
                value = json.loads(text)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield number, value


def read_json(path, default):
    return json.loads(path.read_text()) if path.exists() else default


class Campaign:
    """Everything in the directory, by job."""

    def __init__(self, directory):
        directory = pathlib.Path(directory)
        self.run = json.loads((directory / "run.json").read_text())
        self.nemesis = [line for _, line in read_lines(directory / "nemesis.jsonl")]
        self.calls = [line for _, line in read_lines(directory / "calls.jsonl")]
        self.broker = read_json(directory / "broker.json", {})  # what the broker said in the end
        self.audit = {line["id"]: line for path in directory.glob("audit-*.jsonl")
                      for _, line in read_lines(path) if line["event"] == "audit"}
        self.jobs = {}
        self.foreign = []  # (client, event)
        for path in sorted(directory.glob("history-*.jsonl")):
            self._read_history(path)
        self.by_key = collections.defaultdict(list)
        for job in self.jobs.values():
            if job.submit["key"]:
                self.by_key[job.tenant, job.submit["key"]].append(job)

    def _read_history(self, path):
        client = tenant = None
        for number, event in read_lines(path):
            if event["event"] == "start":
                client, tenant = event["client"], event["tenant"]
            elif event["event"] == "foreign":
                self.foreign.append((client, event))
            elif "id" in event:
                self._take(client, tenant, event, f"{path.name}:{number}: {json.dumps(event)}")

    def _take(self, client, tenant, event, line):
        job = self.jobs.get(event["id"])
        if job is None and event["event"] == "submit":
            job = self.jobs[event["id"]] = Job(event["id"], client, tenant, event)
        if job is None:
            raise ValueError(f"a history that begins in the middle: {line}")
        job.lines.append(line)
        if event["event"] == "outcome" and event["state"] == "expired" and event["reason"].startswith(NOT_REACHED):
            event["state"] = "not_reached"
        kinds = {"accepted": job.accepted, "outcome": job.outcomes, "cancel": job.cancels, "call_failed": job.failures}
        kinds.get(event["event"], []).append(event)

    def is_durable(self, job):
        return self.run["tiers"][job.submit["tier"]]["durable"]

    def broker_died(self, from_ms, to_ms):
        """Whether one was dead, or told to stop, at any moment of that time."""
        return any(fault in BROKER_DEATHS and from_ms <= end and begin <= to_ms for fault, _, begin, end in self.deeds)

    @functools.cached_property
    def deeds(self):
        """[fault, target, from_ms, to_ms] of all that was done; what was not healed lasts to the end."""
        ends = {line["of"]: line["at_ms"] for line in self.nemesis if line["fault"] == "healed"}
        return [(line["fault"], line["target"], line["at_ms"], ends.get(line["number"], float("inf")))
                for line in self.nemesis if line["fault"] != "healed"]


class Oracle:
    """What a model answers to a prompt: asked of a simulator that nobody disturbs. A context manager."""

    def __init__(self, modelsim, arguments):
        self._argv = [str(modelsim), "--listen", "127.0.0.1:0", *arguments]
        self._known = {}

    def __enter__(self):
        self._process = subprocess.Popen(self._argv, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        ready = json.loads(self._process.stderr.readline())
        self._connection = http.client.HTTPConnection(ready["http"].removeprefix("http://"), timeout=30)
        return self

    def __exit__(self, *_):
        self._connection.close()
        self._process.terminate()
        self._process.wait(10)
        self._process.stderr.close()

    def __call__(self, model, operation, prompt):
        asked = (model, operation, prompt)
        if asked not in self._known:
            self._known[asked] = self._ask(model, operation, prompt)
        return self._known[asked]

    def _ask(self, model, operation, prompt):
        is_chat = operation == "chat.completions"
        body = {"messages": [{"role": "user", "content": prompt}]} if is_chat else {"prompt": prompt}
        self._connection.request("POST", "/v1/chat/completions" if is_chat else "/v1/completions",
                                 json.dumps({"model": model, **body}), {"Content-Type": "application/json"})
        choice = json.loads(self._connection.getresponse().read())["choices"][0]
        return choice["message"]["content"] if is_chat else choice["text"]


class Checker:
    def __init__(self, campaign, expected):
        self.campaign, self.expected = campaign, expected
        self.findings = []
        self.counts = collections.Counter()

    def check(self):
        for job in self.campaign.jobs.values():
            self.check_kept(job)
            self.check_once(job)
            self.check_right(job)
            self.check_after_restart(job)
        self.check_keys()
        self.check_foreign()
        self.check_broker()
        self.check_money()
        self.check_processes()
        return self.findings

    def find(self, kind, job, why):
        lines = job.lines[-LINES_SHOWN:] if job is not None else []
        self.findings.append(Finding(kind, job.id if job is not None else "", why, lines))

    # -------------------------------------------------------------------------------------- lost, stuck

    def check_kept(self, job):
        self.counts["jobs"] += 1
        self.counts["accepted"] += bool(job.accepted)
        if job.failures:
            self.find("wrong", job, f"the library refused a call: {job.failures[-1]}")
        elif job.conclusions:
            self.counts[job.conclusions[0]["state"]] += 1
        elif not job.outcomes:
            self.check_open(job)
        elif not job.accepted:
            self.counts["never accepted"] += 1
        elif self.campaign.is_durable(job):
            self.check_durable_without_conclusion(job)
        else:
            self.check_unknown(job)

    def check_open(self, job):
        where = self.campaign.broker.get("open", {}).get(job.id, {})
        if where.get("state") in PENDING:
            self.find("stuck", job, f"{where['state']} at the broker, long after the last fault: {where}")
        elif job.accepted and self.campaign.is_durable(job) and self.campaign.audit.get(job.id, {}).get("state") == "unknown" \
                and not job.is_alias:
            self.find("lost", job, "acknowledged, no outcome, and the broker does not know it")
        else:
            self.find("stuck", job, f"its client still waits, and the broker does not have it pending: {where}")

    def check_durable_without_conclusion(self, job):
        last = job.outcomes[-1]["state"]
        others = [other for other in self.campaign.by_key.get((job.tenant, job.submit["key"]), []) if other.conclusions]
        if last == "collected" and (job.submit["discard"] or others):
            self.counts["collected by another, or not kept"] += 1
        elif last == "collected":
            self.find("lost", job, "its answer was collected, and no client has seen it")
        else:
            self.find("lost", job, f"acknowledged on a durable tier, and in the end {last}")

    def check_unknown(self, job):
        last = job.outcomes[-1]
        others = [other for other in self.campaign.by_key.get((job.tenant, job.submit["key"]), []) if other.conclusions]
        if last["state"] == "collected" and others:
            self.counts["collected by another, or not kept"] += 1
        elif self.campaign.broker_died(job.submit["at_ms"], last["at_ms"]):
            self.counts["outcome unknown (in memory, broker died)"] += 1
        else:
            self.find("lost", job, f"in memory, in the end {last['state']}, and no broker died meanwhile")

    def check_broker(self):
        for when in ("after quiet", "after its restart"):
            jobs = self.campaign.broker.get(when, {}).get("jobs")
            if jobs is None:
                self.find("proves_little", None, f"the broker was not asked for its jobs {when}")
            elif jobs != 0:
                self.find("stuck" if when == "after quiet" else "duplicated", None,
                          f"the broker has {jobs} pending jobs {when}, and should have none: {self.campaign.broker[when]}")
        self.check_dead_letters()
        for client in self.campaign.broker.get("clients that did not end", []):
            self.find("stuck", None, f"{client} still waited {self.campaign.run['quiet_s']} s after the last fault")

    def check_dead_letters(self):
        """An operator finds each dead job; one whose client saw no conclusion (its result was not kept, say) may be one, too."""
        durable = [job for job in self.campaign.jobs.values() if self.campaign.is_durable(job)]
        dead = len({(job.tenant, job.submit["key"] or job.id)
                    for job in durable if job.conclusions and job.conclusions[0]["state"] == "dead"})
        unseen = sum(not job.conclusions for job in durable)
        letters = self.campaign.broker.get("after its restart", {}).get("dead_letters", 0)
        if not dead <= letters <= dead + unseen:
            self.find("lost", None, f"{dead} jobs are dead, and the broker has {letters} dead letters")

    # --------------------------------------------------------------------------------------- duplicated

    @staticmethod
    def _conclusion(event):
        return event["state"], event["text"], event["model"]

    def check_once(self, job):
        told = {self._conclusion(event) for event in job.conclusions}
        if len(told) > 1:
            first, last = job.conclusions[0], job.conclusions[-1]
            if self.campaign.is_durable(job) or not self.campaign.broker_died(first["at_ms"], last["at_ms"]):
                self.find("duplicated", job, f"{len(told)} outcomes: {sorted(told)}")
        if job.conclusions and job.accepted and self.campaign.is_durable(job):
            later = job.outcomes[job.outcomes.index(job.conclusions[0]) + 1:]
            for event in later:
                if event["state"] not in CONCLUSIONS + ("collected", "not_reached") and not job.is_alias:
                    self.find("lost", job, f"its conclusion was known, and is {event['state']} when asked again")

    def check_keys(self):
        for (tenant, key), jobs in self.campaign.by_key.items():
            told = {self._conclusion(event) for job in jobs for event in job.conclusions}
            if len(told) > 1 and self.campaign.is_durable(jobs[0]):
                self.find("duplicated", jobs[-1], f"jobs of {tenant} under the key {key} have {len(told)} outcomes: {sorted(told)}")

    def check_after_restart(self, job):
        """A last restart, without workers: what was concluded is so still."""
        if not self.campaign.is_durable(job) or not job.accepted or job.is_alias:
            return
        state = self.campaign.audit.get(job.id, {}).get("state")
        told = {event["state"] for event in job.conclusions}
        if state is None:
            self.find("proves_little", job, "was not asked for after the last restart")
        elif state in PENDING and told:
            self.find("duplicated", job, f"concluded, and {state} again after the last restart")
        elif told and state in CONCLUSIONS and state not in told:
            self.find("duplicated", job, f"concluded as {sorted(told)}, and {state} after the last restart")
        elif told and state == "unknown":
            self.find("lost", job, "concluded, and unknown after the last restart: a resubmission would run again")

    # -------------------------------------------------------------------------------------------- wrong

    def check_right(self, job):
        for event in job.outcomes:
            why = getattr(self, f"_why_not_{event['state']}", lambda job, event: None)(job, event)
            if why is not None:
                self.find("wrong", job, why)
            self._check_stream(job, event)

    def _answers(self, job):
        return [self.expected(model, job.submit["operation"], job.submit["prompt"]) for model in self.campaign.run["models"]]

    def _why_not_succeeded(self, job, event):
        if event["model"] not in self.campaign.run["models"]:
            return f"answered by {event['model']!r}, which is none of the models"
        right = self.expected(event["model"], job.submit["operation"], job.submit["prompt"])
        return None if event["text"] == right else f"its answer is not that of its prompt, which is {right!r}"

    def _why_not_expired(self, job, event):
        early_ms = job.submit["deadline_at_ms"] - event["at_ms"]
        return f"expired {early_ms} ms before its deadline" if early_ms > CLOCK_SLACK_MS else None

    def _why_not_cancelled(self, job, event):
        same = [job, *self.campaign.by_key.get((job.tenant, job.submit["key"]), [])]  # one job, whoever submitted it
        asked = any(cancel["at_ms"] <= event["at_ms"] for other in same for cancel in other.cancels)
        return None if asked else "cancelled, and nobody had asked for it"

    def _why_not_dead(self, job, event):
        attempts_max = self.campaign.run["tiers"][job.submit["tier"]]["attempts_max"]
        return None if event["attempts"] >= attempts_max else f"dead after {event['attempts']} of {attempts_max} attempts"

    def _why_not_rejected(self, job, event):
        if event["code"] in REFUSALS:
            self.counts["refused"] += 1
            return None
        is_short = job.submit["deadline_at_ms"] - event["at_ms"] < 60000
        if event["code"] == "deadline" and is_short:
            self.counts["refused"] += 1
            return None
        return f"refused: {event['code']}: {event['reason']}"

    def _check_stream(self, job, event):
        streamed = event.get("streamed")
        if streamed is None:
            return
        self.counts["streams"] += 1
        answers = self._answers(job)
        if event["stream_whole"]:
            self.counts["streams that came whole"] += 1
            if streamed not in answers:
                self.find("wrong", job, f"its whole stream is not an answer to its prompt; those are {answers}")
        elif not any(answer.startswith(streamed) for answer in answers):
            self.find("wrong", job, f"what it was shown begins no answer to its prompt; those are {answers}")

    def check_foreign(self):
        for client, event in self.campaign.foreign:
            self.counts["foreign jobs asked for"] += 1
            if event["state"] != "unknown" or event["text"]:
                self.find("wrong", self.campaign.jobs.get(event["id"]), f"{client} of another tenant was told: {event}")

    # -------------------------------------------------------------------------------------------- money

    def _calls_by_job(self):
        """A key is the job's id and, behind it, whom was asked: an answer from another provider is paid again, too."""
        began, by_job = {}, collections.defaultdict(list)
        for line in self.campaign.calls:
            if line["event"] == "began":
                began[line["call"]] = {**line, "end": None}
                by_job[line["key"][:ID_LENGTH]].append(began[line["call"]])
            elif line["call"] in began:
                began[line["call"]]["end"] = line
        return by_job

    def _explains(self, deed, call, again):
        """Whether this deed can be why a call that was answered was made again: it hit whoever had the answer, or was to keep it."""
        fault, target, from_ms, to_ms = deed
        if from_ms > again["at_ms"] or to_ms + SLACK_AFTER_FAULT_MS < call["at_ms"]:
            return False
        return target in ("broker", "simulator", call["account"], again["account"])

    @staticmethod
    def _is_other_provider(call, again):
        return call["key"] != again["key"] and call["account"] == again["account"]

    def _is_hedge(self, job, call, again):
        """
        Whether the second call was made beside the first, whose answer was on its way meanwhile: by the same worker, at another
        provider, no later than it can have been without that answer, and said with the answer that the job got.
        """
        if not self._is_other_provider(call, again) or again["at_ms"] - call["end"]["at_ms"] > HEDGE_RACE_MS:
            return False
        same = self.campaign.by_key.get((job.tenant, job.submit["key"]), [job])  # one job, whoever submitted it
        told = [event for other in same for event in other.conclusions if event["state"] == "succeeded"]
        return any(event["hedged"] and event["worker"] == again["account"] for event in told)

    def check_money(self):
        by_job, deeds = self._calls_by_job(), self.campaign.deeds
        paid = set()  # (tenant, operation, prompt, model)
        for id_, calls in by_job.items():
            job = self.campaign.jobs.get(id_)
            answered = [call for call in calls if call["end"] is not None and call["end"]["event"] == "answered"]
            self.counts["provider calls"] += len(calls)
            self.counts["provider calls answered"] += len(answered)
            if job is None:
                self.find("money", None, f"{len(calls)} calls for {id_!r}, which is no client's job")
                continue
            paid.update((job.tenant, job.submit["operation"], job.submit["prompt"], call["end"]["model"]) for call in answered)
            for call in answered:
                for again in calls:
                    if again["at_ms"] >= call["end"]["at_ms"] and again is not call:
                        self.counts["calls paid again"] += 1
                        self._check_paid_again(job, call, again, deeds)
                        break
        for job in self.campaign.jobs.values():
            for event in job.conclusions:
                what = (job.tenant, job.submit["operation"], job.submit["prompt"], event["model"])
                if event["state"] == "succeeded" and what not in paid:
                    self.find("money", job, "answered, and nobody of its tenant has paid for that answer")

    def _check_paid_again(self, job, call, again, deeds):
        if call["end"]["fault"] != "none" or any(self._explains(deed, call, again) for deed in deeds):
            return
        if self._is_hedge(job, call, again):
            self.counts["calls paid again, beside a slow one"] += 1
            return
        self.counts["calls paid again, unexplained"] += 1
        self.find("money", job, f"paid again without a fault that explains it: {call}, then {again}")

    # ---------------------------------------------------------------------------------------- the campaign

    def check_processes(self):
        for crash in self.campaign.run.get("crashes", []):
            self.find("crashed", None, crash)
        run, done = self.campaign.run, collections.Counter(line["fault"] for line in self.campaign.nemesis)
        self.counts["kills of broker and workers"] = kills = done["kill_broker"] + done["kill_worker"]
        self.counts["kills of the broker"] = done["kill_broker"]
        self.counts["kills of clients"] = done["kill_client"]
        self.counts["other faults"] = sum(done.values()) - done["healed"] - kills - done["kill_client"]
        if run["power_cuts"] is not None:
            self.counts["power cuts"], self.counts["things they took away"] = len(run["power_cuts"]), sum(run["power_cuts"])
            if not sum(run["power_cuts"]):
                self.find("proves_little", None, f"{len(run['power_cuts'])} power cuts took nothing away")
        if kills < run["kills_wanted"]:
            self.find("proves_little", None, f"{kills} kills of the {run['kills_wanted']} that were wanted")
        missing = sorted(set(run["faults_wanted"]) - set(done))
        if missing:
            self.find("proves_little", None, f"faults that never happened: {missing}")
        if self.counts["succeeded"] < run["succeeded_wanted"]:
            self.find("proves_little", None, f"only {self.counts['succeeded']} jobs succeeded")


def print_report(checker):
    found = collections.Counter(finding.kind for finding in checker.findings)
    for finding in checker.findings[:50]:
        print(f"{finding.kind.upper()} {finding.job}: {finding.why}")
        for line in finding.lines:
            print(f"    {line[:600]}")
    for name, count in checker.counts.items():
        print(f"{count:8}  {name}")
    print("  ".join(f"{kind} {found[kind]}" for kind in KINDS))


def check_directory(directory, modelsim):
    campaign = Campaign(directory)
    with Oracle(modelsim, campaign.run["modelsim_arguments"]) as expected:
        checker = Checker(campaign, expected)
        checker.check()
    return checker


def main():
    parser = argparse.ArgumentParser(description="Judges the directory of a chaos campaign.")
    parser.add_argument("directory", type=pathlib.Path)
    build = pathlib.Path(os.environ.get("TIERMQ_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build"))
    parser.add_argument("--modelsim", default=build / "tests/modelsim/tiermq-modelsim")
    arguments = parser.parse_args()
    try:
        checker = check_directory(arguments.directory, arguments.modelsim)
    except (OSError, ValueError, KeyError) as error:
        print(f"check: {arguments.directory}: {error!r}", file=sys.stderr)
        return 2
    print_report(checker)
    return 1 if checker.findings else 0


if __name__ == "__main__":
    sys.exit(main())
