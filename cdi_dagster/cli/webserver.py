"""A client for Dagster's webserver: the few GraphQL queries of `cdi relaunch` and `cdi demo`.

The same requests as the UI's buttons send, so that what the terminal starts looks and behaves like what a click
starts. No dagster import.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import urllib3

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.failures import CdiError, FailureClass

REQUESTED_BY_TAG = "cdi/requested_by"
"""On a run that a person requested in a terminal: by which command."""
_SIGN_IN = (301, 302, 303, 307, 401, 403)
_TIMEOUT = urllib3.Timeout(connect=5, read=60)

_ASSETS = """query CdiAssets { assetNodes {
  assetKey { path } isPartitioned isMaterializable jobNames
  repository { name location { name } } } }"""

_PARTITIONS = """query CdiPartitions($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { __typename
  ... on AssetNode { partitionKeysByDimension { partitionKeys } } } }"""

_LOCATIONS = """query CdiLocations { workspaceOrError { __typename
  ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename
    ... on PythonError { message errorChain { error { message } } } } } } ... on PythonError { message } } }"""

_LAUNCH_BACKFILL = """mutation CdiBackfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) { __typename
  ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }"""

_LAUNCH_RUN = """mutation CdiRun($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on Error { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""

_RUN = """query CdiRun($id: ID!, $after: String) { runOrError(runId: $id) { __typename ... on Error { message }
  ... on Run { status startTime endTime eventConnection(afterCursor: $after, limit: 500) { cursor hasMore events {
    __typename
    ... on MessageEvent { timestamp message level stepKey }
    ... on MaterializationEvent { assetKey { path } }
    ... on ExecutionStepFailureEvent { failureMetadata { metadataEntries { label __typename
        ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr: mdStr }
        ... on JsonMetadataEntry { jsonString } } } error { message } }
    ... on AssetCheckEvaluationEvent { evaluation { checkName success assetKey { path } } } } } } } }"""


_RUNS_OF_BACKFILL = """query CdiRunsOfBackfill($id: String!) {
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) { __typename ... on Error { message }
  ... on Runs { results { runId status tags { key value } } } } }"""


@dataclass(frozen=True, kw_only=True)
class AssetOfCollection:
    """One partitioned asset of the code location.

    Attributes:
        path: the asset key's parts.
        repository: name of its repository.
        location: name of its code location.
    """

    path: tuple[str, ...]
    repository: str
    location: str


class Webserver:
    """A client of one Dagster webserver."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.url = url.rstrip("/")
        self._pool = urllib3.PoolManager(timeout=_TIMEOUT, retries=False, headers=headers)

    def locations(self) -> list[tuple[str, str | None]]:
        """Return the code locations that are loaded, each with its load error if it has one."""
        workspace = self._query(_LOCATIONS)["workspaceOrError"]
        if workspace["__typename"] != "Workspace":
            raise self._failed(f"The workspace could not be read: {workspace.get('message')}")
        entries = [entry for entry in workspace["locationEntries"] if entry["loadStatus"] == "LOADED"]
        return [(entry["name"], _root_cause(entry["locationOrLoadError"])) for entry in entries]

    def assets_of(self, collection: Collection, *, snapshot: bool = False) -> list[AssetOfCollection]:
        """Return the partitioned assets of a collection's days: its input, its daily records, its tables.

        Args:
            collection: whose assets.
            snapshot: return those of its snapshots instead: the snapshot and its tables.

        Raises:
            CdiError: INPUT_INVALID where the code location has none.
        """
        # As `names.daily_job_name` and `names.snapshot_job_name`; no dagster here.
        job = f"{collection.asset_name}_{'snapshot' if snapshot else 'daily'}"
        found = [
            AssetOfCollection(
                path=tuple(node["assetKey"]["path"]),
                repository=node["repository"]["name"],
                location=node["repository"]["location"]["name"],
            )
            for node in self._query(_ASSETS)["assetNodes"]
            if node["isPartitioned"]
            and node["isMaterializable"]
            and collection.asset_name in node["assetKey"]["path"]
            and job in node["jobNames"]
        ]
        if not found:
            raise CdiError(
                FailureClass.INPUT_INVALID,
                f"The code location behind {self.url} has no assets of {collection.id}.",
                next_step="Only registered collections have assets; others are ingested with cdi ingest.",
            )
        return found

    def require_partitions(self, asset: AssetOfCollection, wanted: Sequence[str], *, are: str) -> None:
        """Return where every day is a partition of the asset; `are` is what its partitions are.

        Raises:
            CdiError: INPUT_INVALID, naming those that are not and the first and last that are.
        """
        response = self._query(_PARTITIONS, key={"path": list(asset.path)})["assetNodeOrError"]
        dimensions = response.get("partitionKeysByDimension") or [{"partitionKeys": []}]
        partitions = dimensions[0]["partitionKeys"]
        missing = [day for day in wanted if day not in set(partitions)]
        if missing:
            there = f"from {partitions[0]} to {partitions[-1]}" if partitions else "none yet"
            raise CdiError(
                FailureClass.INPUT_INVALID,
                f"{', '.join(missing)} cannot be run: the {are} that are partitions are {there}.",
                next_step="Name other days (a storage day is the day before its export day), or set "
                "CDI_FIRST_STORAGE_DAY where the code location is loaded.",
            )

    def launch_backfill(
        self,
        assets: Sequence[AssetOfCollection],
        partitions: Sequence[str],
        *,
        title: str,
        tags: Mapping[str, str],
        run_config: Mapping[str, Any] | None = None,
    ) -> str:
        """Launch a backfill of the assets over the partitions, each run with `run_config`, and return its id."""
        params = {
            "assetSelection": [{"path": list(asset.path)} for asset in assets],
            "partitionNames": list(partitions),
            "title": title,
            "tags": _tags(tags),
            "runConfigData": run_config or {},
        }
        response = self._query(_LAUNCH_BACKFILL, params=params)["launchPartitionBackfill"]
        if response["__typename"] != "LaunchBackfillSuccess":
            raise self._failed(f"The backfill was not launched: {response.get('message', response['__typename'])}")
        return str(response["backfillId"])

    def launch_run(self, assets: Sequence[AssetOfCollection], partition: str, *, tags: Mapping[str, str]) -> str:
        """Launch one run that materialises the assets of one partition, as the UI does, and return its id."""
        params = {
            "selector": {
                "repositoryLocationName": assets[0].location,
                "repositoryName": assets[0].repository,
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": list(asset.path)} for asset in assets],
                "assetCheckSelection": None,
            },
            "mode": "default",
            "runConfigData": {},
            "executionMetadata": {"tags": _tags({"dagster/partition": partition, **tags})},
        }
        response = self._query(_LAUNCH_RUN, params=params)["launchRun"]
        if response["__typename"] != "LaunchRunSuccess":
            errors = "; ".join(error["message"] for error in response.get("errors", []))
            raise self._failed(
                f"The run was not launched: {response.get('message') or errors or response['__typename']}"
            )
        return str(response["run"]["runId"])

    def run(self, run_id: str, after: str | None) -> dict[str, Any]:
        """Return a run's status and its events after a cursor."""
        response = self._query(_RUN, id=run_id, after=after)["runOrError"]
        if response["__typename"] != "Run":
            raise self._failed(f"Run {run_id} cannot be read: {response.get('message', response['__typename'])}")
        return dict(response)

    def runs_of_backfill(self, backfill_id: str) -> list[dict[str, Any]]:
        """Return the runs that a backfill has launched until now, without their events."""
        response = self._query(_RUNS_OF_BACKFILL, id=backfill_id)["runsOrError"]
        if response["__typename"] != "Runs":
            raise self._failed(f"The runs of backfill {backfill_id} cannot be read: {response.get('message')}")
        return list(response["results"])

    def answers(self) -> bool:
        """Whether the webserver is up."""
        try:
            return bool(self._pool.request("GET", f"{self.url}/server_info").status == 200)
        except urllib3.exceptions.HTTPError:
            return False

    def _query(self, query: str, **variables: Any) -> dict[str, Any]:
        try:
            response = self._pool.request("POST", f"{self.url}/graphql", json={"query": query, "variables": variables})
        except urllib3.exceptions.HTTPError as error:
            raise CdiError(
                FailureClass.WEBSERVER_UNAVAILABLE,
                f"Dagster's webserver at {self.url} does not respond ({type(error).__name__}).",
                next_step="Start it (on a laptop: make dev), or name the right one: CDI_DAGSTER_URL or --url.",
            ) from error
        try:
            value = json.loads(response.data)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not value.get("data"):
            errors = value.get("errors") if isinstance(value, dict) else None
            what = errors[0]["message"] if errors else f"HTTP {response.status}"
            if response.status in _SIGN_IN:
                raise CdiError(
                    FailureClass.WEBSERVER_UNAVAILABLE,
                    f"What is in front of Dagster's webserver at {self.url} wants a sign-in (HTTP {response.status}).",
                    next_step="Set CDI_DAGSTER_TOKEN to the secret with which its load balancer lets commands through.",
                )
            raise CdiError(
                FailureClass.WEBSERVER_UNAVAILABLE,
                f"{self.url} does not respond as Dagster's webserver does: {what}",
            )
        return dict(value["data"])

    def _failed(self, cause: str) -> CdiError:
        return CdiError(
            FailureClass.LAUNCH_FAILED,
            cause,
            next_step="Check the deployment page of the UI, fix what it shows, then retry.",
        )


def _root_cause(loaded: dict[str, Any] | None) -> str | None:
    """Return the message of the error at the root of a load error, or None where the location is loaded."""
    if not loaded or "message" not in loaded:
        return None
    chain = [link["error"]["message"] for link in loaded.get("errorChain") or []]
    return str((chain or [loaded["message"]])[-1]).strip()


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]
