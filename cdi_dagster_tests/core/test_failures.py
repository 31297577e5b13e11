"""Failures: a class, a cause, an owner and a next step, wherever they travel."""

import json
import pickle

import pytest

from cdi_dagster.core.failures import FAILURE_GUIDE, CdiError, FailureClass
from cdi_dagster.core.gate import CoalescerState, CoalescerStatus, require_open


@pytest.mark.parametrize("failure_class", list(FailureClass))
def test_every_class_says_what_it_means_and_what_to_do(failure_class: FailureClass) -> None:
    guidance = FAILURE_GUIDE[failure_class]
    for sentence in (guidance.meaning, guidance.by_itself, guidance.next_step, guidance.owner):
        assert sentence.strip()
    assert guidance.next_step in str(CdiError(failure_class, "Something happened."))


def test_a_failure_survives_json_pickle_and_a_log_line() -> None:
    error = CdiError(
        FailureClass.INPUT_CHANGED, "a/b.gz is gone.", next_step="Look there.", detail={"key": "a/b.gz", "offset": 7}
    )
    for copy in (CdiError.from_json(json.loads(json.dumps(error.to_json()))), pickle.loads(pickle.dumps(error))):
        assert copy.to_json() == error.to_json()
        assert str(copy) == str(error)
    read = CdiError.from_text(str(error))
    assert read is not None
    assert (read.failure_class, read.cause, read.next_step) == (error.failure_class, error.cause, error.next_step)


@pytest.mark.parametrize("text", ["", "Reading 3 objects", "INFO: well Next: go on", "INPUT_CHANGED: no next step"])
def test_other_text_is_no_failure(text: str) -> None:
    assert CdiError.from_text(text) is None


def test_a_class_of_a_newer_version_is_kept_in_words() -> None:
    error = CdiError.from_json({"failure_class": "NEW_TROUBLE", "cause": "It broke."})
    assert error.failure_class is FailureClass.JOB_FAILED
    assert error.cause == "NEW_TROUBLE: It broke."


@pytest.mark.parametrize(
    ("state", "failure_class"),
    [
        (CoalescerState.NOT_STARTED, FailureClass.COALESCER_NOT_STARTED),
        (CoalescerState.RUNNING, FailureClass.COALESCER_RUNNING),
        (CoalescerState.FAILED, FailureClass.COALESCER_FAILED),
        (CoalescerState.UNKNOWN, FailureClass.COALESCER_UNKNOWN),
        (CoalescerState.COMPLETE, None),
    ],
)
def test_only_complete_opens_the_gate(state: CoalescerState, failure_class: FailureClass | None) -> None:
    status = CoalescerStatus(state=state, reason="job abc, 42 min so far")
    if failure_class is None:
        require_open(status)
        return
    with pytest.raises(CdiError, match="job abc, 42 min so far") as caught:
        require_open(status)
    assert caught.value.failure_class is failure_class
