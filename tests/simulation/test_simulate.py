"""The simulator itself: its checks can fail, its runs repeat, and wrong arguments are told."""
import os
import re
import subprocess

import pytest

PROGRAM = os.environ["TIERMQ_SIMULATE"]


def simulate(*arguments):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=240)


PLANTS = simulate("--plants").stdout.split()


def test_there_are_mistakes_to_plant():
    assert len(PLANTS) >= 10


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_mistake_is_found(plant):
    run = simulate("--plant", plant, "--seeds", "200")
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{plant} is found by seed" in run.stdout


@pytest.mark.parametrize("seed", ["1", "7", "23"])
def test_same_seed_is_the_same_run(seed):
    first, second = simulate("--seed", seed), simulate("--seed", seed)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "traces" in first.stdout
    assert first.stdout == second.stdout


def test_processes_change_nothing_but_the_time():
    alone, beside = simulate("--seeds", "5"), simulate("--seeds", "5", "--processes", "3")
    assert alone.returncode == beside.returncode == 0, beside.stdout + beside.stderr
    assert alone.stdout == beside.stdout


def test_enough_goes_wrong_in_every_seed():
    run = simulate("--seeds", "10", "--processes", "2")
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(re.search(r"at least (\d+) a seed", run.stdout)[1]) >= 20
    jobs, seeds = re.search(r"10 seeds: (\d+) jobs acknowledged", run.stdout)[1], 10
    assert int(jobs) / seeds > 1000


def test_campaign_says_how_far_it_is_and_where_to_go_on():
    run = simulate("--keep-going", "--progress", "2", "--seed", "3", "--seeds", "4", "--minutes", "30", "--jobs", "1")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "seeds 3 to 6: 0 of them failed" in run.stdout
    assert "2 of 4 seeds (next: --seed 5), 0 failed" in run.stderr


def test_traces_of_different_seeds_differ():
    assert simulate("--seed", "1").stdout != simulate("--seed", "2").stdout


def test_trace_names_events():
    run = simulate("--seed", "1", "--jobs", "3", "--trace")
    assert run.returncode == 0
    assert "broker starts, incarnation 1" in run.stdout
    assert "broker hears" in run.stdout


@pytest.mark.parametrize("arguments, message", [
    (["--seeds", "0"], "is not a number from 1"),
    (["--jobs", "many"], "is not a number from 1"),
    (["--plant", "gremlin"], "is no mistake that can be planted"),
    (["more"], "unexpected argument"),
])
def test_wrong_argument_is_told(arguments, message):
    run = simulate(*arguments)
    assert run.returncode == 2
    assert message in run.stderr
