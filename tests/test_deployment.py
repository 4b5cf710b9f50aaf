"""The files in deployment/: valid, and in agreement with each other and with the programs."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from helpers import ROOT, free_port, wait_until
from programs import Programs

FOLDER = ROOT / "deployment"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
MANIFEST: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
UNITS = sorted(FOLDER.glob("*.service"))
DOCKERFILE = re.sub(r"\\\n", " ", (FOLDER / "Dockerfile").read_text())


def of_kind(kind: str, name: str | None = None) -> dict[str, Any]:
    [found] = [r for r in MANIFEST if r["kind"] == kind and name in (None, r["metadata"]["name"])]
    return found


def container(kind: str) -> dict[str, Any]:
    [found] = of_kind(kind)["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def unit_command(unit: Path) -> list[str]:
    [command] = re.findall(r"^ExecStart=/usr/bin/python3 (.*)$", unit.read_text(), re.MULTILINE)
    return shlex.split(command.replace("%i", "6001"))


COMMANDS = {
    "compose seed": COMPOSE["services"]["seed"]["command"],
    "compose peer": COMPOSE["services"]["peer"]["command"],
    "image": json.loads(instructions("CMD")[0]),
    "kubernetes seed": container("StatefulSet")["args"],
    "kubernetes peer": container("Deployment")["args"],
    **{unit.name: unit_command(unit) for unit in UNITS},
}


def value_of(command: list[str], option: str) -> str:
    """What stands behind the option, in either way of writing it."""
    words = [word for part in command for word in part.split("=", 1)]
    return words[words.index(option) + 1]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_one_that_the_program_takes(
    programs: Programs, name: str, tmp_path: Path
) -> None:
    """It starts so, but for a port that is free here, and a folder that exists here."""
    script, port, *arguments = COMMANDS[name]
    assert 1024 < int(port) < 65536
    assert value_of(arguments, "--host") == "0.0.0.0"
    here = [re.sub(r"/[\w./-]*/([\w.-]+)", rf"{tmp_path}/\1", text) for text in arguments]
    programs.are_files_named = False
    program = programs.start(Path(script).name, free_port(), *here)
    program.wait_for("listening")
    program.terminate()
    assert program.wait() == 0


# ---- containers


def test_the_compose_file_is_valid() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*check, FOLDER / "compose.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_peers_of_the_compose_file_know_its_seeds_by_their_name() -> None:
    services = COMPOSE["services"]
    name, port = value_of(services["peer"]["command"], "--seed").split(":")
    assert services[name]["command"][1] == port
    assert services[name]["deploy"]["replicas"] == 3
    assert services["peer"]["depends_on"] == [name]


def test_every_service_is_built_from_the_image_described() -> None:
    for service in COMPOSE["services"].values():
        context = (FOLDER / service.get("build", {"context": ".."})["context"]).resolve()
        assert context == ROOT
        assert service["image"] == container("Deployment")["image"]


def test_the_image_has_the_programs_and_a_folder_that_they_can_write_to() -> None:
    [copied] = instructions("COPY")
    pattern, target = copied.split(" ")
    programs_there = {f"{target}{path.name}" for path in ROOT.glob(pattern)}
    assert {command[0] for name, command in COMMANDS.items() if "service" not in name} <= (
        programs_there
    )
    [workdir], [user] = instructions("WORKDIR"), instructions("USER")
    assert f"chown {user} {workdir}" in instructions("RUN")[0]
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["python3"]
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    assert ignored == ["*", f"!{pattern}"]


# ---- Kubernetes


@pytest.mark.parametrize("resource", MANIFEST, ids=[resource["kind"] for resource in MANIFEST])
def test_a_resource_is_valid(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_the_peers_know_the_seeds_by_the_name_of_a_headless_service() -> None:
    service = of_kind("Service")
    lines = of_kind("ConfigMap")["data"]["config.txt"].splitlines()
    [listed] = [line for line in lines if not line.startswith("#")]
    name, port = listed.split(":")
    assert service["metadata"]["name"] == name == of_kind("StatefulSet")["spec"]["serviceName"]
    assert service["spec"]["clusterIP"] == "None"
    assert str(service["spec"]["ports"][0]["port"]) == port == COMMANDS["kubernetes seed"][1]


def test_selectors_find_their_pods() -> None:
    seeds = of_kind("StatefulSet")["spec"]
    labels = seeds["template"]["metadata"]["labels"]
    assert of_kind("Service")["spec"]["selector"] == labels
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    for spec in (seeds, of_kind("Deployment")["spec"]):
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


def test_pods_can_read_their_config_and_write_their_files() -> None:
    [workdir] = instructions("WORKDIR")
    for kind in ("StatefulSet", "Deployment"):
        mounts = [mount["mountPath"] for mount in container(kind)["volumeMounts"]]
        assert workdir in mounts
        user = of_kind(kind)["spec"]["template"]["spec"]["securityContext"]
        assert f"{user['runAsUser']}:{user['runAsGroup']}" == instructions("USER")[0]
    config = value_of(COMMANDS["kubernetes peer"], "--config")
    assert str(Path(config).parent) in mounts
    assert Path(config).name in of_kind("ConfigMap")["data"]


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_the_port_of_a_pod_is_the_one_listened_on(kind: str) -> None:
    [port] = container(kind)["ports"]
    assert str(port["containerPort"]) == container(kind)["args"][1]
    assert container(kind)["readinessProbe"]["tcpSocket"]["port"] == port["name"]


# ---- systemd and logrotate


def tool(name: str) -> str:
    """Where it is; without it the test is skipped, and says so."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"NOT CHECKED: there is no {name} on this machine")
    return found


