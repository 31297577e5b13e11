"""What Spark logs on a cluster quotes no row: driver and executor, each a JVM of its own, log by our pattern."""

from pathlib import Path

import pytest

from cdi_dagster.emr.clusters.template import JAVA_OPTIONS
from cdi_dagster_tests.emr import quoting_step
from cdi_dagster_tests.emr.launches import Bench

pytestmark = pytest.mark.spark


def test_a_row_that_fails_on_the_cluster_is_in_no_log(bench: Bench) -> None:
    bench.run_spark(Path(quoting_step.__file__), master="local-cluster[1,1,1024]")
    launched = bench.launch((), conf={"spark.executor.extraJavaOptions": "-Dof.the.installation=kept"})

    assert launched.failure is not None
    [cluster] = bench.emr.clusters.values()
    arguments = cluster.request["Steps"][0]["HadoopJarStep"]["Args"]
    pattern = "-Dlog4j2.configurationFile=file:///opt/cdi/log4j2.json"
    given = {name: value for name, _, value in (a.partition("=") for a in arguments) if name in JAVA_OPTIONS}
    assert given == dict(zip(JAVA_OPTIONS, (pattern, f"{pattern} -Dof.the.installation=kept"), strict=True))

    logs = bench.logs()
    executor = next(text for path, text in logs.items() if path.endswith("/0/stderr"))
    driver = next(text for path, text in logs.items() if "/steps/" in path and path.endswith("/stderr.gz"))
    assert "-Dof.the.installation=kept" in executor
    assert "Lost task" in driver
    assert "RuntimeException" in driver
    assert "Exception in task" in executor
    assert "\tat org.apache.spark." in executor
    assert [path for path, text in logs.items() if "Wolpertinger" in text] == []
    assert "Wolpertinger" not in launched.text + str(launched.failure.to_json())
