"""The Kubernetes manifests are held against the official client's own models, strictly: an unknown field, a wrong type
or a missing required field fails. What the models cannot know is checked between the manifests: selectors and labels,
ports, grace periods, and the configuration inside the ConfigMap."""

import copy
import datetime
import json
import os
import re
import subprocess

import pytest

yaml = pytest.importorskip("yaml", reason="python3-yaml is not installed")
kubernetes = pytest.importorskip("kubernetes", reason="python3-kubernetes is not installed")

from harness import ROOT, program  # noqa: E402



class UniqueKeys(yaml.SafeLoader):
    """Two equal keys are a mistake, which plain YAML readers swallow."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is given twice: {node.start_mark}"
        return super().construct_mapping(node, deep)


FOLDER = ROOT / "deploy" / "kubernetes"
DOCUMENTS = [(path.name, document) for path in sorted(FOLDER.glob("*.yaml"))
             for document in yaml.load_all(path.read_text(), Loader=UniqueKeys)]
PRIMITIVES = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}


class Strict:
    """Walks a document beside the client's model of it."""

    def __init__(self):
        configuration = kubernetes.client.Configuration()
        configuration.client_side_validation = True
        self.configuration = configuration
        self.errors = []

    def check(self, document):
        self.walk(document, model_of(document), document["kind"])
        return self.errors

    def walk(self, value, kind, path):
        if kind.startswith("list["):
            self.walk_list(value, kind[5:-1], path)
        elif kind.startswith("dict("):
            self.walk_dict(value, kind[5:-1].split(", ", 1)[1], path)
        elif kind in PRIMITIVES:
            self.primitive(value, kind, path)
        elif kind == "datetime":
            if not isinstance(value, (str, datetime.datetime)):
                self.errors.append(f"{path}: {value!r} is not a time")
        else:
            self.walk_model(value, kind, path)

    def walk_list(self, value, kind, path):
        if not isinstance(value, list):
            self.errors.append(f"{path}: {value!r} is not a list")
            return
        for i, item in enumerate(value):
            self.walk(item, kind, f"{path}[{i}]")

    def walk_dict(self, value, kind, path):
        if not isinstance(value, dict):
            self.errors.append(f"{path}: {value!r} is not a mapping")
            return
        for key, item in value.items():
            self.walk(item, kind, f"{path}.{key}")

    def primitive(self, value, kind, path):
        # A bool is an int in Python, and an int-or-string is "object" in the models.
        right = isinstance(value, PRIMITIVES[kind]) and (kind in ("bool", "object") or not isinstance(value, bool))
        if not right:
            self.errors.append(f"{path}: {value!r} is not of type {kind}")

    def walk_model(self, value, name, path):
        model = getattr(kubernetes.client, name)
        if not isinstance(value, dict):
            self.errors.append(f"{path}: {value!r} is not a {name}")
            return
        by_json = {name_in_json: attribute for attribute, name_in_json in model.attribute_map.items()}
        arguments = {}
        for key, item in value.items():
            if key not in by_json:
                self.errors.append(f"{path}.{key}: not a field of {name}")
                continue
            self.walk(item, model.openapi_types[by_json[key]], f"{path}.{key}")
            arguments[by_json[key]] = item
        try:
            model(local_vars_configuration=self.configuration, **arguments)
        except ValueError as error:
            self.errors.append(f"{path}: {error}")


def model_of(document):
    """apps/v1 Deployment -> V1Deployment; the client names its models by version and kind."""
    version = document["apiVersion"].rsplit("/", 1)[-1]
    name = version[0].upper() + version[1:] + document["kind"]
    assert hasattr(kubernetes.client, name), f"the client knows no {document['apiVersion']} {document['kind']}"
    return name


