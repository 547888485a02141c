"""What workers know of near hits: the broker adds it up, tells it to all, shows it, and keeps it."""

import pathlib
import subprocess

import pytest
import wire
import yaml
from harness import wait_for

ROOT = pathlib.Path(__file__).parents[2]
SCALE = 12345


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def counts(hits, audits, wrong, epoch=0):
    """As threshold_pack() writes them: one epoch, its hits in bin 40, audits drawn for certain."""
    numbers = [1, SCALE, epoch, 0, hits, audits, wrong, 256 * audits, 256 * wrong, 256 * audits,
               40, hits, audits - wrong, wrong, 0, 64, 32]
    return b"".join(map(varint, numbers))


def send(worker, packed, tenant="default", tier="standard"):
    evidence = wire.pb.CacheEvidence(tenant=tenant, tier=tier, embedder="e/1", counts=packed)
    worker.send(wire.pb.WorkerMessage(evidence=[evidence]))


def shown(broker):
    return broker.admin_json("/v1/cache/evidence")


def test_counts_add_up_and_outlive_the_broker(cluster):
    broker = cluster.start_broker()
    worker = wire.Worker(broker, "w0")
    send(worker, counts(100, 40, 1))
    send(worker, counts(100, 60, 3))
    wait_for(lambda: [c["audits"] for c in shown(broker)["classes"]] == [100], "100 audits")
    (known,) = shown(broker)["classes"]
    assert known["audits_wrong"] == 4 and abs(known["false_hit_rate"] - 0.04) < 1e-9
    assert known["false_hit_low"] < 0.04 < known["false_hit_high"] and known["max_error"] == 0.02
    assert known["state"] == "unknown" and known["threshold"] is None  # nobody has said what the bins are
    send(worker, counts(1, 1, 0, epoch=9))
    send(worker, b"\xff")
    send(worker, counts(1, 1, 0), tenant="stranger")
    wait_for(lambda: shown(broker)["refused"] == 3, "three refusals")
    metrics = broker.admin("/metrics")[1]
    assert 'tiermq_cache_false_hit_rate_max{tenant="default",tier="standard",embedder="e/1"} 0.02' in metrics
    assert "tiermq_cache_evidence_classes 1" in metrics
    other = wire.Worker(broker, "w1", hello=False)
    other.hello()
    told, _ = other.wait("evidence")
    assert told.tenant == "default" and told.counts == counts(200, 100, 4)
    broker.stop()
    cluster.restart_broker()
    (after,) = shown(cluster.broker)["classes"]
    assert (after["audits"], after["audits_wrong"]) == (100, 4)


def test_a_page_of_classes_is_bounded(cluster):
    cluster.config = {"tenants": [{"name": f"t{i}"} for i in range(102)]}
    broker = cluster.start_broker()
    worker = wire.Worker(broker, "w0")
    for i in range(102):
        send(worker, counts(1, 1, 0), tenant=f"t{i}")
    wait_for(lambda: shown(broker)["total"] == 102, "all classes")
    assert broker.admin("/v1/cache/evidence?limit=101")[0] == 400
    pages = [broker.admin_json(f"/v1/cache/evidence?limit=100&skip={skip}")["classes"] for skip in (0, 100)]
    assert [len(page) for page in pages] == [100, 2]
    assert {c["tenant"] for page in pages for c in page} == {f"t{i}" for i in range(102)}


def test_alert_rules_name_metrics_that_exist():
    rules = ROOT / "deploy" / "prometheus" / "tiermq-alerts.yml"
    text = (ROOT / "docs" / "metrics.md").read_text()
    for group in yaml.safe_load(rules.read_text())["groups"]:
        for rule in group["rules"]:
            names = [word for word in rule["expr"].split() if word.startswith("tiermq_")]
            assert names and all(f"`{name}`" in text for name in names), rule["alert"]


def test_prometheus_takes_the_alert_rules():
    rules = ROOT / "deploy" / "prometheus" / "tiermq-alerts.yml"
    done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
