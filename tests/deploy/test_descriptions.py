"""Containerfile, compose file and Kubernetes manifests: what they say of each other and of the service is so."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.utils import canonicalize_name

from service.orthanc_feed import FeedSettings
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
GPU = DEPLOY / "kubernetes" / "overlays" / "gpu"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
PORT = 3000


def manifests() -> dict[str, dict[str, Any]]:
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    files = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(kustomization["resources"])
    found = [each for name in kustomization["resources"] for each in yaml.safe_load_all((BASE / name).read_text())]
    assert len({each["kind"] for each in found}) == len(found)
    return {each["kind"]: each for each in found}


def settings_named(environment: dict[str, str]) -> Settings:
    """What the service makes of it; a name that it has no setting for fails."""
    fields = {name.removeprefix("RADIOLUCENT_").lower(): value for name, value in environment.items()}
    assert set(fields) <= set(Settings.model_fields)
    return Settings.model_validate(
        {n: json.loads(v) if v.startswith(("{", "[")) else v for n, v in fields.items() if n in Settings.model_fields},
    )


def last_stage() -> str:
    return CONTAINERFILE.rpartition("\nFROM ")[2]


def test_the_image_holds_the_locked_service_and_no_more():
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", CONTAINERFILE, re.MULTILINE)
    copied = [source for line in lines for source in line.split()]
    locks = ["requirements/container.txt", "requirements/gpu.txt"]
    scripts = ["deploy/bytecode.py", "deploy/sbom", "deploy/system_packages.py"]
    assert sorted(copied) == ["LICENSE", *scripts, "models", *locks, "service"]
    assert all((ROOT / path).exists() for path in copied)
    let_through = re.findall(r"^!(.*)$", (DEPLOY / "Containerfile.dockerignore").read_text(), re.MULTILINE)
    assert sorted(let_through) == sorted(copied)
    assert "--require-hashes -r /tmp/${lock}.txt" in CONTAINERFILE
    assert "index-url" not in CONTAINERFILE


def test_the_images_lock_has_all_that_its_part_of_the_service_imports():
    """Bytecode is made by importing every module: one that the lock lacks ends the build."""
    bytecode = runpy.run_path(str(DEPLOY / "bytecode.py"))
    lock = (ROOT / "requirements" / "container.txt").read_text()
    locked = {canonicalize_name(name) for name in re.findall(r"^([A-Za-z0-9][\w.-]*)", lock, re.MULTILINE)}
    left_out = re.findall(r"^(service/.+)$", (DEPLOY / "Containerfile.dockerignore").read_text(), re.MULTILINE)
    installed = packages_distributions()
    tops = {name.partition(".")[0] for name in bytecode["modules"](ROOT / "service", left_out)}
    assert {"service", "numpy", "onnxruntime"} <= tops
    for top in tops - {"service"} - sys.stdlib_module_names:
        assert {canonicalize_name(name) for name in installed[top]} & locked, top


def test_the_image_starts_without_a_shell_as_nobody_special():
    stage = last_stage()
    assert "\nRUN " not in stage
    assert "\nUSER 10001:10001\n" in stage
    for instruction in ("ENTRYPOINT", "CMD"):
        (argument,) = re.findall(rf"\b{instruction} (\[.*\])$", stage, re.MULTILINE)
        assert json.loads(argument)[0] == "python"
    assert f"EXPOSE {PORT}\n" in stage
    assert f'"{PORT}"]' in stage
    assert "/readyz" in stage


def test_compose_gives_the_service_settings_that_it_has():
    services = COMPOSE["services"]
    settings = settings_named(services["radiolucent"]["environment"])
    archive = settings.archives["orthanc"]
    assert str(archive.url).startswith("http://orthanc:8042/")
    feed = {n.removeprefix("RADIOLUCENT_FEED_").lower(): v for n, v in services["feed"]["environment"].items()}
    assert set(feed) <= set(FeedSettings.model_fields)
    asked = FeedSettings(**feed)
    assert asked.source in settings.archives
    assert (asked.orthanc, asked.service) == ("http://orthanc:8042", f"http://radiolucent:{PORT}")


def test_every_setting_of_the_feed_is_described():
    text = (DEPLOY / "orthanc" / "README.md").read_text()
    named = {name for name in FeedSettings.model_fields if re.search(rf"`[A-Z._]+_{name.upper()}`", text)}
    assert named == set(FeedSettings.model_fields)


def test_compose_opens_nothing_beyond_this_machine_and_mounts_what_is_there():
    networks, volumes = set(COMPOSE["networks"]), set(COMPOSE["volumes"])
    for name, each in COMPOSE["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in each.get("ports", [])), name
        assert set(each["networks"]) <= networks
        assert ":latest" not in each["image"] and ":" in each["image"], name
        for volume in each.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in volumes or (DEPLOY / source).exists(), volume
    build = COMPOSE["services"]["radiolucent"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Containerfile")


def test_compose_has_the_orthanc_of_the_shipped_configuration():
    shipped = json.loads((DEPLOY / "orthanc" / "orthanc.json").read_text())
    upper = {"ORTHANC__" + re.sub(r"(?<!^)(?=[A-Z])", "_", key).upper(): value for key, value in shipped.items()}
    said = {n: v for n, v in COMPOSE["services"]["orthanc"]["environment"].items() if n.startswith("ORTHANC__")}
    different = {n for n, v in said.items() if str(upper[n]).lower() != v.lower()}
    assert different == {"ORTHANC__REMOTE_ACCESS_ALLOWED"}  # from another container


def test_prometheus_scrapes_the_service_of_the_compose_file():
    (scrape,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"radiolucent:{PORT}"]}]
    services = COMPOSE["services"]
    (grafana,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert grafana["url"] == "http://prometheus:9090"
    for one, other in (("radiolucent", "prometheus"), ("prometheus", "grafana"), ("feed", "orthanc")):
        assert set(services[one]["networks"]) & set(services[other]["networks"])


def selectors(found: dict[str, dict[str, Any]]) -> Iterator[dict[str, str]]:
    yield found["Deployment"]["spec"]["selector"]["matchLabels"]
    yield found["Service"]["spec"]["selector"]
    yield found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    yield found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]


def test_every_manifest_points_at_the_pods_and_their_port():
    found = manifests()
    template = found["Deployment"]["spec"]["template"]
    for selector in selectors(found):
        assert selector == template["metadata"]["labels"]
    monitor = found["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"] == found["Service"]["metadata"]["labels"]
    assert found["Service"]["metadata"]["labels"][monitor["jobLabel"]] == "radiolucent"  # the job of the alerts
    (container,) = template["spec"]["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == PORT
    (service_port,) = found["Service"]["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]
    assert [e["port"] for e in monitor["endpoints"]] == [service_port["name"]]
    assert found["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"] == port["name"]
    scaled = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", found["Deployment"]["metadata"]["name"])
    assert (
        found["HorizontalPodAutoscaler"]["spec"]["minReplicas"] > found["PodDisruptionBudget"]["spec"]["minAvailable"]
    )


def test_pods_fit_the_restricted_profile_and_the_image():
    spec = manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    user = f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}"
    assert f"USER {user}\n" in CONTAINERFILE
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert set(mounted) == {"/state", "/tmp", "/etc/radiolucent"}  # noqa: S108 - a path in the image
    assert set(mounted.values()) == {each["name"] for each in spec["volumes"]}
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert probes == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    given = {each["name"]: each.get("value", "2") for each in container["env"]}
    assert settings_named(given).device == "cpu"


def test_the_gpu_overlay_patches_what_the_base_has():
    kustomization = yaml.safe_load((GPU / "kustomization.yaml").read_text())
    assert [(GPU / path).resolve() for path in kustomization["resources"]] == [BASE.parent / "overlays" / "keda"]
    (patch,) = (yaml.safe_load((GPU / each["path"]).read_text()) for each in kustomization["patches"])
    base = manifests()["Deployment"]
    assert (patch["kind"], patch["metadata"]["name"]) == ("Deployment", base["metadata"]["name"])
    (patched,) = patch["spec"]["template"]["spec"]["containers"]
    (container,) = base["spec"]["template"]["spec"]["containers"]
    assert patched["name"] == container["name"]
    assert {each["name"] for each in patched["env"]} <= {each["name"] for each in container["env"]}
    assert settings_named({each["name"]: each["value"] for each in patched["env"]}).device == "cuda"
    (pinned,) = yaml.safe_load((BASE / "kustomization.yaml").read_text())["images"]
    assert pinned["name"] == container["image"]
    assert [each["name"] for each in kustomization["images"]] == [pinned["newName"]]


@pytest.mark.parametrize("name", ["Containerfile", "compose.yaml"])
def test_no_address_of_a_package_index_or_a_home_is_in(name):
    text = (DEPLOY / name).read_text()
    assert not re.search(r"pip\.conf|/home/|/root/", text)
