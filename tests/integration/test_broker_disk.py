"""What is left of the broker's jobs when power or disk fail, on the real program with its real database."""

import errno
import os
import random
import shutil
import subprocess

import pytest

from harness import EXIT_STORE, DiskFaults, PowerCut, wait_for
from wire import Client, Stream, Worker, id_text, pb, serve_all

SEED = int(os.environ.get("TIERMQ_TEST_SEED") or random.randrange(1 << 32))
SMALL_BUFFERS = {"rocksdb_write_buffer_bytes": "1MiB"}  # so that tables are written and merged too


# ----------------------------------------------------------------------------------------------- power cuts


def lost_jobs(broker, jobs):
    """Those that the broker neither has nor remembers."""
    with Client(broker) as client:
        return [job for job in jobs if client.status(job).state == pb.JOB_STATE_UNKNOWN]


def cut_in_full_flow(cluster, power, seed, payload_bytes=0):
    """One round of load that a power cut ends, and the restart. Returns what was accepted: {job: payload}."""
    stream = Stream(cluster.broker, bytes(payload_bytes))
    with Worker(cluster.broker) as worker:
        worker.serve(40)
        assert stream.enough.wait(30)
        cluster.broker.kill()
    stream.stop()
    print(f"seed {seed}:", *power.cut(seed), sep="\n  ")
    cluster.restart_broker(environment=power.environment)
    return stream.accepted


@pytest.mark.parametrize("run", range(2))
def test_power_cuts_in_full_flow_lose_nothing(cluster, run):
    seed = SEED + 4 * run
    power = PowerCut(cluster)
    cluster.start_broker(environment=power.environment,
                         broker=SMALL_BUFFERS | {"reclaim": "100ms", "lease": "1s", "heartbeat": "250ms"})
    accepted = {}
    for round_ in range(4):
        accepted |= cut_in_full_flow(cluster, power, seed + round_, payload_bytes=(0, 9000)[round_ % 2])
        assert not lost_jobs(cluster.broker, accepted)
    assert serve_all(cluster.broker, accepted) == {job: payload[::-1] for job, payload in accepted.items()}


def test_first_power_cut_of_a_new_broker_loses_nothing(cluster):
    """The names of the data directory and of the database in it have to be kept too."""
    power = PowerCut(cluster, "new")
    cluster.start_broker(environment=power.environment, broker={"data_dir": str(power.root / "deep")})
    client = Client(cluster.broker)
    jobs = [client.submit() for _ in range(20)]
    for job in jobs:
        client.accepted(job)
    cluster.broker.kill()
    power.cut(seed=1)
    cluster.restart_broker(environment=power.environment)
    assert not lost_jobs(cluster.broker, jobs)


def test_power_cut_of_a_disk_that_lies_about_fsync_loses_jobs(cluster):
    """
    So the tests above can fail. The broker's own mark was not fsynced either; where it survives, the loss is not silent.
    """
    power = PowerCut(cluster, lie=".log")
    cluster.start_broker(environment=power.environment)
    stream = Stream(cluster.broker)
    assert stream.enough.wait(30)
    cluster.broker.kill()
    stream.stop()
    mark = power.root / "durable"
    survived = mark.read_bytes()
    power.cut(seed=None)
    mark.write_bytes(survived)
    assert "missing" in refused_start(cluster)["reason"]
    mark.unlink()
    cluster.restart_broker()
    assert lost_jobs(cluster.broker, stream.accepted)


# ----------------------------------------------------------------------------------------------- damage


def database(cluster):
    return cluster.directory / "broker" / "rocksdb"


