"""
chaos: one campaign. Starts a broker, workers, the simulated model server and load clients as real processes, each behind a link
of its own that can fail, lets the nemesis at them, waits until everything should be quiet, asks the broker what it still has,
restarts it a last time without workers and asks again; then check.py judges. Called by run.sh, which documents the arguments.
"""

import argparse
import itertools
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]

import check  # noqa: E402
import harness  # noqa: E402
import nemesis  # noqa: E402
import proxy  # noqa: E402

QUIET_S = 75  # longer than any backoff, deadline of a short job, and the client's longest wait for a lost word (30 s)
MODELSIM_ARGUMENTS = ("--seed", "7", "--tokens", "8:48")
MODELS = ("sim-small", "sim-medium")
TENANTS = ("red", "blue")
ATTEMPTS_FEW, ATTEMPTS_MANY = 4, 1000
TIERS = {
    "realtime": {"durable": False, "attempts_max": ATTEMPTS_MANY},
    "standard": {"durable": True, "attempts_max": ATTEMPTS_MANY},
    "background": {"durable": True, "attempts_max": ATTEMPTS_FEW},
}


class Campaign:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.crashes = []
        self.proxy = proxy.Proxy()
        self.links = []
        self.cluster = harness.Cluster({"log": {"level": "info"}})
        self.directory = self.cluster.directory
        self.workers = [f"worker-{i}" for i in range(1, options.workers + 1)]
        self.clients = [f"{TENANTS[i % 2]}-{i // 2 + 1}" for i in range(options.clients)]
        self.power = None
        self.power_cuts = []  # of each: how many things it took away
        if options.power_cut or options.lying_disk:
            self.power = harness.PowerCut(self.cluster, lie=".log" if options.lying_disk else None)
        self._running = {}  # name: Process
        self._argv = {}     # name: how it is started again

    # ------------------------------------------------------------------------------- what the nemesis needs

    def current(self, name):
        return self._running[name]

    def restart(self, name):
        if name == "broker":
            self._running[name] = self.cluster.restart_broker(ready=False, environment=self.broker_environment())
            return
        self._running[name] = self.cluster.run(name, self._argv[name], ready=False)

    def after_kill(self, name):
        """What a kill alone does not do: the page cache outlives a process, and would keep what was never fsynced."""
        if self.power is None or name != "broker" or not self._has_written():
            return
        done = self.power.cut(self.random.getrandbits(32))
        self.power_cuts.append(len(done))
        with open(self.directory / "power-cuts.txt", "a") as log:
            log.write(f"{nemesis.monotonic_ms()}: " + "; ".join(done) + "\n")

    def _has_written(self):
        """Whether the broker came so far, before it was killed, that its library had begun to take notes."""
        state = self.directory / "broker-power"
        return state.exists() and any(state.open("rb").read(4))

    def broker_environment(self):
        return self.power.environment if self.power is not None else None

    @property
    def simulator_http(self):
        return self.cluster.modelsim.ready["http"]

    # ------------------------------------------------------------------------------------------- starting

    def _start(self, name, argv, ready=True):
        self._argv[name] = argv
        self._running[name] = self.cluster.run(name, argv, ready)

    def _link(self, peer, name, endpoint):
        host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
        link = self.proxy.link(name, (host, int(port)))
        link.peer = peer
        self.links.append(link)
        return f"tcp://127.0.0.1:{link.port}"

    def _start_simulator(self):
        arguments = (*MODELSIM_ARGUMENTS, "--calls", str(self.directory / "calls.jsonl"), "--first-token-ms", "20", "--tokens-per-s",
                     "400", "--jitter", "50")
        self._running["simulator"] = simulator = self.cluster.start_modelsim(*arguments)
        argv = list(simulator.argv)
        argv[argv.index("127.0.0.1:0")] = self.simulator_http.removeprefix("http://")
        self._argv["simulator"] = argv

    def _config(self):
        """Each worker pays with a key of its own, so that the simulator knows who called."""
        few = {"attempts_max": ATTEMPTS_FEW, "backoff_first": "100ms", "backoff_max": "1s"}
        many = {**few, "attempts_max": ATTEMPTS_MANY}
        providers = [{"name": f"provider-{model}", "type": "openai", "base_url": f"{self.simulator_http}/v1", "api_key": "none",
                      "connect_timeout": "500ms", "timeout": "3s"} for model in MODELS]
        return {
            "providers": providers,
            "models": [{"name": model, "provider": f"provider-{model}", "input_usd_per_mtok": 0.15, "output_usd_per_mtok": 0.6}
                       for model in MODELS],
            "tenants": [{"name": tenant} for tenant in TENANTS],
            "tiers": [{"name": "realtime", **many}, {"name": "standard", **many}, {"name": "background", **few}],
        }

    def _start_broker(self):
        self.cluster.config = harness.merge(self.cluster.config, self._config())
        self._running["broker"] = self.cluster.start_broker(environment=self.broker_environment(), broker={
            "lease": "3s", "heartbeat": "300ms", "reclaim": "500ms", "drain_timeout": "2s"})
        self.admin = self.cluster.broker.ready["admin"]
        self.endpoints = {kind: self.cluster.broker.ready[kind] for kind in ("clients", "workers", "events")}

    def _start_worker(self, name):
        providers = [{**provider, "api_key": name} for provider in self.cluster.config["providers"]]
        config = harness.merge(self.cluster.base_config(), {"providers": providers, "worker": {
            "name": name,
            "slots": 32,
            "brokers": [self._link(name, name, self.endpoints["workers"])],
            "events": [self._link(name, f"{name}-events", self.endpoints["events"])],
            "admin": "127.0.0.1:0",
            "data_dir": str(self.directory / name),
            "drain_timeout": "2s",
        }})
        self._start(name, [harness.program("tiermq-worker"), "--config", self.cluster.write_config(name, config)])

    def _history(self, name):
        return self.directory / f"history-{name}.jsonl"

    def _start_client(self, name):
        other = next(other for other in self.clients if other.split("-")[0] != name.split("-")[0])
        self._start(name, [
            harness.program("tiermq-chaos-load"), "--broker", self._link(name, name, self.endpoints["clients"]), "--tenant",
            name.split("-")[0], "--name", name, "--history", self._history(name), "--seed", self.options.seed, "--rate",
            self.options.rate, "--foreign", self._history(other)], ready=False)

    def start(self):
        self._start_simulator()
        self._start_broker()
        for name in self.workers:
            self._start_worker(name)
        for name in self.clients:
            self._start_client(name)

    # --------------------------------------------------------------------------------------------- chaos

    def _look_for_crashes(self):
        """A process that ended by itself is a finding; it is started again, so that the campaign goes on."""
        for name, process in list(self._running.items()):
            code = process.popen.poll()
            if code is not None and not process.was_killed:
                self.crashes.append(f"{name} ended by itself with {code}:\n{process.output()[-3000:]}")
                process.was_killed = True
                self.restart(name)

    def _is_over(self, demon, end):
        if time.monotonic() >= end:
            return True
        return demon.kills >= self.options.kills and demon.has_played_all()

    def run_nemesis(self):
        demon = nemesis.Nemesis(self, self.random, self.directory / "nemesis.jsonl", self.options.deck, self.options.say)
        end = time.monotonic() + self.options.seconds
        next_card = time.monotonic()
        while not self._is_over(demon, end):
            demon.run_due()
            self._look_for_crashes()
            if time.monotonic() >= next_card:
                demon.play()
                next_card = time.monotonic() + self.random.expovariate(1 / self.options.pause_s)
            time.sleep(0.02)
        demon.finish()
        demon.close()

    # ---------------------------------------------------------------------------------------------- quiet

    def _has_started(self, name):
        """Whether a client listens to signals: it says so in its history."""
        history = self._history(name)
        return history.exists() and f'"pid":{self.current(name).pid},' in history.read_text(errors="replace")

    def _await_clients(self):
        """The names of those that still wait when the time is up."""
        for name in self.clients:
            harness.wait_for(lambda name=name: self._has_started(name), f"{name} to start")
            process = self.current(name)
            process.was_killed = True
            process.signal(harness.signal.SIGUSR1)
        end = time.monotonic() + QUIET_S
        waiting = list(self.clients)
        while waiting and time.monotonic() < end:
            self._look_for_crashes()
            for name in list(waiting):
                code = self.current(name).popen.poll()
                if code is not None:
                    waiting.remove(name)
                if code not in (None, 0):
                    self.crashes.append(f"{name} ended with {code} after SIGUSR1:\n{self.current(name).output()[-2000:]}")
            time.sleep(0.05)
        return waiting

    def _admin(self, path):
        status, text = harness.http_request(self.admin, path)
        return json.loads(text) if status == 200 else {"status": status, "text": text}

    def _ask_for_open(self):
        """Where the broker has what clients have no outcome of."""
        jobs = check.Campaign(self.directory).jobs.values()
        return {job.id: self._admin(f"/v1/jobs/{job.id}") for job in jobs if not job.outcomes}

    def _await_broker(self):
        broker = self.current("broker").wait_ready()
        harness.wait_for(lambda: broker.admin("/readyz")[0] == 200, "the broker to be ready")

    def _await_no_jobs(self):
        """Jobs that nobody waits for (a client cannot know of a job that was accepted in its last moment) may take a little longer."""
        end = time.monotonic() + 10
        while self._admin("/v1/stats")["jobs"] > 0 and time.monotonic() < end:
            time.sleep(0.1)
        return self._admin("/v1/stats")

    def _audit(self):
        """Asks the broker where each job stands, by its name, as each tenant."""
        jobs = check.Campaign(self.directory).jobs.values()
        for tenant in TENANTS:
            ids = self.directory / f"ids-{tenant}.jsonl"
            ids.write_text("".join(json.dumps({"id": job.id}) + "\n" for job in jobs if job.tenant == tenant))
            audit = self.cluster.run(f"audit-{tenant}", [
                harness.program("tiermq-chaos-load"), "--broker", self.endpoints["clients"], "--tenant", tenant, "--name", "audit",
                "--history", self.directory / f"audit-{tenant}.jsonl", "--audit", ids], ready=False)
            code = audit.wait(timeout_s=120)
            audit.was_killed = True
            if code != 0:
                self.crashes.append(f"audit of {tenant} ended with {code}: {audit.output()}")

    def _stop_all(self, names):
        for name in names:
            process = self.current(name)
            try:
                process.stop()
            except AssertionError as error:
                self.crashes.append(str(error))
                process.kill()

    def finish(self):
        said = {"clients that did not end": self._await_clients()}
        self.save_run()
        self._await_broker()
        said["after quiet"] = self._await_no_jobs()
        said["open"] = self._ask_for_open()
        said["simulator"] = json.loads(harness.http_request(self.simulator_http, "/control/counters")[1])
        self._stop_all(self.workers)
        for name in said["clients that did not end"]:
            self.current(name).kill()
        self.current("broker").kill()
        self.after_kill("broker")
        self.restart("broker")
        self._await_broker()
        said["after its restart"] = self._admin("/v1/stats")
        self._audit()
        self._stop_all(["broker", "simulator"])
        self.crashes += [f"{process.name}: {report}" for process in self.cluster.processes for report in process.sanitizer_reports()]
        (self.directory / "broker.json").write_text(json.dumps(said, indent=1))
        self.save_run()

    def save_run(self):
        options = self.options
        (self.directory / "run.json").write_text(json.dumps({
            "seed": options.seed, "arguments": sys.argv[1:], "tiers": TIERS, "models": MODELS, "modelsim_arguments": MODELSIM_ARGUMENTS,
            "quiet_s": QUIET_S, "kills_wanted": options.kills, "faults_wanted": sorted(options.deck) if options.kills >= 12 else [],
            "succeeded_wanted": options.kills * 10, "crashes": self.crashes,
            "power_cuts": self.power_cuts if self.power else None}, indent=1))

    def close(self):
        self.cluster.stop(check=False)
        self.proxy.close()


