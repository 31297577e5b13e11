"""Tables: one launch for whatever is selected, and only of published daily records."""

import dagster as dg

from cdi_dagster.ingestion.ingestion_lease import ingestion_lease
from cdi_dagster.run_records import is_by_person
from cdi_dagster_tests.collections import AUDIT
from cdi_dagster_tests.dagster_day import DAY, argument, dagster_day, failure_of, metadata_of

TABLES = tuple(f"business_audit/auditlog_{name}" for name in ("raw", "managed", "sec_v", "red_v"))
RECORDS = ("corporate_storage/business_audit", "business_audit/daily_records")


def test_all_tables_are_one_launch(day):
    day.put_object("0_9")
    result = day.run()
    assert argument(day.spark.launched[-1], "--tables") == "auditlog_raw,auditlog_managed,auditlog_sec_v,auditlog_red_v"
    metadata = metadata_of(result, "business_audit/auditlog_managed")
    assert (metadata["dagster/row_count"], metadata["date_str"]) == (10, "2023-03-27")
    assert metadata["dagster/table_name"] == "uc_dw_auditlog.auditlog_managed"


def test_what_another_definition_made_has_another_version(day, tmp_path):
    day.put_object("0_9")
    shipped = AUDIT.tables
    mine = tmp_path / "mine.json"
    mine.write_bytes(shipped.text.replace(b"Id of the audit message", b"Id"))
    first = _versions(day.run())
    with dagster_day(tmp_path, table_definitions={AUDIT.id: str(mine)}) as changed:
        changed.put_object("0_9")
        second = _versions(changed.run(*TABLES))
    assert first != second
    assert {code for code, _ in first.values()} == {shipped.sha256[:12]}
    assert all(data.endswith(f"-{code}") for code, data in [*first.values(), *second.values()])


def test_a_selection_launches_only_what_is_selected(day):
    day.put_object("0_9")
    assert day.run(*RECORDS).success
    result = day.run("business_audit/auditlog_raw", "business_audit/auditlog_red_v")
    assert result.success
    assert argument(day.spark.launched[-1], "--tables") == "auditlog_raw,auditlog_red_v"
    assert len(result.get_asset_materialization_events()) == 2


def test_without_daily_records_it_says_what_to_materialise_first(day):
    failure = failure_of(day.run("business_audit/auditlog_raw"))
    assert failure["failure_class"] == "INPUT_INVALID"
    assert "business_audit/daily_records" in failure["next_step"]
    assert day.spark.launched == []


def test_a_table_that_the_report_does_not_name_is_not_materialised(day):
    day.put_object("0_9")
    day.spark.unreported_tables = ("auditlog_managed",)
    result = day.run()
    failure = failure_of(result)
    assert failure["failure_class"] == "COUNTS_DO_NOT_RECONCILE"
    assert "auditlog_managed" in failure["cause"]
    assert day.rows.writes[-1].status == "FAILED"


def test_the_row_of_records_alone_is_completed_when_the_tables_show_them(day):
    day.put_object("0_9")
    records = day.run(*RECORDS)
    assert _status(day, records) == "IN_PROGRESS"
    some = day.run(*TABLES[:2])
    assert (_status(day, records), _status(day, some)) == ("IN_PROGRESS", "COMPLETED")
    assert day.run(*TABLES[2:]).success
    assert _status(day, records) == "COMPLETED"
    # The same records again: the tables show them.
    assert _status(day, day.run(*RECORDS)) == "COMPLETED"


def test_tables_are_not_published_beside_an_ingestion_of_the_day(day):
    day.put_object("0_9")
    assert day.run(*RECORDS).success
    with ingestion_lease(day.published, AUDIT.on(DAY), holder="cdi ingest", lease_seconds=2):
        failure = failure_of(day.run(*TABLES))
    assert failure["failure_class"] == "DUPLICATE_RUN"
    assert [step.name for step in day.spark.launched] == ["ingest_daily"]


def test_a_run_for_tables_stops_where_another_has_made_them_since_it_was_requested_and_a_persons_does_not(
    day, monkeypatch
):
    day.put_object("0_9")
    assert day.run().success
    by_sensor = {"cdi/launched_by": "sensor"}
    assert day.run(*TABLES, tags=by_sensor).success  # whatever it was launched for, nobody else has done it

    def lease_after_another_run(*arguments, **options):
        for name in TABLES:
            made = dg.AssetMaterialization(dg.AssetKey.from_user_string(name), partition=str(DAY))
            day.instance.report_runless_asset_event(made)
        return ingestion_lease(*arguments, **options)

    monkeypatch.setattr("cdi_dagster.assets.tables.ingestion_lease", lease_after_another_run)
    failure = failure_of(day.run(*TABLES, tags=by_sensor))
    assert failure["failure_class"] == "DUPLICATE_RUN"
    assert "show its records already" in failure["cause"]
    assert day.run(*TABLES).success
    copied = {"cdi/launched_by": "sensor"}  # by a re-execution, from its parent
    assert is_by_person(dg.DagsterRun(job_name="j", tags=copied, parent_run_id="r", root_run_id="r"))


def _status(day, result):
    return day.rows.get(result.run_id, "CDI-data:businessAudit").status


def _versions(result):
    """Return the code version and the data version of each table that a run materialised."""
    assert result.success
    tags = {e.asset_key.to_user_string(): e.materialization.tags for e in result.get_asset_materialization_events()}
    return {name: (tags[name]["dagster/code_version"], tags[name]["dagster/data_version"]) for name in TABLES}
