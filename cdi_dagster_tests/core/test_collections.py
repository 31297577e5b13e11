"""The registry: groups, topics and prefixes are contracts with K2HB."""

from datetime import date

import pytest

from cdi_dagster.core.collections import REGISTRY, CollectionKind, StorageGroup, find_collection, near_miss
from cdi_dagster.core.failures import CdiError, FailureClass

DAY = date(2023, 3, 5)


@pytest.mark.parametrize(
    ("collection_id", "topic", "prefix"),
    [
        ("data:businessAudit", "data.businessAudit", "corporate_storage/ucfs_audit/2023/03/05/data/businessAudit/"),
        ("data:equality", "data.equality", "corporate_storage/ucfs_equalities/2023/03/05/data/equality/"),
        (
            "calculator:calculationParts",
            "db.calculator.calculationParts",
            "corporate_storage/ucfs_main/2023/03/05/calculator/calculationParts/",
        ),
        (
            "accepted-data:healthAndDisabilityCircumstances",
            "db.accepted-data.healthAndDisabilityCircumstances",
            "corporate_storage/ucfs_main/2023/03/05/accepted-data/healthAndDisabilityCircumstances/",
        ),
    ],
)
def test_a_collection_knows_its_topic_and_prefix(collection_id: str, topic: str, prefix: str) -> None:
    collection = find_collection(collection_id)
    assert collection.id == collection_id
    assert collection.topic == topic
    assert collection.on(DAY).corporate_prefix == prefix


def test_an_unknown_collection_is_append_only_from_ucfs_main() -> None:
    collection = find_collection("accepted-data:personDetails")
    assert collection.group is StorageGroup.MAIN
    assert collection.kind is CollectionKind.APPEND_ONLY
    assert collection.asset_name == "accepted_data_person_details"
    assert collection.tables is None


@pytest.mark.parametrize(
    "text", ["", "businessAudit", "data:", ":x", "data:a:b", "data/businessAudit", "../x:y", "a b:c"]
)
def test_a_wrong_collection_says_how_to_write_it(text: str) -> None:
    with pytest.raises(CdiError, match="db:name") as caught:
        find_collection(text)
    assert caught.value.failure_class is FailureClass.INPUT_INVALID


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("data:businessaudit", "data:businessAudit"),
        ("data:business_audit", "data:businessAudit"),
        ("data:busnessAudit", "data:businessAudit"),
        ("Data:equality", "data:equality"),
        ("data:businessAudit", None),
        ("data:equalities", None),
        ("accepted-data:personDetails", None),
    ],
)
def test_a_near_miss_of_a_registered_collection_is_known(text: str, meant: str | None) -> None:
    assert near_miss(text) == meant


def test_registered_names_are_unique() -> None:
    assert len({collection.id for collection in REGISTRY}) == len(REGISTRY)
    assert len({collection.asset_name for collection in REGISTRY}) == len(REGISTRY)
    assert len({collection.topic for collection in REGISTRY}) == len(REGISTRY)
