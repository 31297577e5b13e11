"""The content of the sample envelopes: invented audit messages and database records, and ways to break an envelope.

A development tool without real data or keys. Only `cdi_dagster.demo.sample` imports this. Everything comes from the
given `Random`, so that a seed always gives the same bytes.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Any

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.days import days_before
from cdi_dagster.core.ingest_report import RejectReason

AUDIT_COLLECTION_ID = "data:businessAudit"
EQUALITY_COLLECTION_ID = "data:equality"

_FIRST_NAMES = ("Zoë", "Siân", "José", "Łukasz", "Anaïs", "Müge", "Mary", "Ahmed", "山田", "Ольга", "Niamh", "John")
_LAST_NAMES = (
    "O'Brien",
    "Núñez",
    "Smith",
    "Llewellyn",
    "Grzęda",
    "Çelik",
    "太郎",
    "Иванова",
    "Patel",
    "Ó Súilleabháin",
)
_PLACES = ("Leeds", "Ynys Môn", "Caerdydd", "Glasgow", "Newcastle upon Tyne", "Derry~Londonderry", "St Helens")
_AUDIT_TYPES = ("ClaimantSearchEvent", "AccessDeniedEvent", "PaymentViewed", "UserLoginEvent", "JournalEntryRead")
_ROLES = ("work-coach", "case-manager", "decision-maker", "fraud-investigator", "service-centre-lead")
_ETHNIC_GROUPS = (
    ("white", ("welsh-english-scottish-northern-irish-british", "irish", "gypsy-or-irish-traveller", "any-other")),
    ("asian-or-asian-british", ("indian", "pakistani", "bangladeshi", "chinese", "any-other")),
    ("black-african-caribbean-or-black-british", ("african", "caribbean", "any-other")),
    ("mixed-multiple-ethnic-groups", ("white-and-asian", "white-and-black-caribbean", "any-other")),
    ("prefer-not-to-say", ("",)),
)
_WORDS = (
    "claimant asked about the housing element and the payment of £412.36 due next week; advised to upload the tenancy "
    "agreement — see journal. Café receipts attached, naïve reading of clause 3(b)… agent confirmed identity questions "
    "answered correctly; call ended 14:05 ☎ follow-up booked with the work coach in Caerdydd on Monday"
).split()


def timestamp(moment: datetime) -> str:
    """Format a time as the producers do: `2023-03-26T09:30:00.123+0000`."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"


def moment_of(storage_day: date, random: Random) -> datetime:
    """Return a random time of the storage day."""
    start = datetime.combine(storage_day, time.min, tzinfo=UTC)
    return start + timedelta(milliseconds=random.randrange(86_400_000))


def hex_id(random: Random) -> str:
    """Return 32 hex digits that look like an id."""
    return f"{random.getrandbits(128):032x}"


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an event of a keyed collection does.

    Attributes:
        record_id: the id that it is about.
        is_delete: whether it removes the id.
    """

    record_id: str
    is_delete: bool


def keyed_change(seed: int, storage_day: date, position: int) -> Change:
    """Return what the event at a position of a day's sample does: of four, two insert, one updates, one deletes.

    Updates and deletes are of ids that the sample of one to six days before inserts, if it has as many records; an id
    is changed once after its insert. Nothing is kept between days.
    """
    group, kind = divmod(position, 4)
    inserted_on = storage_day if kind < 2 else days_before(storage_day, 1 + group % 6)
    identity = Random(f"{seed}|{inserted_on}|{2 * group + kind % 2}")  # noqa: S311 (reproducible on purpose)
    return Change(record_id=hex_id(identity), is_delete=kind == 3)


def plain_record(
    collection: Collection, record_id: str, moment: datetime, random: Random, *, is_delete: bool = False
) -> dict[str, Any]:
    """Return the content of an ordinary dbObject of the collection; an audit message is about 1.4 kB of JSON."""
    if collection.id == AUDIT_COLLECTION_ID:
        return {"context": _audit_context(record_id, moment, random), "auditType": random.choice(_AUDIT_TYPES)}
    if collection.id == EQUALITY_COLLECTION_ID:
        return _equality_answers(record_id, random)
    record = {
        "_id": message_id(collection, record_id),
        "_version": random.randrange(1, 9),
        "createdDateTime": timestamp(moment - timedelta(hours=24 * random.randrange(400))),
        "_lastModifiedDateTime": timestamp(moment),
        "claimant": _person(random),
        "amounts": [random.randrange(1, 90_000) / 100 for _ in range(random.randrange(1, 6))],
        "notes": _text(random, 60),
    }
    if is_delete:
        record["_removedDateTime"] = timestamp(moment)
    return record


def message_id(collection: Collection, record_id: str) -> dict[str, str]:
    """Return the `_id` of the envelope's message."""
    if collection.id == AUDIT_COLLECTION_ID:
        return {"auditId": record_id}
    return {"id": record_id} if collection.is_keyed else {"citizenId": record_id}


def event_type(collection: Collection) -> str:
    """Return the `@type` of the envelope's message."""
    if collection.id == EQUALITY_COLLECTION_ID:
        return "EQUALITY_QUESTIONS_ANSWERED"
    return "AUDIT_LOG" if collection.db == "data" else "MONGO_UPDATE"


