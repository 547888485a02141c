"""`tiermq route replay`: a small made-up file, whose result was computed by hand."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from harness import program, wait_for

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "cli.md"

TOKENS = {"input_tokens": 500000, "output_tokens": 500000}  # 1 USD with small, 10 with large


def outcomes(small, large):
    """Right or wrong; None: no outcome."""
    told = {"small": {"right": small, "latency_ms": 100}, "large": {"score": float(large or 0), "run_ms": 1000}}
    return {name: told[name] for name, right in (("small", small), ("large", large)) if right is not None}


# What small's grade of 40 promises at complexity 0 is 0.93 of what large's of 90 does, for a tenth of the price; at complexity 1 it is 0.05 of it.
# So the first two go to small and the next two to large.
JOBS = [
    {"prompt_complexity": 1, "outcomes": outcomes(True, True), **TOKENS},
    {"prompt_complexity": 1, "outcomes": outcomes(False, True), **TOKENS},
    {"prompt_complexity": 255, "outcomes": outcomes(False, True), **TOKENS},
    {"prompt_complexity": 255, "outcomes": outcomes(True, False), **TOKENS},
]


@pytest.fixture
def replay(tmp_path):
    def run(jobs, *arguments, json_output=True, code=0, **tier):
        config = {
            "providers": [{"name": "p", "base_url": "http://127.0.0.1:9/v1", "residency": ["eu"]}, {"name": "q", "base_url": "http://127.0.0.1:9/v1"}],
            "models": [{"name": "small", "provider": "q", "quality": 40, "input_usd_per_mtok": 1, "output_usd_per_mtok": 1, "abilities": ["json"]},
                       {"name": "large", "provider": "p", "quality": 90, "input_usd_per_mtok": 10, "output_usd_per_mtok": 10}],
            "tiers": [{"name": "standard", "weight_quality": 60, "weight_price": 30, "weight_latency": 10, **tier}],
        }
        (tmp_path / "c.yaml").write_text(json.dumps(config))
        lines = "\n".join(job if isinstance(job, str) else json.dumps(job) for job in jobs)
        (tmp_path / "jobs.jsonl").write_text(lines + "\n")
        argv = [program("tiermq"), "route", "replay", "--config", tmp_path / "c.yaml", *(["--json"] if json_output else []), *arguments,
                tmp_path / "jobs.jsonl"]
        done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done
        return json.loads(done.stdout) if json_output and code == 0 else done.stdout + done.stderr
    return run


def means(policy, word="mean"):
    return tuple(round(policy[what][word], 9) for what in ("quality", "cost_usd", "latency_ms"))


def test_policies_come_to_what_was_computed_by_hand(replay):
    report = replay([*JOBS, {"outcomes": outcomes(True, None)}])
    assert report["jobs"] == 4 and report["left_out"] == 1
    policies, against = report["policies"], report["against"]
    assert means(policies["configured"]) == (0.5, 5.5, 550) and policies["configured"]["models"] == {"small": 2, "large": 2}
    assert means(policies["best"]) == (0.75, 10, 1000) and policies["best"]["models"] == {"large": 4}
    assert means(policies["cheapest"]) == (0.5, 1, 100) and policies["cheapest"]["models"] == {"small": 4}
    assert means(against["best"], "difference") == (-0.25, -4.5, -450)
    assert means(against["cheapest"], "difference") == (0, 4.5, 450)


def test_intervals_hold_the_mean_and_come_again(replay):
    report = replay(JOBS)
    for policy in report["policies"].values():
        assert all(policy[what]["low"] <= policy[what]["mean"] <= policy[what]["high"] for what in ("quality", "cost_usd", "latency_ms"))
    constant = report["policies"]["cheapest"]["cost_usd"]
    assert constant["low"] == constant["high"] == 1
    # Of four values of which half are 0 and half 1, a mean of 0, or of 1, is drawn once in sixteen times.
    assert (report["policies"]["configured"]["quality"]["low"], report["policies"]["configured"]["quality"]["high"]) == (0, 1)
    many = replay(JOBS * 100)["policies"]["configured"]["quality"]
    assert 0.44 < many["low"] < 0.46 and 0.54 < many["high"] < 0.56  # 0.5 ± 1.96 · 0.5 / 20
    assert replay(JOBS) == report and replay(JOBS, "--seed", "2")["jobs"] == 4


def test_what_cannot_be_given_up_holds(replay):
    only_large = {"outcomes": outcomes(None, True), "prompt_complexity": 1, **TOKENS}
    for need in ({"abilities": ["tools"]}, {"residency": "eu"}):
        report = replay([{**only_large, **need}])
        assert all(policy["models"] == {"large": 1} for policy in report["policies"].values()), need
    assert replay([only_large], quality_min=50)["policies"]["cheapest"]["models"] == {"large": 1}
    missing = replay([only_large], code=7)
    assert "no job can be judged: of 1, 1 lack an outcome" in missing and '"small"' in missing and "add what came of it to outcomes" in missing


def test_a_deadline_speaks_against_who_is_late(replay):
    hard = {"prompt_complexity": 128, "outcomes": outcomes(True, True), "input_tokens": 1, "output_tokens": 1}
    weights = {"weight_quality": 40, "weight_price": 0, "weight_latency": 60}
    assert replay([hard], **weights)["policies"]["configured"]["models"] == {"large": 1}
    assert replay([{**hard, "deadline": "1s"}], **weights)["policies"]["configured"]["models"] == {"small": 1}


def test_costs_that_were_recorded_are_taken(replay):
    job = {"outcomes": {"small": {"score": 1, "cost_nanousd": 3000000000}, "large": {"score": 1, "cost_nanousd": 5000000000}}, **TOKENS}
    report = replay([job])
    assert report["policies"]["best"]["cost_usd"]["mean"] == 5 and report["policies"]["cheapest"]["cost_usd"]["mean"] == 3


def test_what_is_left_out_is_explained(replay):
    tools = {"outcomes": {}, "abilities": ["images"], **TOKENS}
    assert "1 can be answered by no model of their route" in replay([tools], "--route", "small", code=7)
    renamed = {"outcomes": {"sim-small": {"right": True}, "large": {"right": True}}, **TOKENS}
    assert 'outcomes name "sim-small", which the configuration does not have' in replay([renamed], code=7)
    assert "the file has no jobs" in replay([""], code=7)
    text = replay([*JOBS, {"outcomes": outcomes(True, None)}], json_output=False)
    assert 'left out: 1 lack an outcome of a model that could have answered, most often of "large"' in text, text
    assert "left out:" not in replay(JOBS, json_output=False)


def test_a_complexity_that_is_not_known_is_said(replay):
    unknown = {name: value for name, value in JOBS[0].items() if name != "prompt_complexity"}
    assert replay([*JOBS, unknown, {**unknown, "prompt_complexity": None}])["without_complexity"] == 2
    assert "1 of 5 jobs have no prompt_complexity" in replay([*JOBS, unknown], json_output=False)
    assert "no prompt_complexity" not in replay(JOBS, json_output=False)


def test_a_latency_that_is_not_known_does_not_count(replay):
    timeless = {**JOBS[0], "outcomes": {"small": {"right": True}, "large": {"right": True, "latency_ms": 1000}}}
    report = replay([*JOBS, timeless])
    assert report["jobs"] == 5 and report["without_latency"] == 1
    assert report["policies"]["cheapest"]["latency_ms"]["mean"] == 100 and report["against"]["best"]["latency_ms"]["difference"] == -450
    assert report["policies"]["cheapest"]["cost_usd"]["mean"] == 1
    report = replay([timeless] * 3)
    assert report["jobs"] == 3 and report["without_latency"] == 3
    assert report["policies"]["best"]["latency_ms"] is None and report["against"]["best"]["latency_ms"] is None
    assert "3 of 3 jobs have no latency_ms or run_ms" in replay([timeless] * 3, json_output=False)


def test_text_has_the_same(replay):
    text = replay(JOBS, json_output=False)
    assert "4 jobs, 0 left out" in text and "0.750 (" in text and "-0.250 (" in text and "chosen: small 2 large 2" in text, text


@pytest.mark.parametrize("line, words", [
    ("{", "line 1: is no JSON object"),
    ("[]", "line 1: is no JSON object"),
    ("{}", "outcomes: must be an object"),
    ('{"outcomes": {"small": {}}}', '"small" needs score'),
    ('{"outcomes": {"small": {"score": 2}}}', "score: must be a number from 0 to 1, and is 2"),
    ('{"outcomes": {}, "tier": "none"}', 'line 1: tier: "none" is not a tier; write the name of one in tiers'),
    ('{"outcomes": {}, "route": "none"}', 'line 1: route: "none" is no configured model or alias; write the name of one in models or routes'),
    ('{"outcomes": {}, "abilities": ["fly"]}', 'abilities: "fly" is none'),
    ('{"outcomes": {}, "deadline": "soon"}', "deadline: must be like 30s"),
    ('{"outcomes": {}, "input_tokens": -1}', "input_tokens: must be a number"),
])
def test_a_line_that_is_wrong_is_named(replay, line, words):
    assert words in replay([line], code=2)


def test_a_default_that_is_not_configured_is_no_fault_of_a_line(replay):
    assert '--tier: "none" is not a tier; write the name of one in tiers' in replay(JOBS, "--tier", "none", code=2)
    assert '--route: "none" is no configured model or alias; write the name of one in models or routes' in replay(
        JOBS, "--route", "none", code=2)


def test_arguments_are_checked(replay):
    run = lambda *arguments: subprocess.run([str(program("tiermq")), "route", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert run().returncode == 2 and run("replay").returncode == 2 and run("nonsense", "x").returncode == 2
    assert run("replay", "/no/such/file").returncode != 0
    assert "Examples:" in run("--help").stdout


def recipe():
    """The commands of the last console block of "route" in the document, as they stand there."""
    section = DOCUMENT.read_text().split("\n## route\n")[1].split("\n## ")[0]
    block = section.split("```console\n")[-1].split("```")[0]
    return "\n".join(line.removeprefix("$ ") for line in block.splitlines())


@pytest.mark.skipif(shutil.which("jq") is None, reason="there is no jq")
def test_the_recipe_of_the_document_works(cluster):
    cluster.start_modelsim()
    http = cluster.modelsim.ready["http"]
    url = (http if "://" in http else f"http://{http}").rstrip("/")
    cluster.config = {
        "providers": [{"name": "sim", "type": "openai", "base_url": f"{url}/v1"}],
        "models": [{"name": "small", "provider": "sim", "provider_model": "sim-small", "quality": 40, "input_usd_per_mtok": 0.15,
                    "output_usd_per_mtok": 0.6, "abilities": ["tools"]},
                   {"name": "large", "provider": "sim", "provider_model": "sim-large", "quality": 90, "input_usd_per_mtok": 10,
                    "output_usd_per_mtok": 40}],
    }
    cluster.start_broker()
    cluster.start_worker()
    hard = "Prove step by step that the sum of the first n odd numbers is n squared, and derive the integral of x^2 * sin(x). " * 4
    form = {"messages": [{"role": "user", "content": "Hi"}], "response_format": {"type": "json_object"}}
    prompts = [{"id": "easy", "text": "Hi", "expected": "e"}, {"id": "hard", "text": hard, "expected": "no such word"},
               {"id": "form", "body": form, "expected": "{"}, {"id": "broken"}, {"id": "told", "text": "Hi", "prompt_complexity": 200, "expected": "e"}]
    (cluster.directory / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in prompts))
    argv, env = cluster._cli_argv(["version"])
    shutil.copy(env["TIERMQ_CONFIG"], cluster.directory / "new.yaml")
    path = f"{pathlib.Path(argv[0]).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", recipe()], cwd=cluster.directory, env={**os.environ, **env, "PATH": path}, capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 0, done
    jobs = {job["id"]: job for job in map(json.loads, (cluster.directory / "jobs.jsonl").read_text().splitlines())}
    # `form` cannot be answered by small, so that one outcome is all there is.
    assert set(jobs) == {"easy", "hard", "form", "told"} and set(jobs["form"]["outcomes"]) == {"large"}, done
    assert jobs["form"]["abilities"] == ["json"] and not jobs["easy"]["abilities"]
    assert jobs["easy"]["prompt_complexity"] < jobs["hard"]["prompt_complexity"] and jobs["told"]["prompt_complexity"] == 200
    assert {model: outcome["score"] for model, outcome in jobs["hard"]["outcomes"].items()} == {"small": 0, "large": 0}
    assert "4 jobs, 0 left out" in done.stdout and "prompt_complexity" not in done.stdout, done.stdout


def test_a_result_that_is_asked_for_later_says_the_complexity(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    cluster.start_worker()
    for tier in ("realtime", "standard"):
        job = cluster.cli("submit", "--no-wait", "--tier", tier, "--complexity", "77", "Hi").stdout.strip()
        wait_for(lambda job=job: "queued" not in (said := cluster.cli("status", job).stdout) and "leased" not in said, "an end")
        assert json.loads(cluster.cli("wait", "--json", job).stdout)["prompt_complexity"] == 77
