"""A bundle of other code than the code location's is refused when that is loaded, with the commands that fix it."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

import cdi_dagster
from cdi_dagster.bundle.source_digest import source_digest, why_not_this_code
from cdi_dagster.definitions import build_definitions
from cdi_dagster.settings import load_settings


@pytest.mark.parametrize("name", ["0123abcd-0123456789abcdef", "0123456789abcdef", "b1"])
def test_a_bundle_of_other_code_is_refused_at_load(tmp_path: Path, name: str) -> None:
    settings = load_settings(
        home=tmp_path,
        deployment="emr",
        first_storage_day="2023-01-01",
        corporate_root="s3://corporate",
        published_root="s3://published",
        dks_url="https://dks",
        emr_bundle_uri=f"s3://bucket/bundles/{name}",
    )
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="is a bundle of other code") as refused:
        build_definitions(settings=settings)
    assert "make bundle" in str(refused.value)
    assert f"cdi deploy --to s3://bucket/bundles dist/bundle/{source_digest()}-" in str(refused.value)


def test_the_digest_is_of_what_a_bundle_holds_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = source_digest()
    copy = tmp_path / "cdi_dagster"
    shutil.copytree(Path(cdi_dagster.__file__).parent, copy)
    monkeypatch.setattr(cdi_dagster, "__file__", str(copy / "__init__.py"))
    assert source_digest() == before

    (copy / "settings.py").write_text("")
    (copy / "core" / "__pycache__").mkdir(exist_ok=True)
    (copy / "core" / "__pycache__" / "days.cpython-311.pyc").write_bytes(b"compiled")
    assert source_digest() == before
    for shipped in ("core/days.py", "spark/log4j2.json", "bundle/bootstrap.sh", "__init__.py"):
        (copy / shipped).write_text("changed")
        changed = source_digest()
        assert changed != before, shipped
        before = changed
    assert why_not_this_code(f"s3://bucket/bundles/{changed}-0123456789abcdef") is None
