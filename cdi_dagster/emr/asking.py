"""Asking EMR for a cluster, or for a step on one, so that there is one, whatever happens to the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cdi_dagster.core.emr_verdict import Trouble, TroubleKind, rejected
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.launch_plan import Profile
from cdi_dagster.emr.api import AnswerLostError, RefusedError, ThrottledError, UnreachableError
from cdi_dagster.emr.ledger import Attempt
from cdi_dagster.emr.request import job_flow_request, step_request
from cdi_dagster.emr.surroundings import Surroundings
from cdi_dagster.emr.template import ClusterTemplate
from cdi_dagster.interfaces import SparkStep

EXISTING = "existing"
"""The one rung of the ladder where steps go to a cluster that is there."""
_TRIES = 6
_LOOK_UPS = 3
_FIRST_WAIT_SECONDS = 5


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a step runs.

    Attributes:
        template: what a cluster is made of.
        bundle_uri: what its bootstrap action installs.
        existing_cluster_id: add steps to this cluster instead of starting one.
        conf: more Spark configuration for every step.
    """

    template: ClusterTemplate
    bundle_uri: str
    existing_cluster_id: str | None = None
    conf: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_own_cluster(self) -> bool:
        """Whether the cluster is started, and so ended, by us."""
        return self.existing_cluster_id is None

    @property
    def ladder(self) -> tuple[Profile, ...]:
        """What can be tried."""
        return self.template.ladder if self.is_own_cluster else (Profile(name=EXISTING, size=0),)


class Asking:
    """Asks for one attempt's place: the id of its cluster."""

    def __init__(
        self, around: Surroundings, target: Target, step: SparkStep, attempt: Attempt, tags: Mapping[str, str]
    ) -> None:
        self._around = around
        self._target = target
        self._step = step
        self._attempt = attempt
        self._tags = tags

    def place(self, pipes: Sequence[str], *, may_be_there: bool) -> str | Trouble:
        """Ask until EMR has said yes or no, and never again while it may have been a yes.

        Args:
            pipes: arguments that the job needs to report.
            may_be_there: an earlier process may have asked already.

        Returns:
            The cluster's id, or the trouble of a refusal.

        Raises:
            CdiError: LAUNCH_FAILED where EMR may have said yes and cannot be asked whether it did.
        """
        why, was_lost = "", False
        for number in range(_TRIES):
            if may_be_there and (found := self._look_up()):
                return found
            may_be_there = False
            try:
                asked = self._ask(pipes)
                # What was lost before may show only now, and this one beside it: the older is kept.
                return (self._look_up() if was_lost else None) or asked
            except RefusedError as error:
                return rejected(str(error))
            except ThrottledError as error:
                why = f"EMR had no time for the request ({error})"
                self._around.say(f"{why}; asking again")
            except AnswerLostError as error:
                why, may_be_there, was_lost = f"EMR's answer was lost ({error})", True, True
                self._around.say(f"{why}; looking for {self._attempt.name} before anything else is asked")
            self._around.sleep(_FIRST_WAIT_SECONDS * 2**number)
        if may_be_there and (found := self._look_up()):
            return found
        cause = f"EMR did not take the request in {_TRIES} tries: {why}."
        return Trouble(kind=TroubleKind.INTERNAL, failure=CdiError(FailureClass.LAUNCH_FAILED, cause))

    def _ask(self, pipes: Sequence[str]) -> str:
        target, attempt = self._target, self._attempt
        profile = target.template.profile(attempt.profile) if target.is_own_cluster else None
        request = step_request(
            target.template,
            profile,
            self._step,
            name=attempt.name,
            pipes=pipes,
            conf=target.conf,
            end_cluster_on_failure=target.is_own_cluster,
        )
        if profile is None:
            self._around.api.add_step(str(target.existing_cluster_id), request)
            return str(target.existing_cluster_id)
        return self._around.api.run_job_flow(
            job_flow_request(
                target.template,
                profile,
                name=attempt.name,
                step=request,
                tags=self._tags,
                bundle_uri=target.bundle_uri,
            )
        )

    def _look_up(self) -> str | None:
        try:
            found = look_up(self._around, self._target, self._attempt)
        except UnreachableError as error:
            # To ask again without knowing could pay for two clusters.
            raise CdiError(
                FailureClass.LAUNCH_FAILED,
                f"EMR may have started {self._attempt.name}, and cannot be asked whether it did: {error}",
                next_step="Mend what the cause names, then re-execute this run from failure: it looks for it first.",
            ) from error
        if found is not None:
            self._around.say(f"Found {self._attempt.name} on cluster {found}: the request had been taken")
        return found


def look_up(around: Surroundings, target: Target, attempt: Attempt) -> str | None:
    """Look for an attempt's cluster several times: what was made shows in EMR's lists seconds later.

    Raises:
        UnreachableError: the last look failed, so nobody knows.
    """
    for number in range(_LOOK_UPS):
        if number:
            around.sleep(_FIRST_WAIT_SECONDS * 2)
        try:
            found = _find(around, target, attempt)
        except UnreachableError:
            if number == _LOOK_UPS - 1:
                raise
            continue
        if found is not None:
            return found
    return None


def _find(around: Surroundings, target: Target, attempt: Attempt) -> str | None:
    if target.existing_cluster_id is not None:
        is_there = around.api.step_named(target.existing_cluster_id, attempt.name) is not None
        return target.existing_cluster_id if is_there else None
    found = around.api.clusters_named(attempt.name, asked_at=attempt.asked_at)
    for surplus in found[1:]:
        around.say(f"Terminating cluster {surplus}: a second one of the name {attempt.name}")
        around.api.terminate(surplus)
    return found[0] if found else None
