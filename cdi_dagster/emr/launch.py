"""One launch of a step: attempts, one after the other, until one succeeds or nothing more is to be tried.

Every decision is taken from the ledger, and written there before it is acted on; a process that takes over continues
where the last one was. What to try next is in `launch_plan`; who may continue with what, in `resume`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import dagster as dg

from cdi_dagster.core.failures import CdiError, FailureClass, StepMayGoOnError
from cdi_dagster.core.storage_keys import launch_prefix
from cdi_dagster.emr.attempt import AttemptFollower
from cdi_dagster.emr.backend import Demand, JobRequest, LaunchContext, UnreachableError
from cdi_dagster.emr.evidence import attempt_line, evidence_of, failure_with_attempts
from cdi_dagster.emr.launch_plan import BUDGETS, AttemptOutcome, GiveUp, first_choice, next_attempt
from cdi_dagster.emr.ledger import AttemptEntry, LaunchEntry, LaunchLedger
from cdi_dagster.emr.messages import StorageContextInjector, StorageMessageReader
from cdi_dagster.emr.resume import Requester, attempt_name, continues, resume, work_digest
from cdi_dagster.emr.step_outcome import AttemptEnd
from cdi_dagster.emr.submission import end_attempt, find_submitted, submit_once
from cdi_dagster.interfaces import LaunchEvidence, SparkStep
from cdi_dagster.step_messages import StepMessages
from cdi_dagster.storage.interface import Storage

_LEAVES_COMPUTE_WELL = (AttemptOutcome.SUCCEEDED, AttemptOutcome.JOB, AttemptOutcome.KEY_SERVICE)
"""The job ended by itself, and not for want of memory or instances: what it ran on can take another."""


class Launch:
    """Launches one step: `run` once; `abandon` where it was left by an error or a cancelled run."""

    def __init__(
        self,
        dagster_context: dg.AssetExecutionContext | dg.OpExecutionContext,
        step: SparkStep,
        *,
        requester: Requester,
        published: Storage,
        context: LaunchContext,
        live_stdio: bool,
    ) -> None:
        self._dagster_context = dagster_context
        self._step = step
        self._requester = requester
        self._published = published
        self._context = context
        self._backend = context.backend
        self._live_stdio = live_stdio
        self._prefix = launch_prefix(step.collection.on(step.storage_day), step.name)
        self._ledger = LaunchLedger(published, self._prefix)
        self._has_begun = False
        self._resumed_number: int | None = None
        self._keeps_budgets = False

    def run(self) -> LaunchEvidence:
        """Run the step to its end.

        Raises:
            CdiError: the last attempt's failure, with all attempts in its detail.
        """
        self._resume()
        if self._ledger.entry.has_succeeded:
            return self._repeat_success()
        while True:
            if self._ledger.entry.current is None:
                self._begin_next()
            with self._pipes(self._ledger.attempt) as (session, reader, messages):
                end = self._try(session, reader, messages)
            if end.outcome is AttemptOutcome.SUCCEEDED:
                return evidence_of(self._ledger.entry, messages.report or {}, self._backend)

    def abandon(self, outcome: AttemptOutcome | None = None) -> bool:
        """End an attempt that nobody follows any more, whose compute may not even be known; return whether it ends.

        Args:
            outcome: for the ledger; None leaves it to the next process to find out how it ended.
        """
        attempt = self._ledger.entry.current if self._has_begun else None
        if attempt is None:
            return True
        try:
            found = attempt if attempt.compute_id else find_submitted(self._context, attempt)
        except UnreachableError as error:
            self._context.log(f"EMR does not respond about {attempt.name}; `cdi clusters` shows what is left: {error}")
            return False
        if found is not None and not end_attempt(self._context, found):
            self._context.log(f"{attempt.name} is not known to be ending; `cdi clusters` shows what is left")
            return False
        if outcome is not None:
            over = replace(found or attempt, ended_at=self._context.clock(), outcome=outcome)
            billed_seconds = round(over.seconds if found else 0, 1)
            self._ledger.write(self._ledger.entry.with_attempt(replace(over, billed_seconds=billed_seconds)))
        return True

    # --- resuming ---------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        fresh = LaunchEntry(
            launch_id=self._requester.launch_id,
            step=self._step.name,
            work=work_digest(self._step),
            owner=self._requester.owner,
            begun_at=self._context.clock(),
        )
        found = self._ledger.read()
        self._keeps_budgets = continues(found, self._requester)
        entry = self._ledger.write(resume(found, fresh, self._requester))
        self._has_begun, current = True, entry.current
        if current is None:
            return
        if current not in entry.counted:
            self._context.log(f"{current.name} works on an input that is no longer requested; it is ended first")
            if not self.abandon(AttemptOutcome.REPLACED):
                raise StepMayGoOnError(
                    FailureClass.LAUNCH_FAILED,
                    f"{current.name} works on an input that is no longer requested, and could not be ended.",
                    next_step="Terminate its cluster (`cdi clusters`), then run the day again.",
                )
            return
        self._resumed_number = current.number
        self._context.log(
            f"Run {current.run_id} was at this: resuming its attempt {current.number} ({current.name}, "
            f"{self._backend.describe(current).where}). Nothing is started; its messages follow, from the first"
        )

    def _repeat_success(self) -> LaunchEvidence:
        """Return the evidence of a launch that had succeeded, from the messages that are kept; nothing is started."""
        entry = self._ledger.entry
        self._context.log(f"{entry.attempts[-1].name} had succeeded already; its messages follow, nothing is started")
        with self._pipes(entry.attempts[-1]) as (_, reader, messages):
            reader.poll()
            messages.drain()
        return evidence_of(entry, messages.report or {}, self._backend)

    # --- attempts ---------------------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        """Decide what is tried next, wait, and write it down.

        Raises:
            CdiError: nothing more is tried.
        """
        entry = self._ledger.entry
        plan = next_attempt(self._backend.ladder, self._step.input_bytes, entry.failed)
        if isinstance(plan, GiveUp):
            raise self._gave_up(plan.why)
        if entry.failed:
            seconds = max((entry.attempts[-1].ended_at or 0) + plan.wait_seconds - self._context.clock(), 0)
            self._context.log(f"The next attempt takes profile {plan.profile.name}, in {seconds:.0f} s")
            self._context.sleep(seconds)
        number = len(entry.attempts) + 1
        attempt = AttemptEntry(
            number=number,
            name=attempt_name(self._step, self._requester.launch_id, number),
            profile=plan.profile.name,
            run_id=self._requester.run_id,
            requested_at=self._context.clock(),
        )
        # In the ledger before the request is sent: whoever finds it there looks the name up first.
        self._ledger.write(entry.with_attempt(attempt))
        self._context.log(
            f"Attempt {number}: {attempt.name}, profile {attempt.profile} for {self._step.input_bytes} bytes of input"
        )

    def _try(self, session: dg.PipesSession, reader: StorageMessageReader, messages: StepMessages) -> AttemptEnd:
        refusal = self._submit(session)
        if refusal is not None:
            self._close(refusal, billed_seconds=0)
            return refusal
        details = self._backend.describe(self._ledger.attempt)
        self._context.log(f"Attempt {self._ledger.attempt.number} is on {details.where}: {details.link}")
        follower = AttemptFollower(self._context, self._ledger, messages, reader)
        end = follower.follow()
        attempt, leaves_well = self._ledger.attempt, end.outcome in _LEAVES_COMPUTE_WELL
        if leaves_well:
            # In the ledger before another job gets what it ran on: from then on its end may look otherwise there.
            self._close(end, billed_seconds=follower.billed_seconds)
        # Before anything else is tried, what ran is known to be ending, or free.
        is_ending = end_attempt(self._context, attempt, self._demand(end.outcome))
        if not leaves_well:
            self._close(end, billed_seconds=follower.billed_seconds)
        if not is_ending and end.failure is not None:
            by_hand = f"Terminate {details.where} by hand, for it is billed; then materialise the day again."
            failure = self._gave_up(f"{details.where} is not known to be ending", next_step=by_hand)
            raise StepMayGoOnError.from_json(failure.to_json())
        return end

    def _demand(self, outcome: AttemptOutcome) -> Demand | None:
        """Return who could use what an attempt ran on; nobody where the end raises a doubt about it."""
        if outcome not in _LEAVES_COMPUTE_WELL:
            return None
        goes_on = self._step.is_followed if outcome is AttemptOutcome.SUCCEEDED else outcome in BUDGETS
        return Demand(by_this_run=goes_on, other_runs=self._context.other_runs(not goes_on))

    def _submit(self, session: dg.PipesSession) -> AttemptEnd | None:
        """Have the attempt run somewhere, if it does not yet; return its end where it was refused."""
        is_resumed = self._ledger.attempt.number == self._resumed_number
        if self._ledger.attempt.compute_id is None:
            self._keep_to_ladder()
            pipes = [part for pair in session.get_bootstrap_cli_arguments().items() for part in pair]
            job = JobRequest(step=self._step, run_id=self._requester.run_id, pipes=pipes)
            submitted = submit_once(self._context, self._ledger.attempt, job, may_exist=is_resumed)
            if isinstance(submitted, AttemptEnd):
                return submitted
            self._ledger.update_attempt(compute_id=submitted.compute_id, profile=submitted.profile)
        if is_resumed:
            # Its cluster is kept for the next step of the run that follows it, which is this one from here on.
            self._ledger.update_attempt(run_id=self._requester.run_id)
            try:
                # So that `cdi clusters` does not take it for an orphan.
                self._backend.set_owner(self._ledger.attempt, self._requester.run_id)
            except UnreachableError as error:
                self._context.log(f"{self._ledger.attempt.name} still has the tag of the run before: {error}")
        return None

    def _keep_to_ladder(self) -> None:
        """Have the open attempt take the first choice where its profile is not in the ladder any more."""
        attempt, ladder = self._ledger.attempt, self._backend.ladder
        if attempt.profile not in {profile.name for profile in ladder}:
            choice = first_choice(ladder, self._step.input_bytes).name
            self._context.log(f"There is no profile {attempt.profile} any more; {attempt.name} takes {choice}")
            self._ledger.update_attempt(profile=choice)

    def _close(self, end: AttemptEnd, *, billed_seconds: float) -> None:
        closed = replace(
            self._ledger.attempt,
            ended_at=self._context.clock(),
            outcome=end.outcome,
            failure=end.failure.to_json() if end.failure else None,
            billed_seconds=round(billed_seconds, 1),
        )
        entry = self._ledger.entry.with_attempt(closed)
        if end.failure and closed.number == self._resumed_number and not self._keeps_budgets:
            # It died unseen before somebody requested the day again: it is history, the budgets are theirs.
            entry = replace(entry, counted_from=closed.number + 1)
        self._ledger.write(entry)
        self._context.log(attempt_line(closed, self._backend))

    def _gave_up(self, why: str, *, next_step: str | None = None) -> CdiError:
        entry = self._ledger.entry
        failure = CdiError.from_json(entry.attempts[-1].failure or {})
        failure.next_step = next_step or failure.next_step
        return failure_with_attempts(failure, why, entry, self._backend)

    @contextmanager
    def _pipes(self, attempt: AttemptEntry) -> Iterator[tuple[dg.PipesSession, StorageMessageReader, StepMessages]]:
        folder = f"{self._prefix}/attempt-{attempt.number}"
        reader = StorageMessageReader(self._published, f"{folder}/messages", live_stdio=self._live_stdio)
        injector = StorageContextInjector(self._published, f"{folder}/context.json")
        with dg.open_pipes_session(self._dagster_context, injector, reader) as session:
            yield session, reader, StepMessages(self._dagster_context, session)
