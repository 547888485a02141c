"""What the broker answers to wrong messages, and that none of them costs anybody else anything."""

import os
import random

import pytest

import wire
from wire import Client, Peer, Worker, pb

MEMORY = {"broker": {"store": "memory"}}
CODE = pb.ProtocolError


@pytest.fixture
def broker(cluster):
    return cluster.start_broker(**MEMORY)


def stranger(broker, side="clients"):
    sends, receives = {"clients": (wire.CLIENT_TO_BROKER, wire.BROKER_TO_CLIENT),
                       "workers": (wire.WORKER_TO_BROKER, wire.BROKER_TO_WORKER)}[side]
    return Peer(broker.ready[side], sends, receives)


def refusals(broker, side, kind):
    return broker.metrics().get(f'tiermq_protocol_errors_total{{side="{side}",kind="{kind}"}}', 0)


def test_an_unknown_version_is_refused_with_ours_named(broker):
    with stranger(broker) as peer:
        peer.send(pb.ClientMessage(ping=1), version=9)
        error = peer.error()
        assert error.code == CODE.ERROR_VERSION
        assert "9" in error.text and "1" in error.text
    assert refusals(broker, "client", "version") == 1


@pytest.mark.parametrize("side", ["clients", "workers"])
@pytest.mark.parametrize("parts", [
    [b""], [b"T"], [b"TQ"], [b"TQ\x01"], [b"GET / HTTP/1.1\r\n\r\n"], [b"TQ\x01\x63"],
    [b"TQ\x01\x02"], [b"TQ\x01\x06abc"], [b"TQ\x01\x01\xff\xff\xff\xff"], [b"TQ\x01\x03\xff\xff\xff\xff"],
    [b"TQ\x01\x05short", b"data"], [b"TQ\x01\x05" + bytes(32), b"data"],
])
def test_bytes_without_sense_are_answered_with_an_error(broker, side, parts):
    with stranger(broker, side) as peer:
        peer.send_parts(*parts)
        assert peer.error().code == CODE.ERROR_MALFORMED
    assert broker.is_running()


def test_random_bytes_never_hurt_the_others(broker):
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    rng = random.Random(seed)
    with Client(broker) as client, Worker(broker) as worker, stranger(broker) as a, stranger(broker, "workers") as b:
        for peer in (a, b):
            for _ in range(500):
                head = rng.choice([b"", b"TQ", b"TQ\x01", b"TQ\x01" + bytes([peer.sends]), b"TQ\x01\x05"])
                parts = [head + rng.randbytes(rng.choice([0, 1, 7, 36, 300]))]
                parts += [rng.randbytes(9) for _ in range(rng.choice([0, 0, 1, 5]))]
                peer.send_parts(*parts)
        job = client.submit(b"abc", tier="realtime")
        worker.serve(1)
        assert client.result(job)[1] == b"cba"
    assert broker.is_running()


def test_too_many_parts_are_answered(broker):
    with stranger(broker) as peer:
        peer.send(pb.ClientMessage(ping=1), *[b"x"] * 5000)
        assert peer.error().code == CODE.ERROR_TOO_LARGE


def test_an_envelope_above_the_limit_is_answered(broker):
    with stranger(broker) as peer:
        peer.send(pb.ClientMessage(hello=pb.ClientHello(tenant="x" * (4 << 20))))
        assert peer.error().code == CODE.ERROR_TOO_LARGE


def test_an_envelope_that_decodes_to_far_more_than_its_size_is_refused(broker):
    with stranger(broker) as peer:
        peer.send_parts(b"TQ\x01\x01" + b"\x12\x00" * (2 << 20))
        assert peer.error().code == CODE.ERROR_MALFORMED
    assert broker.memory_bytes() < 100 << 20


@pytest.mark.parametrize("side", ["clients", "workers"])
def test_whoever_did_not_say_hello_is_told_to(broker, side):
    with stranger(broker, side) as peer:
        message = pb.ClientMessage(ping=1) if side == "clients" else pb.WorkerMessage(heartbeat=True)
        peer.send(message)
        assert peer.error().code == CODE.ERROR_HELLO_REQUIRED


def test_an_unknown_tenant_is_refused_at_hello(broker):
    with stranger(broker) as peer:
        peer.send(pb.ClientMessage(hello=pb.ClientHello(tenant="nobody")))
        error = peer.error()
        assert error.code == CODE.ERROR_REFUSED and "nobody" in error.text
        peer.send(pb.ClientMessage(ping=1))
        assert peer.error().code == CODE.ERROR_HELLO_REQUIRED


def test_a_hello_with_a_name_that_is_no_text_is_refused(broker):
    with stranger(broker) as peer:
        peer.send_parts(b"TQ\x01\x01" + b"\x0a\x04\x12\x02\xff\xfe")
        assert peer.error().code == CODE.ERROR_MALFORMED


