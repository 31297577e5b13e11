"""What the top of the package offers: three calls, typed, that cost nothing until they are used."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

import cdi_dagster
from cdi_dagster import reading
from cdi_dagster.core.failures import CdiError


def test_the_package_offers_the_three_calls_and_nothing_else() -> None:
    assert sorted(cdi_dagster.__all__) == sorted(reading.__all__) == ["pinned_input", "publication", "tables"]
    for name in cdi_dagster.__all__:
        assert getattr(cdi_dagster, name) is getattr(reading, name)
    with pytest.raises(AttributeError, match="no attribute 'pin'"):
        cdi_dagster.pin  # noqa: B018


def test_a_type_checker_sees_them() -> None:
    stub = Path(cdi_dagster.__file__).with_name("__init__.pyi").read_text()
    assert f"import {', '.join(reading.__all__)}" in stub
    assert Path(cdi_dagster.__file__).with_name("py.typed").exists()


def test_importing_the_package_imports_nothing_but_the_standard_library() -> None:
    program = "import sys, cdi_dagster; print(*(name.partition('.')[0] for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True).stdout
    assert set(loaded.split()) - sys.stdlib_module_names - {"__main__"} == {"cdi_dagster"}


def test_of_a_day_that_is_not_there_each_call_gives_nothing(tmp_path: Path) -> None:
    root = tmp_path.as_uri()
    for call, nothing in ((reading.pinned_input, None), (reading.publication, None), (reading.tables, ())):
        assert call("data:businessAudit", "2023-03-26", published_root=root) == nothing
        assert call("data:businessAudit", date(2023, 3, 26), published_root=root) == nothing
    assert list(tmp_path.iterdir()) == []


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        reading.publication("data:businessAudit", "26/03/2023", published_root="file:///nowhere")
    with pytest.raises(CdiError):
        reading.publication("no collection", "2023-03-26", published_root="file:///nowhere")
