"""The Dockerfile: lints, names only what exists, and starts a command line that the program takes."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from eocodec_cli import cli
from paths import ROOT, SAMPLES

DOCKER = SAMPLES / "docker"
TEXT = (DOCKER / "Dockerfile").read_text()
LINES = re.sub(r"\\\n\s*", "", TEXT).splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions(name: str) -> list[str]:
    """What follows an instruction wherever it stands."""
    return [line[len(name) :].strip() for line in LINES if line.startswith(f"{name} ")]


def test_it_lints() -> None:
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is not installed (extra `dev`)")
    done = subprocess.run([hadolint, "--no-color", DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_arguments_and_stages_exist_where_they_are_used() -> None:
    declared = {argument.split("=")[0] for argument in instructions("ARG")}
    assert set(re.findall(r"\$\{(\w+)\}", TEXT)) == declared
    documented = set(re.findall(r"^\| `(\w+)`", (DOCKER / "README.md").read_text(), re.M))
    assert documented == declared
    stages = [re.search(r" AS (\S+)", line) for line in instructions("FROM")]
    names = {stage[1] for stage in stages if stage}
    assert {f"base-{variant}" for variant in ("cpu", "gpu")} <= names
    assert set(re.findall(r"--from=(\S+)", TEXT)) <= names


def test_extras_and_packages_are_those_of_the_project() -> None:
    extras = PROJECT["optional-dependencies"]
    defaults = dict(argument.split("=", 1) for argument in instructions("ARG") if "=" in argument)
    assert set(defaults["EXTRAS"].split(",")) <= set(extras)
    (cpu,) = (d for d in PROJECT["dependencies"] if d.startswith("onnxruntime"))
    assert re.findall(r'"(onnxruntime-gpu[^"]*)"', TEXT) == [cpu.replace("onnxruntime", "onnxruntime-gpu")]
    version = re.search(r"python:(3\.\d+)", defaults["CPU_IMAGE"])
    assert version is not None and f"python{version[1]} -m venv" in TEXT
    minimum = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, version[1].split("."))) >= tuple(map(int, minimum.split(".")))


def test_all_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    copied = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignore[1] == "*" and {line[1:] for line in ignore if line.startswith("!")} == set(copied)
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {package.split("/")[0] for package in built["packages"]} <= set(copied)
    assert {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"} <= set(copied)


def test_it_starts_a_command_that_exists_as_a_user_without_privilege() -> None:
    (entry,), (command,) = instructions("ENTRYPOINT"), instructions("CMD")
    assert json.loads(entry) == ["eocodec"] and "eocodec" in PROJECT["scripts"]
    name, *arguments = json.loads(command)
    serve = cli.get_command(click.Context(cli), name)
    assert serve is not None
    context = serve.make_context(name, arguments)
    assert context.params["host"] == "0.0.0.0"
    assert instructions("EXPOSE") == [str(context.params["port"])]
    (check,) = instructions("HEALTHCHECK")
    assert f"http://127.0.0.1:{context.params['port']}/healthz" in check
    assert "/healthz" in (ROOT / "docs" / "SERVICE.md").read_text()
    assert int(instructions("USER")[-1]) > 0 and "EOCODEC_API_KEYS" in (DOCKER / "README.md").read_text()
