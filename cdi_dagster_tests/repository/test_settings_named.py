"""A setting that a message or a page names exists, and the README's table has its true default."""

import re
from pathlib import Path

import pytest

from cdi_dagster.settings import PREFIX, Settings
from cdi_dagster_tests.repository.files import REPOSITORY

SETTINGS = {PREFIX + name.upper(): field for name, field in Settings.model_fields.items()}
BOOTSTRAP_ONLY = {"CDI_PREFIX", "CDI_PYTHON"}  # variables of a script of its own, for the image of a cluster
NAMED = re.compile(r"\bCDI_[A-Z0-9_]+")
TEXTS = sorted(
    path
    for pattern in ("cdi_dagster/**/*.py", "cdi_dagster/**/*.sh", "docs/**/*.md", "deploy/**/*.*", "*.md")
    for path in REPOSITORY.glob(pattern)
)


def test_every_setting_that_is_named_exists() -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in TEXTS
        for name in NAMED.findall(path.read_text(encoding="utf-8"))
        if name not in SETTINGS and not _is_shipped_script(path, name) and not _is_prefix(name)
    ]
    assert wrong == []
    assert sum(len(NAMED.findall(path.read_text(encoding="utf-8"))) for path in TEXTS) > 100


def _is_shipped_script(path: Path, name: str) -> bool:
    return path.suffix == ".sh" and name in BOOTSTRAP_ONLY


def _is_prefix(name: str) -> bool:
    """`CDI_DKS_…` stands for all that begin so."""
    return name.endswith("_") and any(setting.startswith(name) for setting in SETTINGS)


def _table_rows() -> list[tuple[str, str]]:
    section = (
        (REPOSITORY / "README.md").read_text(encoding="utf-8").partition("\n## Settings\n")[2].partition("\n## ")[0]
    )
    return re.findall(r"^\| (`CDI_.*?) \| (.*?) \|", section, flags=re.MULTILINE)


@pytest.mark.parametrize(("names", "default"), _table_rows())
def test_the_table_of_the_readme_has_the_true_default(names: str, default: str) -> None:
    for name in re.findall(r"`(CDI_[A-Z0-9_]+)`", names):
        value = SETTINGS[name].get_default(call_default_factory=True)
        code = re.fullmatch(r"`([^`]*)`", default)
        if code:
            assert code[1] == (str(value).lower() if isinstance(value, bool) else str(value)), name
        else:  # told in words, because it depends on the machine
            assert not value or "127.0.0.1" in str(value), name


def test_the_table_of_the_readme_is_read() -> None:
    assert len(_table_rows()) >= 10
