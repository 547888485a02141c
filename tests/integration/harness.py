"""
harness: real programs of a build, run in a temporary directory on free ports, for whole-process tests.

    def test_answers(cluster):
        cluster.start_modelsim()
        cluster.start_broker()
        cluster.start_worker()
        done = cluster.cli("submit", "--tier", "standard", "hello")
        assert done.returncode == 0

`cluster` is a pytest fixture (conftest.py). When it ends, every process is stopped, must end with exit code 0 unless it was
killed by the test, and none may have reported a sanitizer error. The environment variable TIERMQ_BUILD names the
build directory (default: build/ beside tests/). Events are waited for, never times: a process is ready when its log says
so, and `Process.wait_log()` waits for a line.

A configuration is a dict as in tiermq.yaml; it is written as JSON, which is YAML. Once a daemon is ready its ports
are kept for its restarts.
"""

import contextlib
import http.server
import json
import os
import pathlib
import pty
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("TIERMQ_BUILD", ROOT / "build"))
# Sanitizers and a busy machine make everything slower; a test that fails waits this long, others do not.
TIMEOUT_S = float(os.environ.get("TIERMQ_TEST_TIMEOUT_S", "30"))
SANITIZER_WORDS = ("AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "MemorySanitizer", "runtime error:")
EXIT_ADDRESS, EXIT_CONFIG, EXIT_STORE = 4, 3, 5


def program(name):
    """The path of a built program."""
    folders = {"tiermq-broker": "broker", "tiermq-worker": "worker", "tiermq": "client", "tiermq-modelsim": "tests/modelsim",
               "libtiermq-disk-faults.so": "tests/faults", "libtiermq-power-cut.so": "tests/faults",
               "tiermq-chaos-load": "tests/chaos"}
    path = BUILD / folders.get(name, "") / name
    if not path.is_file():
        found = [p for p in BUILD.rglob(name) if p.is_file() and os.access(p, os.X_OK)]
        assert found, f"{name} is not built in {BUILD} (TIERMQ_BUILD)"
        path = found[0]
    return path


def merge(base, changes):
    """`base` with the values of `changes` put over it, dicts merged, lists replaced."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def wait_for(condition, what, timeout_s=TIMEOUT_S):
    """Calls `condition` until it gives something true; for facts that no log line tells (an HTTP answer, say)."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {timeout_s:.0f} s in vain for {what}"
        time.sleep(0.02)


def http_request(address, path, body=None, method=None, headers=None, timeout_s=10):
    """An HTTP request to host:port. Returns (status, text); a body that is a dict is sent as JSON."""
    data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
    address = address if "://" in address else f"http://{address}"
    request = urllib.request.Request(address + path, data=data, method=method, headers=headers or {})
    if data is not None and not request.has_header("Content-type"):
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Process:
    """A running program whose standard error is read line by line."""

    def __init__(self, name, argv, directory, environment=None):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.lines = []  # standard error: dicts (log lines), or str for anything else
        self.ready = None
        self.was_killed = False
        self._changed = threading.Condition()
        self._ended = False
        self._file = open(directory / f"{name}.log", "ab")
        env = dict(os.environ, **(environment or {}))
        self.popen = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.PIPE, cwd=directory, env=env)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self):
        return self.popen.pid

    def _read(self):
        for raw in self.popen.stderr:
            self._file.write(raw)
            self._file.flush()
            text = raw.decode(errors="replace").rstrip("\n")
            try:
                line = json.loads(text)
                line = line if isinstance(line, dict) else text
            except ValueError:
                line = text
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def output(self):
        """All of standard error, for messages of failed assertions."""
        with self._changed:
            return "\n".join(json.dumps(line) if isinstance(line, dict) else line for line in self.lines)

    def wait_log(self, matches, after=0, timeout_s=TIMEOUT_S):
        """
        Waits for a log line: `matches` is its message, or a function of the line (a dict). Lines before number
        `after` do not count. Returns the line. Fails when the process ends without it.
        """
        test = matches if callable(matches) else lambda line: line.get("message") == matches
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for line in self.lines[after:]:
                    if isinstance(line, dict) and test(line):
                        return line
                after = len(self.lines)
                left = end - time.monotonic()
                if self._ended or left <= 0:
                    break
                self._changed.wait(left)
        raise AssertionError(f"{self.name}: no such log line ({matches}); its output:\n{self.output()}")

    def wait_ready(self, timeout_s=TIMEOUT_S):
        self.ready = self.wait_log("ready", timeout_s=timeout_s)
        return self

    def has_ended(self):
        """Its standard error has: it is over, or as good as that."""
        with self._changed:
            return self._ended

    def is_running(self):
        return self.popen.poll() is None

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self, timeout_s=TIMEOUT_S):
        """Waits for the end; returns the exit code."""
        try:
            code = self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end; its output:\n{self.output()}") from None
        self._reader.join(5)
        return code

    def stop(self, expect=0, timeout_s=TIMEOUT_S):
        """SIGTERM, and the exit code must be `expect`."""
        if self.is_running():
            self.signal(signal.SIGTERM)
        code = self.wait(timeout_s)
        self.was_killed = True
        assert code == expect, f"{self.name} ended with {code} instead of {expect}; its output:\n{self.output()}"

    def kill(self):
        """SIGKILL: the process has no say."""
        self.was_killed = True
        self.popen.kill()
        self.wait()

    def sanitizer_reports(self):
        with self._changed:
            return [line for line in self.lines if isinstance(line, str) and any(w in line for w in SANITIZER_WORDS)]

    def admin(self, path, body=None, method=None, headers=None):
        """Its admin HTTP server: (status, text)."""
        return http_request(self.ready["admin"], path, body, method, headers)

    def admin_json(self, path, body=None, method=None):
        status, text = self.admin(path, body, method)
        assert status == 200, f"{self.name}{path}: {status} {text}"
        return json.loads(text)

    def metrics(self):
        """/metrics as a dict from the sample's name with labels, as written, to its value."""
        status, text = self.admin("/metrics")
        assert status == 200, text
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def memory_bytes(self):
        """Resident memory."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"{self.name} is gone")


class Cluster:
    """The programs of one test, in one temporary directory. A context manager."""

    def __init__(self, config=None):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="tiermq-test-"))
        self.config = config or {}  # for all programs; see also the parameters of start_…
        self.processes = []
        self.brokers = []
        self.workers = []
        self.modelsim = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            self.stop(check=kind is None)
        finally:
            if kind is None or not os.environ.get("TIERMQ_TEST_KEEP"):
                shutil.rmtree(self.directory, ignore_errors=True)
            else:
                print(f"kept: {self.directory}", file=sys.stderr)

    @property
    def broker(self):
        return self.brokers[-1]

    @property
    def worker(self):
        return self.workers[-1]

    # ------------------------------------------------------------------------------------------- starting

    def run(self, name, argv, ready=True, environment=None):
        """Starts any program that logs as ours do."""
        process = Process(name, argv, self.directory, environment)
        self.processes.append(process)
        return process.wait_ready() if ready else process

    def write_config(self, name, config):
        path = self.directory / f"{name}.yaml"
        path.write_text(json.dumps(merge(config, {}), indent=1))
        return path

    def start_modelsim(self, *arguments):
        self.modelsim = self.run("modelsim", [program("tiermq-modelsim"), "--listen", "127.0.0.1:0", *arguments])
        return self.modelsim

    def base_config(self):
        """What all programs share: the simulated model as provider, when it runs."""
        # A lookup that is late is a miss, which on a busy machine is no fault.
        config = {"log": {"level": "debug"}, "cache": {"lookup_timeout": "2s"}}
        if self.modelsim is not None:
            http = self.modelsim.ready["http"]
            url = (http if "://" in http else f"http://{http}").rstrip("/")
            price = {"input_usd_per_mtok": 0.15, "output_usd_per_mtok": 0.60}
            names = ("sim-small", "sim-medium", "sim-large")
            config["providers"] = [{"name": "sim", "type": "openai", "base_url": f"{url}/v1"}]
            config["models"] = [{"name": name, "provider": "sim", **price} for name in names]
        return merge(config, self.config)

    def broker_config(self, name="broker", **changes):
        return merge(merge(self.base_config(), {"broker": {
            "name": name,
            "listen_clients": "tcp://127.0.0.1:*",
            "listen_workers": "tcp://127.0.0.1:*",
            "listen_events": "tcp://127.0.0.1:*",
            "admin": "127.0.0.1:0",
            "data_dir": str(self.directory / name),
        }}), changes)

    def start_broker(self, name="broker", ready=True, environment=None, **changes):
        """
        `changes` are top-level parts of the configuration: start_broker(broker={"store": "memory"}). With `ready` false it is
        not waited for, and is none of the cluster's brokers.
        """
        config = self.broker_config(name, **changes)
        broker = self._run_broker(name, config, ready, environment)
        if ready:
            self.brokers.append(broker)
        return broker

    def _run_broker(self, name, config, ready, environment, arguments=()):
        path = self.write_config(name, config)
        broker = self.run(name, [program("tiermq-broker"), "--config", path, *arguments], ready, environment)
        broker.config = config
        if ready:
            ports = {f"listen_{k}": broker.ready[k] for k in ("clients", "workers", "events")}
            ports["admin"] = broker.ready["admin"]
            broker.config = merge(config, {"broker": ports})
        return broker

    def restart_broker(self, process=None, environment=None, ready=True, arguments=(), **changes):
        """
        Starts it again where it was; stop() or kill() it before. Its ports are ephemeral ones: while nobody listens, a connection
        that somebody makes may get one, so a restart that is refused the address is tried again.
        """
        old = process or self.broker
        assert not old.is_running()
        end = time.monotonic() + TIMEOUT_S
        new = None
        while new is None:
            try:
                new = self._run_broker(old.name, merge(old.config, changes), ready, environment, arguments)
            except AssertionError:
                refused = self.processes[-1]
                # One that is not ready in time runs on.
                if not refused.has_ended() or refused.wait() != EXIT_ADDRESS or time.monotonic() > end:
                    raise
                self.processes.remove(refused)
                time.sleep(0.1)
        self.brokers[self.brokers.index(old)] = new
        return new

    def start_worker(self, name=None, ready=True, environment=None, **changes):
        name = name or f"worker-{len(self.workers) + 1}"
        config = merge(merge(self.base_config(), {"worker": {
            "name": name,
            "brokers": [b.config["broker"]["listen_workers"] for b in self.brokers],
            "events": [b.config["broker"]["listen_events"] for b in self.brokers],
            "admin": "127.0.0.1:0",
            "data_dir": str(self.directory / name),
        }}), changes)
        worker = self.run(name, [program("tiermq-worker"), "--config", self.write_config(name, config)], ready, environment)
        worker.config = config
        self.workers.append(worker)
        return worker

    # ------------------------------------------------------------------------------------------- using

    def _cli_argv(self, arguments):
        config = merge(self.base_config(), {"client": {
            "brokers": [b.config["broker"]["listen_clients"] for b in self.brokers],
        }, "broker": {"admin": self.broker.config["broker"]["admin"]}})
        path = self.write_config(f"cli-{time.monotonic_ns()}", config)
        return [str(a) for a in (program("tiermq"), *arguments)], {"TIERMQ_CONFIG": str(path)}

    def cli(self, *arguments, input=None, timeout_s=TIMEOUT_S):
        """Runs `tiermq ARGUMENTS` to its end; returns subprocess.CompletedProcess with text."""
        argv, env = self._cli_argv(arguments)
        done = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=timeout_s,
                              cwd=self.directory, env=dict(os.environ, **env), check=False)
        reports = [line for line in done.stderr.splitlines() if any(w in line for w in SANITIZER_WORDS)]
        assert not reports, done.stderr
        return done

    def cli_start(self, *arguments, input=None):
        """Starts `tiermq ARGUMENTS`; returns subprocess.Popen with text pipes (use communicate())."""
        argv, env = self._cli_argv(arguments)
        stdin = subprocess.PIPE if input is None else open(self._save(input))
        return subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, cwd=self.directory, env=dict(os.environ, **env))

    @staticmethod
    def shown_on(screen):
        """All that a program which has ended wrote to its terminal; closes it."""
        shown = b""
        try:
            while chunk := os.read(screen, 100000):
                shown += chunk
        except OSError:  # nobody has the other side open any more
            pass
        os.close(screen)
        return shown.decode()

    def cli_on_a_terminal(self, *arguments, input):
        """Likewise; returns (subprocess.Popen, descriptor): its standard error is a terminal, read at the descriptor."""
        argv, env = self._cli_argv(arguments)
        ours, theirs = pty.openpty()
        process = subprocess.Popen(argv, stdin=open(self._save(input)), stdout=subprocess.DEVNULL, stderr=theirs,
                                   cwd=self.directory, env=dict(os.environ, **env))
        os.close(theirs)
        return process, ours

    def _save(self, text):
        path = self.directory / f"input-{time.monotonic_ns()}"
        path.write_text(text)
        return path

    # ------------------------------------------------------------------------------------------- ending

    def stop(self, check=True):
        """Stops what runs, workers first; with `check`, exit codes must be 0 and no sanitizer may have complained."""
        problems = []
        order = [p for p in self.workers if p.is_running()]
        order += [p for p in reversed(self.processes) if p.is_running() and p not in order]
        for process in order:
            try:
                process.stop() if check else process.kill()
            except AssertionError as error:
                problems.append(str(error))
                process.kill()
        for process in self.processes:
            problems += [f"{process.name}: {report}\n{process.output()}" for report in process.sanitizer_reports()]
            died = process.popen.returncode not in (0, None) and not process.was_killed
            if died:
                problems.append(f"{process.name} ended by itself with {process.popen.returncode}:\n{process.output()}")
        assert not check or not problems, "\n\n".join(problems)


def preload(library, **environment):
    """The environment of a program that has one of the libraries of tests/faults put before the C library."""
    return {"LD_PRELOAD": str(program(library)), **environment,
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}


def join_environments(*environments):
    """Several faults under one program; PowerCut comes first."""
    joined = {}
    for environment in environments:
        joined |= environment
    joined["LD_PRELOAD"] = ":".join(e["LD_PRELOAD"] for e in environments)
    return joined


class DiskFaults:
    """
    A disk that fails on demand under a program started with `environment` (tests/faults/disk_faults.c):

        faults = DiskFaults(cluster)
        cluster.start_broker(environment=faults.environment)
        faults.fail(errno.ENOSPC)
    """

    def __init__(self, cluster):
        self._path = cluster.directory / "disk-fault"
        self.environment = preload("libtiermq-disk-faults.so", TIERMQ_DISK_FAULTS=str(self._path))

    def fail(self, error, calls="", ending=""):
        """`calls`: "write", "sync" or "read", only; and only of files whose path ends so."""
        aside = self._path.with_suffix(".new")
        aside.write_text(f"{int(error)} {calls} {ending}".strip())
        aside.rename(self._path)

    def heal(self):
        self._path.unlink()


class _AlwaysTheFirst:
    """Stands for random.Random where the worst is wanted, not dice."""

    def choice(self, options):
        return options[0]

    def randrange(self, *_):
        return 0

    def random(self):
        return 1.0


class PowerCut:
    """
    Makes a SIGKILL a power cut for a program started with `environment` (tests/faults/power_cut.c): what it wrote to its data
    directory and did not fsync may be gone.

        power = PowerCut(cluster)
        cluster.start_broker(environment=power.environment)
        cluster.broker.kill()
        power.cut(seed)
        cluster.restart_broker(environment=power.environment)

    `lie` is the end of the paths whose fsync the disk only pretends to do (".log"; "" for all).
    """

    _CREATE, _RENAME, _UNLINK, _MKDIR = range(1, 5)
    _HEAD, _FILE, _STEP = struct.Struct("=IIIIII"), struct.Struct("=QQ"), struct.Struct("=IIIIQ240s240s")
    _MAGIC = 0x71747063

    def __init__(self, cluster, name="broker", lie=None):
        self.root = cluster.directory / name
        self._state = cluster.directory / f"{name}-power"
        faults = {} if lie is None else {"TIERMQ_POWER_CUT_LIE": lie}
        self.environment = preload("libtiermq-power-cut.so", TIERMQ_POWER_CUT_ROOT=str(self.root),
                                   TIERMQ_POWER_CUT_STATE=str(self._state), **faults)

    def cut(self, seed):
        """
        Takes away what was not kept: all of it with seed None, else all or a part of it as the seed wants. The program must have
        ended. Returns what was done, in words, for messages.
        """
        random_ = _AlwaysTheFirst() if seed is None else random.Random(seed)
        kept, steps = self._read()
        done = self._undo(random_, steps)
        for path in sorted(self.root.rglob("*")):
            if path.is_file():
                done += self._cut_file(random_, path, kept.get(path.stat().st_ino))
        for path in self._state.parent.glob(self._state.name + "*"):
            path.unlink()
        return done

    def _read(self):
        data = self._state.read_bytes()
        magic, steps_length, unmodelled, files_max, _, _ = self._HEAD.unpack_from(data)
        assert magic == self._MAGIC, "the program did not run with the library"
        assert unmodelled == 0, f"{unmodelled} changes of the disk that a power cut cannot be made of"
        steps_at = self._HEAD.size + files_max * self._FILE.size
        files = self._FILE.iter_unpack(data[self._HEAD.size:steps_at])
        steps = [self._STEP.unpack_from(data, steps_at + n * self._STEP.size) for n in range(steps_length)]
        return {inode: length for inode, length in files if inode}, steps

    def _undo(self, random_, steps):
        """Takes back what was done to directories and not kept: of each, the last so many steps."""
        open_steps = {}
        for number, step in enumerate(steps):
            if not step[1]:
                open_steps.setdefault(step[4], []).append(number)
        lost = set()
        for numbers in open_steps.values():
            lost.update(numbers[random_.choice((0, random_.randrange(len(numbers) + 1))):])
        done = []
        for number in sorted(lost, reverse=True):
            kind, _, has_saved, _, _, from_, to = steps[number]
            from_, to = (pathlib.Path(os.fsdecode(name.rstrip(b"\0"))) for name in (from_, to))
            saved = pathlib.Path(f"{self._state}.{number}") if has_saved else None
            done += self._undo_step(kind, from_, to, saved)
        return done

    def _undo_step(self, kind, from_, to, saved):
        """A step that was noted may not have been made."""
        if kind == self._CREATE and from_.exists():
            from_.unlink()
            return [f"{from_.name}: not created"]
        if kind == self._RENAME and to.exists() and not from_.exists():
            to.rename(from_)
            if saved:
                saved.rename(to)
            return [f"{to.name}: not renamed from {from_.name}"]
        if kind == self._UNLINK and saved and not from_.exists():
            saved.rename(from_)
            return [f"{from_.name}: not unlinked"]
        if kind == self._MKDIR and from_.exists():
            shutil.rmtree(from_)
            return [f"{from_.name}: directory not made"]
        return []

    @staticmethod
    def _cut_file(random_, path, kept):
        """A torn tail is cut off, cut in the middle, or has its last sector never written."""
        length = path.stat().st_size
        if kept is None:
            path.unlink()
            return [f"{path.name}: never kept"]
        if kept >= length:
            return []
        left = random_.choice((kept, random_.randrange(kept, length + 1)))
        os.truncate(path, left)
        zeros = min(left - kept, 512) if random_.random() < 0.5 else 0
        if zeros:
            with open(path, "r+b") as file:
                file.seek(left - zeros)
                file.write(bytes(zeros))
        return [f"{path.name}: {length} bytes, of which {kept} were kept and {left} are left, {zeros} of them zeros"]


@contextlib.contextmanager
def http_answering(body):
    """A server that answers each POST with these bytes, whatever is asked; gives its address."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def free_port():
    """A TCP port that was free a moment ago; for addresses that a test must know beforehand."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
