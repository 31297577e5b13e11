"""The partitions: a storage day is there as soon as it is over in UTC, and not before."""

from datetime import UTC, date, datetime

import pytest
from freezegun import freeze_time

from cdi_dagster.partitions import storage_days


@pytest.mark.parametrize(
    ("now", "youngest"),
    [
        (datetime(2023, 3, 26, 23, 59, 59, tzinfo=UTC), "2023-03-25"),
        (datetime(2023, 3, 27, 0, 0, tzinfo=UTC), "2023-03-26"),
        (datetime(2024, 3, 1, 0, 0, tzinfo=UTC), "2024-02-29"),
        (datetime(2024, 1, 1, 0, 0, tzinfo=UTC), "2023-12-31"),
        # 00:30 on 27 March by British clocks, which had gone forward the night before.
        (datetime(2023, 3, 26, 23, 30, tzinfo=UTC), "2023-03-25"),
    ],
)
def test_yesterday_is_the_youngest_partition_from_midnight_utc_on(now, youngest):
    with freeze_time(now):
        assert storage_days(date(2023, 1, 1)).get_last_partition_key() == youngest


def test_the_first_storage_day_is_the_first_partition():
    assert storage_days(date(2023, 3, 1)).get_first_partition_key() == "2023-03-01"
