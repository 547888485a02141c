"""The checker can fail: each kind of harm, put into an otherwise good campaign, is found, and nothing else is."""

import copy
import json

import pytest

import check

TIERS = {"realtime": {"durable": False, "attempts_max": 1000}, "standard": {"durable": True, "attempts_max": 1000},
         "background": {"durable": True, "attempts_max": 4}}
RUN = {"seed": 1, "tiers": TIERS, "models": ["small", "medium"], "quiet_s": 60, "kills_wanted": 2, "faults_wanted": ["kill_broker"],
       "succeeded_wanted": 1, "crashes": [], "power_cuts": None}
FAR_MS = 1_000_000


def expected(model, operation, prompt):
    return f"{model} answers {prompt}"


class Evidence:
    """A good campaign, to be doctored: job A of tenant red answered, and whatever a test adds."""

    def __init__(self):
        self.run = copy.deepcopy(RUN)
        self.histories = {"red-1": [{"event": "start", "client": "red-1", "tenant": "red", "at_ms": 0}],
                          "blue-1": [{"event": "start", "client": "blue-1", "tenant": "blue", "at_ms": 0}]}
        self.nemesis, self.calls = [], []
        self.broker = {"after quiet": {"jobs": 0}, "after its restart": {"jobs": 0, "dead_letters": 0}, "open": {}, "clients that did not end": []}
        self.audit = {}
        self.deed("kill_worker", "worker-9", 5, 6)
        self.deed("kill_broker", "broker", 7, 8)
        self.answered("A")

    def say(self, at_ms, event, client="red-1", **fields):
        self.histories[client].append({"at_ms": at_ms, "event": event, **fields})
        return self.histories[client][-1]

    def submit(self, job, at_ms=100, client="red-1", tier="standard", key="", deadline_at_ms=FAR_MS, discard=False):
        return self.say(at_ms, "submit", client, id=job, number=1, tier=tier, operation="chat.completions", prompt=f"prompt {job}",
                        key=key, deadline_at_ms=deadline_at_ms, discard=discard, again=False)

    def accept(self, job, at_ms=110, client="red-1", duplicate=False):
        return self.say(at_ms, "accepted", client, id=job, duplicate=duplicate)

    def outcome(self, job, state, at_ms=200, client="red-1", **fields):
        event = {"code": "", "reason": "", "text": "", "model": "", "worker": "", "attempts": 1, "hedged": False, "again": False, **fields}
        if state == "succeeded":
            event = {**event, "model": "small", "text": expected("small", "", f"prompt {job}"), **fields}
        return self.say(at_ms, "outcome", client, id=job, state=state, **event)

    def call(self, job, began_ms, ended_ms, account="worker-1", event="answered", fault="none"):
        number = len(self.calls)
        self.calls += [{"at_ms": began_ms, "call": number, "event": "began", "key": job, "account": account},
                       {"at_ms": ended_ms, "call": number, "event": event, "model": "small", "fault": fault}]

    def deed(self, fault, target, from_ms, to_ms):
        number = len(self.nemesis) + 1
        self.nemesis += [{"at_ms": from_ms, "number": number, "fault": fault, "target": target},
                         {"at_ms": to_ms, "number": number + 1, "fault": "healed", "target": target, "of": number}]

    def answered(self, job, **fields):
        self.submit(job, **fields)
        self.accept(job, client=fields.get("client", "red-1"))
        self.call(job, 120, 150)
        self.outcome(job, "succeeded", client=fields.get("client", "red-1"))
        self.audit[job] = "succeeded"

    def check(self, directory):
        def write(name, lines):
            (directory / name).write_text("".join(json.dumps(line) + "\n" for line in lines))

        (directory / "run.json").write_text(json.dumps(self.run))
        (directory / "broker.json").write_text(json.dumps(self.broker))
        write("nemesis.jsonl", self.nemesis)
        write("calls.jsonl", self.calls)
        write("audit-red.jsonl", [{"event": "audit", "id": job, "state": state} for job, state in self.audit.items()])
        for client, events in self.histories.items():
            write(f"history-{client}.jsonl", events)
        checker = check.Checker(check.Campaign(directory), expected)
        return checker.check()


