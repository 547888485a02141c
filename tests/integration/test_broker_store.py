"""What the broker keeps on its disk, through kills, restarts and failing disks, seen by raw peers."""

import errno
import signal
import time

import pytest

from harness import EXIT_ADDRESS, EXIT_STORE, DiskFaults
from wire import Client, Stream, Worker, make_id, pb, serve_all


def start_refused(cluster, **broker):
    """Starts a broker that must give up; returns (exit code, what it said)."""
    process = cluster.start_broker("refused", ready=False, broker=broker)
    code = process.wait()
    process.was_killed = True
    return code, process.output()


def restart_after_kill(cluster, **changes):
    cluster.broker.kill()
    return cluster.restart_broker(**changes)


# ----------------------------------------------------------------------------------------------- refused at the start


def test_data_directory_of_another_broker_is_refused(cluster):
    cluster.start_broker()
    code, said = start_refused(cluster, data_dir=cluster.broker.config["broker"]["data_dir"])
    assert code == EXIT_STORE
    assert "another broker" in said
    with Client(cluster.broker) as client:
        assert client.ping()


def test_file_as_data_directory_is_refused(cluster):
    path = cluster.directory / "file"
    path.write_text("")
    code, said = start_refused(cluster, data_dir=str(path))
    assert code == EXIT_STORE
    assert str(path) in said and "broker.data_dir" in said


def test_data_directory_that_cannot_be_made_is_refused(cluster):
    code, said = start_refused(cluster, data_dir="/proc/tiermq")
    assert code == EXIT_STORE
    assert "/proc/tiermq" in said


def test_damaged_data_is_refused_and_left_alone(cluster):
    cluster.start_broker()
    cluster.broker.stop()
    current = cluster.directory / "broker" / "rocksdb" / "CURRENT"
    current.write_text("nonsense\n")
    code, said = start_refused(cluster, data_dir=str(cluster.directory / "broker"))
    assert code == EXIT_STORE
    assert "damaged" in said
    assert current.read_text() == "nonsense\n"


@pytest.mark.parametrize("address", ["listen_clients", "listen_workers", "listen_events", "admin"])
def test_address_in_use_is_refused(cluster, address):
    taken = cluster.start_broker().config["broker"][address]
    code, said = start_refused(cluster, **{address: taken})
    assert code == EXIT_ADDRESS
    assert taken.rsplit(":", 1)[1] in said


# ----------------------------------------------------------------------------------------------- kills and restarts


def test_killed_broker_keeps_what_it_accepted(cluster):
    cluster.start_broker()
    client = Client(cluster.broker)
    jobs = [client.submit(f"job {n}".encode()) for n in range(300)]
    for job in jobs:
        client.accepted(job)

    restart_after_kill(cluster)
    client, worker = Client(cluster.broker), Worker(cluster.broker)
    for job in jobs:
        client.ask(job)
    worker.serve(len(jobs))
    for n, job in enumerate(jobs):
        result, answer = client.result(job)
        assert result.state == pb.JOB_STATE_SUCCEEDED
        assert answer == f"job {n}".encode()[::-1]
    assert not worker.has("dispatch")


def test_killed_broker_keeps_outcomes(cluster):
    cluster.start_broker()
    client, worker = Client(cluster.broker), Worker(cluster.broker)
    job = client.submit(b"abc")
    worker.serve(1)
    before, answer = client.result(job)

    restart_after_kill(cluster)
    client = Client(cluster.broker)
    client.ask(job)
    after, answer_after = client.result(job)
    assert answer_after == answer == b"cba"
    assert after == before


def test_resubmission_after_a_kill_is_the_same_job(cluster):
    cluster.start_broker()
    client, worker = Client(cluster.broker), Worker(cluster.broker)
    done = client.submit(b"done")
    worker.serve(1)
    client.result(done)
    worker.close()
    waiting = client.submit(b"waiting", idempotency_key="once")
    client.accepted(waiting)

    restart_after_kill(cluster)
    client = Client(cluster.broker)
    for job in done, waiting:
        client.submit(b"again", job=job)
        assert client.accepted(job).duplicate
    other = client.submit(b"again", idempotency_key="once")
    assert client.accepted(other).known_as == waiting
    worker = Worker(cluster.broker)
    dispatch, payload = worker.dispatched()
    assert dispatch.job_id == waiting and payload == b"waiting"
    worker.answer(dispatch)
    assert client.result(waiting)[1] == b"answer"
    assert not worker.has("dispatch")


