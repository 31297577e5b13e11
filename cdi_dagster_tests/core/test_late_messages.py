"""Late days by cause: one message, a reminder a day, one when they are over; nothing is forgotten."""

from datetime import UTC, date, datetime, timedelta

from cdi_dagster.core.failures import FailureClass
from cdi_dagster.core.late_messages import LateDay, LateGroup, decide_late

NOW = datetime(2023, 3, 27, 12, tzinfo=UTC)
DAYS = [date(2023, 3, 10) + timedelta(days=n) for n in range(17)]
FIRST = DAYS[0]
RUNNING, FAILED = FailureClass.COALESCER_RUNNING, FailureClass.COALESCER_FAILED
UNKNOWN = FailureClass.COALESCER_UNKNOWN


def late(*days, cause=None, at_work=False):
    return [LateDay(storage_day=day, reason="r", failure_class=cause, is_at_work=at_work) for day in days]


class Story:
    """Ticks in turn; what was sent; the groups go through the cursor."""

    def __init__(self):
        self.groups, self.sent, self.leading = [], [], []

    def tick(self, late_days, *, hours=0.0, looked_at=DAYS, first_day=FIRST, refuse=False):
        steps = decide_late(late_days, self.groups, set(looked_at), first_day, NOW + timedelta(hours=hours))
        kept = []
        for step in steps:
            has_message = bool(step.late) or step.is_over
            if has_message and not refuse:
                kind = "LATE_OVER" if step.is_over else "LATE"
                days = step.before.days if step.is_over else [each.storage_day for each in step.late]
                self.sent.append((kind, [DAYS.index(day) for day in days]))
                self.leading += [step.leading] if step.late else []
            kept.append(step.before if has_message and refuse else step.after)
        self.groups = [LateGroup.from_json(group.to_json()) for group in kept if group]


def test_fourteen_missed_days_are_one_message_and_one_when_the_last_is_published():
    story = Story()
    for published in range(15):
        story.tick(late(*DAYS[published:14], at_work=True), hours=published / 10)
    assert story.sent == [("LATE", list(range(14))), ("LATE_OVER", list(range(14)))]
    assert story.groups == []


def test_causes_are_messages_of_their_own():
    story = Story()
    story.tick([*late(DAYS[0], at_work=True), *late(DAYS[1], DAYS[2], cause=RUNNING), *late(DAYS[3], cause=FAILED)])
    assert story.sent == [("LATE", [0]), ("LATE", [1, 2]), ("LATE", [3])]


def test_what_goes_on_is_reminded_of_once_a_day_with_all_its_days():
    story = Story()
    for hours in (0, 1, 23.9, 24, 30, 48):
        story.tick(late(DAYS[0], DAYS[1], cause=FAILED), hours=hours)
    assert story.sent == [("LATE", [0, 1])] * 3


def test_a_new_day_of_a_known_cause_is_a_message_that_names_all_of_them_and_starts_the_day_anew():
    story = Story()
    story.tick(late(DAYS[0], cause=FAILED))
    story.tick(late(DAYS[0], DAYS[1], cause=FAILED), hours=23.9)
    story.tick(late(DAYS[0], DAYS[1], cause=FAILED), hours=25)
    assert story.sent == [("LATE", [0]), ("LATE", [0, 1])]
    assert len(story.groups) == 1


def test_a_cause_that_its_run_alerts_is_no_new_message_before_the_reminder():
    story = Story()
    story.tick(late(DAYS[0], at_work=True))
    for hours in (1, 2):
        story.tick(late(DAYS[0], cause=FailureClass.CLUSTER_LOST), hours=hours)
    story.tick([], hours=3)
    assert story.sent == [("LATE", [0]), ("LATE_OVER", [0])]


