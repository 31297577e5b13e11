"""The runbook has a section for each failure class, where the links of a failure lead; some are followed to the end."""

import re
from pathlib import Path

import pytest

import cdi_dagster
from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass
from cdi_dagster.emr.launch_plan import AttemptOutcome
from cdi_dagster_tests.cli.conftest import Cdi

DOCS = Path(__file__).parents[2] / "docs"
DAY = ("--collection", "data:businessAudit", "--storage-day", "2023-03-26")


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", (DOCS / "runbook.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("failure_class", FailureClass)
def test_every_failure_class_has_its_section_with_what_happens_what_to_do_and_who(failure_class: FailureClass) -> None:
    section = sections()[failure_class]
    for part in ("- **By itself**: ", "- **You**: "):
        assert part in section
    assert f"- **Owner**: {FAILURE_GUIDE[failure_class].owner}." in section


def test_what_the_runbook_quotes_of_a_launch_is_what_the_launcher_writes() -> None:
    emr = Path(cdi_dagster.__file__).parent / "emr"
    written = "\n".join(path.read_text() for path in emr.rglob("*.py"))
    known = {*AttemptOutcome, *FailureClass}
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \|", sections()["A launch on EMR"], flags=re.MULTILINE)
    quoted = [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) > 12
    for quote in quoted:
        names = re.findall(r"[A-Z_]{3,}", quote)
        assert known.issuperset(names), quote
        assert names or quote.removesuffix(" …") in written, quote


def test_links_between_pages_lead_somewhere() -> None:
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_input_invalid_is_followed_to_the_end(cdi: Cdi, home: Path) -> None:
    assert cdi("sample", *DAY, "--records", "120", "--objects", "6").exit_code == 0
    folder = next((home / "corporate").rglob("*.jsonl.gz")).parent
    stray = folder / "notes.jsonl.gz"
    stray.write_bytes(b"x")
    assert "notes.jsonl.gz was left alone" in cdi("coalesce", *DAY).stdout
    refused = cdi("pin", *DAY)
    assert refused.stderr.startswith("INPUT_INVALID: ")
    assert "notes.jsonl.gz" in refused.stderr

    stray.rename(home / "notes.jsonl.gz")
    moved = cdi("status", *DAY, "--json").json["coalescer"]
    assert (moved["state"], moved["reason"].rsplit(". ", 1)[-1]) == ("UNKNOWN", "No offsets are missing")
    assert "run the coalescer for the day again" in cdi("pin", *DAY).stderr
    assert cdi("coalesce", *DAY).exit_code == 0
    assert cdi("pin", *DAY).exit_code == 0


def test_offsets_lost_is_followed_to_the_end(cdi: Cdi, home: Path) -> None:
    assert cdi("sample", *DAY, "--records", "120", "--objects", "6").exit_code == 0
    assert cdi("coalesce", *DAY).exit_code == 0
    assert cdi("pin", *DAY).exit_code == 0
    lost = next((home / "corporate").rglob("*.jsonl.gz"))
    content = lost.read_bytes()
    lost.unlink()
    assert cdi("coalesce", *DAY).exit_code == 0
    refused = cdi("pin", *DAY)
    assert refused.stderr.startswith("OFFSETS_LOST: ")
    assert lost.name in refused.stderr

    lost.write_bytes(content)
    back = cdi("pin", *DAY)
    assert back.stderr.startswith("COALESCER_UNKNOWN: ")
    assert "No offsets are missing" in back.stderr
    assert cdi("coalesce", *DAY).exit_code == 0
    assert cdi("pin", *DAY).exit_code == 0