def test_worker_reclaims_its_lease_after_a_kill(cluster):
    cluster.start_broker(broker={"reclaim": "10s"})
    client, worker = Client(cluster.broker), Worker(cluster.broker)
    job = client.submit(b"long")
    dispatch, _ = worker.dispatched(job)
    client.accepted(job)

    restart_after_kill(cluster)
    client, again = Client(cluster.broker), Worker(cluster.broker, hello=False)
    again.hello(held=[(job, dispatch.attempt)])
    again.give_credit(8)
    client.ask(job)
    again.answer(dispatch, b"kept on working")
    result, answer = client.result(job)
    assert (result.state, answer) == (pb.JOB_STATE_SUCCEEDED, b"kept on working")
    assert not again.has("dispatch")


def test_job_of_a_lost_worker_runs_again_after_a_kill(cluster):
    cluster.start_broker(broker={"reclaim": "100ms"})
    client, worker = Client(cluster.broker), Worker(cluster.broker)
    job = client.submit(b"work")
    first, _ = worker.dispatched(job)
    client.accepted(job)
    worker.close()

    restart_after_kill(cluster)
    client, other = Client(cluster.broker), Worker(cluster.broker, name="other")
    client.ask(job)
    second, payload = other.dispatched(job)
    assert payload == b"work" and second.attempt > 0
    other.answer(second)
    assert client.result(job)[0].state == pb.JOB_STATE_SUCCEEDED


def test_tier_in_memory_is_forgotten_and_says_so(cluster):
    cluster.start_broker()
    client = Client(cluster.broker)
    job = client.submit(b"now or never", tier="realtime")
    client.accepted(job)
    restart_after_kill(cluster)
    assert Client(cluster.broker).status(job).state == pb.JOB_STATE_UNKNOWN


def test_collected_result_stays_collected(cluster):
    cluster.start_broker()
    client, worker = Client(cluster.broker), Worker(cluster.broker)
    job = client.submit(b"abc")
    worker.serve(1)
    client.result(job)
    client.collected(job)
    client.ping()
    cluster.broker.stop()
    cluster.restart_broker()
    client = Client(cluster.broker)
    client.ask(job)
    assert client.result(job)[0].state == pb.JOB_STATE_COLLECTED
    client.submit(b"abc", job=job)
    assert client.accepted(job).duplicate


def test_large_payloads_survive_and_come_back_from_the_disk(cluster):
    cluster.start_broker(broker={"memory_payload_bytes_max": "1MiB"})
    client = Client(cluster.broker)
    payloads = {client.submit(bytes([n]) * 700_000): bytes([n]) * 700_000 for n in range(8)}
    for job in payloads:
        client.accepted(job)
    worker = Worker(cluster.broker, slots=2)
    for job, payload in payloads.items():
        dispatch, received = worker.dispatched()
        assert received == payloads[dispatch.job_id]
        worker.answer(dispatch, received[:3])
    for job, payload in payloads.items():
        assert client.result(job)[1] == payload[:3]


def test_kills_in_full_flow_lose_nothing(cluster):
    cluster.start_broker(broker={"reclaim": "100ms"})
    accepted = {}
    for _ in range(4):
        stream = Stream(cluster.broker)
        with Worker(cluster.broker) as worker:
            worker.serve(40)
            assert stream.enough.wait(30)
            cluster.broker.kill()
        stream.stop()
        accepted |= stream.accepted
        cluster.restart_broker(broker={"lease": "1s", "heartbeat": "250ms"})

    assert serve_all(cluster.broker, accepted) == {job: payload[::-1] for job, payload in accepted.items()}


