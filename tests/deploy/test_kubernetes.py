"""What Kustomize makes of the base and every overlay, against Kubernetes' own schemas."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.observability import metrics
from service.settings import Settings

KUBERNETES = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))
CUSTOM = {  # kinds of operators: no schema is at hand, so what must be there is said here
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"jobLabel", "selector", "endpoints"}),
    "ScaledObject": (
        "keda.sh/v1alpha1",
        {
            *("scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval"),
            *("fallback", "advanced", "triggers"),
        },
    ),
}
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is missing")


@cache
def rendered(overlay: str) -> dict[str, dict[str, Any]]:
    folder = KUBERNETES / ("base" if overlay == "base" else f"overlays/{overlay}")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = list(yaml.safe_load_all(done.stdout))
    assert len({each["kind"] for each in found}) == len(found)
    return {each["kind"]: each for each in found}


def container(overlay: str) -> dict[str, Any]:
    (found,) = rendered(overlay)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return found


def check(each: dict[str, Any]) -> None:
    if each["kind"] in CUSTOM:
        version, fields = CUSTOM[each["kind"]]
        assert (each["apiVersion"], set(each["spec"])) == (version, fields)
    else:
        kubernetes_validate.validate(each, "1.31", strict=True)


def plain_files() -> list[Path]:
    """Whole objects; patches and kustomizations are judged by what comes of them."""
    return [
        path
        for path in sorted(KUBERNETES.rglob("*.yaml"))
        if path.name not in ("kustomization.yaml", "egress.yaml", "gpu.yaml", "one-pod.yaml")
    ]


def test_every_file_holds_what_kubernetes_knows():
    for path in plain_files():
        for each in yaml.safe_load_all(path.read_text()):
            check(each)


def test_a_misspelt_field_would_be_found():
    (deployment,) = yaml.safe_load_all((KUBERNETES / "base" / "deployment.yaml").read_text())
    deployment["spec"]["template"]["spec"]["terminationGracePeriodsSeconds"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        check(deployment)


@needs_kubectl
@pytest.mark.parametrize("overlay", ["base", *OVERLAYS])
def test_it_renders_to_what_kubernetes_knows(overlay):
    found = rendered(overlay)
    for each in found.values():
        check(each)
    spec = found["Deployment"]["spec"]["template"]["spec"]
    assert {each["name"] for each in container(overlay)["volumeMounts"]} == {each["name"] for each in spec["volumes"]}
    assert {"name": "RADIOLUCENT_KEYS", "value": "/etc/radiolucent/keys"} in container(overlay)["env"]


def test_a_pod_may_finish_what_it_accepted():
    (deployment,) = yaml.safe_load_all((KUBERNETES / "base" / "deployment.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    (answer,) = (float(each["value"]) for each in only["env"] if each["name"] == "RADIOLUCENT_ANSWER_S")
    assert Settings(answer_s=answer).inline_seconds < answer
    assert only["lifecycle"]["preStop"]["sleep"]["seconds"] + answer < pod["terminationGracePeriodSeconds"]


@needs_kubectl
def test_one_overlay_asks_for_a_gpu():
    for overlay in ["base", *OVERLAYS]:
        device = "cuda" if overlay == "gpu" else "cpu"
        assert {"name": "RADIOLUCENT_DEVICE", "value": device} in container(overlay)["env"]
        assert ("nvidia.com/gpu" in container(overlay)["resources"]["limits"]) == (device == "cuda")
        assert container(overlay)["image"].endswith("-cuda") == (device == "cuda")


@needs_kubectl
def test_keda_scales_by_waiting_images_instead_of_the_autoscaler():
    found = rendered("keda")
    assert "HorizontalPodAutoscaler" not in found
    spec = found["ScaledObject"]["spec"]
    deployment = found["Deployment"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]  # two would decide
    assert spec["minReplicaCount"] > found["PodDisruptionBudget"]["spec"]["minAvailable"]
    (trigger,) = spec["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("prometheus", "AverageValue")  # fallback knows no other
    assert float(trigger["metadata"]["threshold"]) > 0
    names = re.findall(r"radiolucent_\w+", trigger["metadata"]["query"])
    assert names == [f"{metrics.QUEUE_SECONDS._name}_sum"]


@needs_kubectl
def test_studies_have_one_pod_with_a_volume_and_a_database():
    found = rendered("studies")
    assert not {"HorizontalPodAutoscaler", "PodDisruptionBudget"} & set(found)
    spec = found["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    (state,) = (each for each in spec["template"]["spec"]["volumes"] if each["name"] == "state")
    claim = found["PersistentVolumeClaim"]["metadata"]["name"]
    assert state == {"name": "state", "persistentVolumeClaim": {"claimName": claim}}
    secret = [each["name"] for each in container("studies")["env"] if "secretKeyRef" in each.get("valueFrom", {})]
    assert [name.removeprefix("RADIOLUCENT_").lower() for name in secret] == ["jobs_database"]
    assert "jobs_database" in Settings.model_fields
    names, database = found["NetworkPolicy"]["spec"]["egress"]
    assert [port["port"] for port in names["ports"]] == [53, 53]
    assert [port["port"] for port in database["ports"]] == [5432]


@needs_kubectl
def test_an_image_can_be_pinned_by_its_digest():
    image = container("pinned")["image"]
    assert re.fullmatch(r"registry\.example/radiolucent@sha256:[0-9a-f]{64}", image)


def test_kserve_runs_the_pod_of_the_base():
    """KServe's predictor is a pod's specification with fields of its own, which are taken off to judge the rest."""
    service = yaml.safe_load((KUBERNETES.parent / "kserve" / "inferenceservice.yaml").read_text())
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert set(service["spec"]) == {"predictor"}
    pod = dict(service["spec"]["predictor"])
    own = {name: pod.pop(name) for name in ("minReplicas", "maxReplicas", "timeout")}
    assert 0 < own["minReplicas"] <= own["maxReplicas"]
    check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": pod})
    (deployment,) = yaml.safe_load_all((KUBERNETES / "base" / "deployment.yaml").read_text())
    base = deployment["spec"]["template"]["spec"]
    (ours,), (theirs,) = pod["containers"], base["containers"]
    assert pod["terminationGracePeriodSeconds"] == base["terminationGracePeriodSeconds"]
    for field in ("env", "lifecycle", "resources", "securityContext", "volumeMounts"):
        assert ours[field] == theirs[field], field
    assert (pod["volumes"], pod["securityContext"]) == (base["volumes"], base["securityContext"])
    assert [port["containerPort"] for port in ours["ports"]] == [port["containerPort"] for port in theirs["ports"]]
    for probe in ("readinessProbe", "livenessProbe"):
        assert ours[probe]["httpGet"]["path"] == theirs[probe]["httpGet"]["path"]
        assert ours[probe]["httpGet"]["port"] == ours["ports"][0]["containerPort"]
