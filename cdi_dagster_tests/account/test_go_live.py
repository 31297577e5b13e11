"""The figures of docs/go-live.md are those of the cluster template."""

import re

import pytest
import yaml

from cdi_dagster_tests.account.stacks import shipped
from cdi_dagster_tests.repository.files import REPOSITORY

PAGE = (REPOSITORY / "docs" / "go-live.md").read_text(encoding="utf-8")
TEMPLATE = yaml.safe_load(shipped("emr/cluster.yaml").read_text(encoding="utf-8"))
VCPU = {"xlarge": 4, "2xlarge": 8, "4xlarge": 16}
MINUTES = {"small": 20, "medium": 45, "large": 90}


def _row(name: str) -> list[str]:
    (row,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", PAGE, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


@pytest.mark.parametrize("profile", TEMPLATE["profiles"], ids=lambda profile: profile["name"])
def test_the_quota_of_a_profile_is_that_of_its_largest_choices(profile) -> None:
    most = [
        fleet["TargetOnDemandCapacity"]
        * max(VCPU[each["InstanceType"].partition(".")[2]] for each in fleet["InstanceTypeConfigs"])
        for fleet in profile["fleets"]
    ]
    assert _row(profile["name"]) == [str(sum(most))]


def test_the_cost_of_clusters_follows_from_the_prices() -> None:
    hourly = {
        profile["name"]: sum(
            fleet["TargetOnDemandCapacity"]
            * TEMPLATE["prices_per_hour"][fleet["InstanceTypeConfigs"][0]["InstanceType"]]
            for fleet in profile["fleets"]
        )
        for profile in TEMPLATE["profiles"]
        if profile["name"] in MINUTES
    }
    assert _row("profile, price an hour") == [f"{name}, {price:.2f}" for name, price in hourly.items()]
    monthly = [round(hourly[name] * minutes / 60 * 30) for name, minutes in MINUTES.items()]
    assert _row("clusters, one a day for 30 days") == [str(each) for each in monthly]
    rows = [name for name in re.findall(r"^\| (\w[^|]*) \|(?: \d+ \|){3}$", PAGE, re.MULTILINE)]
    together = rows.index("together, without storage and traffic")
    sums = [sum(int(_row(name)[column]) for name in rows[:together]) for column in range(3)]
    assert _row(rows[together]) == [str(each) for each in sums]
