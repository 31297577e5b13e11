"""Resources are inert, and give assets the interface that the settings choose."""

from datetime import date

import dagster as dg
import pytest

from cdi_dagster.core.failures import FailureClass
from cdi_dagster.interfaces import CoalescerStatusSource, StatusTable
from cdi_dagster.resources.coalescer import CoalescerStatusResource
from cdi_dagster.resources.ingest_options import IngestOptions
from cdi_dagster.resources.roots import RootsResource
from cdi_dagster.resources.status import StatusTableResource
from cdi_dagster.resources.status_table import DynamoDbStatusTable, FileStatusTable
from cdi_dagster.storage.roots import Roots
from cdi_dagster_tests.collections import AUDIT


def _given_to_an_asset(tmp_path, **resources):
    given = {}

    @dg.asset
    def asks(
        roots: dg.ResourceParam[Roots],
        coalescer_status: dg.ResourceParam[CoalescerStatusSource],
        status_table: dg.ResourceParam[StatusTable],
    ) -> None:
        given.update(storage=roots.corporate, coalescer=coalescer_status, table=status_table)

    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        assert dg.materialize([asks], instance=instance, resources=resources).success
    return given


@pytest.mark.parametrize(
    ("table", "expected"), [({"kind": "file"}, FileStatusTable), ({"kind": "dynamodb"}, DynamoDbStatusTable)]
)
def test_assets_get_the_plain_objects_behind_the_resources_and_nothing_is_made(tmp_path, table, expected):
    root = (tmp_path / "corporate").as_uri()
    given = _given_to_an_asset(
        tmp_path,
        roots=RootsResource(corporate_root=root, published_root=root),
        coalescer_status=CoalescerStatusResource(corporate_root=root, published_root=root),
        status_table=StatusTableResource(folder=str(tmp_path / "status"), **table),
    )
    assert given["storage"].root == root
    assert not (tmp_path / "corporate").exists()
    given["storage"].write("corporate_storage/of_another_day", b"x")
    assert given["coalescer"].status(AUDIT.on(date(2023, 3, 26))).state == "NOT_STARTED"
    assert isinstance(given["table"], expected)
    assert not (tmp_path / "status").exists()


def test_key_service_arguments_name_only_what_is_set():
    plain = IngestOptions(dks_url="http://127.0.0.1:1")
    assert plain.key_service.arguments() == ("--dks-url", "http://127.0.0.1:1", "--dks-retry-budget-seconds", "120")
    mutual = IngestOptions(dks_url="https://dks", dks_ca="/ca", dks_certificate="/cert", dks_private_key="/key")
    assert mutual.key_service.arguments()[2:8] == (
        *("--dks-ca", "/ca"),
        *("--dks-certificate", "/cert"),
        *("--dks-private-key", "/key"),
    )


def test_every_failure_class_has_its_place_in_the_runbook():
    options = IngestOptions(dks_url="http://127.0.0.1:1", runbook_url="https://docs/runbook")
    assert options.runbook_link(FailureClass.INPUT_CHANGED) == "https://docs/runbook#input_changed"