def read_options():
    comment = itertools.takewhile(lambda line: line.startswith("#"), (HERE / "run.sh").read_text().split("\n\n", 1)[1].splitlines())
    parser = argparse.ArgumentParser(prog="tests/chaos/run.sh", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description="\n".join(line.removeprefix("#").removeprefix(" ") for line in comment))
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big") + 1)
    parser.add_argument("--kills", type=int, help="of broker and workers (200; quick: 12)")
    parser.add_argument("--seconds", type=float, default=1500, help="ends the campaign even if kills are missing (1500)")
    parser.add_argument("--quick", action="store_true", help="every kind of fault once, a dozen kills")
    parser.add_argument("--power-cut", action="store_true", help="a killed broker loses what it had not fsynced")
    parser.add_argument("--lying-disk", action="store_true",
                        help="and what it had fsynced in its log: jobs are lost, and the campaign must fail")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rate", type=int, default=8, help="jobs a second of each client (8)")
    parser.add_argument("--keep", action="store_true", help="keep the directory also when all is well")
    options = parser.parse_args()
    options.deck = nemesis.QUICK_DECK if options.quick else nemesis.DECK
    options.kills = options.kills or (12 if options.quick else 200)
    options.pause_s = 0.55 if options.quick else 0.9
    options.say = lambda text: print(text, flush=True)
    return options


def main():
    options = read_options()
    campaign = Campaign(options)
    print(f"chaos: seed {options.seed}, directory {campaign.directory}", flush=True)
    began = time.monotonic()
    try:
        campaign.start()
        campaign.run_nemesis()
        print(f"chaos: faults are over after {time.monotonic() - began:.0f} s; waiting until all is quiet", flush=True)
        campaign.finish()
    finally:
        campaign.close()
    checker = check.check_directory(campaign.directory, harness.program("tiermq-modelsim"))
    check.print_report(checker)
    failed = bool(checker.findings)
    print(f"chaos: {'FAILED' if failed else 'ok'}: seed {options.seed}, {time.monotonic() - began:.0f} s"
          + (f"; kept in {campaign.directory}" if failed or options.keep else ""))
    if not failed and not options.keep:
        shutil.rmtree(campaign.directory, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
