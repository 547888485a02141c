"""Connections: heartbeats, silence, hello again, replacement; streams and events on their way through the broker."""

import socket
import threading

import zmq

import wire
from harness import wait_for
from wire import Client, Worker, pb



def fast(**more):
    return {"broker": {"store": "memory", "heartbeat": "100ms", "lease": "400ms", **more}}


def test_a_ping_is_answered_with_the_same_number(cluster):
    broker = cluster.start_broker(broker={"store": "memory"})
    with Client(broker) as client:
        assert client.ping(12345) == 12345


def test_welcomes_say_what_holds(cluster):
    broker = cluster.start_broker(name="b1", **fast())
    with Client(broker) as client, Worker(broker) as worker:
        assert client.welcome.broker == worker.welcome.broker == "b1"
        assert client.welcome.incarnation == worker.welcome.incarnation != 0
        assert client.welcome.heartbeat_ms == worker.welcome.heartbeat_ms == 100
        assert worker.welcome.lease_ms == 400
        assert "realtime" in client.welcome.tiers


def test_a_silent_client_is_forgotten_and_says_hello_again(cluster):
    broker = cluster.start_broker(**fast())
    with Client(broker) as client:
        broker.wait_log("a silent peer is forgotten")
        client.send(pb.ClientMessage(ping=1))
        assert client.error().code == pb.ProtocolError.ERROR_HELLO_REQUIRED
        client.hello()
        assert client.ping(2) == 2


def test_a_silent_worker_loses_its_lease_and_another_one_answers(cluster):
    broker = cluster.start_broker(**fast())
    with Client(broker) as client, Worker(broker, name="silent", credit=1) as silent:
        job = client.submit(b"abc", tier="realtime", deadline_in_ms=20000)
        silent.dispatched(job)
        broker.wait_log("a silent peer is forgotten", timeout_s=20)
        client.hello()
        client.ask(job)
        with Worker(broker, name="lively") as worker:
            worker.serve(1)
            result, payload = client.result(job)
            assert payload == b"cba" and result.worker == "lively"


def test_heartbeats_keep_a_lease_and_are_answered(cluster):
    broker = cluster.start_broker(**fast())
    with Client(broker) as client, Worker(broker, credit=1) as worker:
        job = client.submit(b"abc", tier="realtime")
        dispatch, payload = worker.dispatched(job)
        for beat in range(1, 13):  # three times as long as a lease
            worker.heartbeat(dispatch)
            client.ping(beat)
            assert worker.socket.poll(100) or True  # the pace; the answer may have come before
        worker.answer(dispatch, payload[::-1])
        result, answer = client.result(job)
        assert answer == b"cba" and result.attempts == 1
        assert broker.metrics()['tiermq_leases_lost_total{tier="realtime"}'] == 0


def test_a_worker_that_comes_again_replaces_its_old_connection_and_keeps_its_leases(cluster):
    broker = cluster.start_broker(broker={"store": "memory"})
    with Client(broker) as client, Worker(broker, name="w", credit=1) as old:
        job = client.submit(b"abc", tier="realtime")
        dispatch, payload = old.dispatched(job)
        with Worker(broker, name="w", held=[(job, dispatch.attempt)], credit=0) as new:
            new.answer(dispatch, payload[::-1])
            result, answer = client.result(job)
            assert answer == b"cba" and result.attempts == 1
            assert len(broker.admin_json("/v1/workers")["workers"]) == 1


def test_a_worker_whose_name_another_one_has_is_told_which_name_and_what_to_do(cluster):
    broker = cluster.start_broker(broker={"store": "memory"})
    with Worker(broker, name="twin") as first, Worker(broker, name="twin"):
        told = first.error().text
        assert '"twin"' in told and "worker.name" in told


def test_goodbye_gives_jobs_back_at_once(cluster):
    broker = cluster.start_broker(broker={"store": "memory"})
    with Client(broker) as client, Worker(broker, name="leaving", credit=1) as leaving:
        job = client.submit(b"abc", tier="realtime", deadline_in_ms=20000)
        leaving.dispatched(job)
        leaving.send(pb.WorkerMessage(goodbye=True))
        with Worker(broker, name="staying") as worker:
            worker.serve(1)
            assert client.result(job)[0].worker == "staying"


def test_a_client_that_vanished_costs_nothing_and_collects_later(cluster):
    broker = cluster.start_broker(broker={"store": "memory"})
    with Client(broker) as client:
        job = client.submit(b"abc", tier="standard")
        client.accepted(job)
    with Worker(broker) as worker:
        worker.serve(1)
        worker.concluded(job)
        with Client(broker) as other:
            other.ask(job)
            result, payload = other.result(job)
            assert payload == b"cba" and result.state == pb.JOB_STATE_SUCCEEDED


def test_more_clients_than_allowed_are_refused(cluster):
    broker = cluster.start_broker(broker={"store": "memory", "clients_max": 1})
    with Client(broker), Client(broker, hello=False) as second:
        second.send(pb.ClientMessage(hello=pb.ClientHello(tenant="default")))
        error = second.error()
        assert error.code == pb.ProtocolError.ERROR_REFUSED and "clients_max" in error.text
        assert 5000 <= error.retry_after_ms <= 6250


