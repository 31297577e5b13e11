"""Every way a launch goes, and what the operator sees of it: unmodified boto3 over HTTP against the emulated EMR."""

import pytest

from cdi_dagster.core.failures import FailureClass
from cdi_dagster_tests.emr.cluster import ClusterFaults
from cdi_dagster_tests.emr.launches import BUNDLE, Bench

pytestmark = pytest.mark.slow  # each test has clusters of its own, whose steps are real processes

OK = ("progress:1 of 2 objects", "report")


def test_a_step_that_reports_and_completes_is_a_success(bench: Bench) -> None:
    launched = bench.launch(OK)
    assert launched.evidence is not None
    assert launched.evidence.report["totals"] == {"read": 3}
    [attempt] = launched.evidence.attempts
    [cluster] = bench.emr.clusters.values()
    assert attempt.where == f"small, cluster {cluster.cluster_id}"
    assert attempt.link is not None
    assert attempt.link.endswith(f"#/clusterDetails/{cluster.cluster_id}")
    assert "1 of 2 objects" in launched.logged
    assert launched.evidence.log_location.startswith(f"s3://{bench.bucket}/emr/{cluster.cluster_id}/steps/s-")
    tags = {tag["Key"]: tag["Value"] for tag in cluster.request["Tags"]}
    assert tags == {
        "cdi:product": "cdi_dagster",
        "cdi:collection": "data:businessAudit",
        "cdi:storage_day": "2023-03-26",
        "cdi:step": "ingest_daily",
        "cdi:run_id": launched.run_id,
        "cdi:correlation_id": launched.run_id,
        "cdi:profile": "small",
        "cdi:made_of": tags["cdi:made_of"],
    }
    assert cluster.request["Name"] == f"cdi-data.businessAudit-2023-03-26-ingest_daily-{launched.run_id[:8]}-a1"
    # Nothing else needs it: it does not idle.
    assert cluster.reason_code == "USER_REQUEST"
    assert cluster.request["AutoTerminationPolicy"] == {"IdleTimeout": 300}
    assert cluster.steps[0].request["ActionOnFailure"] == "CONTINUE"


def test_the_first_profile_is_chosen_by_the_days_bytes(bench: Bench) -> None:
    assert bench.launch(OK, input_bytes=1500).attempts == [("medium", "SUCCEEDED")]


def test_without_capacity_the_next_profile_is_tried(bench: Bench) -> None:
    bench.emr.faults.no_capacity |= {"s1.x": "fail", "s2.x": "fail"}
    launched = bench.launch(OK)
    assert launched.attempts == [("small", "NO_CAPACITY"), ("medium", "SUCCEEDED")]
    assert bench.waits() == [30]
    assert "The next attempt takes profile medium" in launched.text


def test_a_cluster_stuck_in_starting_is_ended_before_the_next_is_tried(bench: Bench) -> None:
    bench.emr.faults.no_capacity |= {"s1.x": "hang", "s2.x": "hang"}
    launched = bench.launch(OK, start_deadline_seconds=4)
    assert launched.attempts == [("small", "NO_CAPACITY"), ("medium", "SUCCEEDED")]
    stuck, next_one = bench.emr.clusters.values()
    assert stuck.ending_at is not None
    assert stuck.ending_at < next_one.created_at
    assert "still STARTING" in launched.text


def test_while_the_last_cluster_is_not_known_to_be_ending_no_other_is_started(bench: Bench) -> None:
    bench.emr.faults.no_capacity |= {"s1.x": "hang", "s2.x": "hang"}
    bench.emr.faults.deaf = True
    launched = bench.launch(OK, start_deadline_seconds=4)
    [cluster] = bench.emr.live()
    assert launched.attempts == [("small", "NO_CAPACITY")]
    assert launched.failure is not None
    assert f"Terminate cluster {cluster.cluster_id} by hand" in launched.failure.next_step
    assert list(bench.emr.clusters) == [cluster.cluster_id]
    cluster.terminate("by hand", code="USER_REQUEST")
    bench.emr.wait(lambda: bench.emr.live() == [])


