"""What is left of the broker's jobs when power or disk fail, on the real program with its real database."""

import os
import random

import pytest

from harness import PowerCut
from wire import Client, Stream, Worker, pb, serve_all

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
    """So the tests above can fail."""
    power = PowerCut(cluster, lie=".log")
    cluster.start_broker(environment=power.environment)
    stream = Stream(cluster.broker)
    assert stream.enough.wait(30)
    cluster.broker.kill()
    stream.stop()
    power.cut(seed=1)
    cluster.restart_broker(environment=power.environment)
    assert lost_jobs(cluster.broker, stream.accepted)
