"""The runbook's section of a failure class as Markdown, for the page of a run: there no link has to work."""

import re
from functools import cache
from pathlib import Path

import cdi_dagster
from cdi_dagster.core.failures import FAILURE_GUIDE, FailureClass

_PAGE = Path("docs", "runbook.md")
_FOLDERS = (Path(cdi_dagster.__file__).parent.parent, Path())  # a checkout; else below the current folder, as installed
_BY_ITSELF = re.compile(r"^(- \*\*By itself\*\*: ).*?\n(?=- |\Z)", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")


def runbook_section(failure_class: FailureClass, by_itself: str) -> str:
    """Return the section of the runbook, without its links; where there is no runbook, what the class means.

    Args:
        failure_class: whose section.
        by_itself: what happens by itself after this failure; where that is not the rule, it stands in its place.
    """
    section = _sections().get(failure_class) or _from_guide(failure_class)
    if by_itself == FAILURE_GUIDE[failure_class].by_itself:
        return section
    return _BY_ITSELF.sub(lambda found: f"{found[1]}{by_itself}\n", section)


@cache
def _sections() -> dict[str, str]:
    page = next((page for folder in _FOLDERS if (page := folder / _PAGE).is_file()), None)
    if page is None:
        return {}
    text = page.read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$|^---$", text, flags=re.MULTILINE)
    bodies = zip(parts[1::2], parts[2::2], strict=True)
    return {title: _LINK.sub(r"\1", body).strip() for title, body in bodies if title}


def _from_guide(failure_class: FailureClass) -> str:
    guidance = FAILURE_GUIDE[failure_class]
    lines = (guidance.meaning, "", f"- **By itself**: {guidance.by_itself}", f"- **You**: {guidance.next_step}")
    return "\n".join([*lines, f"- **Owner**: {guidance.owner}."])
