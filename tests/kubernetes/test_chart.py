"""The chart, rendered by helm: it says what linewatch says elsewhere, and pods may do no more than they must."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.kubernetes.tools.programs import bin_dir, module_dir, notes
from pipeline.kafka.topics import topic_specs
from pipeline.settings import Settings
from tests.kubernetes.strict import complaints
from tests.security.test_rights import rows

HELM = bin_dir() / "helm"
CHART = Path(__file__).parents[2] / "infra" / "kubernetes" / "chart"
EVERYTHING = {
    "strimzi": {"enabled": True},
    "monitoring": {"enabled": True},
    "tools": {"enabled": True},
    "schedule": {
        "enabled": True,
        "volumes": [{"name": "photos", "mountPath": "/photos", "persistentVolumeClaim": {"claimName": "photos"}}],
    },
    "serving": {"autoscaleNodes": True, "replicas": 2, "maxReplicas": 4, "maxReplicasPerNode": 2},
    "fitting": {
        "cron": [{"name": "nightly", "schedule": "0 3 * * *", "products": ["bottle"]}],
        "jobs": [{"name": "first", "products": []}],
        "group": {"nodes": 2},
    },
    "ray": {"gcsFaultTolerance": {"redisAddress": "redis:6379", "passwordSecret": "redis"}},
    "certificates": [{"name": "plant-ca", "configMap": "plant-ca"}],
    "networkPolicies": {
        "restFrom": [{"podSelector": {"matchLabels": {"app": "console"}}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egressTo": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 9093}, {"port": 9000}]}],
    },
}
pytestmark = pytest.mark.skipif(not HELM.exists(), reason="no helm in the cache: `make kube-tools` fetches it")


def helm(chart: Path, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HELM, "template", "line", chart, "--values", "-"],
        input=yaml.safe_dump(values), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def rendered(values: dict[str, Any], chart: Path = CHART) -> list[dict[str, Any]]:
    done = helm(chart, values)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


def pods(node: Any) -> Iterator[dict[str, Any]]:
    """The specs of all pods in an object."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for value in node.values():
            yield from pods(value)
    elif isinstance(node, list):
        for value in node:
            yield from pods(value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"serving": {"replicaz": 2}}, "replicaz"),
        ({"settings": {"s3": {"secret_key": "geheim"}}}, "/settings/s3"),
        ({"settings": {"serving": {"replicas": 2}}}, "/settings/serving"),
        ({"accounts": {"replica": {"secret": "x", "keys": ["s3"]}}}, "/accounts/replica/keys/0"),
        ({"certificates": [{"name": "a"}]}, "/certificates/0"),
    ],
)
def test_a_wrong_value_is_refused_and_named(values: dict[str, Any], told: str) -> None:
    done = helm(CHART, values)
    assert done.returncode != 0
    assert told in done.stderr


@pytest.mark.filterwarnings("ignore")  # Ray's own, at its import
@pytest.mark.parametrize("scaled", [False, True])
def test_serve_is_told_what_linewatch_serve_tells_it(scaled: bool) -> None:
    from pipeline.serving.deployment import serve_config

    serving = {"replicas": 2, **({"maxReplicas": 4} if scaled else {})}
    (service,) = of_kind(rendered({"serving": serving}), "RayService")
    sent = yaml.safe_load(service["spec"]["serveConfigV2"])
    settings = Settings.received(sent["applications"][0]["args"]["settings"])
    assert settings.serving.replicas == 2
    assert settings.serving.max_replicas == (4 if scaled else None)
    own = serve_config(settings, exactly_once=True, metrics_folder="/tmp/linewatch-metrics")
    assert sent["applications"][0].pop("args")["exactly_once"] is True
    del own["applications"][0]["args"]
    assert sent.pop("proxy_location") == "EveryNode"  # behind a Service; by itself linewatch has one door
    del own["proxy_location"]
    assert sent == own


def test_topics_are_those_that_setup_makes() -> None:
    settings = Settings.received({"topics": {"replication_factor": 3, "min_insync_replicas": 2}})
    wanted = {
        one.name: (one.num_partitions, one.replication_factor, one.topic_configs) for one in topic_specs(settings)
    }
    found = {}
    for topic in of_kind(rendered({"strimzi": {"enabled": True}}), "KafkaTopic"):
        spec = topic["spec"]
        config = {name: str(value) for name, value in spec["config"].items()}
        found[topic["metadata"]["name"]] = (spec["partitions"], spec["replicas"], config)
    assert found == wanted


