"""Tables: one launch for whatever is selected, and only of published daily records."""

from cdi_dagster_tests.dagster_day import argument, failure_of, metadata_of

RECORDS = ("corporate_storage/business_audit", "business_audit/daily_records")


def test_all_tables_are_one_launch(day):
    day.put_object("0_9")
    result = day.run()
    assert argument(day.spark.launched[-1], "--tables") == "auditlog_raw,auditlog_managed,auditlog_sec_v,auditlog_red_v"
    metadata = metadata_of(result, "business_audit/auditlog_managed")
    assert (metadata["rows"], metadata["date_str"]) == (10, "2023-03-27")
    assert metadata["dagster/table_name"] == "uc_dw_auditlog.auditlog_managed"


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