@pytest.mark.parametrize("unit", UNITS, ids=[unit.name for unit in UNITS])
def test_systemd_accepts_a_unit(unit: Path) -> None:
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", unit], capture_output=True, text=True, check=False
    )
    about_us = [line for line in done.stderr.splitlines() if unit.stem in line]
    assert (done.returncode, about_us) == (0, [])


@pytest.mark.parametrize("unit", UNITS, ids=[unit.name for unit in UNITS])
def test_a_unit_waits_reloads_and_writes_where_it_may(unit: Path) -> None:
    text = unit.read_text()
    assert "Type=notify" in text
    assert "ExecReload=/bin/kill -HUP $MAINPID" in text
    [folder] = re.findall(r"^LogsDirectory=(.*)$", text, re.MULTILINE)
    assert value_of(unit_command(unit), "--log").startswith(f"/var/log/{folder}/")


def test_the_real_logrotate_loses_no_line(programs: Programs) -> None:
    _, peers = programs.network(3)
    logs = programs.folder / "logs"
    text = (FOLDER / "logrotate.conf").read_text()
    assert "/var/log/peer-to-peer/*.log" in text
    config = logs.with_name("logrotate.conf")
    config.write_text(text.replace("/var/log/peer-to-peer/*.log", str(programs.log)))
    rotate = [tool("logrotate"), "--force", "--state", str(logs.with_name("state")), str(config)]
    for peer in peers:
        peer.say(*map(str, range(100)))
    subprocess.run(rotate, check=True)

    def has_new_log() -> bool:
        peers[0].say("and on")
        return programs.log.exists()

    wait_until(has_new_log, what="a new log")
    peers[0].say("the end")
    for peer in peers[1:]:
        peer.wait_for("message", text="the end")
    for peer in peers:
        peer.wait_for("message", count=200)
        peer.terminate()
        peer.wait()
    rotated = programs.log.with_name("outputfile.log.1").read_text()
    now = programs.log.read_text()
    assert rotated
    assert now
    assert (rotated + now).count(" message ") == sum(len(peer.all("message")) for peer in peers)


# ---- what the page says


def test_the_page_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    named = re.findall(r"deployment/[\w.*]+\w", text)
    assert len(named) > 5
    assert [name for name in named if not list(ROOT.glob(name))] == []