def test_chunks_pass_through_in_order_before_the_result(cluster):
    broker = cluster.start_broker(broker={"store": "memory"})
    with Client(broker) as client, Worker(broker) as worker:
        job = client.submit(b"abc", tier="realtime", stream=True)
        dispatch, _ = worker.dispatched(job)
        assert dispatch.stream
        for index in range(3):
            header = b"TQ\x01\x05" + job + b"".join(n.to_bytes(4, "big") for n in (dispatch.attempt, index, 0, 0))
            worker.send_parts(header, b"part %d" % index)
        worker.answer(dispatch, b"whole")
        assert client.result(job)[1] == b"whole"
        chunks = [payload for name, _, payload in client.items if name == "chunk"]
        assert chunks == [b"part 0", b"part 1", b"part 2"]


def test_events_are_numbered_and_the_state_comes_with_the_welcome(cluster):
    broker = cluster.start_broker(broker={"store": "memory"})
    listener = wire.context.socket(zmq.SUB)
    listener.setsockopt(zmq.LINGER, 0)
    listener.subscribe(b"")
    listener.connect(broker.ready["events"])
    numbers, kinds = [], []

    def heard(kind, subject):
        def one():
            while listener.poll(20):
                part = listener.recv()
                assert part[:4] == b"TQ\x01\x06"
                event = wire.pb.Event.FromString(part[4:])
                numbers.append(event.sequence)
                kinds.append((event.kind, event.subject))
            return (kind, subject) in kinds
        return one

    def toggled():
        # A subscription takes its time to arrive, and what was published before it is not heard.
        broker.admin("/v1/pause", {"kind": "route", "name": "auto", "reason": "test"})
        broker.admin("/v1/resume", {"kind": "route", "name": "auto"})
        return heard(pb.Event.EVENT_RESUMED, "auto")()

    wait_for(toggled, "events")
    broker.admin("/v1/pause", {"kind": "tier", "name": "background", "reason": "prices"})
    wait_for(heard(pb.Event.EVENT_PAUSED, "background"), "the last pause")
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    with Worker(broker) as worker:
        assert worker.welcome.event_sequence >= numbers[-1]
        (event,) = worker.welcome.snapshot
        assert (event.kind, event.subject_kind, event.subject) == (pb.Event.EVENT_PAUSED, "tier", "background")
    listener.close()


def test_many_clients_at_once_each_get_their_own_results(cluster):
    broker = cluster.start_broker(broker={"store": "memory"})
    answers = {}

    def serve(worker, n):
        worker.serve(n)

    with Worker(broker, slots=500) as worker:
        thread = threading.Thread(target=serve, args=(worker, 20 * 50))
        thread.start()
        clients = [Client(broker) for _ in range(20)]
        jobs = {client: [client.submit(b"%d-%d" % (i, n), tier="realtime") for n in range(50)]
                for i, client in enumerate(clients)}
        for i, client in enumerate(clients):
            for n, job in enumerate(jobs[client]):
                answers[(i, n)] = client.result(job)[1]
            client.close()
        thread.join()
    assert all(answers[(i, n)] == (b"%d-%d" % (i, n))[::-1] for i in range(20) for n in range(50))


# ------------------------------------------------------------------------------------------- ends of connections


def connect_bare(endpoint):
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def ended(broker, side, reason):
    return broker.metrics().get(f'tiermq_connections_ended_total{{side="{side}",reason="{reason}"}}', 0)


def test_whoever_speaks_something_else_is_logged_with_its_address_and_counted(cluster):
    broker = cluster.start_broker(**fast())
    for side, endpoint in (("client", "clients"), ("worker", "workers"), ("events", "events")):
        with connect_bare(broker.ready[endpoint]) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            line = broker.wait_log(lambda line: line["message"] == "a connection has ended" and line["side"] == side)
            assert line["address"] == "%s:%d" % stranger.getsockname()
            assert line["end"] == "protocol" and line["reason"] == "it does not speak ZMTP" and line["stage"] == "handshake"
        assert ended(broker, side, "protocol") == 1


def test_strangers_that_come_in_a_flood_are_all_counted_and_few_are_logged(cluster):
    broker = cluster.start_broker(**fast())
    for _ in range(500):
        with connect_bare(broker.ready["clients"]) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    wait_for(lambda: ended(broker, "client", "protocol") + ended(broker, "client", "reset") == 500, "the strangers' ends")
    lines = [line for line in broker.lines if isinstance(line, dict) and line["message"] == "a connection has ended"]
    assert 20 <= len(lines) < 400


def test_a_client_that_ends_is_counted_and_not_news(cluster):
    broker = cluster.start_broker(**fast())
    with Client(broker) as client:
        client.ping(1)
    wait_for(lambda: ended(broker, "client", "closed") + ended(broker, "client", "reset") == 1, "the end")


def test_a_worker_says_why_its_connection_to_a_broker_has_ended(cluster):
    broker = cluster.start_broker(**fast())
    worker = cluster.start_worker()
    worker.wait_log("joined a broker")
    broker.kill()
    line = worker.wait_log(lambda line: line["message"] == "a connection to a broker has ended" and line["link"] == "jobs")
    assert line["broker"] == broker.ready["workers"] and line["address"] == line["broker"].removeprefix("tcp://")
    assert line["end"] in ("closed", "reset") and line["stage"] == "open"
    assert worker.metrics()[f'tiermq_worker_connections_ended_total{{link="jobs",reason="{line["end"]}"}}'] == 1