def flip_bit(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def find_bytes(cluster, ending, wanted, without=None):
    """(path, offset) of these bytes in a file of the database."""
    for path in sorted(database(cluster).glob("*" + ending)):
        data = path.read_bytes()
        if wanted in data and (without is None or without not in data):
            return path, data.index(wanted)
    raise AssertionError(f"{wanted} is in no {ending}")


def accept_some(cluster, count, payload_bytes=100):
    """Each in a batch of its own, since it is waited for: {job: payload}."""
    jobs = {}
    with Client(cluster.broker) as client:
        for n in range(count):
            payload = (f"payload {n:04} " * (payload_bytes // 13 + 1)).encode()[:payload_bytes]
            job = client.submit(payload)
            client.accepted(job)
            jobs[job] = payload
    return jobs


def refused_start(cluster):
    """The broker must not start; returns what it said."""
    broker = cluster.restart_broker(ready=False)
    assert broker.wait() == EXIT_STORE, broker.output()
    broker.was_killed = True
    return broker.wait_log(lambda line: line["level"] == "error")


def salvage(cluster):
    """Starts it with --salvage; returns the log line about it."""
    broker = cluster.restart_broker(arguments=["--salvage"], ready=False)
    line = broker.wait_log("salvaged")
    broker.wait_ready()
    broker.stop()  # the ports of a start without waiting are not kept
    cluster.restart_broker()
    return line


def damage_middle(cluster, payload):
    path, at = find_bytes(cluster, ".log", payload)
    flip_bit(path, at)
    return path


def damage_length(cluster, payload):
    """The length in the head of a record: RocksDB takes it for the log's torn end."""
    path, at = find_bytes(cluster, ".log", payload)
    data = path.read_bytes()
    head = max(n for n in range(at - 200, at) if data[n + 6] == 1 and data[n + 15:n + 19] == b"\x02\0\0\0")
    flip_bit(path, head + 5)
    return path


def damage_zeros(cluster, payload):
    """RocksDB takes zeros for space that was reserved and never written, and goes on behind them."""
    path, at = find_bytes(cluster, ".log", payload)
    with open(path, "r+b") as file:
        file.seek(at - 150)
        file.write(bytes(300))
    return path


@pytest.mark.parametrize("damage", [damage_middle, damage_length, damage_zeros])
def test_damage_in_the_log_is_refused_and_salvaged(cluster, damage):
    cluster.start_broker()
    jobs = accept_some(cluster, 60)
    cluster.broker.kill()
    path = damage(cluster, list(jobs.values())[20])
    before = {p: p.read_bytes() for p in database(cluster).glob("*.log")}

    line = refused_start(cluster)
    assert path.name in line["reason"] and "missing" in line["reason"] and "--salvage" in line["reason"]
    assert {p: p.read_bytes() for p in database(cluster).glob("*.log")} == before, "and is left alone"

    line = salvage(cluster)
    lost = lost_jobs(cluster.broker, jobs)
    assert 1 <= len(lost) <= 3 and list(jobs)[20] in lost
    assert line["changes_lost"] == 2 * len(lost) and path.name in line["log"]
    assert (cluster.directory / "broker" / "rocksdb.damaged-1" / path.name).read_bytes() == before[path]
    kept = {job: payload for job, payload in jobs.items() if job not in lost}
    assert serve_all(cluster.broker, kept) == {job: payload[::-1] for job, payload in kept.items()}


def test_salvage_is_counted(cluster):
    cluster.start_broker()
    jobs = accept_some(cluster, 10)
    cluster.broker.kill()
    damage_middle(cluster, list(jobs.values())[5])
    broker = cluster.restart_broker(arguments=["--salvage"])
    assert broker.metrics()["tiermq_store_salvage_lost_total"] == 2
    broker.stop()
    assert cluster.restart_broker().metrics()["tiermq_store_salvage_lost_total"] == 0


def cut_off(cluster):
    path = max(database(cluster).glob("*.log"))
    os.truncate(path, path.stat().st_size - 5)


def remove_log(cluster):
    max(database(cluster).glob("*.log")).unlink()


def remove_database(cluster):
    shutil.rmtree(database(cluster))


@pytest.mark.parametrize("damage", [cut_off, remove_log, remove_database])
def test_log_without_its_acknowledged_end_is_refused(cluster, damage):
    """Nothing in the log itself shows it: the broker's own mark does."""
    cluster.start_broker()
    accept_some(cluster, 20)
    cluster.broker.kill()
    damage(cluster)
    assert "missing" in refused_start(cluster)["reason"]


@pytest.mark.parametrize("tail", [b"\x01", bytes(100), os.urandom(3000)], ids=["byte", "zeros", "noise"])
def test_torn_end_that_was_never_acknowledged_loses_nothing(cluster, tail):
    cluster.start_broker()
    jobs = accept_some(cluster, 20)
    cluster.broker.kill()
    with open(max(database(cluster).glob("*.log")), "ab") as file:
        file.write(tail)
    cluster.restart_broker()
    assert not lost_jobs(cluster.broker, jobs)


def test_torn_log_of_an_earlier_opening_counts_no_more(cluster):
    """Such a one is left where a write failed, the database was opened again, and the process ended before it was deleted."""
    cluster.start_broker()
    cluster.broker.kill()
    earlier, = database(cluster).glob("*.log")
    cluster.restart_broker()
    jobs = accept_some(cluster, 20)
    cluster.broker.kill()
    earlier.write_bytes(os.urandom(3000))
    cluster.restart_broker()
    assert not lost_jobs(cluster.broker, jobs)


def test_log_that_rocksdb_would_drop_whole_is_refused_and_salvaged(cluster):
    """Nothing is missing, but RocksDB stops at what it takes for an earlier log."""
    cluster.start_broker()
    jobs = accept_some(cluster, 20)
    cluster.broker.kill()
    # No random bytes: where the seventh is one of some kinds of record, RocksDB does not stop.
    (database(cluster) / "000002.log").write_bytes(b"\xff" * 3000)
    reason = refused_start(cluster)["reason"]
    assert "would drop" in reason and "000002.log" in reason
    line = salvage(cluster)
    assert (line["changes_lost"], line["ranges_unreadable"]) == (0, 0)
    assert not lost_jobs(cluster.broker, jobs)


def in_tables(cluster, jobs, payload_bytes):
    """What was accepted lies in table files, since a restart after a kill writes the log's changes there."""
    accepted = accept_some(cluster, jobs, payload_bytes)
    cluster.broker.kill()
    cluster.restart_broker()
    cluster.broker.stop()
    return accepted


def test_damaged_payload_makes_a_dead_letter(cluster):
    cluster.start_broker()
    jobs = in_tables(cluster, 10, payload_bytes=6000)  # a block of the table for each
    bad = list(jobs)[4]
    path, at = find_bytes(cluster, ".sst", jobs[bad][:12])
    flip_bit(path, at + 500)
    cluster.restart_broker()
    good = {job: payload for job, payload in jobs.items() if job != bad}
    assert serve_all(cluster.broker, good) == {job: payload[::-1] for job, payload in good.items()}

    with Client(cluster.broker) as client:
        client.ask(bad)
        result, _ = client.result(bad)
    assert (result.state, result.error_code) == (pb.JOB_STATE_DEAD, "payload_lost")
    assert path.name in cluster.broker.wait_log("store fault")["reason"]
    assert cluster.broker.wait_log("dead letter")["job"] == id_text(bad)
    metrics = cluster.broker.metrics()
    assert metrics["tiermq_store_read_failures_total"] >= 1
    assert metrics['tiermq_jobs_total{tier="standard",outcome="dead"}'] == 1


def test_damaged_result_is_said_to_be_lost(cluster):
    cluster.start_broker()
    jobs = accept_some(cluster, 10, payload_bytes=6000)
    serve_all(cluster.broker, jobs)
    cluster.broker.kill()
    cluster.restart_broker()
    cluster.broker.stop()
    bad = list(jobs)[4]
    path, at = find_bytes(cluster, ".sst", jobs[bad][::-1][:200])
    flip_bit(path, at + 500)
    cluster.restart_broker()
    with Client(cluster.broker) as client:
        for job, payload in jobs.items():
            client.ask(job)
            result, answer = client.result(job)
            if job == bad:
                assert (result.state, result.error_code) == (pb.JOB_STATE_COLLECTED, "result_lost")
            else:
                assert answer == payload[::-1]
    assert path.name in cluster.broker.wait_log("store fault")["reason"]
    assert id_text(bad) in cluster.broker.wait_log("record damaged")["reason"]
    assert cluster.broker.metrics()["tiermq_store_read_failures_total"] == 1


def test_damaged_job_record_is_refused_and_salvaged(cluster):
    cluster.start_broker()
    jobs = in_tables(cluster, 300, payload_bytes=100)
    path, at = find_bytes(cluster, ".sst", b"standard", without=b"payload 0001")
    flip_bit(path, at + 4000)
    line = refused_start(cluster)
    assert path.name in line["reason"] and "--salvage" in line["reason"]

    line = salvage(cluster)
    assert line["ranges_unreadable"] == 1 and path.name in line["table"]
    lost = lost_jobs(cluster.broker, jobs)
    assert 1 <= len(lost) <= 100, "those of one block"
    kept = {job: payload for job, payload in jobs.items() if job not in lost}
    assert serve_all(cluster.broker, kept) == {job: payload[::-1] for job, payload in kept.items()}


def test_salvage_of_what_is_whole_loses_nothing(cluster):
    cluster.start_broker()
    jobs = in_tables(cluster, 50, payload_bytes=1000)
    cluster.restart_broker()
    jobs |= accept_some(cluster, 50)
    cluster.broker.kill()
    line = salvage(cluster)
    assert (line["changes_lost"], line["ranges_unreadable"], line["level"]) == (0, 0, "info")
    assert serve_all(cluster.broker, jobs) == {job: payload[::-1] for job, payload in jobs.items()}


# ----------------------------------------------------------------------------------------------- a failing disk


def expect_memory_tier_served(cluster):
    with Client(cluster.broker) as client, Worker(cluster.broker, name="memory") as worker:
        job = client.submit(b"memory", tier="realtime")
        client.accepted(job)
        dispatch, _ = worker.dispatched(job)
        assert client.status(job).state == pb.JOB_STATE_LEASED
        worker.answer(dispatch)
        assert client.result(job)[0].state == pb.JOB_STATE_SUCCEEDED
        assert client.status(job).state == pb.JOB_STATE_SUCCEEDED


def submit_until_rejected(cluster, payload_bytes, count_max):
    """One after the other; returns {accepted job: payload} and the refusal."""
    accepted = {}
    with Client(cluster.broker) as client:
        while True:
            assert len(accepted) < count_max, "the disk never failed"
            payload = os.urandom(payload_bytes)
            job = client.submit(payload)
            field, item = client.any(("accepted", "rejected"), lambda item: item.job_id == job)
            if field == "rejected":
                return accepted, item
            accepted[job] = payload


@pytest.fixture
def small_disk(cluster):
    """A file system of 24 MiB."""
    path = cluster.directory / "small"
    path.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(path)], capture_output=True, check=False)
    if mount.returncode != 0:
        pytest.skip("may not mount a file system here")
    yield path
    cluster.stop(check=False)
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_full_disk_refuses_and_goes_on_when_there_is_room(cluster, small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(bytes(14 << 20))
    cluster.start_broker(broker=SMALL_BUFFERS | {"data_dir": str(small_disk / "data")})
    accepted, rejected = submit_until_rejected(cluster, 100_000, 300)
    assert accepted
    assert rejected.reason == pb.REJECT_STORAGE and rejected.retry_after_ms > 0
    reason = cluster.broker.wait_log("store down")["reason"]
    assert "No space left on device" in reason and str(small_disk) in reason
    assert cluster.broker.metrics()["tiermq_store_up"] == 0
    assert cluster.broker.metrics()["tiermq_store_failures_total"] > 0
    expect_memory_tier_served(cluster)

    filler.unlink()
    with Client(cluster.broker) as client:
        job, _ = client.submit_until("accepted", b"after")
    accepted[job] = b"after"
    cluster.broker.wait_log("store up")
    assert cluster.broker.metrics()["tiermq_store_up"] == 1
    cluster.broker.kill()
    cluster.restart_broker()
    assert serve_all(cluster.broker, accepted) == {job: payload[::-1] for job, payload in accepted.items()}


@pytest.mark.parametrize("error, calls, ending", [
    (errno.ENOSPC, "write", ".log"), (errno.EIO, "write", ".log"), (errno.EIO, "sync", ".log"),
    (errno.EIO, "write", ".sst"), (errno.EIO, "sync", ".sst"), (errno.ENOSPC, "write", ".sst"), (errno.EIO, "write", "MANIFEST"),
])
def test_failing_writes_lose_nothing_and_end_by_themselves(cluster, error, calls, ending):
    """Each kind of file in turn: those of the log fail commits, the others what RocksDB does in the background."""
    faults = DiskFaults(cluster)
    cluster.start_broker(environment=faults.environment, broker=SMALL_BUFFERS)
    if ending == "MANIFEST":
        ending = max(database(cluster).glob("MANIFEST-*")).name
    faults.fail(error, calls, ending)
    accepted, rejected = submit_until_rejected(cluster, 20_000, 2000)
    assert rejected.reason == pb.REJECT_STORAGE and rejected.retry_after_ms > 0
    reason = cluster.broker.wait_log("store down")["reason"]
    assert os.strerror(error) in reason and (ending in reason or ending == ".sst")
    expect_memory_tier_served(cluster)

    faults.heal()
    with Client(cluster.broker) as client:
        job, _ = client.submit_until("accepted", b"after")
    accepted[job] = b"after"
    cluster.broker.kill()
    cluster.restart_broker(environment=faults.environment)
    assert serve_all(cluster.broker, accepted) == {job: payload[::-1] for job, payload in accepted.items()}


def test_payload_that_cannot_be_read_now_is_read_again(cluster):
    faults = DiskFaults(cluster)
    cluster.start_broker(environment=faults.environment)
    jobs = in_tables(cluster, 5, payload_bytes=6000)
    broker = cluster.restart_broker(environment=faults.environment)
    faults.fail(errno.EIO, "read", ".sst")
    with Worker(broker) as worker:
        reason = broker.wait_log("store fault")["reason"]
        assert "Input/output error" in reason and ".sst" in reason
        assert broker.metrics()["tiermq_store_read_failures_total"] > 0
        assert not worker.has("dispatch")
        worker.send(pb.WorkerMessage(goodbye=True))
        broker.wait_log("worker left")  # or it would be given the job of the tier in memory
    expect_memory_tier_served(cluster)
    assert not lost_jobs(broker, jobs)
    faults.heal()
    assert serve_all(broker, jobs) == {job: payload[::-1] for job, payload in jobs.items()}


def test_damage_that_merging_meets_ends_merging_and_not_the_service(cluster):
    cluster.start_broker(broker=SMALL_BUFFERS)
    jobs = in_tables(cluster, 10, payload_bytes=6000)
    path, at = find_bytes(cluster, ".sst", list(jobs.values())[4][:12])
    flip_bit(path, at + 500)
    broker = cluster.restart_broker()
    good = {job: payload for job, payload in jobs.items() if payload != jobs[list(jobs)[4]]}
    serve_all(broker, good)  # the deletions have to be merged with what they delete
    accepted = {}
    with Client(broker) as client:
        while not any(isinstance(line, dict) and line["message"] == "store down" for line in broker.lines):
            assert len(accepted) < 3000, "RocksDB never merged the damaged table"
            accepted |= {job: b"x" for job in [client.submit(bytes(20_000))]}
            client.any(("accepted", "rejected"))
        assert path.name in broker.wait_log("store down")["reason"]
        first, _ = client.submit_until("accepted", b"after")
        for _ in range(200):
            client.accepted(client.submit(bytes(20_000)))
    assert len([line for line in broker.lines if line["message"] == "store down"]) == 1
    assert not lost_jobs(broker, [first])


# ----------------------------------------------------------------------------------------------- space


TIDY_BYTES_MIN = 4 << 20  # broker/store/tidy.c


def table_bytes(cluster):
    """While tables come and go."""
    total = 0
    for path in database(cluster).glob("*.sst"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            pass
    return total


def test_drained_backlog_gives_its_space_back_without_more_traffic(cluster):
    cluster.start_broker(broker=SMALL_BUFFERS)
    with Client(cluster.broker) as client:
        jobs = {}
        for n in range(1000):
            payload = n.to_bytes(2, "big") * 15_000
            jobs[client.submit(payload, discard_result=True)] = payload
        for job in jobs:
            client.accepted(job)
    wait_for(lambda: table_bytes(cluster) > 10 << 20, "the backlog in tables")
    with Worker(cluster.broker) as worker:
        for _ in jobs:
            dispatch, _ = worker.dispatched()
            worker.answer(dispatch, None)
    # It may have been merged while a few jobs were left: what they leave is less than is worth another merge.
    wait_for(lambda: table_bytes(cluster) < TIDY_BYTES_MIN, "the space")
