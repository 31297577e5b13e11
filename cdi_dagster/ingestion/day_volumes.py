"""Why a day is slow, at a bounded cost: listings are counted once, cached for a while, and cut off where very long.

Reads; `core.diagnosis` compares. Also keeps, below the published root, what a day held before it was coalesced: later
it is not known how many objects K2HB wrote, and raw days compare only with raw days. No dagster.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from datetime import date, datetime, timedelta

from cdi_dagster.clock import utc_now
from cdi_dagster.core.collections import CollectionDay
from cdi_dagster.core.days import days_before, storage_days_between
from cdi_dagster.core.diagnosis import DayVolume, Diagnosis, day_volume, diagnose
from cdi_dagster.core.storage_keys import raw_volume_key
from cdi_dagster.storage.interface import ObjectMissingError, Storage, StorageError, StorageUnavailableError
from cdi_dagster.storage.roots import Roots

_log = logging.getLogger(__name__)
HISTORY_DAYS = 14
MOST_OBJECTS = 20_000
"""Counted of one day: 20 requests to S3. For a day with more, that number is the diagnosis."""
DAY_KEPT_FOR = timedelta(minutes=10)
EARLIER_DAY_KEPT_FOR = timedelta(hours=6)
_MOST_KEPT = 2_000


class DayVolumes:
    """Volumes of days, cached in this process. One for each code location; several threads may use it.

    Args:
        clock: the time now, aware.
        history_days: how many earlier days a day is compared with.
    """

    def __init__(self, *, clock: Callable[[], datetime] = utc_now, history_days: int = HISTORY_DAYS) -> None:
        self._clock = clock
        self._history_days = history_days
        self._kept: dict[tuple[str, str, date], tuple[datetime, DayVolume]] = {}

    def diagnosis(self, roots: Roots, day: CollectionDay) -> Diagnosis:
        """Compare a day with those before it; an earlier day that cannot be listed (a bad name) is left out.

        Raises:
            StorageError: the day cannot be listed, or the storage does not respond.
        """
        volume = self._volume(roots.corporate, day, DAY_KEPT_FOR)
        if not volume.is_raw:
            volume = self._raw_volume(roots.published, day) or volume
        history = []
        for storage_day in storage_days_between(
            days_before(day.storage_day, self._history_days), days_before(day.storage_day, 1)
        ):
            earlier = day.collection.on(storage_day)
            try:
                earlier_volume = self._volume(roots.corporate, earlier, EARLIER_DAY_KEPT_FOR)
            except StorageUnavailableError:
                raise
            except StorageError as error:
                _log.warning("%s is left out of the usual: %s", earlier, error)
                continue
            if volume.is_raw and not earlier_volume.is_raw:
                earlier_volume = self._raw_volume(roots.published, earlier) or earlier_volume
            history.append(earlier_volume)
        return diagnose(volume, history)

    def in_words(self, roots: Roots, day: CollectionDay) -> str:
        """Return the summary, or why there is none: for a message that is sent in any case."""
        try:
            return self.diagnosis(roots, day).summary
        except StorageError as error:
            return f"size not known: {str(error).rstrip('.')}"

    def keep_raw_volume(self, roots: Roots, day: CollectionDay) -> None:
        """Keep what a day holds while it is raw; do nothing where it is not. Counts the day at most every 10 minutes.

        Raises:
            StorageError: it cannot be listed or written.
        """
        before = self._kept.get((roots.corporate.root, day.collection.id, day.storage_day))
        volume = self._volume(roots.corporate, day, DAY_KEPT_FOR)
        if volume.is_raw and (before is None or before[1] != volume):
            roots.published.write(raw_volume_key(day), json.dumps(asdict(volume)).encode())

    def _volume(self, corporate: Storage, day: CollectionDay, kept_for: timedelta) -> DayVolume:
        key = (corporate.root, day.collection.id, day.storage_day)
        now = self._clock()
        counted_at, volume = self._kept.get(key, (None, None))
        if counted_at is None or volume is None or not timedelta() <= now - counted_at < kept_for:
            volume = day_volume(corporate.list(day.corporate_prefix), most_objects=MOST_OBJECTS)
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = (now, volume)
        return volume

    def _raw_volume(self, published: Storage, day: CollectionDay) -> DayVolume | None:
        try:
            return DayVolume(**json.loads(published.read(raw_volume_key(day))))
        except (ObjectMissingError, ValueError, TypeError):
            # Never kept, or kept by another version: then only the day's volume is compared.
            return None
