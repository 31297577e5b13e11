"""One launch of a step: attempts, one after the other, until one succeeds or nothing more is to be tried.

Every decision is taken from the ledger, and written there before it is acted on; a process that takes over goes on
where the last one was. What to try next is pure (`core.launch_plan`); who may go on with what is in `taking_up`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import dagster as dg

from cdi_dagster.core.emr_verdict import Progress, Trouble
from cdi_dagster.core.failures import CdiError, FailureClass, StepMayGoOnError
from cdi_dagster.core.launch_plan import GiveUp, next_attempt
from cdi_dagster.emr import ledger as outcomes
from cdi_dagster.emr.api import UnreachableError
from cdi_dagster.emr.asking import Asking, Target, look_up
from cdi_dagster.emr.attempt import AttemptFollower
from cdi_dagster.emr.ending import end_attempt
from cdi_dagster.emr.evidence import attempt_line, evidence_of, failure_with_attempts
from cdi_dagster.emr.ledger import Attempt, LaunchEntry, LaunchLedger, launch_prefix
from cdi_dagster.emr.messages import StorageContextInjector, StorageMessageReader
from cdi_dagster.emr.request import TAG_RUN_ID, attempt_name, tags_of, work_of
from cdi_dagster.emr.surroundings import Surroundings
from cdi_dagster.emr.taking_up import Asker, goes_on, taken_up
from cdi_dagster.interfaces import LaunchEvidence, SparkStep
from cdi_dagster.step_messages import StepMessages
from cdi_dagster.storage.interface import Storage


class StepRun:
    """Runs one step on EMR: `run` once; `end` where it was left by an error or a cancelled run."""

    def __init__(
        self,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        step: SparkStep,
        *,
        asker: Asker,
        target: Target,
        published: Storage,
        around: Surroundings,
        live_stdio: bool,
    ) -> None:
        self._context = context
        self._step = step
        self._asker = asker
        self._target = target
        self._published = published
        self._around = around
        self._live_stdio = live_stdio
        self._prefix = launch_prefix(step.collection.on(step.storage_day), step.name)
        self._ledger = LaunchLedger(published, self._prefix)
        self._entry = LaunchEntry(
            launch_id=asker.launch_id, step=step.name, work=work_of(step), owner=asker.owner, begun_at=around.clock()
        )
        self._taken_up: Attempt | None = None
        self._goes_on = False

    def run(self) -> LaunchEvidence:
        """Run the step to its end.

        Raises:
            CdiError: the last attempt's failure, with all attempts in its detail.
        """
        self._take_up()
        if self._entry.outcome == outcomes.SUCCEEDED:
            return self._replay(self._entry.attempts[-1])
        while True:
            attempt = self._entry.current or self._begin_next()
            with self._pipes(attempt) as (session, reader, messages):
                verdict = self._try(attempt, session, reader, messages)
            if verdict is Progress.SUCCEEDED:
                self._entry = self._ledger.write(replace(self._entry, outcome=outcomes.SUCCEEDED))
                return evidence_of(self._entry, messages.report or {}, self._target.template, self._around.api)

    def end(self, outcome: str | None) -> None:
        """End what still runs for the launch; with an outcome, the launch is over and the ledger says so."""
        attempt = self._entry.current
        if attempt is not None:
            self._end_unfollowed(attempt, outcome)
        if outcome is not None:
            self._entry = self._ledger.write(replace(self._entry, outcome=outcome))

    # --- taking up --------------------------------------------------------------------------------------------

    def _take_up(self) -> None:
        found = self._ledger.read()
        entry = taken_up(found, self._entry, self._asker)
        self._goes_on = goes_on(found, self._asker)
        self._entry = self._ledger.write(entry)
        current = entry.current
        if current is None:
            return
        if found is not None and found.work != work_of(self._step):
            self._around.say(f"{current.name} works on an input that is not asked for any more; it is ended first")
            if not self._end_unfollowed(current, outcomes.REPLACED):
                raise StepMayGoOnError(
                    FailureClass.LAUNCH_FAILED,
                    f"{current.name} works on an input that is not asked for any more, and could not be ended.",
                    next_step="Terminate its cluster (`cdi clusters`), then run the day again.",
                )
            return
        self._taken_up = current
        self._around.say(
            f"Run {current.run_id} had begun this: taking up its attempt {current.number} ({current.name}, "
            f"cluster {current.cluster_id or 'not known yet'}). Nothing is started; its messages follow, from the first"
        )

    def _replay(self, attempt: Attempt) -> LaunchEvidence:
        """Return the evidence of a launch that had succeeded, from the messages that are kept; nothing is started."""
        self._around.say(f"{attempt.name} had succeeded already; its messages follow, nothing is started")
        with self._pipes(attempt) as (_, reader, messages):
            reader.poll()
            messages.drain()
        return evidence_of(self._entry, messages.report or {}, self._target.template, self._around.api)

    # --- attempts ---------------------------------------------------------------------------------------------

    def _begin_next(self) -> Attempt:
        """Decide what is tried next, wait, and write it down.

        Raises:
            CdiError: nothing more is tried.
        """
        entry = self._entry
        plan = next_attempt(self._target.ladder, self._step.input_bytes, entry.failed)
        if isinstance(plan, GiveUp):
            raise self._gave_up(plan.why)
        if entry.failed:
            seconds = max((entry.attempts[-1].ended_at or 0) + plan.wait_seconds - self._around.clock(), 0)
            self._around.say(f"The next attempt takes profile {plan.profile.name}, in {seconds:.0f} s")
            self._around.sleep(seconds)
        number = len(entry.attempts) + 1
        attempt = Attempt(
            number=number,
            name=attempt_name(self._step, self._asker.launch_id, number),
            profile=plan.profile.name,
            run_id=self._asker.run_id,
            asked_at=self._around.clock(),
        )
        # In the ledger before EMR is asked: whoever finds it there looks the name up first.
        self._remember(attempt)
        self._around.say(
            f"Attempt {number}: {attempt.name}, profile {attempt.profile} for {self._step.input_bytes} bytes of input"
        )
        return attempt

    def _try(
        self, attempt: Attempt, session: dg.PipesSession, reader: StorageMessageReader, messages: StepMessages
    ) -> Progress | Trouble:
        cluster_id = attempt.cluster_id or self._place(attempt, session)
        if isinstance(cluster_id, Trouble):
            self._close(attempt, cluster_id, billed_seconds=0)
            return cluster_id
        attempt = replace(attempt, cluster_id=cluster_id)
        self._remember(attempt)
        if self._taken_up and self._taken_up.number == attempt.number and self._target.is_own_cluster:
            self._claim(cluster_id)
        self._around.say(f"Cluster {cluster_id}: {self._around.api.console_link(cluster_id)}")
        follower = AttemptFollower(
            self._around,
            attempt,
            cluster_id=cluster_id,
            is_own_cluster=self._target.is_own_cluster,
            begun_at=self._entry.begun_at,
            messages=messages,
            reader=reader,
            remember=self._remember,
        )
        verdict = follower.follow()
        # Before anything else is tried, the last cluster is known to be ending.
        is_ending = self._end_cluster(follower.attempt, succeeded=verdict is Progress.SUCCEEDED)
        self._close(follower.attempt, verdict, billed_seconds=follower.billed_seconds)
        if not is_ending and isinstance(verdict, Trouble):
            by_hand = f"Terminate cluster {cluster_id} by hand, for it is paid; then materialise the day again."
            failure = self._gave_up(f"cluster {cluster_id} is not known to be ending", next_step=by_hand)
            raise StepMayGoOnError.from_json(failure.to_json())
        return verdict

    def _claim(self, cluster_id: str) -> None:
        """Tag a cluster that was taken up with this run, so that `cdi clusters` does not take it for an orphan."""
        try:
            self._around.api.tag(cluster_id, {TAG_RUN_ID: self._asker.run_id})
        except UnreachableError as error:
            self._around.say(f"Cluster {cluster_id} still carries the tag of the run before: {error}")

    def _place(self, attempt: Attempt, session: dg.PipesSession) -> str | Trouble:
        pipes = [part for pair in session.get_bootstrap_cli_arguments().items() for part in pair]
        tags = tags_of(self._step, self._asker.run_id)
        asking = Asking(self._around, self._target, self._step, attempt, tags)
        return asking.place(pipes, may_be_there=self._taken_up is not None and self._taken_up.number == attempt.number)

    def _close(self, attempt: Attempt, verdict: Progress | Trouble, *, billed_seconds: float) -> None:
        trouble = verdict if isinstance(verdict, Trouble) else None
        closed = replace(
            attempt,
            ended_at=self._around.clock(),
            outcome=str(trouble.kind) if trouble else outcomes.SUCCEEDED,
            failure=trouble.failure.to_json() if trouble else None,
            billed_seconds=round(billed_seconds, 1),
        )
        entry = self._entry.with_attempt(closed)
        if trouble and self._taken_up and self._taken_up.number == attempt.number and not self._goes_on:
            # Somebody asked again for what had died unseen: its failure is history, the budgets are theirs.
            entry = replace(entry, counted_from=attempt.number + 1)
        self._entry = self._ledger.write(entry)
        self._around.say(attempt_line(closed, self._target.template))

    def _gave_up(self, why: str, *, next_step: str | None = None) -> CdiError:
        self._entry = self._ledger.write(replace(self._entry, outcome=outcomes.FAILED))
        failure = CdiError.from_json(self._entry.attempts[-1].failure or {})
        failure.next_step = next_step or failure.next_step
        return failure_with_attempts(failure, why, self._entry, self._target.template, self._around.api)

    # --- ends -------------------------------------------------------------------------------------------------

    def _end_cluster(self, attempt: Attempt, *, succeeded: bool) -> bool:
        return end_attempt(
            self._around,
            cluster_id=attempt.cluster_id or "",
            name=attempt.name,
            is_own_cluster=self._target.is_own_cluster,
            succeeded=succeeded,
        )

    def _end_unfollowed(self, attempt: Attempt, outcome: str | None) -> bool:
        """End an attempt that nobody follows any more, and whose cluster may not even be known; say whether it is."""
        try:
            cluster_id = attempt.cluster_id or look_up(self._around, self._target, attempt)
        except UnreachableError as error:
            self._around.say(f"EMR cannot be asked for {attempt.name}; `cdi clusters` shows what is left: {error}")
            return False
        ended = replace(attempt, cluster_id=cluster_id, ended_at=self._around.clock(), outcome=outcome)
        if cluster_id is not None and not self._end_cluster(ended, succeeded=False):
            self._around.say(f"Cluster {cluster_id} is not known to be ending; `cdi clusters` shows what is left")
            return False
        if outcome is not None:
            self._remember(replace(ended, billed_seconds=round(ended.seconds if cluster_id else 0, 1)))
        return True

    def _remember(self, attempt: Attempt) -> None:
        self._entry = self._ledger.write(self._entry.with_attempt(attempt))

    @contextmanager
    def _pipes(self, attempt: Attempt) -> Iterator[tuple[dg.PipesSession, StorageMessageReader, StepMessages]]:
        folder = f"{self._prefix}/attempt-{attempt.number}"
        reader = StorageMessageReader(self._published, f"{folder}/messages", live_stdio=self._live_stdio)
        injector = StorageContextInjector(self._published, f"{folder}/context.json")
        with dg.open_pipes_session(self._context, injector, reader) as session:
            yield session, reader, StepMessages(self._context, session)