@pytest.fixture
def evidence():
    return Evidence()


@pytest.fixture
def found(tmp_path):
    """found(evidence): the findings as (kind, job), of which each has its lines of history."""

    def run(evidence):
        findings = evidence.check(tmp_path)
        assert all(finding.lines for finding in findings if finding.job), "a finding without its history"
        return [(finding.kind, finding.job) for finding in findings]

    return run


# ------------------------------------------------------------------------------------------------- all is well


def test_good_campaign_has_no_findings(evidence, found):
    evidence.answered("B", tier="realtime")
    evidence.submit("C", deadline_at_ms=300)
    evidence.accept("C")
    evidence.outcome("C", "expired", at_ms=305)
    evidence.audit["C"] = "expired"
    evidence.submit("D")
    evidence.accept("D")
    evidence.say(120, "cancel", id="D")
    evidence.outcome("D", "cancelled")
    evidence.audit["D"] = "cancelled"
    evidence.submit("E", tier="background")
    evidence.accept("E")
    evidence.outcome("E", "dead", attempts=4)
    evidence.audit["E"] = "dead"
    evidence.broker["after its restart"]["dead_letters"] = 1
    evidence.submit("F")
    evidence.outcome("F", "rejected", code="draining")
    assert found(evidence) == []


def test_line_that_a_kill_cut_off_says_nothing(evidence, found, tmp_path):
    assert found(evidence) == []
    with (tmp_path / "history-red-1.jsonl").open("a") as history:
        history.write('{"event": "submit", "id": "Z", "ti')
    assert check.Checker(check.Campaign(tmp_path), expected).check() == []


def test_job_that_was_never_acknowledged_may_be_unknown(evidence, found):
    evidence.submit("B")
    evidence.outcome("B", "unknown")
    assert found(evidence) == []


def test_memory_tier_may_forget_when_the_broker_died(evidence, found):
    evidence.submit("B", tier="realtime")
    evidence.accept("B")
    evidence.deed("kill_broker", "broker", 130, 140)
    evidence.outcome("B", "unknown")
    assert found(evidence) == []


def test_answer_that_another_under_the_same_key_collected_is_not_lost(evidence, found):
    evidence.answered("B", key="k")
    evidence.submit("C", key="k")
    evidence.accept("C", duplicate=True)
    evidence.outcome("C", "collected")
    evidence.audit["C"] = "unknown"
    assert found(evidence) == []


def test_verdict_of_the_library_alone_is_no_second_outcome(evidence, found):
    evidence.outcome("A", "expired", at_ms=FAR_MS + 1, reason="no broker could be reached before its deadline")
    assert found(evidence) == []


# ------------------------------------------------------------------------------------------------------- lost


def test_acknowledged_job_that_the_broker_does_not_know_is_lost(evidence, found):
    evidence.submit("B")
    evidence.accept("B")
    evidence.audit["B"] = "unknown"
    assert found(evidence) == [("lost", "B")]


@pytest.mark.parametrize("state", ["unknown", "rejected", "lost", "collected"])
def test_acknowledged_durable_job_without_conclusion_is_lost(evidence, found, state):
    evidence.submit("B")
    evidence.accept("B")
    evidence.deed("kill_broker", "broker", 130, 140)
    evidence.outcome("B", state, code="draining")
    evidence.audit["B"] = "unknown"
    assert found(evidence) == [("lost", "B")]


def test_memory_tier_may_not_forget_while_the_broker_lives(evidence, found):
    evidence.submit("B", tier="realtime", at_ms=1000)
    evidence.accept("B", at_ms=1010)
    evidence.deed("kill_worker", "worker-1", 1020, 1030)
    evidence.outcome("B", "unknown", at_ms=1100)
    assert found(evidence) == [("lost", "B")]


def test_conclusion_that_a_restart_forgot_is_lost(evidence, found):
    evidence.audit["A"] = "unknown"
    assert found(evidence) == [("lost", "A")]


