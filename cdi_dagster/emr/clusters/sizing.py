"""Whether executors use the cores that are paid for: arithmetic over a template's profiles. Pure.

YARN places executors by memory alone, so a size that fits once too few leaves half of a node idle, and nothing fails.
Cores and memory of a type follow from its name in the families below; a type of another family is passed over.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

GRAVITON = re.compile(r"(a1|[a-z]+\d+[a-z-]*?g[a-z-]*)\..+")
"""`m7g`, `c6gn`, `x2gd`, `im4gn`, `g5g`; not `g4dn`, whose g is the family's."""

_TYPE = re.compile(r"(?P<family>[cmr])\d[a-z-]*\.(?P<size>\d*)(?P<unit>xlarge|large)")
_GB_A_CORE = {"c": 2, "m": 4, "r": 8}
_SMALL_NODE_GB = 16
_SIZE = re.compile(r"(\d+)([mg]?)b?")

_CLIENT_MASTER_MB = 512
"""Heap of the application master where the driver is on the primary node; elsewhere it is the driver."""
_LEAST_OVERHEAD_MB = 384
_OVERHEAD_FACTOR = 0.1875  # EMR's default; Spark's own is 0.1
_ALLOCATION_STEP_MB = 32


def cores_of(instance_type: str) -> int | None:
    """Return a type's virtual cores, or None where its family is not known here."""
    match = _TYPE.fullmatch(instance_type)
    if match is None:
        return None
    return 2 if match["unit"] == "large" else 4 * int(match["size"] or 1)


def yarn_mb_of(instance_type: str) -> int | None:
    """Return what EMR gives YARN on a node of a type, in MB: its memory without a quarter, at most 8 GB.

    12,288 of m5.xlarge, 24,576 of m5.2xlarge (seen); 57,344 of 64 GB by the same rule.
    """
    cores, match = cores_of(instance_type), _TYPE.fullmatch(instance_type)
    if cores is None or match is None:
        return None
    memory_gb = cores * _GB_A_CORE[match["family"]]
    return 1024 * (memory_gb - min(memory_gb // 4, 8)) if memory_gb >= _SMALL_NODE_GB else None


def executor_mb(conf: Mapping[str, str]) -> int | None:
    """Return what one executor takes from YARN, in MB; None where its memory is left to EMR."""
    return _container_mb(conf, "executor")


def application_master_mb(conf: Mapping[str, str], *, deploy_mode: str) -> int:
    """Return what the application master takes from YARN on one node, in MB."""
    driver_mb = _container_mb(conf, "driver") if deploy_mode == "cluster" else None
    return driver_mb or _CLIENT_MASTER_MB + _LEAST_OVERHEAD_MB


def types_without_room(fleets: list[dict[str, Any]], conf: Mapping[str, str]) -> Iterator[str]:
    """Yield each type of a fleet for executors on which not one fits, with the arithmetic."""
    size = executor_mb(conf)
    for instance_type, yarn_mb, _ in _nodes(fleets):
        if size and size > yarn_mb:
            yield f"{instance_type}: an executor takes {size:,} MB, and YARN has {yarn_mb:,} MB there"


def idle_cores(fleets: list[dict[str, Any]], conf: Mapping[str, str], *, deploy_mode: str) -> Iterator[str]:
    """Yield a sentence for each type of a fleet for executors whose cores are not all used."""
    size, cores = executor_mb(conf), conf.get("spark.executor.cores", "")
    if size is None or not cores.isdigit():
        return
    master_mb = application_master_mb(conf, deploy_mode=deploy_mode)
    for instance_type, yarn_mb, paid in _nodes(fleets):
        arithmetic = f"executors of {size:,} MB and {cores} cores in {yarn_mb:,} MB"
        used, used_beside_master = (
            min(room // size * int(cores), paid) for room in (yarn_mb, max(0, yarn_mb - master_mb))
        )
        if used < paid:
            yield f"{paid - used} of {paid} cores idle on {instance_type} ({yarn_mb // size} {arithmetic})"
        elif used_beside_master < paid:
            yield (
                f"{paid - used_beside_master} of {paid} cores idle on the {instance_type} with the application master "
                f"({yarn_mb // size} {arithmetic}, of which it takes {master_mb:,})"
            )


def _nodes(fleets: list[dict[str, Any]]) -> Iterator[tuple[str, int, int]]:
    """Yield the types that run executors, as far as they are known, each with YARN's memory and its cores."""
    choices = (fleet["InstanceTypeConfigs"] for fleet in fleets if fleet["InstanceFleetType"] != "MASTER")
    for instance_type in dict.fromkeys(choice["InstanceType"] for types in choices for choice in types):
        yarn_mb, cores = yarn_mb_of(instance_type), cores_of(instance_type)
        if yarn_mb and cores:
            yield instance_type, yarn_mb, cores


def _container_mb(conf: Mapping[str, str], kind: str) -> int | None:
    heap = _mb(conf.get(f"spark.{kind}.memory", ""))
    if heap is None:
        return None
    overhead = _mb(conf.get(f"spark.{kind}.memoryOverhead", ""))
    if overhead is None:
        overhead = max(math.ceil(heap * _OVERHEAD_FACTOR), _LEAST_OVERHEAD_MB)
    return math.ceil((heap + overhead) / _ALLOCATION_STEP_MB) * _ALLOCATION_STEP_MB


def _mb(text: str) -> int | None:
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        return None
    return int(match[1]) * (1024 if match[2] == "g" else 1)
