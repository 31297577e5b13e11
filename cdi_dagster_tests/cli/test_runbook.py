"""The runbook has a section for each failure class, where the links of a failure lead."""

import re
from pathlib import Path

import pytest

from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass

DOCS = Path(__file__).parents[2] / "docs"


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", (DOCS / "runbook.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("failure_class", FailureClass)
def test_every_failure_class_has_its_section_with_what_happens_what_to_do_and_who(failure_class: FailureClass) -> None:
    section = sections()[failure_class]
    for part in ("- **By itself**: ", "- **You**: "):
        assert part in section
    assert f"- **Owner**: {FAILURE_GUIDE[failure_class].owner}." in section


def test_links_between_pages_lead_somewhere() -> None:
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
