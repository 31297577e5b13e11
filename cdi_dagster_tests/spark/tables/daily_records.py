"""Daily records as `ingest_daily` publishes them, written by hand for the tests of tables. Only tests import this."""

import gzip
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from cdi_dagster.core.storage_keys import daily_records_prefix
from cdi_dagster.published.mark import Mark
from cdi_dagster.storage import Storage
from cdi_dagster_tests.collections import AUDIT

DAY = date(2023, 3, 26)
EXPORT_DAY = "2023-03-27"
RAW = "uc_dw_auditlog.auditlog_raw"
MANAGED = "uc_dw_auditlog.auditlog_managed"
SECURED = "uc.auditlog_sec_v"
REDACTED = "uc.auditlog_red_v"


def record(number: int, **fields: Any) -> str:
    """Return a record such as the sample's, canonical."""
    context = {
        "AUDIT_ID": f"id-{number}",
        "AUDIT_EVENT": "PaymentViewed",
        "TIME_STAMP": {"d_date": "2023-03-26T23:59:59.999Z"},
        "_lastModifiedDateTime": {"d_date": "2023-03-26T10:00:00.000Z"},
        "claimant": {"nino": "QQ123456C", "firstName": "Zoë", "dateOfBirth": "1980-02-29", "declared": True},
        "user": {"staffNumber": 12345678},
        "amountPence": number,
        "changes": [{"field": "d_status", "from": None}],
    }
    return json.dumps({**context, **fields}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def publish_records(
    storage: Storage, *parts: Sequence[str], day: date = DAY, fingerprint: str = "f1", **mark: Any
) -> None:
    """Publish parts of records; `mark` overrides values of the mark."""
    prefix = daily_records_prefix(AUDIT.on(day))
    written: list[dict[str, Any]] = []
    for number, lines in enumerate(parts):
        key = f"{prefix}part-{number:05d}-{fingerprint}.jsonl.gz"
        stored = storage.write(key, gzip.compress("".join(f"{line}\n" for line in lines).encode()))
        written.append({"key": key, "size_bytes": stored.size_bytes, "records": len(lines)})
    records = [line for lines in parts for line in lines]
    values = Mark(
        fingerprint=fingerprint,
        correlation_id="records",
        collection_id=AUDIT.id,
        storage_day=day,
        published=len(records),
        rejected=0,
        record_bytes=sum(len(line.encode()) + 1 for line in records),
        published_bytes=sum(part["size_bytes"] for part in written),
        parts=(),
        published_at=datetime(2023, 3, 27, 9, 40, tzinfo=UTC),
    ).to_json() | {"parts": written}
    storage.write(f"{prefix}_SUCCESS", json.dumps({**values, **mark}).encode())