def test_bootstrap_actions_of_the_template_run_before_ours(bench: Bench) -> None:
    script = 'set -e; [ ! -e "$CDI_PREFIX/entry_points" ]; echo "proxy for $1"'
    bench.emr.client("s3").put_object(Bucket=bench.bucket, Key="platform/proxy.sh", Body=script.encode())
    path = f"s3://{bench.bucket}/platform/proxy.sh"
    with (bench.folder / "cluster.yaml").open("a") as template:
        template.write(
            f"bootstrap_actions: [{{Name: proxy, ScriptBootstrapAction: {{Path: '{path}', Args: [tests]}}}}]\n"
        )
    assert bench.launch(OK).evidence is not None
    [cluster] = bench.emr.clusters.values()
    assert [action["Name"] for action in cluster.request["BootstrapActions"]] == ["proxy", "install the bundle"]
    assert (cluster.folder / "node/i-0/bootstrap-actions/1/stdout").read_text() == "proxy for tests\n"


def test_a_bootstrap_failure_is_tried_again_once(bench: Bench) -> None:
    bench.emr.faults.clusters.append(ClusterFaults(bootstrap=True))
    assert bench.launch(OK).attempts == [("small", "BOOTSTRAP"), ("small", "SUCCEEDED")]


def test_a_second_bootstrap_failure_stops_and_shows_its_log(bench: Bench) -> None:
    bench.emr.client("s3").put_object(
        Bucket=bench.bucket, Key=f"bundles/{BUNDLE}/bootstrap.sh", Body=b"echo no such bundle >&2; exit 1"
    )
    launched = bench.launch(OK)
    assert launched.attempts == [("small", "BOOTSTRAP")] * 2
    assert launched.failure is not None
    assert launched.failure.failure_class is FailureClass.BOOTSTRAP_FAILED
    assert "no such bundle" in launched.failure.detail["last_log_lines"]
    assert "After 2 attempts" in launched.failure.cause


def test_an_internal_error_is_tried_again_on_the_same_profile(bench: Bench) -> None:
    bench.emr.faults.clusters += [ClusterFaults(internal=True)] * 2
    assert bench.launch(OK).attempts == [("small", "INTERNAL"), ("small", "INTERNAL"), ("small", "SUCCEEDED")]
    assert bench.waits() == [30, 60]


def test_a_cluster_lost_under_a_running_step_is_replaced(bench: Bench) -> None:
    bench.emr.faults.clusters.append(ClusterFaults(lose_instance_after=0.3))
    launched = bench.launch(("wait:/nowhere",), OK)
    assert launched.attempts == [("small", "INSTANCE_LOST"), ("small", "SUCCEEDED")]


def test_a_step_killed_for_memory_climbs_the_ladder(bench: Bench) -> None:
    bench.emr.faults.clusters.append(ClusterFaults(kill_step_after=0.3))
    launched = bench.launch(("wait:/nowhere",), ("stderr:java.lang.OutOfMemoryError: Java heap space", "exit:1"), OK)
    assert launched.attempts == [("small", "OUT_OF_MEMORY"), ("medium", "OUT_OF_MEMORY"), ("large", "SUCCEEDED")]
    assert launched.evidence is not None
    assert launched.evidence.attempts[0].detail["estimated_instance_hours"] >= 0


def test_a_log_that_was_copied_before_the_step_was_killed_is_not_the_log_of_its_end(bench: Bench) -> None:
    bench.emr.faults.clusters.append(ClusterFaults(copy_logs_after=0.1, kill_step_after=1.5, log_late_seconds=3))
    launched = bench.launch(("wait:/nowhere",), OK, log_wait_seconds=3_000)
    assert launched.attempts == [("small", "OUT_OF_MEMORY"), ("medium", "SUCCEEDED")]