def find(kind, name):
    found = [document for _, document in DOCUMENTS if document["kind"] == kind and document["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def pod_of(document):
    return document["spec"]["template"]["spec"]


WORKLOADS = [document for _, document in DOCUMENTS if document["kind"] in ("Deployment", "StatefulSet")]
CONTAINERS = [(document, container) for document in WORKLOADS for container in pod_of(document)["containers"]]


@pytest.mark.parametrize("file,document", DOCUMENTS, ids=[f"{name}-{document['kind']}" for name, document in DOCUMENTS])
def test_every_field_is_one_of_the_official_models(file, document):
    assert Strict().check(document) == []
    # And the client itself takes the whole document.
    response = type("Response", (), {"data": json.dumps(document)})
    model = kubernetes.client.ApiClient().deserialize(response, model_of(document))
    assert model.metadata.name == document["metadata"]["name"]


@pytest.mark.parametrize("plant,complaint", [
    (lambda d: d["spec"].update(replica=3), "replica: not a field of V1DeploymentSpec"),
    (lambda d: pod_of(d)["containers"][0].update(livenesProbe={}), "livenesProbe: not a field of V1Container"),
    (lambda d: d["spec"].update(replicas="3"), "replicas: '3' is not of type int"),
    (lambda d: d["spec"].update(replicas=True), "replicas: True is not of type int"),
    (lambda d: d["spec"].pop("selector"), "`selector`, must not be `None`"),
    (lambda d: pod_of(d)["containers"][0].pop("name"), "`name`, must not be `None`"),
    (lambda d: pod_of(d).update(containers={"name": "x"}), "is not a list"),
    (lambda d: d["metadata"]["labels"].update(tier=1), "tier: 1 is not of type str"),
    (lambda d: pod_of(d)["containers"][0]["securityContext"].update(readOnlyRootFilesystem="yes"), "is not of type bool"),
])
def test_the_check_catches_a_planted_mistake(plant, complaint):
    document = copy.deepcopy(find("Deployment", "tiermq-worker"))
    plant(document)
    errors = Strict().check(document)
    assert len(errors) == 1 and complaint in errors[0], errors


def test_all_live_in_the_namespace():
    for _, document in DOCUMENTS:
        if document["kind"] == "Namespace":
            assert document["metadata"]["name"] == "tiermq"
        else:
            assert document["metadata"]["namespace"] == "tiermq", document["metadata"]["name"]


def test_selectors_select_the_pods_they_mean():
    pods = {workload["metadata"]["name"]: workload["spec"]["template"]["metadata"]["labels"] for workload in WORKLOADS}
    for workload in WORKLOADS:
        wanted = workload["spec"]["selector"]["matchLabels"].items()
        assert wanted <= pods[workload["metadata"]["name"]].items()
    for _, document in DOCUMENTS:
        if document["kind"] in ("Service", "PodDisruptionBudget"):
            selector = document["spec"]["selector"]
            wanted = selector.get("matchLabels", selector).items()
            selected = [name for name, labels in pods.items() if wanted <= labels.items()]
            assert selected == [document["metadata"]["name"]]


def test_ports_that_are_named_exist():
    ports = {workload["metadata"]["name"]: {port["name"]: port["containerPort"] for port in container["ports"]}
             for workload, container in CONTAINERS}
    for workload, container in CONTAINERS:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            action = container.get(probe, {}).get("httpGet") or container.get(probe, {}).get("tcpSocket")
            if action is not None:
                assert action["port"] in ports[workload["metadata"]["name"]]
    for _, document in DOCUMENTS:
        if document["kind"] == "Service":
            for port in document["spec"]["ports"]:
                assert ports[document["metadata"]["name"]][port["targetPort"]] == port["port"]


def test_containers_run_without_rights_and_with_bounds():
    for workload, container in CONTAINERS:
        pod, security = pod_of(workload), container["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert security["allowPrivilegeEscalation"] is False and security["readOnlyRootFilesystem"] is True
        assert security["capabilities"]["drop"] == ["ALL"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        mounted = {volume["name"] for volume in container.get("volumeMounts", [])}
        claimed = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        assert mounted == {volume["name"] for volume in pod.get("volumes", [])} | claimed


def tiermq_yaml():
    return find("ConfigMap", "tiermq")["data"]["tiermq.yaml"]


def test_the_configuration_is_a_right_one(tmp_path):
    path = tmp_path / "tiermq.yaml"
    path.write_text(tiermq_yaml())
    done = subprocess.run([program("tiermq"), "config", "check", path], capture_output=True, text=True, timeout=30,
                          env={**os.environ, "TIERMQ_POD": "tiermq-broker-0"}, check=False)
    assert done.returncode == 0, done.stderr


def test_the_configuration_and_the_manifests_name_the_same_ports_and_folders():
    config = yaml.safe_load(tiermq_yaml())
    containers = {container["name"]: container for _, container in CONTAINERS}
    port = {name: {entry["name"]: entry["containerPort"] for entry in container["ports"]}
            for name, container in containers.items()}
    for key in ("clients", "workers", "events"):
        assert config["broker"][f"listen_{key}"] == f"tcp://*:{port['broker'][key]}"
    assert config["broker"]["admin"] == f"0.0.0.0:{port['broker']['admin']}"
    assert config["worker"]["admin"] == f"0.0.0.0:{port['worker']['admin']}"
    brokers = find("StatefulSet", "tiermq-broker")
    names = [f"{brokers['metadata']['name']}-{i}.{brokers['spec']['serviceName']}" for i in range(brokers["spec"]["replicas"])]
    assert config["worker"]["brokers"] == [f"tcp://{name}:{port['broker']['workers']}" for name in names]
    assert config["worker"]["events"] == [f"tcp://{name}:{port['broker']['events']}" for name in names]
    assert config["client"]["brokers"] == [f"tcp://{name}:{port['broker']['clients']}" for name in names]
    for name in ("broker", "worker"):
        folders = [mount["mountPath"] for mount in containers[name]["volumeMounts"]]
        assert any(config[name]["data_dir"].startswith(folder + "/") for folder in folders)


def test_pods_have_the_time_to_drain():
    reference = (ROOT / "docs" / "configuration.md").read_text()
    drains = re.findall(r"`drain_timeout` \| duration \| `(\d+)s`", reference)
    assert len(drains) == 2, "broker's and worker's, in this order"
    for name, kind, drain in (("broker", "StatefulSet", drains[0]), ("worker", "Deployment", drains[1])):
        assert pod_of(find(kind, f"tiermq-{name}"))["terminationGracePeriodSeconds"] > int(drain) + 5


def test_workers_scale_by_one_number():
    worker = find("Deployment", "tiermq-worker")
    assert worker["spec"]["replicas"] >= 2
    text = (FOLDER / "worker.yaml").read_text()
    assert len(re.findall(r"^\s+replicas:", text, re.M)) == 1
    assert "volumeClaimTemplates" not in text and "hostPort" not in text and "hostNetwork" not in text