def test_a_coalescer_that_fails_after_the_message_is_a_message_once_it_has_stayed_so():
    story = Story()
    story.tick(late(DAYS[0], DAYS[1], cause=RUNNING))
    waits = [*late(DAYS[0], cause=FAILED), *late(DAYS[1], cause=RUNNING)]
    story.tick(waits, hours=1)
    assert story.sent == [("LATE", [0, 1])]
    story.tick(waits, hours=1.2, refuse=True)
    for hours in (1.25, 1.5, 24, 25):
        story.tick(waits, hours=hours)
    assert story.sent == [("LATE", [0, 1])] * 2
    assert [each.failure_class for each in story.leading] == [RUNNING, FAILED]
    story.tick(waits, hours=25.5)
    assert story.sent == [("LATE", [0, 1])] * 3


def test_a_day_whose_runs_all_gave_way_is_a_message_as_none_of_them_sends_an_alert():
    story = Story()
    story.tick(late(DAYS[0], at_work=True))
    for hours in (1, 1.2):
        story.tick(late(DAYS[0], cause=FailureClass.DUPLICATE_RUN), hours=hours)
    assert story.sent == [("LATE", [0])] * 2


def test_a_cause_that_comes_and_goes_is_sent_once_between_reminders_and_not_where_it_is_gone_at_once():
    story = Story()
    for tick in range(60):
        story.tick(late(DAYS[0], cause=UNKNOWN if tick % 2 else RUNNING), hours=tick / 60)
    assert story.sent == [("LATE", [0])]
    for tick in range(10):
        story.tick(late(DAYS[0], cause=UNKNOWN if tick // 2 % 2 else RUNNING), hours=2 + tick)
    assert story.sent == [("LATE", [0])] * 2


def test_a_coalescer_that_runs_is_news_only_where_the_day_was_said_to_be_at_work():
    failed, at_work = Story(), Story()
    failed.tick(late(DAYS[0], cause=FAILED))
    at_work.tick(late(DAYS[0], at_work=True))
    for story in (failed, at_work):
        for hours in (1, 2, 3):
            story.tick(late(DAYS[0], cause=RUNNING), hours=hours)
    assert (len(failed.sent), len(at_work.sent)) == (1, 2)


def test_a_group_of_an_earlier_version_can_be_read():
    group = LateGroup(days=(DAYS[0],), open_days=(DAYS[0],), sent_at=NOW)
    value = {name: kept for name, kept in group.to_json().items() if name in ("days", "open_days", "sent_at")}
    assert LateGroup.from_json(value) == group


def test_a_message_that_cannot_be_sent_is_sent_at_the_next_tick():
    story = Story()
    story.tick(late(DAYS[0]), refuse=True)
    story.tick(late(DAYS[0]), hours=0.1)
    story.tick([], hours=1, refuse=True)
    story.tick([], hours=1.1)
    story.tick([], hours=1.2)
    assert story.sent == [("LATE", [0]), ("LATE_OVER", [0])]


def test_a_day_that_cannot_be_read_is_neither_over_nor_late_again():
    story = Story()
    story.tick(late(DAYS[0], DAYS[1]))
    story.tick([], hours=1, looked_at=[])
    story.tick(late(DAYS[0]), hours=2)
    story.tick([], hours=3)
    assert story.sent == [("LATE", [0, 1]), ("LATE_OVER", [0, 1])]


def test_a_day_that_leaves_the_look_back_unpublished_is_dropped_and_not_called_over():
    story = Story()
    story.tick(late(DAYS[0], DAYS[1]))
    story.tick(late(DAYS[1]), hours=1, looked_at=DAYS[1:], first_day=DAYS[1])
    story.tick([], hours=2, looked_at=DAYS[2:], first_day=DAYS[2])
    assert story.sent == [("LATE", [0, 1])]
    assert story.groups == []


def test_the_key_of_a_group_stays_though_an_older_day_joins():
    story = Story()
    story.tick(late(DAYS[1], cause=FAILED))
    key = story.groups[0].key
    story.tick(late(DAYS[0], DAYS[1], cause=FAILED), hours=1)
    assert story.groups[0].key == key