def test_a_job_that_only_knows_that_its_jvm_is_gone_climbs_the_ladder_where_its_log_says_why(bench: Bench) -> None:
    killed = "stderr:Process 4711 exited with code 137"
    launched = bench.launch((killed, "failure:CLUSTER_LOST"), ("failure:CLUSTER_LOST",), OK)
    assert launched.attempts == [("small", "OUT_OF_MEMORY"), ("medium", "INSTANCE_LOST"), ("medium", "SUCCEEDED")]


def test_a_404_from_spark_goes_to_the_gate_and_not_to_another_cluster(bench: Bench) -> None:
    words = "stderr:AmazonS3Exception: Not Found (Service: Amazon S3; Status Code: 404)"
    launched = bench.launch((words, "exit:1"))
    assert launched.failure is not None
    assert launched.failure.failure_class is FailureClass.INPUT_CHANGED
    assert launched.attempts == [("small", "JOB")]


def test_input_that_changed_by_the_jobs_own_report_goes_to_the_gate(bench: Bench) -> None:
    launched = bench.launch(("failure:INPUT_CHANGED",))
    assert launched.failure is not None
    assert launched.failure.failure_class is FailureClass.INPUT_CHANGED
    assert len(bench.emr.clusters) == 1


def test_a_bug_in_the_job_stops_with_the_last_lines_scrubbed(bench: Bench) -> None:
    key = "kQ2vX9pLm3RtY7wZ1aBc5dEf8gHj0KsN"
    launched = bench.launch((f"stderr:decrypting with {key}", "stderr:ZeroDivisionError: division by zero", "exit:1"))
    assert launched.failure is not None
    assert launched.failure.failure_class is FailureClass.JOB_FAILED
    assert "ZeroDivisionError: division by zero" in launched.failure.cause
    assert "ZeroDivisionError" in launched.failure.detail["last_log_lines"]
    assert key not in str(launched.failure.to_json()) + launched.text
    assert launched.failure.detail["no_other_attempt"] == "another attempt does not fix JOB"


def test_a_refused_request_stops_and_repeats_emrs_message(bench: Bench) -> None:
    bench.emr.faults.reject["RunJobFlow"] = ("ValidationException", "Invalid InstanceProfile: profile.")
    launched = bench.launch(OK)
    assert launched.failure is not None
    assert launched.failure.failure_class is FailureClass.LAUNCH_FAILED
    assert "Invalid InstanceProfile: profile." in launched.failure.cause
    assert bench.emr.clusters == {}


def test_a_cluster_that_emr_cannot_validate_stops_too(bench: Bench) -> None:
    bench.emr.faults.clusters.append(ClusterFaults(validation="The subnet does not exist"))
    launched = bench.launch(OK)
    assert launched.attempts == [("small", "REJECTED")]


@pytest.mark.parametrize("operation", ["RunJobFlow", "DescribeCluster"])
def test_throttling_is_waited_out(bench: Bench, operation: str) -> None:
    bench.emr.faults.throttle[operation] = 2
    assert bench.launch(OK).attempts == [("small", "SUCCEEDED")]
    assert len(bench.emr.clusters) == 1


@pytest.mark.parametrize("unlisted", [0, 2])
def test_a_lost_response_is_looked_up_and_not_requested_again(bench: Bench, unlisted: int) -> None:
    bench.emr.page_size = 1
    bench.emr.faults.lose_answer.append("RunJobFlow")
    bench.emr.faults.unlisted = unlisted
    launched = bench.launch(OK)
    assert launched.attempts == [("small", "SUCCEEDED")]
    assert len(bench.emr.clusters) == 1
    assert bench.emr.calls["RunJobFlow"] == 1
    assert "the request had been accepted" in launched.text


