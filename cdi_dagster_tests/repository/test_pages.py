"""The pages name what there is; `make docs` builds them as a site with the same checks."""

import re
import sys

import pytest

from cdi_dagster.core.failures import FailureClass
from cdi_dagster.settings import PREFIX, Settings
from cdi_dagster_tests.repository.files import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tools"))
import docs  # noqa: E402


def test_every_command_that_the_pages_name_exists() -> None:
    assert docs.wrong_commands() == []


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("make nothing", "no target nothing"),
        ("cdi nothing", "no command nothing"),
        ("cdi rejects nothing --storage-day D", "no command nothing"),
        ("cdi status --nothing", "no option --nothing"),
        ("make test ARGS='emr'", None),
        ("cdi relaunch --collection data:businessAudit --export-day E [--to F]", None),
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str, problem: str | None) -> None:
    found = docs._problem(command)
    assert problem in found if problem else found is None


def test_the_references_have_every_setting_and_every_failure_class() -> None:
    assert all(f"| `{PREFIX}{name.upper()}` |" in docs.settings_page() for name in Settings.model_fields)
    assert all(f"(runbook.md#{name.lower()})" in docs.failures_page() for name in FailureClass)


def test_every_link_leads_somewhere() -> None:
    for page in docs.sources():
        for target, _ in docs._LINK.findall(page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_links_lead_to_the_same_place_from_the_assembled_page(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(docs, "PAGES", tmp_path / "pages")
    docs.assemble()
    index = (tmp_path / "pages" / "index.md").read_text(encoding="utf-8")
    assert "](runbook.md#a-launch-on-emr)" in index
    assert "](images/asset_graph.png)" in index
    assert (tmp_path / "pages" / "files" / "settings.py.txt").is_file()


def test_contributing_names_files_and_what_they_hold() -> None:
    table = [line for line in (REPOSITORY / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| ")]
    paths = re.findall(r"`(cdi_dagster[\w./]*|deploy/[\w./]*)`", "\n".join(table))
    assert len(paths) > 15
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
    for line in table:
        files = [REPOSITORY / path for path in re.findall(r"`(cdi_dagster/[\w/]*\.py)`", line)]
        defined = "".join(path.read_text() for path in files)
        for name in re.findall(r"`([A-Z]\w+)`", line):
            assert name.startswith("CDI_") or re.search(rf"^(class )?{name}\b", defined, re.MULTILINE), name