@pytest.mark.parametrize("hello", [
    {"name": "", "slots": 1}, {"name": "w", "slots": 0}, {"name": "w", "slots": 1 << 20},
    {"name": "w" * 100, "slots": 1}, {"name": "w", "slots": 1, "pools": ["default"] * 100},
])
def test_a_worker_that_says_nonsense_is_refused(broker, hello):
    with stranger(broker, "workers") as peer:
        peer.send(pb.WorkerMessage(hello=pb.WorkerHello(**hello)))
        assert peer.error().code == CODE.ERROR_MALFORMED


def test_payloads_that_cannot_be_told_apart_refuse_the_message(broker):
    with Client(broker) as client:
        submit = pb.Submit(job_id=wire.make_id(), tier="realtime", route="auto", has_payload=True)
        client.send(pb.ClientMessage(submit=[submit]))
        assert client.error().code == CODE.ERROR_MALFORMED
        client.send(pb.ClientMessage(submit=[submit]), b"one", b"two")
        assert client.error().code == CODE.ERROR_MALFORMED


@pytest.mark.parametrize("fields,reason", [
    ({"priority": 10}, pb.REJECT_INVALID),
    ({"deadline_in_ms": 1 << 62}, pb.REJECT_INVALID),
    ({"delay_ms": 1 << 63}, pb.REJECT_INVALID),
    ({"canonical_key": b"short"}, pb.REJECT_INVALID),
    ({"trace_parent": b"x" * 25}, pb.REJECT_INVALID),
    ({"idempotency_key": "k" * 256}, pb.REJECT_INVALID),
    ({"attempts_max": 1 << 30}, pb.REJECT_INVALID),
    ({"tier": "platinum"}, pb.REJECT_UNKNOWN_TIER),
    ({"route": "no-such-model"}, pb.REJECT_UNKNOWN_ROUTE),
    ({"pool": "no-such-pool"}, pb.REJECT_UNKNOWN_POOL),
])
def test_a_wrong_field_rejects_its_job_alone(broker, fields, reason):
    good, bad = wire.make_id(), wire.make_id()
    base = {"tier": "realtime", "route": "auto", "has_payload": True}
    with Client(broker) as client:
        client.send(pb.ClientMessage(submit=[pb.Submit(**{**base, **fields, "job_id": bad}),
                                             pb.Submit(**base, job_id=good)]), b"1", b"2")
        rejected = client.rejected(bad)
        assert rejected.reason == reason and rejected.text
        assert client.accepted(good)


def test_a_submission_without_payload_is_rejected(broker):
    with Client(broker) as client:
        job = wire.make_id()
        client.send(pb.ClientMessage(submit=[pb.Submit(job_id=job, tier="realtime", route="auto")]))
        assert client.rejected(job).reason == pb.REJECT_INVALID


def test_a_job_id_of_another_length_is_answered(broker):
    with Client(broker) as client:
        for message in (pb.ClientMessage(submit=[pb.Submit(job_id=b"12", tier="realtime", route="auto")]),
                        pb.ClientMessage(cancel=[pb.Cancel(job_id=bytes(16))]),
                        pb.ClientMessage(wait=[pb.Wait(job_id=b"x" * 17)]),
                        pb.ClientMessage(collected=[pb.Collected()])):
            client.send(message)
            error = client.error()
            assert error.code == CODE.ERROR_MALFORMED and "job_id" in error.text


def test_a_payload_above_the_limit_is_rejected_and_the_next_one_taken(cluster):
    broker = cluster.start_broker(broker={"store": "memory", "payload_bytes_max": "1MiB"})
    with Client(broker) as client:
        assert client.welcome.payload_bytes_max == 1 << 20
        job = client.submit(b"x" * ((1 << 20) + 1), tier="realtime")
        assert client.rejected(job).reason == pb.REJECT_TOO_LARGE
        job = client.submit(b"x" * (1 << 20), tier="realtime")
        assert client.accepted(job)


def test_an_outcome_that_nobody_knows_is_refused_and_the_job_goes_on(broker):
    with Client(broker) as client, Worker(broker) as worker:
        job = client.submit(b"abc", tier="realtime")
        dispatch, payload = worker.dispatched(job)
        worker.answer(dispatch, outcome=99)
        assert worker.error().code == CODE.ERROR_MALFORMED
        worker.answer(dispatch, payload[::-1])
        assert client.result(job)[1] == b"cba"


def test_texts_of_a_worker_that_are_no_text_are_mended(broker):
    with Client(broker) as client, Worker(broker) as worker:
        job = client.submit(b"abc", tier="realtime")
        dispatch, _ = worker.dispatched(job)
        # AttemptResult with error_code "rejected" and error_text of 300 bytes that are no UTF-8
        text = b"\xff" * 300
        result = pb.AttemptResult(job_id=job, attempt=dispatch.attempt, outcome=pb.ATTEMPT_REJECTED,
                                  error_code="rejected").SerializeToString() + b"\x2a\xac\x02" + text
        length = len(result)
        worker.send_parts(b"TQ\x01\x03\x1a" + bytes([length & 0x7F | 0x80, length >> 7]) + result)
        outcome, _ = client.result(job)
        assert outcome.state == pb.JOB_STATE_DEAD
        assert 0 < len(outcome.error_text) <= 255 and set(outcome.error_text) <= set("?")