def _audit_context(record_id: str, moment: datetime, random: Random) -> dict[str, Any]:
    return {
        "AUDIT_ID": record_id,
        "TIME_STAMP": timestamp(moment),
        "EVENT_TYPE": random.choice(_AUDIT_TYPES),
        "_lastModifiedDateTime": timestamp(moment),
        "user": {**_person(random), "role": random.choice(_ROLES), "staffNumber": random.randrange(10**7, 10**8)},
        "claimant": {**_person(random), "nino": f"QQ{random.randrange(10**6):06d}C", "declared": random.random() < 0.8},
        "session": {
            "id": hex_id(random),
            "startedAt": timestamp(moment - timedelta(minutes=random.randrange(1, 240))),
            "ip": f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(256)}",
            "userAgent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36",
            "score": random.random(),
        },
        "searchTerms": random.sample(_LAST_NAMES, random.randrange(4)),
        "changes": [
            {
                "field": random.choice(("address", "bankDetails", "housing", "$status")),
                "from": None,
                "to": _text(random, 4),
            }
            for _ in range(random.randrange(3))
        ],
        "amountPence": random.randrange(10**6),
        "notes": _text(random, random.randrange(30, 110)),
    }


def _equality_answers(record_id: str, random: Random) -> dict[str, Any]:
    """Return a claimant's answers; the payload states no date: only its envelope does."""
    ethnic_group, subgroups = random.choice(_ETHNIC_GROUPS)
    return {
        "claimantId": record_id,
        "ethnicGroup": ethnic_group,
        "ethnicitySubgroup": random.choice(subgroups),
        "sexualOrientation": random.choice(("heterosexual", "gay-or-lesbian", "bisexual", "prefer-not-to-say", None)),
        "religion": random.choice(("none", "christian", "muslim", "hindu", "sikh", "jewish", "prefer-not-to-say")),
        "maritalStatus": random.choice(("single", "married", "civil-partnership", "divorced", "widowed")),
    }


def _person(random: Random) -> dict[str, Any]:
    return {
        "firstName": random.choice(_FIRST_NAMES),
        "lastName": random.choice(_LAST_NAMES),
        "address": {
            "line1": f"{random.randrange(1, 400)} {random.choice(_WORDS).title()} Street",
            "town": random.choice(_PLACES),
        },
        "dateOfBirth": f"{random.randrange(1940, 2006)}-{random.randrange(1, 13):02d}-{random.randrange(1, 29):02d}",
    }


def _text(random: Random, words: int) -> str:
    return " ".join(random.choices(_WORDS, k=words))


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One way to break an envelope so that ingestion always rejects it.

    Attributes:
        name: what is wrong.
        reason: the family under which it is rejected.
        plaintext: makes the broken content of dbObject from the ordinary one, before encryption; or None.
        envelope: breaks the envelope in place, after encryption; or None.
        truncate: whether the line ends in the middle.
        audit_only: whether it breaks audit messages only.
    """

    name: str
    reason: RejectReason
    plaintext: Callable[[dict[str, Any]], dict[str, Any] | bytes] | None = None
    envelope: Callable[[dict[str, Any]], Any] | None = None
    truncate: bool = False
    audit_only: bool = False


def _with_impossible_date(record: dict[str, Any]) -> dict[str, Any]:
    impossible = {"reviewedAt": "2023-02-30T10:00:00.000+0000"}
    if "context" in record:
        return {**record, "context": {**record["context"], **impossible}}
    return {**record, **impossible}


DAMAGES: tuple[Damage, ...] = (
    Damage(name="the line is not JSON", reason=RejectReason.ENVELOPE, truncate=True),
    Damage(
        name="no dbObject",
        reason=RejectReason.ENVELOPE,
        envelope=lambda envelope: envelope["message"].pop("dbObject"),
    ),
    Damage(
        name="auditType is missing",
        reason=RejectReason.AUDIT,
        plaintext=lambda record: {"context": record["context"]},
        audit_only=True,
    ),
    Damage(name="a date that does not exist", reason=RejectReason.DATE, plaintext=_with_impossible_date),
    Damage(
        name="the plaintext is not UTF-8",
        reason=RejectReason.CIPHERTEXT,
        plaintext=lambda record: b'{"context": "\xff\xfe\x80"}',
    ),
    Damage(
        name="no initialisation vector",
        reason=RejectReason.ENCRYPTION,
        envelope=lambda envelope: envelope["message"]["encryption"].pop("initialisationVector"),
    ),
    Damage(
        name="an initialisation vector longer than a block",
        reason=RejectReason.ENCRYPTION,
        envelope=lambda envelope: envelope["message"]["encryption"].update(
            initialisationVector=base64.b64encode(b"longer than a block").decode()
        ),
    ),
    Damage(
        name="a data key that the key service cannot decrypt",
        reason=RejectReason.KEY,
        envelope=lambda envelope: envelope["message"]["encryption"].update(encryptedEncryptionKey="not base64!"),
    ),
    Damage(
        name="the plaintext is not JSON",
        reason=RejectReason.PAYLOAD,
        plaintext=lambda record: b'{"context": {"AUDIT_ID": ',
    ),
)


def damages_for(collection: Collection) -> tuple[Damage, ...]:
    """Return the ways to break an envelope of this collection."""
    audit = collection.id == AUDIT_COLLECTION_ID
    return tuple(damage for damage in DAMAGES if audit or not damage.audit_only)
