"""What the parts of a launch need of the world outside, in one value, so that tests can give another."""

from collections.abc import Callable
from dataclasses import dataclass

from cdi_dagster.emr.api import EmrApi


@dataclass(frozen=True, kw_only=True)
class Timings:
    """How long is waited for what, seconds; the fields of `launcher` document each."""

    poll_interval_seconds: float
    start_deadline_seconds: float
    bootstrap_deadline_seconds: float
    run_deadline_seconds: float
    log_wait_seconds: float
    blind_seconds: float


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What an attempt needs of the world.

    Attributes:
        api: EMR.
        timings: how long is waited for what.
        clock: epoch seconds now.
        sleep: waits so many seconds.
        say: writes to the run page.
    """

    api: EmrApi
    timings: Timings
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    say: Callable[[str], None]
