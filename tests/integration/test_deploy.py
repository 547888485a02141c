"""The quickstart's arguments; the systemd units are read by systemd itself, and the container file is held against what the programs need."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from harness import ROOT, program

UNITS = ROOT / "deploy" / "systemd"
CONTAINERFILE = (ROOT / "deploy" / "container" / "Containerfile").read_text()
PROGRAMS = ("tiermq-broker", "tiermq-worker", "tiermq", "tiermq-modelsim")

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def units(tmp_path):
    """The units with the programs as they were built, since they are not installed."""
    for unit in UNITS.glob("*.service"):
        text = re.sub(r"/usr/local/bin/(\S+)", lambda match: str(program(match[1])), unit.read_text())
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def verify(unit):
    """What systemd has to say of a unit; nothing when it is in order."""
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", f"./{unit.name}"], cwd=unit.parent, timeout=60,
                          capture_output=True, text=True, check=False)
    about = [line for line in (done.stdout + done.stderr).splitlines() if "tiermq" in line]
    return about or ([] if done.returncode == 0 else [f"status {done.returncode}: {done.stderr}"])


@pytest.mark.parametrize("arguments, words", [
    (["--provider", "opanai"], '--provider "opanai" is unknown; use sim, openai, anthropic, gemini or a URL'),
    (["--provider", "openai"], "--provider openai needs a key: export OPENAI_API_KEY=..."),
    (["--provider", "gemini", "--model", "m"], "--provider gemini needs a key: export GEMINI_API_KEY=..."),
    (["--port"], "--port needs a number; try --help"),
    (["--provider"], "--provider needs a name or a URL; try --help"),
    (["--port", "77"], '--port "77" is not a number from 1024 to 65000'),
    (["--file", "none.jsonl"], '--file "none.jsonl" cannot be read'),
])
def test_quickstart_finds_wrong_arguments_before_it_installs_and_builds(arguments, words, tmp_path):
    for name in ("meson", "ninja", "apt-get"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    done = subprocess.run([ROOT / "deploy" / "quickstart.sh", *arguments], capture_output=True, text=True, timeout=60,
                          env=environment, check=False)
    assert done.returncode == 1 and done.stderr == f"quickstart: {words}\n" and done.stdout == "", done.stdout + done.stderr


@needs_systemd
@pytest.mark.parametrize("name", ["tiermq-broker.service", "tiermq-worker@7720.service"])
def test_systemd_takes_the_units(units, name):
    assert verify(units / name) == []


@needs_systemd
def test_the_check_catches_a_planted_mistake(units):
    unit = units / "tiermq-broker.service"
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHoem="))
    assert "ProtectHoem" in "".join(verify(unit))


@needs_systemd
@pytest.mark.parametrize("name", ["tiermq-broker.service", "tiermq-worker@7720.service"])
def test_the_units_leave_little_exposed(units, name):
    done = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=25", "--no-pager", f"./{name}"],
                          cwd=units, timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-400:]


def setting(unit, key):
    return re.search(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.M)[1]


def test_units_stop_after_the_drain_and_give_up_on_what_cannot_get_right():
    reference = (ROOT / "docs" / "configuration.md").read_text()
    drains = [int(s) for s in re.findall(r"`drain_timeout` \| duration \| `(\d+)s`", reference)]
    codes = (ROOT / "common" / "exit_codes.h").read_text()
    hopeless = [re.search(rf"{name} = (\d)", codes)[1] for name in ("EXIT_USAGE", "EXIT_CONFIG")]
    for unit, drain in zip(("tiermq-broker.service", "tiermq-worker@.service"), drains, strict=True):
        assert int(setting(unit, "TimeoutStopSec").removesuffix("s")) > drain + 5
        assert setting(unit, "RestartPreventExitStatus").split() == hopeless


def needed_packages(path):
    """The Debian packages of the libraries that a program itself asks for."""
    dynamic = subprocess.run(["objdump", "-p", path], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED\s+(\S+)", dynamic))
    resolved = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    found = set()
    for name, file in re.findall(r"(\S+) => (\S+)", resolved):
        if name in needed:
            real = pathlib.Path(file).resolve()
            # The same file may be known to dpkg below /lib or /usr/lib.
            paths = [str(real), str(real).removeprefix("/usr")]
            owner = subprocess.run(["dpkg-query", "-S", *paths], capture_output=True, text=True, check=False)
            found |= {line.split(":")[0] for line in owner.stdout.splitlines()}
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_image_has_the_libraries_of_each_program(name):
    path = program(name)
    if b"libasan" in path.read_bytes() or b"libtsan" in path.read_bytes():
        pytest.skip("a sanitizer's build asks for more than a release")
    runtime = CONTAINERFILE.split("FROM debian:12-slim")[1]
    in_image = set(re.findall(r"\blib[a-z0-9.+-]+", runtime)) | {"libc6", "libgcc-s1", "libstdc++6"}
    needed = needed_packages(path)
    assert needed, "ldd found nothing"
    assert needed <= in_image, f"missing in the image: {needed - in_image}"


def test_the_image_is_built_with_the_packages_that_the_build_needs():
    script = (ROOT / "deploy" / "packages.sh").read_text()
    needed = set(re.search(r"^build=\(([^)]*)\)", script, re.M)[1].split()) - {"curl", "ca-certificates"}
    built_with = set(CONTAINERFILE.split("FROM debian:12-slim")[0].split())
    assert needed <= built_with, f"missing in the build stage: {needed - built_with}"


def test_the_image_runs_without_root():
    user = re.findall(r"^USER (\d+):(\d+)$", CONTAINERFILE, re.M)
    assert user == [("10001", "10001")]