def test_conclusion_that_is_unknown_when_asked_again_is_lost(evidence, found):
    evidence.outcome("A", "unknown", at_ms=300, again=True)
    assert found(evidence) == [("lost", "A")]


@pytest.mark.parametrize("letters", [0, 2])
def test_dead_job_that_no_operator_finds_is_lost(evidence, found, letters):
    evidence.submit("B", tier="background")
    evidence.accept("B")
    evidence.outcome("B", "dead", attempts=4)
    evidence.audit["B"] = "dead"
    evidence.broker["after its restart"]["dead_letters"] = letters
    assert found(evidence) == [("lost", "")]


def test_dead_job_that_two_clients_share_is_one_dead_letter(evidence, found):
    for job in ("B", "C"):
        evidence.submit(job, tier="background", key="k")
        evidence.accept(job, duplicate=job == "C")
        evidence.outcome(job, "dead", attempts=4)
        evidence.audit[job] = "dead" if job == "B" else "unknown"
    evidence.broker["after its restart"]["dead_letters"] = 1
    assert found(evidence) == []


# ------------------------------------------------------------------------------------------------- duplicated


def test_two_outcomes_are_found(evidence, found):
    evidence.outcome("A", "dead", at_ms=300, attempts=1000)
    assert found(evidence) == [("duplicated", "A")]


def test_two_answers_are_found_though_each_is_right(evidence, found):
    evidence.call("A", 121, 160, event="unanswered")
    evidence.calls[-1].update(event="answered", model="medium", fault="slow")
    evidence.outcome("A", "succeeded", at_ms=300, model="medium", text=expected("medium", "", "prompt A"))
    assert found(evidence) == [("duplicated", "A")]


def test_two_outcomes_in_memory_are_found_unless_the_broker_died_between(evidence, found):
    evidence.answered("B", tier="realtime")
    evidence.outcome("B", "expired", at_ms=FAR_MS + 1)
    assert found(evidence) == [("duplicated", "B")]
    evidence.deed("kill_broker", "broker", 250, 260)
    assert found(evidence) == []


def test_two_outcomes_under_one_key_are_found(evidence, found):
    evidence.answered("B", key="k")
    evidence.submit("C", key="k", deadline_at_ms=150)
    evidence.accept("C", duplicate=True)
    evidence.outcome("C", "expired")
    assert found(evidence) == [("duplicated", "C")]


def test_same_key_of_two_tenants_is_two_jobs(evidence, found):
    evidence.answered("B", key="k")
    evidence.answered("C", key="k", client="blue-1")
    assert found(evidence) == []


def test_job_that_runs_again_after_the_last_restart_is_found(evidence, found):
    evidence.audit["A"] = "queued"
    evidence.broker["after its restart"]["jobs"] = 1
    assert found(evidence) == [("duplicated", "A"), ("duplicated", "")]


def test_other_conclusion_after_the_last_restart_is_found(evidence, found):
    evidence.audit["A"] = "expired"
    assert found(evidence) == [("duplicated", "A")]


# ------------------------------------------------------------------------------------------------------ stuck


def test_pending_job_after_quiet_is_stuck(evidence, found):
    evidence.submit("B")
    evidence.accept("B")
    evidence.broker["open"]["B"] = {"state": "queued"}
    evidence.broker["after quiet"]["jobs"] = 1
    evidence.audit["B"] = "queued"
    assert found(evidence) == [("stuck", "B"), ("stuck", "")]


def test_client_that_waits_for_a_concluded_job_is_stuck(evidence, found):
    evidence.submit("B")
    evidence.accept("B")
    evidence.broker["open"]["B"] = {"status": 404}
    evidence.broker["clients that did not end"] = ["red-1"]
    evidence.audit["B"] = "succeeded"
    assert found(evidence) == [("stuck", "B"), ("stuck", "")]


# ------------------------------------------------------------------------------------------------------ wrong


def doctor_last(evidence, **fields):
    evidence.histories["red-1"][-1].update(fields)


def test_answer_of_another_prompt_is_wrong(evidence, found):
    doctor_last(evidence, text=expected("small", "", "prompt B"))
    assert found(evidence) == [("wrong", "A")]


