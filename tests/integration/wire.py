"""
wire: raw peers for whole-process tests: a client and a worker that speak proto/wire.proto over ZeroMQ, one step at a time, and
may say anything, right or wrong. Debian's python3-zmq and python3-protobuf; the messages are generated when this is imported.

    client = Client(cluster.broker)
    job = client.submit(b"payload", tier="standard")
    client.accepted(job)
    worker = Worker(cluster.broker, slots=10)
    dispatch, payload = worker.dispatched()
    worker.answer(dispatch, b"answer")
    result, answer = client.result(job)
"""

import atexit
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import zmq

from harness import ROOT, TIMEOUT_S


def _generate(name):
    directory = tempfile.mkdtemp(prefix="tiermq-wire-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    subprocess.run(["protoc", f"--proto_path={ROOT / 'proto'}", f"--python_out={directory}", f"{name}.proto"], check=True)
    sys.path.insert(0, directory)
    try:
        return importlib.import_module(f"{name}_pb2")
    finally:
        sys.path.remove(directory)


pb = _generate("wire")
record = _generate("records")
VERSION = 1
CLIENT_TO_BROKER, BROKER_TO_CLIENT, WORKER_TO_BROKER, BROKER_TO_WORKER, CHUNK, EVENT = range(1, 7)
ANSWERED = pb.ATTEMPT_ANSWERED
context = zmq.Context()


def make_id(unix_ms=None):
    """A time-ordered id (UUID version 7) of now, or of another time."""
    unix_ms = int(time.time() * 1000) if unix_ms is None else unix_ms
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | random[0] & 0x0F
    random[2] = 0x80 | random[2] & 0x3F
    return unix_ms.to_bytes(6, "big") + bytes(random)


def id_text(job):
    return "-".join((job.hex()[:8], job.hex()[8:12], job.hex()[12:16], job.hex()[16:20], job.hex()[20:]))


class Peer:
    """A DEALER that keeps what it received and was not yet asked for, item by item: (field, item, payload)."""

    def __init__(self, endpoint, sends, receives):
        self.sends, self.receives = sends, receives
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self.socket.connect(endpoint)
        self.items = []

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send_parts(self, *parts):
        """Anything at all."""
        self.socket.send_multipart(parts)

    def send(self, message, *payloads, version=VERSION, kind=None):
        header = b"TQ" + bytes([version, self.sends if kind is None else kind])
        self.send_parts(header + message.SerializeToString(), *payloads)

    def _receive(self, timeout_s):
        """Takes in one message; False when none came."""
        if not self.socket.poll(max(0, int(timeout_s * 1000))):
            return False
        head, *payloads = self.socket.recv_multipart()
        assert head[:2] == b"TQ" and head[2] == VERSION, head[:8]
        if head[3] == CHUNK:
            self.items.append(("chunk", head[4:], payloads[0]))
            return True
        message = {BROKER_TO_CLIENT: pb.BrokerToClient, BROKER_TO_WORKER: pb.BrokerToWorker}[head[3]]()
        message.ParseFromString(head[4:])
        payloads.reverse()
        for field, value in message.ListFields():
            repeated = field.label == field.LABEL_REPEATED
            for item in value if repeated else [value]:
                owns = repeated and "has_payload" in item.DESCRIPTOR.fields_by_name and item.has_payload
                self.items.append((field.name, item, payloads.pop() if owns else None))
        assert not payloads, "a payload that no item owns"
        return True

    def wait(self, field, matches=lambda item: True, timeout_s=TIMEOUT_S):
        """The first item of this field that matches, and its payload. Fails when none comes."""
        end = time.monotonic() + timeout_s
        while True:
            for position, (name, item, payload) in enumerate(self.items):
                if name == field and matches(item):
                    del self.items[position]
                    return item, payload
            left = end - time.monotonic()
            assert left > 0, f"no {field} came; but: {self.items}"
            self._receive(left)

    def any(self, fields, matches=lambda item: True, timeout_s=TIMEOUT_S):
        """The first item of one of these fields: (field, item)."""
        end = time.monotonic() + timeout_s
        while True:
            for position, (name, item, _) in enumerate(self.items):
                if name in fields and matches(item):
                    del self.items[position]
                    return name, item
            left = end - time.monotonic()
            assert left > 0, f"none of {fields} came; but: {self.items}"
            self._receive(left)

    def has(self, field, matches=lambda item: True):
        """Whether such an item is there already (or arrives at once); it stays."""
        while self._receive(0):
            pass
        return any(name == field and matches(item) for name, item, _ in self.items)

    def error(self):
        return self.wait("error")[0]


class Client(Peer):
    def __init__(self, broker, tenant="default", hello=True):
        super().__init__(broker.ready["clients"], CLIENT_TO_BROKER, BROKER_TO_CLIENT)
        self.tenant = tenant
        self.welcome = self.hello() if hello else None

    def hello(self):
        self.send(pb.ClientMessage(hello=pb.ClientHello(tenant=self.tenant, name="test")))
        return self.wait("welcome")[0]

    def submit(self, payload=b"payload", job=None, tier="standard", route="auto", **fields):
        """Sends one submission; returns the job's id."""
        job = job or make_id()
        submit = pb.Submit(job_id=job, tier=tier, route=route, has_payload=True, **fields)
        self.send(pb.ClientMessage(submit=[submit]), payload)
        return job

    def accepted(self, job):
        return self.wait("accepted", lambda item: item.job_id == job)[0]

    def rejected(self, job):
        return self.wait("rejected", lambda item: item.job_id == job)[0]

    def submit_until(self, outcome, payload=b"payload", **fields):
        """Submits one job, again and again when need be, until it is "accepted" or "rejected". Returns (job, the answer)."""
        job = make_id()
        while True:
            self.submit(payload, job=job, **fields)
            field, item = self.any(("accepted", "rejected"), lambda item: item.job_id == job)
            if field == outcome:
                return job, item

    def result(self, job):
        """(Result, payload)"""
        return self.wait("result", lambda item: item.job_id == job)

    def ask(self, job, status_only=False):
        self.send(pb.ClientMessage(wait=[pb.Wait(job_id=job, status_only=status_only)]))

    def status(self, job):
        self.ask(job, status_only=True)
        return self.wait("status", lambda item: item.job_id == job)[0]

    def cancel(self, job):
        self.send(pb.ClientMessage(cancel=[pb.Cancel(job_id=job)]))

    def collected(self, job):
        self.send(pb.ClientMessage(collected=[pb.Collected(job_id=job)]))

    def ping(self, number=1):
        """A round trip: everything that was sent before has been taken in by the broker."""
        self.send(pb.ClientMessage(ping=number))
        return self.wait("pong", lambda item: item == number)[0]


class Worker(Peer):
    def __init__(self, broker, name="raw-worker", slots=16, credit=None, hello=True, **fields):
        super().__init__(broker.ready["workers"], WORKER_TO_BROKER, BROKER_TO_WORKER)
        self.name, self.slots = name, slots
        self.credit_total = 0
        self.welcome = self.hello(**fields) if hello else None
        if hello:
            self.give_credit(slots if credit is None else credit)

    def hello(self, **fields):
        """`held` and `answered`: lists of (job, attempt)."""
        for key in ("held", "answered"):
            fields[key] = [pb.LeaseRef(job_id=job, attempt=attempt) for job, attempt in fields.get(key, ())]
        self.credit_total = 0
        self.send(pb.WorkerMessage(hello=pb.WorkerHello(name=self.name, slots=self.slots, version="test", **fields)))
        return self.wait("welcome")[0]

    def give_credit(self, jobs):
        self.credit_total += jobs
        if jobs > 0:
            self.send(pb.WorkerMessage(credit_total=self.credit_total))

    def dispatched(self, job=None):
        """(Dispatch, payload), of any job or of this one."""
        return self.wait("dispatch", lambda item: job is None or item.job_id == job)

    def answer(self, dispatch, payload=b"answer", outcome=ANSWERED, credit=1, **fields):
        result = pb.AttemptResult(job_id=dispatch.job_id, attempt=dispatch.attempt, outcome=outcome,
                                  has_payload=payload is not None, **fields)
        self.credit_total += credit
        self.send(pb.WorkerMessage(result=[result], credit_total=self.credit_total), *([] if payload is None else [payload]))

    def concluded(self, job):
        return self.wait("concluded", lambda item: item.job_id == job)[0]

    def heartbeat(self, *held):
        """`held`: dispatches that still run."""
        refs = [pb.LeaseRef(job_id=d.job_id, attempt=d.attempt) for d in held]
        self.send(pb.WorkerMessage(heartbeat=True, held=refs))

    def make(self, payload=b"payload", tier="background", route="auto", needs=pb.JobNeeds(), **fields):
        """Makes a job, as workers do of their own accord; returns its id."""
        submit = pb.Submit(job_id=make_id(), tier=tier, route=route, discard_result=True, has_payload=True, **fields)
        self.send(pb.WorkerMessage(submit=[pb.WorkerSubmit(tenant="default", submit=submit, needs=needs)]), payload)
        return submit.job_id

    def serve(self, jobs):
        """Answers so many jobs with their own payloads, backwards."""
        for _ in range(jobs):
            dispatch, payload = self.dispatched()
            self.answer(dispatch, payload[::-1])


class Stream(threading.Thread):
    """Submits jobs without end and remembers which were accepted."""

    def __init__(self, broker, padding=b""):
        super().__init__()
        self.client, self.padding = Client(broker), padding
        self.accepted, self.is_stopped = {}, False
        self.enough = threading.Event()  # 150 were accepted
        self.start()

    def run(self):
        sent = {}
        while not self.is_stopped:
            job = make_id()
            sent[job] = b"stream " + job + self.padding
            self.client.submit(sent[job], job=job)
            while self.client._receive(0 if len(sent) - len(self.accepted) < 100 else 0.05):
                pass
            for field, item, _ in self.client.items:
                if field == "accepted":
                    self.accepted[item.job_id] = sent[item.job_id]
            self.client.items.clear()
            if len(self.accepted) >= 150:
                self.enough.set()

    def stop(self):
        self.is_stopped = True
        self.join()
        self.client.close()


def serve_all(broker, jobs):
    """Answers, with their own payloads backwards, all that is pending, until all of `jobs` have a result: {job: payload}."""
    client, worker = Client(broker), Worker(broker)
    for job in jobs:
        client.ask(job)
    results = {}
    end = time.monotonic() + 2 * TIMEOUT_S
    while len(results) < len(jobs):
        assert time.monotonic() < end, f"{len(results)} of {len(jobs)} jobs have a result"
        worker.heartbeat()
        client.ping()
        while worker.has("dispatch"):
            dispatch, payload = worker.dispatched()
            worker.answer(dispatch, payload[::-1])
        while client.has("result"):
            result, answer = client.wait("result")
            assert results.setdefault(result.job_id, answer) == answer
        worker._receive(0.05)
    return results
