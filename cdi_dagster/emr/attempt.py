"""One attempt, from a job that was submitted to an end that can be acted on.

Observes, reads messages, judges (`step_outcome`), keeps deadlines. What follows from the end is not decided here.
"""

from cdi_dagster.core.failures import CdiError, FailureClass, StepMayGoOnError
from cdi_dagster.emr.backend import JobState, JobStatus, LaunchContext, UnreachableError
from cdi_dagster.emr.ledger import LaunchLedger
from cdi_dagster.emr.messages import StorageMessageReader
from cdi_dagster.emr.step_outcome import (
    AttemptEnd,
    JobMessages,
    is_a_loss,
    judge,
    over_deadline,
    stuck_in_preparing,
    stuck_in_starting,
)
from cdi_dagster.step_messages import StepMessages
from cdi_dagster.storage import StorageError

_POLLS_FOR_REASON = 6


class LostSightError(StepMayGoOnError):
    """EMR or the storage does not respond any more. What runs may go on: the launch stays open in the ledger."""


class AttemptFollower:
    """Follows the ledger's open attempt, whose `compute_id` is known. What it learns of it goes into the ledger."""

    def __init__(
        self, context: LaunchContext, ledger: LaunchLedger, messages: StepMessages, reader: StorageMessageReader
    ) -> None:
        self._context = context
        self._ledger = ledger
        self._messages = messages
        self._reader = reader
        self._where = context.backend.describe(ledger.attempt).where
        self._native_state = ""
        self._blind_since: float | None = None
        self._is_billed = False
        self._idle_since: float | None = None

    @property
    def billed_seconds(self) -> float:
        """Seconds for which its instances are paid, nearly: from the request, if any instance ever came.

        What idled before it was given this job is paid from there on: each minute of it is one run's.
        """
        requested_at = self._ledger.attempt.requested_at
        return self._context.clock() - min(requested_at, self._idle_since or requested_at) if self._is_billed else 0.0

    def follow(self) -> AttemptEnd:
        """Return how it ended, with the log's last lines where they help.

        Raises:
            LostSightError: nothing could be seen for longer than the setting allows.
            CdiError: DUPLICATE_RUN where another process follows the launch now.
        """
        while True:
            status = self._look()
            if status is not None:
                end = judge(status, self._reported())
                if end is not None:
                    return end if end.failure is None else self._settled(status, end)
                if late := self._late(status):
                    return late
            self._context.sleep(self._context.timings.poll_interval_seconds)

    def _look(self) -> JobStatus | None:
        attempt = self._ledger.attempt
        try:
            status = self._context.backend.observe(attempt)
            # The state first, then the messages: what the job reported before it ended is there when its end is seen.
            self._reader.poll()
            self._messages.drain()
            self._ledger.update_attempt(
                job_id=status.job_id or attempt.job_id, ready_at=attempt.ready_at or status.ready_at
            )
        except (UnreachableError, StorageError) as error:
            self._unseen(error)
            return None
        self._blind_since = None
        self._is_billed |= status.is_billed
        self._idle_since = status.idle_since or self._idle_since
        if status.native_state != self._native_state:
            self._native_state = status.native_state
            age = self._context.clock() - attempt.requested_at
            self._context.log(f"{status.where} is {status.native_state} ({age:.0f} s after the request)")
        return status

    def _unseen(self, error: Exception) -> None:
        now = self._context.clock()
        if self._blind_since is None:
            self._blind_since = now
            self._context.log(f"The state of {self._where} cannot be read just now, retrying: {error}")
        elif now - self._blind_since > self._context.timings.blind_seconds:
            raise LostSightError(
                FailureClass.CLUSTER_LOST,
                f"The state of {self._where} could not be read for {now - self._blind_since:.0f} s: {error}",
                next_step="Fix what the cause names. Then re-execute this run from failure: it resumes the attempt; "
                "`cdi clusters` shows what still runs.",
                detail={"cluster_id": self._ledger.attempt.compute_id},
            ) from error

    def _reported(self) -> JobMessages:
        failure = self._messages.failure
        return JobMessages(
            report=self._messages.report, failure=CdiError.from_json(failure) if failure is not None else None
        )

    def _late(self, status: JobStatus) -> AttemptEnd | None:
        timings, now = self._context.timings, self._context.clock()
        since_begun = now - self._ledger.entry.begun_at
        if since_begun > timings.run_deadline_seconds:
            return over_deadline(status, since_begun)
        age = now - self._ledger.attempt.requested_at
        if status.state is JobState.STARTING and age > timings.start_deadline_seconds:
            return stuck_in_starting(status, age)
        if status.state is JobState.PREPARING:
            if age > timings.start_deadline_seconds + timings.bootstrap_deadline_seconds:
                return stuck_in_preparing(status, age)
        return None

    def _settled(self, status: JobStatus, end: AttemptEnd) -> AttemptEnd:
        """Judge again once the backend knows why the job ended, and the log is there."""
        for _ in range(_POLLS_FOR_REASON):
            if status.is_settled:
                break
            self._context.sleep(self._context.timings.poll_interval_seconds)
            status = self._look() or status
        end = judge(status, self._reported()) or end
        tail = self._log_tail(status)
        if tail:
            end = judge(status, self._reported(), tail) or end
            if end.failure is not None:
                end.failure.detail.setdefault("last_log_lines", "\n".join(tail[-40:]))
        return end

    def _log_tail(self, status: JobStatus) -> tuple[str, ...]:
        if status.log_uri is None:
            return ()
        timings = self._context.timings
        # What the job reported itself needs no log, but for a loss, which its log may explain. A job that never started
        # has none.
        reported = self._reported().failure
        is_needed = status.log_is_expected and (reported is None or is_a_loss(reported))
        self._context.log(f"Reading the log of {self._where}" + (", which may take minutes" * is_needed))
        waited = 0.0
        while True:
            tail = self._context.backend.log_tail(self._ledger.attempt, status)
            if tail.is_complete or not is_needed or waited >= timings.log_wait_seconds:
                return tail.lines
            self._context.sleep(timings.poll_interval_seconds)
            waited += timings.poll_interval_seconds
