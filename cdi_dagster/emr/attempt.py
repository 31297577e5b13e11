"""One attempt, from a cluster that was asked for to a verdict that can be acted on.

Looks, listens, judges (`core.emr_verdict`), keeps deadlines. What follows from the verdict is not decided here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cdi_dagster.core.emr_verdict import (
    CLUSTER_BEFORE_RUNNING,
    CLUSTER_ENDING,
    STEP_ENDED_BADLY,
    Observation,
    Progress,
    Trouble,
    TroubleKind,
    judge,
    over_deadline,
    stuck_in_bootstrap,
    stuck_in_starting,
)
from cdi_dagster.core.failures import CdiError, FailureClass, StepMayGoOnError
from cdi_dagster.emr.api import ClusterView, UnreachableError
from cdi_dagster.emr.ledger import Attempt
from cdi_dagster.emr.messages import StorageMessageReader
from cdi_dagster.emr.step_logs import bootstrap_log_keys, step_log_keys, wait_for_tail
from cdi_dagster.emr.surroundings import Surroundings
from cdi_dagster.step_messages import StepMessages
from cdi_dagster.storage import StorageError, open_storage

_POLLS_FOR_REASON = 6


class LostSightError(StepMayGoOnError):
    """EMR or the storage cannot be asked any more. The cluster may go on: the launch stays open in the ledger."""


class AttemptFollower:
    """Follows one attempt whose cluster is known.

    Attributes:
        attempt: what is known of it by now.
        view: the last look at its cluster.
    """

    def __init__(
        self,
        around: Surroundings,
        attempt: Attempt,
        *,
        cluster_id: str,
        is_own_cluster: bool,
        begun_at: float,
        messages: StepMessages,
        reader: StorageMessageReader,
        remember: Callable[[Attempt], None],
    ) -> None:
        self.attempt = attempt
        self.view: ClusterView | None = None
        self._around = around
        self._cluster_id = cluster_id
        self._is_own_cluster = is_own_cluster
        self._begun_at = begun_at
        self._messages = messages
        self._reader = reader
        self._remember = remember
        self._blind_since: float | None = None
        self._cost_money = False

    @property
    def billed_seconds(self) -> float:
        """Seconds for which its instances are paid, nearly: from the request, if any instance ever came."""
        came = self._is_own_cluster and (self._cost_money or self.attempt.ready_at is not None)
        return self._around.clock() - self.attempt.asked_at if came else 0.0

    def follow(self) -> Progress | Trouble:
        """Return SUCCEEDED or what went wrong, with the log's last lines where they help.

        Raises:
            LostSightError: nothing could be seen for longer than the setting allows.
            CdiError: DUPLICATE_RUN where another process follows the launch now.
        """
        while True:
            view = self._look()
            if view is not None:
                verdict = judge(self._observation(view))
                if verdict is Progress.SUCCEEDED:
                    return _reconciled(self._messages.report or {})
                if isinstance(verdict, Trouble):
                    return self._settled(view, verdict)
                late = self._late(view)
                if late is not None:
                    return late
            self._around.sleep(self._around.timings.poll_interval_seconds)

    def _look(self) -> ClusterView | None:
        try:
            view = self._around.api.look(self._cluster_id, self.attempt.name)
            # The state first, then the messages: what the job said before it ended is there when its end is seen.
            self._reader.poll()
            self._messages.drain()
            self._note(view)
        except (UnreachableError, StorageError) as error:
            self._blind(error)
            return None
        self._blind_since = None
        self._announce(view)
        self._cost_money |= view.state == "BOOTSTRAPPING"
        self.view = view
        return view

    def _note(self, view: ClusterView) -> None:
        ready_at = self.attempt.ready_at or view.ready_at
        if ready_at is None and (view.state in ("RUNNING", "WAITING") or view.step_state == "RUNNING"):
            ready_at = self._around.clock()
        newer = replace(self.attempt, step_id=view.step_id or self.attempt.step_id, ready_at=ready_at)
        if newer != self.attempt:
            self._remember(newer)
            self.attempt = newer

    def _announce(self, view: ClusterView) -> None:
        before = self.view
        if before is None or (before.state, before.step_state) != (view.state, view.step_state):
            age = self._around.clock() - self.attempt.asked_at
            step = f", its step {view.step_state}" if view.step_state else ""
            self._around.say(f"Cluster {view.cluster_id} is {view.state}{step} ({age:.0f} s after the request)")

    def _blind(self, error: Exception) -> None:
        now = self._around.clock()
        if self._blind_since is None:
            self._blind_since = now
            self._around.say(f"Cluster {self._cluster_id} cannot be seen just now, asking again: {error}")
        elif now - self._blind_since > self._around.timings.blind_seconds:
            raise LostSightError(
                FailureClass.CLUSTER_LOST,
                f"Cluster {self._cluster_id} could not be seen for {now - self._blind_since:.0f} s: {error}",
                next_step="Mend what the cause names. Then re-execute this run from failure: it takes the cluster up "
                "again, or `cdi clusters` shows what is left of it.",
                detail={"cluster_id": self._cluster_id},
            ) from error

    def _observation(self, view: ClusterView, log_tail: Sequence[str] = ()) -> Observation:
        failure = self._messages.failure
        return Observation(
            cluster_id=view.cluster_id,
            cluster_state=view.state,
            reason_code=view.reason_code,
            reason_message=view.reason_message,
            step_state=view.step_state,
            step_reason=view.step_reason,
            ran=self.attempt.ready_at is not None,
            report_arrived=self._messages.report is not None,
            job_failure=CdiError.from_json(failure) if failure is not None else None,
            log_tail=log_tail,
        )

    def _late(self, view: ClusterView) -> Trouble | None:
        timings, now = self._around.timings, self._around.clock()
        if now - self._begun_at > timings.run_deadline_seconds:
            return over_deadline(view.cluster_id, now - self._begun_at)
        if view.state in CLUSTER_BEFORE_RUNNING:
            age = now - self.attempt.asked_at
            if view.state == "STARTING" and age > timings.start_deadline_seconds:
                return stuck_in_starting(view.cluster_id, age)
            if age > timings.start_deadline_seconds + timings.bootstrap_deadline_seconds:
                return stuck_in_bootstrap(view.cluster_id, age)
        return None

    def _settled(self, view: ClusterView, trouble: Trouble) -> Trouble:
        """Judge again once the cluster says why it ended, and the log is there."""
        if self._is_own_cluster and view.step_state in STEP_ENDED_BADLY:
            for _ in range(_POLLS_FOR_REASON):
                if view.state in CLUSTER_ENDING and view.reason_code:
                    break
                self._around.sleep(self._around.timings.poll_interval_seconds)
                view = self._look() or view
            trouble = _as_trouble(judge(self._observation(view)), trouble)
        tail = self._log_tail(view, trouble.kind)
        if tail:
            trouble = _as_trouble(judge(self._observation(view, tail)), trouble)
            trouble.failure.detail.setdefault("last_log_lines", "\n".join(tail[-40:]))
        return trouble

    def _log_tail(self, view: ClusterView, kind: TroubleKind) -> tuple[str, ...]:
        if view.log_uri is None:
            return ()
        logs = open_storage(view.log_uri)
        # What the job reported itself needs no log, and a cluster that never ran has none.
        is_needed = kind is TroubleKind.BOOTSTRAP or (view.step_state == "FAILED" and self._messages.failure is None)
        self._around.say(f"Reading the log of cluster {view.cluster_id}" + (", which may take minutes" * is_needed))
        step_id = view.step_id or ""
        return wait_for_tail(
            logs,
            (lambda: bootstrap_log_keys(logs, view.cluster_id))
            if kind is TroubleKind.BOOTSTRAP
            else (lambda: step_log_keys(view.cluster_id, step_id) if step_id else ()),
            needed="/stderr.gz",
            wait_seconds=self._around.timings.log_wait_seconds if is_needed else 0,
            poll_seconds=self._around.timings.poll_interval_seconds,
            sleep=self._around.sleep,
        )


def _as_trouble(verdict: Progress | Trouble, otherwise: Trouble) -> Trouble:
    return verdict if isinstance(verdict, Trouble) else otherwise


def _reconciled(report: Mapping[str, Any]) -> Progress | Trouble:
    """Believe a report only if what it read is what it published and rejected, object by object."""
    for counts in report.get("objects") or ():
        if counts["read"] != counts["published"] + sum(counts["rejected"].values()):
            cause = f"{counts['key']} gave {counts['read']} envelopes, but the report does not account for all of them."
            failure = CdiError(FailureClass.COUNTS_DO_NOT_RECONCILE, cause, detail={"key": counts["key"]})
            return Trouble(kind=TroubleKind.JOB, failure=failure)
    return Progress.SUCCEEDED