def test_answer_of_another_model_than_it_says_is_wrong(evidence, found):
    doctor_last(evidence, text=expected("medium", "", "prompt A"))
    assert found(evidence) == [("wrong", "A")]


def test_answer_that_is_cut_off_is_wrong(evidence, found):
    doctor_last(evidence, text="small answers")
    assert found(evidence) == [("wrong", "A")]


def test_stream_of_two_attempts_is_wrong(evidence, found):
    doctor_last(evidence, streamed="small answers small answers prompt A", stream_whole=True)
    assert found(evidence) == [("wrong", "A")]


def test_stream_that_says_something_else_first_is_wrong(evidence, found):
    doctor_last(evidence, streamed="medium answers prompt B", stream_whole=False)
    assert found(evidence) == [("wrong", "A")]


def test_stream_that_ends_early_is_right(evidence, found):
    doctor_last(evidence, streamed="medium ans", stream_whole=False)
    assert found(evidence) == []


@pytest.mark.parametrize("tier", ["standard", "realtime"])
def test_early_expiry_is_wrong(evidence, found, tier):
    evidence.submit("B", tier=tier, deadline_at_ms=500)
    evidence.accept("B")
    evidence.outcome("B", "expired", at_ms=450)
    evidence.audit["B"] = "expired"
    assert found(evidence) == [("wrong", "B")]


def test_cancellation_that_nobody_asked_for_is_wrong(evidence, found):
    evidence.submit("B")
    evidence.accept("B")
    evidence.outcome("B", "cancelled")
    evidence.say(300, "cancel", id="B")
    evidence.audit["B"] = "cancelled"
    assert found(evidence) == [("wrong", "B")]


def test_cancellation_of_another_under_the_same_key_is_one(evidence, found):
    for job in ("B", "C"):
        evidence.submit(job, key="k")
        evidence.accept(job)
    evidence.say(120, "cancel", id="C")
    for job in ("B", "C"):
        evidence.outcome(job, "cancelled")
        evidence.audit[job] = "cancelled"
    assert found(evidence) == []


def test_death_with_attempts_left_is_wrong(evidence, found):
    evidence.submit("B", tier="background")
    evidence.accept("B")
    evidence.outcome("B", "dead", attempts=3)
    evidence.audit["B"] = "dead"
    evidence.broker["after its restart"]["dead_letters"] = 1
    assert found(evidence) == [("wrong", "B")]


@pytest.mark.parametrize("code", ["invalid", "conflict", "too_old", "unknown_tier", "deadline"])
def test_refusal_that_nothing_explains_is_wrong(evidence, found, code):
    evidence.submit("B")
    evidence.outcome("B", "rejected", code=code)
    assert found(evidence) == [("wrong", "B")]


@pytest.mark.parametrize("state, text", [("succeeded", "small answers prompt A"), ("pending", ""), ("collected", "")])
def test_job_that_another_tenant_sees_is_wrong(evidence, found, state, text):
    evidence.say(300, "foreign", "blue-1", id="A", state=state, text=text)
    assert found(evidence) == [("wrong", "A")]


def test_call_that_the_library_refused_is_wrong(evidence, found):
    evidence.submit("B")
    evidence.say(101, "call_failed", id="B", call="submit", error="Invalid argument")
    assert found(evidence) == [("wrong", "B")]


# ------------------------------------------------------------------------------------------------------ money


def test_call_that_is_paid_again_without_a_fault_is_found(evidence, found):
    evidence.call("A", 1000, 1010)
    evidence.calls[:2] = [{**line, "at_ms": line["at_ms"] + 800} for line in evidence.calls[:2]]
    assert found(evidence) == [("money", "A")]


def test_fault_of_a_bystander_explains_no_second_call(evidence, found):
    evidence.call("A", 1000, 1010)
    evidence.calls[:2] = [{**line, "at_ms": line["at_ms"] + 800} for line in evidence.calls[:2]]
    evidence.deed("kill_worker", "worker-2", 960, 970)
    assert found(evidence) == [("money", "A")]


