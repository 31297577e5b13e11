"""Failed runs by cause: one message with all days of a tick; a cause that is known sends none for a day."""

from datetime import UTC, date, datetime, timedelta

from cdi_dagster.core.failure_messages import EarlierMessage, FailedDay, group_failures
from cdi_dagster.core.failures import CdiError, FailureClass

NOW = datetime(2023, 3, 27, 12, tzinfo=UTC)
DAY = date(2023, 3, 26)


def failed(number, failure="RECORDS_REJECTED", *, collection="data:equality", by="backfill b", will_retry=False):
    return FailedDay(
        run_id=f"r{number}",
        collection_id=collection,
        storage_day=DAY + timedelta(days=number),
        failure=CdiError(FailureClass(failure), "c"),
        what_happens="nothing",
        will_retry=will_retry,
        requested_by=by,
    )


def runs(messages):
    return [[each.run_id for each in message.failed] for message in messages]


def test_a_tick_is_one_message_for_each_class_collection_and_backfill():
    messages = group_failures(
        [
            failed(2),
            failed(1),
            failed(3, "JOB_FAILED"),
            failed(4, collection="data:businessAudit"),
            failed(5, by="backfill c"),
            failed(6, by="automation"),
            failed(7, will_retry=True),
        ],
        {},
        NOW,
    )
    assert runs(messages) == [["r1", "r2"], ["r3"], ["r4"], ["r5"], ["r6"], ["r7"]]
    assert not any(message.known_by for message in messages)


def test_a_known_cause_sends_nothing_for_a_day_and_then_again():
    earlier = {failed(1).cause: EarlierMessage(run_id="r0", sent_at=NOW)}
    known, again = (
        group_failures([failed(1)], earlier, NOW + timedelta(hours=hours))[0].known_by for hours in (23.9, 24)
    )
    assert (known.run_id, again) == ("r0", None)


def test_a_persons_own_run_is_a_cause_of_its_own():
    mine = failed(1, by=None)
    earlier = {mine.cause: EarlierMessage(run_id="r0", sent_at=NOW)}
    assert group_failures([mine], earlier, NOW)[0].known_by is None


def test_a_day_that_is_left_to_a_person_is_no_known_cause_because_its_retry_was_alerted():
    earlier = {failed(1, will_retry=True).cause: EarlierMessage(run_id="r0", sent_at=NOW)}
    assert group_failures([failed(1)], earlier, NOW)[0].known_by is None