def test_a_cluster_that_emr_lists_only_after_a_second_was_requested_is_kept_alone(bench: Bench) -> None:
    bench.emr.start_seconds = 6.0
    bench.emr.faults.lose_answer.append("RunJobFlow")
    bench.emr.faults.unlisted = 3
    launched = bench.launch(OK)
    kept, surplus = bench.emr.clusters.values()
    assert launched.evidence is not None
    assert launched.evidence.cluster_id == kept.cluster_id
    assert surplus.reason_code == "USER_REQUEST"
    assert "RUNNING" not in surplus.states


def test_a_cluster_ended_in_the_console_is_not_started_again(bench: Bench) -> None:
    bench.emr.faults.clusters.append(ClusterFaults(console_kill_after=0.3))
    launched = bench.launch(("wait:/nowhere",))
    assert launched.attempts == [("small", "ENDED_BY_SOMEONE")]
    assert launched.failure is not None
    assert launched.failure.failure_class is FailureClass.CLUSTER_LOST


def test_a_job_over_the_deadline_is_ended(bench: Bench) -> None:
    launched = bench.launch(("progress:working", "wait:/nowhere"), run_deadline_seconds=1.5)
    assert launched.attempts == [("small", "DEADLINE")]
    assert launched.failure is not None
    assert "the budget of a run" in launched.failure.cause


def test_a_key_service_that_is_down_then_up_costs_one_more_attempt(bench: Bench) -> None:
    launched = bench.launch(("progress:first try", "failure:DKS_UNAVAILABLE"), ("progress:second try", "report"))
    assert launched.attempts == [("small", "KEY_SERVICE"), ("small", "SUCCEEDED")]
    assert bench.waits() == [120]
    assert launched.text.count("first try") == 1


def test_a_job_that_completes_without_a_report_is_no_success(bench: Bench) -> None:
    launched = bench.launch(("progress:almost",))
    assert launched.failure is not None
    assert launched.failure.failure_class is FailureClass.JOB_FAILED
    assert "no closing report arrived" in launched.failure.cause


def test_a_report_that_does_not_add_up_is_no_success(bench: Bench) -> None:
    launched = bench.launch(("bad-report",))
    assert launched.failure is not None
    assert launched.failure.failure_class is FailureClass.COUNTS_DO_NOT_RECONCILE


def test_what_the_job_prints_is_on_the_run_page_live(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.launch(("stderr:hello from the cluster", "report"), live_stdio=True)
    assert "hello from the cluster" in capfd.readouterr().err


def test_a_step_is_added_to_an_existing_cluster_which_stays(bench: Bench) -> None:
    client = bench.emr.client("emr")
    types = [{"InstanceFleetType": "MASTER", "InstanceTypeConfigs": [{"InstanceType": "m5.xlarge"}]}]
    cluster_id = client.run_job_flow(
        Name="somebody's",
        LogUri=f"s3://{bench.bucket}/emr",
        Instances={"KeepJobFlowAliveWhenNoSteps": True, "InstanceFleets": types},
        BootstrapActions=[
            {
                "Name": "bundle",
                "ScriptBootstrapAction": {
                    "Path": f"s3://{bench.bucket}/bundles/{BUNDLE}/bootstrap.sh",
                    "Args": [f"s3://{bench.bucket}/bundles/{BUNDLE}"],
                },
            }
        ],
    )["JobFlowId"]
    assert bench.launch(OK, existing_cluster_id=cluster_id).attempts == [("existing", "SUCCEEDED")]
    late = bench.launch(("wait:/nowhere",), ("wait:/nowhere",), existing_cluster_id=cluster_id, run_deadline_seconds=1)
    assert late.attempts == [("existing", "DEADLINE")]
    bench.emr.wait(lambda: bench.emr.clusters[cluster_id].state == "WAITING")
    client.terminate_job_flows(JobFlowIds=[cluster_id])
    bench.emr.wait(lambda: bench.emr.live() == [])
