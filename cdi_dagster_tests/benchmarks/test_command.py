"""The benchmark from end to end, at a size that says nothing of speed: chain, job and floor agree, or it says so."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import command
from benchmarks.contenders import Contender
from cdi_dagster_tests.benchmarks.test_figures import day_of, run_of


@pytest.mark.spark
@pytest.mark.timeout(1800)
def test_chain_job_and_floor_publish_the_same_of_a_day_with_broken_envelopes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--records", "400", "--objects", "3", "--bad-envelopes", "9", "--stage-records", "200"]
    assert command.main([*size, "--rounds", "1", "--json", "--folder", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    (runs,) = printed["cases"][0]["runs"]
    assert set(runs) == {"plain chain", "job", "floor"}
    for run in runs.values():
        assert (run["records"], sum(run["rejected"].values())) == (373, 27)
        assert run["cpu_seconds"] > 0
    assert printed["cases"][0]["ratios_to_job"]["plain chain"]["cpu"] > 0
    assert printed["stages_microseconds"]["engine"] > 0
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_differ_fail_the_benchmark() -> None:
    job = run_of(1)
    day = day_of(1)
    other = replace(job, rejected={"date": 1})
    with pytest.raises(command.OutputsDifferError, match="The plain chain and the job disagree"):
        command._require_equal(day, {Contender.JOB: job, Contender.CHAIN: other})
    with pytest.raises(command.OutputsDifferError, match="the day holds 1"):
        command._require_equal(day, {Contender.JOB: job, Contender.CHAIN: job})


def test_it_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--rounds", "0"])
    assert ended.value.code == 2
    assert "0 is not 1 or more" in capsys.readouterr().err