@pytest.mark.parametrize("fault, target", [("kill_worker", "worker-1"), ("kill_broker", "broker"), ("net_cut", "worker-1")])
def test_fault_of_whoever_had_the_answer_explains_a_second_call(evidence, found, fault, target):
    evidence.call("A", 1000, 1010)
    evidence.calls[:2] = [{**line, "at_ms": line["at_ms"] + 800} for line in evidence.calls[:2]]
    evidence.deed(fault, target, 960, 970)
    assert found(evidence) == []


def hedged(evidence, **fields):
    """The answer that was under way when another provider was asked, too. The faults are long over."""
    evidence.submit("B" * check.ID_LENGTH, at_ms=1000)
    evidence.accept("B" * check.ID_LENGTH, at_ms=1000)
    evidence.outcome("B" * check.ID_LENGTH, "succeeded", at_ms=1300, **{"worker": "worker-1", "hedged": True, **fields})
    evidence.audit["B" * check.ID_LENGTH] = "succeeded"
    evidence.call("B" * check.ID_LENGTH + "-small", 1100, 1200)


def test_second_call_beside_one_whose_answer_is_under_way_is_explained(evidence, found):
    hedged(evidence)
    evidence.call("B" * check.ID_LENGTH + "-medium", 1240, 1290, event="unanswered")
    assert found(evidence) == []


def test_second_call_that_no_answer_speaks_of_is_found(evidence, found):
    hedged(evidence, hedged=False)
    evidence.call("B" * check.ID_LENGTH + "-medium", 1240, 1290, event="unanswered")
    assert found(evidence) == [("money", "B" * check.ID_LENGTH)]


@pytest.mark.parametrize("again", [{"provider": "-small"}, {"account": "worker-2"}, {"began_ms": 1200 + check.HEDGE_RACE_MS + 1}])
def test_second_call_of_the_same_provider_of_another_worker_or_too_late_is_found(evidence, found, again):
    hedged(evidence)
    call = {"provider": "-medium", "account": "worker-1", "began_ms": 1240, **again}
    evidence.call("B" * check.ID_LENGTH + call["provider"], call["began_ms"], call["began_ms"] + 50, call["account"])
    assert found(evidence) == [("money", "B" * check.ID_LENGTH)]


def test_answer_that_nobody_of_its_tenant_paid_for_is_found(evidence, found):
    evidence.submit("B", client="blue-1")["prompt"] = "prompt A"
    evidence.accept("B", client="blue-1")
    evidence.outcome("B", "succeeded", client="blue-1", text=expected("small", "", "prompt A"))
    evidence.audit["B"] = "succeeded"
    assert found(evidence) == [("money", "B")]


def test_call_for_no_job_is_found(evidence, found):
    evidence.call("nobody's", 120, 130)
    assert found(evidence) == [("money", "")]


# ------------------------------------------------------------------------------------------------ the campaign


def test_process_that_ended_by_itself_is_found(evidence, found):
    evidence.run["crashes"] = ["worker-1 ended by itself with -6"]
    assert found(evidence) == [("crashed", "")]


@pytest.mark.parametrize("change", [{"kills_wanted": 3}, {"faults_wanted": ["sim_hang"]}, {"succeeded_wanted": 2}, {"power_cuts": [0]}])
def test_campaign_that_did_too_little_proves_little(evidence, found, change):
    evidence.run.update(change)
    assert found(evidence) == [("proves_little", "")]


def test_broker_that_was_not_asked_proves_little(evidence, found):
    del evidence.broker["after quiet"]
    del evidence.audit["A"]
    assert found(evidence) == [("proves_little", "A"), ("proves_little", "")]


def test_report_names_job_history_and_number(evidence, tmp_path, capsys):
    evidence.outcome("A", "dead", at_ms=300, attempts=1000)
    evidence.check(tmp_path)
    checker = check.Checker(check.Campaign(tmp_path), expected)
    checker.check()
    check.print_report(checker)
    said = capsys.readouterr().out
    assert "DUPLICATED A: 2 outcomes" in said and "history-red-1.jsonl:5: " in said and "duplicated 1" in said
