"""A real Dagster that drives emulated EMR: a person ends a run, a run worker dies; what becomes of their clusters."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import cdi_dagster
from cdi_dagster.core.storage_keys import ingestion_lease_key
from cdi_dagster.published.read import read_mark
from cdi_dagster_tests.collections import EQUALITY
from cdi_dagster_tests.emr.launches import DAY, Bench
from cdi_dagster_tests.emr.operator import Operator, operator_of

pytestmark = [pytest.mark.daemon, pytest.mark.kill, pytest.mark.spark, pytest.mark.timeout(1800)]
ENTRY_POINT = Path(cdi_dagster.__file__).parent / "spark" / "entry_points" / "ingest_daily.py"


@pytest.fixture
def operator(bench: Bench) -> Iterator[Operator]:
    bench.run_spark(ENTRY_POINT, master="local[2]")
    with operator_of(bench, [DAY, DAY + timedelta(days=1)]) as operator:
        yield operator


def test_terminating_a_run_ends_its_cluster_and_one_whose_worker_is_killed_or_whose_step_ends_is_left_to_the_next(
    operator: Operator,
) -> None:
    emr = operator.bench.emr
    operator.bench.hold_clusters()
    ended = operator.click(DAY)
    operator.wait_for_line(ended, "is BOOTSTRAPPING")
    operator.terminate(ended)
    assert operator.wait_for_end(ended) == "CANCELED"
    [cluster] = emr.clusters.values()
    emr.wait(lambda: cluster.has_ended)
    assert cluster.reason_code == "USER_REQUEST"

    next_day = DAY + timedelta(days=1)
    lost = operator.click(next_day)
    operator.wait_for_line(lost, "is BOOTSTRAPPING")
    operator.kill_worker(lost)
    # Run monitoring notices it; until then the day has a live run, and another would stop as its duplicate.
    assert operator.wait_for_end(lost) == "FAILURE"
    [cluster] = emr.live()
    # Its lease of the day runs out in a minute, which the test does not wait for.
    operator.published.delete([ingestion_lease_key(EQUALITY.on(next_day))])
    after = operator.click(next_day)
    operator.wait_for_line(after, "resuming its attempt 1")
    operator.bench.let_clusters_go()
    assert operator.wait_for_end(after) == "SUCCESS"
    mark = read_mark(operator.published, EQUALITY.on(next_day))
    assert mark is not None
    assert mark.published == 50
    assert list(emr.clusters)[1:] == [cluster.cluster_id]
    assert read_mark(operator.published, EQUALITY.on(DAY)) is None

    # Two days at once, of which the pool lets one be ingested at a time: the second takes the cluster of the first.
    emr.idle_scale = 1.0
    both = [operator.click(storage_day) for storage_day in (DAY, next_day)]
    assert [operator.wait_for_end(run_id) for run_id in both] == ["SUCCESS"] * 2
    [_, _, shared] = emr.clusters.values()
    assert [step.state for step in shared.steps] == ["COMPLETED"] * 2
    assert shared.reason == "Terminated by user request"
