"""What a test shows of a run that failed says why."""

import dagster as dg

from cdi_dagster_tests.instance import lines_of_run


def test_the_line_of_a_failed_step_has_its_error_and_its_metadata() -> None:
    @dg.op
    def raises() -> None:
        raise ValueError("why")

    @dg.op
    def fails() -> None:
        raise dg.Failure("in vain", metadata={"failure_class": "WORKER_LOST"}, allow_retries=False)

    @dg.job(executor_def=dg.in_process_executor)
    def both() -> None:
        raises()
        fails()

    with dg.DagsterInstance.ephemeral() as instance:
        result = both.execute_in_process(instance=instance, raise_on_error=False)
        lines = lines_of_run(instance, result.run_id)
    [raised] = [line for line in lines if "raises" in line and "ValueError: why" in line]
    [failed] = [line for line in lines if "fails" in line and "in vain" in line]
    assert "in raises\n" in raised
    assert "failure_class: WORKER_LOST" in failed
