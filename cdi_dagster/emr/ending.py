"""The certain end of an attempt: nothing that we started outlives its use unseen."""

from cdi_dagster.core.emr_verdict import CLUSTER_ENDING
from cdi_dagster.emr.api import ClusterView, UnreachableError
from cdi_dagster.emr.surroundings import Surroundings

_POLLS = 20
_GRACE_POLLS = 2
_STEP_GOES_ON = ("PENDING", "RUNNING", "CANCEL_PENDING")


def end_attempt(around: Surroundings, *, cluster_id: str, name: str, is_own_cluster: bool, succeeded: bool) -> bool:
    """Have what we started end, and look until it is known to be ending; return whether it is.

    A cluster of ours ends by itself after its step, and gets a moment for that where the step succeeded. On a cluster
    that is not ours only the step is ended.
    """
    for poll in range(_POLLS):
        try:
            view = around.api.look(cluster_id, name)
            if _is_over(view, is_own_cluster):
                return True
            if poll >= (_GRACE_POLLS if succeeded else 0):
                _ask_to_end(around, view, is_own_cluster)
        except UnreachableError as error:
            around.say(f"Cluster {cluster_id} could not be asked to end, asking again: {error}")
        around.sleep(around.timings.poll_interval_seconds)
    return False


def _is_over(view: ClusterView, is_own_cluster: bool) -> bool:
    return view.state in CLUSTER_ENDING or (not is_own_cluster and view.step_state not in _STEP_GOES_ON)


def _ask_to_end(around: Surroundings, view: ClusterView, is_own_cluster: bool) -> None:
    if is_own_cluster:
        around.say(f"Terminating cluster {view.cluster_id}")
        around.api.terminate(view.cluster_id)
    elif view.step_id is not None:
        around.say(f"Cancelling step {view.step_id} on cluster {view.cluster_id}")
        around.api.cancel_step(view.cluster_id, view.step_id)
