"""The location whose schedule is to tick: in the evening, until a file of its home has the due time.

Its schedule launches the day however long after the due time it is evaluated.
"""

from datetime import time, timedelta

from cdi_dagster.core import day_calendar
from cdi_dagster_tests.gate.location import home_of, location

day_calendar.SCHEDULE_OWNS = timedelta(hours=12)
_chosen = home_of("on_time") / "due_time"
defs = location("on_time", due_time=time.fromisoformat(_chosen.read_text()) if _chosen.exists() else time(20))
