"""How an attempt is requested once, whatever happens to the response, and how its end is made certain."""

from dataclasses import replace

from cdi_dagster.core.failures import CdiError, FailureClass, StepMayGoOnError
from cdi_dagster.emr.backend import (
    Compute,
    Demand,
    JobRequest,
    LaunchContext,
    NoCapacityError,
    RefusedError,
    ResponseLostError,
    ThrottledError,
    UnreachableError,
)
from cdi_dagster.emr.launch_plan import AttemptOutcome
from cdi_dagster.emr.ledger import AttemptEntry
from cdi_dagster.emr.step_outcome import AttemptEnd, refused

_TRIES = 6
_LOOK_UPS = 3
_FIRST_WAIT_SECONDS = 5
_END_POLLS = 20


def submit_once(
    context: LaunchContext, attempt: AttemptEntry, job: JobRequest, *, may_exist: bool
) -> AttemptEntry | AttemptEnd:
    """Send the request until it was accepted or refused, and never again while it may have been accepted.

    Args:
        context: the backend and the clock.
        attempt: what is requested; it is in the ledger already.
        job: what is to run.
        may_exist: an earlier process may have sent the request already.

    Returns:
        The attempt with its `compute_id` and that one's profile, or its end where the request was refused.

    Raises:
        CdiError: LAUNCH_FAILED where it may have been accepted and the backend cannot be queried.
    """
    why, was_lost = "", False
    for number in range(_TRIES):
        if may_exist and (found := _look_up(context, attempt)):
            return found
        may_exist = False
        try:
            compute = context.backend.submit(attempt, job)
        except RefusedError as error:
            return refused(str(error), for_capacity=isinstance(error, NoCapacityError))
        except ThrottledError as error:
            why = f"EMR throttled the request ({error})"
            context.log(f"{why}; retrying the request")
        except ResponseLostError as error:
            why, may_exist, was_lost = f"EMR's response was lost ({error})", True, True
            context.log(f"{why}; looking for {attempt.name} before anything else is requested")
        else:
            if compute.was_there:
                context.log(f"{attempt.name} takes {compute.compute_id}, which is there; nothing is started")
            # What was lost before may show only now, and this one beside it: the older is kept.
            return (_look_up(context, attempt) if was_lost else None) or _on(attempt, compute)
        context.sleep(_FIRST_WAIT_SECONDS * 2**number)
    if may_exist and (found := _look_up(context, attempt)):
        return found
    cause = f"EMR did not accept the request in {_TRIES} tries: {why}."
    return AttemptEnd(outcome=AttemptOutcome.INTERNAL, failure=CdiError(FailureClass.LAUNCH_FAILED, cause))


def find_submitted(context: LaunchContext, attempt: AttemptEntry) -> AttemptEntry | None:
    """Look several times for what was started for an attempt: it shows in EMR's lists seconds later.

    Of several, which a lost response may lead to, the oldest is kept and the others are ended.

    Raises:
        UnreachableError: the last query failed, so it is not known.
    """
    for number in range(_LOOK_UPS):
        if number:
            context.sleep(_FIRST_WAIT_SECONDS * 2)
        try:
            found = [_on(attempt, compute) for compute in context.backend.find(attempt)]
            for surplus in found[1:]:
                context.log(f"Ending {_where(context, surplus)}: a second one of the name {attempt.name}")
                context.backend.end(surplus)
        except UnreachableError:
            if number == _LOOK_UPS - 1:
                raise
            continue
        if found:
            return found[0]
    return None


def end_attempt(context: LaunchContext, attempt: AttemptEntry, demand: Demand | None = None) -> bool:
    """End the job if it goes on, then give up what it ran on; return whether that is known to be done.

    Without a demand what it ran on is ended, too. Polls until it is.
    """
    where = _where(context, attempt)
    for _ in range(_END_POLLS):
        try:
            if not context.backend.observe(attempt).is_ended:
                context.log(f"Ending {attempt.name} on {where}")
                context.backend.end(attempt)
            elif context.backend.release(attempt, demand or Demand()):
                return True
        except UnreachableError as error:
            context.log(f"EMR did not respond to ending {attempt.name} on {where}, retrying: {error}")
        context.sleep(context.timings.poll_interval_seconds)
    return False


def _look_up(context: LaunchContext, attempt: AttemptEntry) -> AttemptEntry | None:
    try:
        found = find_submitted(context, attempt)
    except UnreachableError as error:
        # To send the request again without knowing could pay for two.
        raise StepMayGoOnError(
            FailureClass.LAUNCH_FAILED,
            f"EMR may have started {attempt.name}, and does not respond whether it did: {error}",
            next_step="Fix what the cause names, then re-execute this run from failure: it looks for it first.",
        ) from error
    if found is not None:
        context.log(f"Found {attempt.name} on {_where(context, found)}: the request had been accepted")
    return found


def _on(attempt: AttemptEntry, compute: Compute) -> AttemptEntry:
    return replace(attempt, compute_id=compute.compute_id, profile=compute.profile)


def _where(context: LaunchContext, attempt: AttemptEntry) -> str:
    return context.backend.describe(attempt).where
