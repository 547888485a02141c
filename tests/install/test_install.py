"""
What `ninja install` puts in place is enough: a program that knows only the installed header and pkg-config is compiled
as C and as C++, linked to the shared and to the static library, and run against a real broker.
"""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
from harness import BUILD, Cluster  # noqa: E402

FIRST, STREAM = (ROOT / "tests" / "install" / name for name in ("first.c", "stream.c"))


def run(*argv, env=None):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module", name="installed")
def fixture_installed(tmp_path_factory):
    """An installation in a folder of its own; gives (prefix, environment for pkg-config)."""
    root = tmp_path_factory.mktemp("install")
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", root)
    found = list(root.rglob("tiermq.pc"))
    assert len(found) == 1, "tiermq.pc is not installed"
    prefix = next(p for p in found[0].parents if p.name == "lib").parent
    env = dict(os.environ, PKG_CONFIG_PATH=str(found[0].parent), PKG_CONFIG_SYSROOT_DIR="")
    return prefix, found[0].parent.parent, env


def pkg_config(installed, package, *arguments):
    prefix, _, env = installed
    return shlex.split(run("pkg-config", f"--define-variable=prefix={prefix}", *arguments, package, env=env))


def sanitizer_flags():
    """A library that was built with a sanitizer needs its runtime in the program, too."""
    options = (BUILD / "meson-private" / "cmd_line.txt").read_text()
    found = re.search(r"^b_sanitize\s*=\s*(\S+)", options, re.MULTILINE)
    return [f"-fsanitize={found[1]}"] if found and found[1] != "none" else []


def compile_program(installed, package, source, output):
    run("cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", *sanitizer_flags(), source, "-o", output,
        *pkg_config(installed, package, "--cflags", "--libs"), f"-Wl,-rpath,{installed[1]}")
    return run("ldd", output)


def test_all_programs_are_installed(installed):
    programs = {p.name for p in (installed[0] / "bin").iterdir()}
    assert {"tiermq", "tiermq-broker", "tiermq-worker"} <= programs
    assert "tiermq" in run(installed[0] / "bin" / "tiermq", "--version")


def test_shared_library_exports_only_its_interface(installed):
    library = next(installed[1].glob("libtiermq.so"))
    names = [line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines() if " T " in line]
    assert names and all(name.startswith("tiermq_") for name in names), names


def test_static_library_exports_only_its_interface(installed):
    lines = run("nm", "-g", "--defined-only", installed[1] / "libtiermq.a").splitlines()
    names = [line.split()[-1] for line in lines if " T " in line or " D " in line or " B " in line]
    assert names and all(name.startswith("tiermq_") for name in names), names


def test_every_function_of_the_header_is_exported(installed):
    header = (installed[0] / "include" / "tiermq.h").read_text()
    declared = set(re.findall(r"TIERMQ_API[^;(]*?\b(tiermq_\w+)\(", header))
    library = next(installed[1].glob("libtiermq.so"))
    exported = set(re.findall(r"(tiermq_\w+)@", run("nm", "-D", "--defined-only", library)))
    assert declared == exported


def test_header_is_c_and_cpp(installed, tmp_path):
    for name, compiler in (("one.c", ["cc", "-std=c99"]), ("one.cpp", ["c++", "-std=c++11"])):
        source = tmp_path / name
        source.write_text("#include <tiermq.h>\nint main(void) { return TIERMQ_SUCCEEDED == 0; }\n")
        run(*compiler, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c", source, "-o", tmp_path / "one.o",
            *pkg_config(installed, "tiermq", "--cflags"))


@pytest.mark.parametrize("program", [FIRST, STREAM], ids=lambda path: path.stem)
def test_guide_shows_this_program(program):
    """What docs/client.md shows is what is compiled here."""
    guide = (ROOT / "docs" / "client.md").read_text()
    assert program.read_text().split("\n", 1)[1].strip() in guide


def test_stream_is_read_by_the_guides_program(installed, tmp_path):
    program = tmp_path / "stream"
    compile_program(installed, "tiermq", STREAM, program)
    with Cluster() as cluster:
        cluster.start_modelsim()
        cluster.start_broker()
        cluster.start_worker()
        text = run(program, cluster.broker.config["broker"]["listen_clients"])
        assert text.strip() and text.endswith("\n")


@pytest.mark.parametrize("package", ["tiermq", "tiermq-static"])
def test_first_program_gets_its_answer(installed, tmp_path, package):
    program = tmp_path / "first"
    libraries = compile_program(installed, package, FIRST, program)
    assert ("libtiermq.so" in libraries) == (package == "tiermq")
    with Cluster() as cluster:
        cluster.start_modelsim()
        cluster.start_broker()
        cluster.start_worker()
        assert run(program, cluster.broker.config["broker"]["listen_clients"]).strip()


def test_first_program_says_when_nobody_answers(installed, tmp_path):
    program = tmp_path / "first"
    compile_program(installed, "tiermq", FIRST, program)
    done = subprocess.run([program, "tcp://127.0.0.1:1"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no broker could be reached" in done.stderr or "no word within 5000 ms" in done.stderr
    assert "tcp://127.0.0.1:1: " in done.stderr, "which broker, and what it did"