def test_accounts_have_the_rights_of_the_page_and_no_others() -> None:
    words = {"transactionalId": "transactional_id"}
    found = set()
    for user in of_kind(rendered({"strimzi": {"enabled": True}}), "KafkaUser"):
        name = user["metadata"]["name"]
        account = {"line-replica": "replica", "line-fitter": "fitter", "camera-gateway": "camera"}.get(name, name)
        for rule in user["spec"]["authorization"]["acls"]:
            resource = rule["resource"]
            name = resource["name"] + ("*" if resource["patternType"] == "prefix" else "")
            kind = words.get(resource["type"], resource["type"])
            for operation in rule["operations"]:
                word = {"DescribeConfigs": "DESCRIBE_CONFIGS"}.get(operation, operation.upper())
                found.add((account, kind, name, word))
    wanted = {
        (account, kind, name, operation)
        for account, kind, name, operations in rows("Kafka")
        for operation in operations.split(", ")
    }
    assert found == wanted


def test_tools_have_the_rights_of_cameras_fitters_readers_and_reviewers_together() -> None:
    found: dict[str, set[str]] = {}
    for user in of_kind(rendered({"strimzi": {"enabled": True}, "tools": {"enabled": True}}), "KafkaUser"):
        rules = user["spec"]["authorization"]["acls"]
        found[user["metadata"]["name"]] = {yaml.safe_dump(rule) for rule in rules}
    assert found["line-tools"] == found["line-fitter"] | found["camera-gateway"] | found["reviewer"]
    assert found["reader"] < found["reviewer"]


def test_no_pod_is_root_or_writes_its_own_root() -> None:
    found = [pod for one in rendered(EVERYTHING) for pod in pods(one)]
    assert len(found) >= 7
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


def test_secrets_are_files_and_in_no_object() -> None:
    objects = rendered(EVERYTHING)
    assert not of_kind(objects, "Secret")
    for one in objects:
        for pod in pods(one):
            names = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
            assert names["LINEWATCH_S3__SECRET_KEY_FILE"] == "/etc/linewatch/account/s3.secret_key"
            assert "LINEWATCH_S3__SECRET_KEY" not in names


def test_fits_and_replicas_use_accounts_of_their_own() -> None:
    objects = rendered(EVERYTHING)
    found: dict[str, set[str]] = {}
    for one in objects:
        for pod in pods(one):
            (account,) = [each for each in pod["volumes"] if each["name"] == "account"]
            found.setdefault(one["kind"], set()).add(account["secret"]["secretName"])
    assert found == {
        "RayService": {"linewatch-replica"},
        "RayJob": {"linewatch-fitter"},
        "CronJob": {"linewatch-fitter"},
        "Deployment": {"linewatch-fitter", "linewatch-tools"},
    }
    (job,) = of_kind(rendered({}), "Job")
    (account,) = [each for each in next(pods(job))["volumes"] if each["name"] == "account"]
    assert account["secret"]["secretName"] == "linewatch-setup"


def test_rules_of_the_observability_folder_become_objects(tmp_path: Path) -> None:
    copy = tmp_path / "chart"
    shutil.copytree(CHART, copy, ignore=shutil.ignore_patterns("rules"))
    (copy / "rules").mkdir()
    group = {"name": "g", "rules": [{"alert": "A", "expr": "up == 0", "annotations": {"summary": "{{ $labels.job }}"}}]}
    (copy / "rules" / "alerts.yaml").write_text(yaml.safe_dump({"groups": [group]}))
    (rule,) = of_kind(rendered({"monitoring": {"enabled": True}}, copy), "PrometheusRule")
    assert rule["metadata"]["name"] == "line-alerts"
    assert rule["spec"] == {"groups": [group]}


def test_every_value_is_told() -> None:
    """Of the first two levels, by a comment at it or at its parent."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if line and line[0].isalpha():
            block = [lines[number - 1], line]
            for following in lines[number + 1 :]:
                if following and following[0].isalpha():
                    break
                block.append(following)
            assert any("#" in each for each in block), f"nothing tells of {line}"


KNOWN_HERE = ("v1", "apps/v1", "batch/v1", "networking.k8s.io/v1", "policy/v1", "scheduling.k8s.io/v1", "ray.io/v1")


@pytest.mark.skipif("kuberay" not in notes(), reason="no schemas in the cache: `make kube-tools` fetches them")
@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["by default", "everything"])
def test_each_object_fits_the_schema_of_its_kind_strictly(values: dict[str, Any]) -> None:
    checked = 0
    for one in rendered(values):
        if one["apiVersion"] in KNOWN_HERE:  # others are Strimzi's and the Prometheus operator's
            assert complaints(one, module_dir()) == [], f"{one['kind']}/{one['metadata']['name']}"
            checked += 1
    assert checked >= 9


@pytest.mark.skipif("kuberay" not in notes(), reason="no schemas in the cache: `make kube-tools` fetches them")
def test_the_schemas_are_strict() -> None:
    (service,) = of_kind(rendered({}), "RayService")
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Never"
    (told,) = complaints(service, module_dir())
    assert "imagePolicy" in told
    (policy, *_) = of_kind(rendered({}), "NetworkPolicy")
    policy["spec"]["ingres"] = []
    assert "ingres" in complaints(policy, module_dir())[0]