# ----------------------------------------------------------------------------------------------- a failing disk


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_failing_disk_refuses_durable_jobs_and_recovers(cluster, error):
    faults = DiskFaults(cluster)
    cluster.start_broker(environment=faults.environment)
    client, worker = Client(cluster.broker), Worker(cluster.broker, credit=0)
    before = client.submit(b"before")
    client.accepted(before)

    faults.fail(error)
    _, rejected = client.submit_until("rejected", b"meanwhile")
    assert rejected.reason == pb.REJECT_STORAGE and rejected.retry_after_ms > 0 and rejected.text
    fast = client.submit(b"memory", tier="realtime")
    client.accepted(fast)
    worker.give_credit(1)
    dispatch, _ = worker.dispatched(fast)
    worker.answer(dispatch, credit=0)
    assert client.result(fast)[0].state == pb.JOB_STATE_SUCCEEDED

    faults.heal()
    after, _ = client.submit_until("accepted", b"after")
    worker.give_credit(10)
    for job in before, after:
        client.ask(job)
    got = {}
    for _ in range(2):
        dispatch, payload = worker.dispatched()
        got[dispatch.job_id] = payload
        worker.answer(dispatch)
    assert got == {before: b"before", after: b"after"}
    for job in got:
        assert client.result(job)[0].state == pb.JOB_STATE_SUCCEEDED


def test_result_waits_for_the_disk_and_is_not_lost(cluster):
    faults = DiskFaults(cluster)
    cluster.start_broker(environment=faults.environment)
    client, worker = Client(cluster.broker), Worker(cluster.broker)
    job = client.submit(b"work")
    dispatch, _ = worker.dispatched(job)
    client.accepted(job)

    faults.fail(errno.ENOSPC)
    worker.answer(dispatch, b"the answer")
    client.submit_until("rejected")
    assert not client.has("result")
    faults.heal()
    worker.hello(answered=[(job, dispatch.attempt)])
    client.ask(job)
    result, answer = client.result(job)
    assert (result.state, answer) == (pb.JOB_STATE_SUCCEEDED, b"the answer")

    restart_after_kill(cluster, environment=faults.environment)
    client = Client(cluster.broker)
    client.ask(job)
    assert client.result(job)[1] == b"the answer"


def test_broker_stops_cleanly_while_its_disk_fails(cluster):
    faults = DiskFaults(cluster)
    cluster.start_broker(environment=faults.environment, broker={"drain_timeout": "500ms"})
    client = Client(cluster.broker)
    kept = client.submit(b"kept")
    client.accepted(kept)
    faults.fail(errno.ENOSPC)
    client.submit_until("rejected")
    cluster.broker.signal(signal.SIGTERM)
    assert cluster.broker.wait() == 0
    faults.heal()
    cluster.restart_broker()
    client, worker = Client(cluster.broker), Worker(cluster.broker)
    client.ask(kept)
    assert worker.dispatched(kept)[1] == b"kept"


def test_store_in_memory_needs_no_directory(cluster):
    cluster.start_broker(broker={"store": "memory", "data_dir": "/proc/tiermq"})
    client, worker = Client(cluster.broker), Worker(cluster.broker)
    job = client.submit(b"abc")
    worker.serve(1)
    assert client.result(job)[1] == b"cba"
    client.ask(job)
    assert client.result(job)[1] == b"cba"


def test_recovery_takes_nothing_from_the_time_that_jobs_have(cluster):
    cluster.start_broker()
    with Client(cluster.broker) as client:
        for _ in range(10):
            backlog = [pb.Submit(job_id=make_id(), tier="background", route="auto", has_payload=True) for _ in range(2000)]
            client.send(pb.ClientMessage(submit=backlog), *[b"x"] * len(backlog))
            client.accepted(backlog[-1].job_id)
        # The youngest: it is recovered last, when the recovery of the others has taken its time.
        began = time.monotonic()
        job = client.submit(tier="background", deadline_in_ms=2000)
        client.accepted(job)
    restart_after_kill(cluster)
    with Client(cluster.broker) as client:
        client.ask(job)
        result, _ = client.result(job)
    assert result.state == pb.JOB_STATE_EXPIRED
    assert time.monotonic() - began >= 2 - 0.005
