"""The cluster template: what a cluster is made of, by whom it is overridden, checked when it is read.

EMR's own names are used wherever EMR has one, so that its documentation applies; `request` has botocore check those.
Here is what botocore cannot know: our ladder, secrets that do not belong in a file, values nobody filled in.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cdi_dagster.emr.clusters.metastore import MetastoreTemplate
from cdi_dagster.emr.clusters.sizing import GRAVITON, idle_cores, types_without_room
from cdi_dagster.emr.launch_plan import Profile

FILL_IN = "CHANGE-ME"
"""What the shipped template has where only the installation knows."""
SECRET_REFERENCE = "EMR.secret@"  # noqa: S105 - EMR's own annotation; EMR resolves it on the cluster
JAVA_OPTIONS = ("spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions")
"""Where the launcher adds the pattern of Spark's log."""
_OURS = frozenset(
    {
        *("Name", "Steps", "Tags", "BootstrapActions", "Configurations"),
        *("AutoTerminationPolicy", "StepConcurrencyLevel"),
    }
)
_HOW_TO_SET = {
    "AutoTerminationPolicy": "from CDI_EMR_IDLE_SECONDS",
    "BootstrapActions": "yours go into bootstrap_actions, in front of the one that installs the bundle",
}
_MOST_BOOTSTRAP_ACTIONS = 15
"""EMR takes 16 a cluster; one is ours."""
_OURS_IN_INSTANCES = frozenset({"KeepJobFlowAliveWhenNoSteps", "TerminationProtected", "InstanceFleets"})
_SECRET_NAME = re.compile(r"passw(or)?d|secret|access[._-]?key|api[._-]?key|private[._-]?key", re.IGNORECASE)
_NO_SECRET_AFTER_ALL = re.compile(r"(provider|path|file|alias|arn|enabled)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|-----BEGIN ")


class TemplateError(Exception):
    """The template cannot be used; a line for each problem, with its fix."""

    def __init__(self, source: str, problems: list[str]) -> None:
        super().__init__(f"The cluster template {source} cannot be used:\n" + "\n".join(f"  {p}" for p in problems))
        self.problems = problems


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProfileTemplate(_Strict):
    """One rung of the ladder."""

    name: str = Field(pattern=r"^[a-z0-9-]+$", description="Shown on the run page.")
    size: int = Field(ge=1, description="A larger number has more memory an executor; OUT_OF_MEMORY climbs by it.")
    up_to_input_bytes: int | None = Field(
        default=None, ge=1, description="Largest compressed input of a day that it is the first choice for."
    )
    fleets: list[dict[str, Any]] = Field(min_length=1, description="EMR's InstanceFleets.")
    spark_conf: dict[str, str] = Field(default_factory=dict, description="Added to the step's, and stronger.")
    configurations: list[dict[str, Any]] = Field(default_factory=list, description="Added to the cluster's, stronger.")

    def plan(self) -> Profile:
        """Return what `next_attempt` needs to know of it."""
        return Profile(name=self.name, size=self.size, up_to_input_bytes=self.up_to_input_bytes)

    @model_validator(mode="after")
    def _fleets_can_start(self) -> Self:
        kinds = [fleet.get("InstanceFleetType") for fleet in self.fleets]
        for needed in ("MASTER", "CORE"):
            if kinds.count(needed) != 1:
                raise ValueError(f"profile {self.name} needs exactly one {needed} fleet")
        for fleet in self.fleets:
            kind, types = fleet["InstanceFleetType"], fleet.get("InstanceTypeConfigs") or []
            graviton = [
                choice["InstanceType"] for choice in types if GRAVITON.fullmatch(choice.get("InstanceType", ""))
            ]
            if graviton:
                raise ValueError(
                    f"profile {self.name}: {', '.join(graviton)} is Graviton (arm64), and the wheels of the bundle are "
                    "for x86_64: name a type of Intel or AMD"
                )
            if len(types) < 2:
                raise ValueError(
                    f"profile {self.name}: the {kind} fleet names {len(types)} instance type(s); name two or more, so "
                    "that a type without capacity does not fail the day"
                )
            if not fleet.get("TargetOnDemandCapacity") and not fleet.get("TargetSpotCapacity"):
                raise ValueError(
                    f"profile {self.name}: the {kind} fleet requests nothing: set TargetOnDemandCapacity or "
                    "TargetSpotCapacity"
                )
        return self


class StepTemplate(_Strict):
    """How the Spark job is submitted."""

    deploy_mode: Literal["client", "cluster"] = Field(
        default="client",
        description="`client` runs the driver on the primary node: its log is the step's own, and its exit code too.",
    )
    spark_conf: dict[str, str] = Field(default_factory=dict)


class ClusterTemplate(_Strict):
    """A whole template, overrides applied."""

    cluster: dict[str, Any] = Field(description="RunJobFlow's own parameters, but those that the launcher sets.")
    metastore: MetastoreTemplate = Field(default_factory=MetastoreTemplate)
    configurations: list[dict[str, Any]] = Field(default_factory=list, description="EMR's Configurations.")
    bootstrap_actions: list[dict[str, Any]] = Field(
        default_factory=list, description="EMR's BootstrapActions, run on every node before the one that is ours."
    )
    tags: dict[str, str] = Field(default_factory=dict)
    step: StepTemplate = Field(default_factory=StepTemplate)
    profiles: list[ProfileTemplate] = Field(min_length=1, description="The ladder, first choice first.")
    prices_per_hour: dict[str, float] = Field(
        default_factory=dict, description="US dollars an hour by instance type, EC2 and EMR together: for estimates."
    )

    @property
    def ladder(self) -> tuple[Profile, ...]:
        """The profiles as `next_attempt` takes them."""
        return tuple(profile.plan() for profile in self.profiles)

    def idle_cores(self) -> list[str]:
        """Return what is paid for and not used, a sentence for each profile and type."""
        return [
            f"profile {profile.name}: {line}"
            for profile in self.profiles
            for line in idle_cores(
                profile.fleets, self.step.spark_conf | profile.spark_conf, deploy_mode=self.step.deploy_mode
            )
        ]

    def profile(self, name: str) -> ProfileTemplate:
        """Return a profile by name."""
        return {profile.name: profile for profile in self.profiles}[name]

    @property
    def log_uri(self) -> str:
        """Where EMR puts the logs, without a trailing slash."""
        return str(self.cluster["LogUri"]).rstrip("/")

    @property
    def _all_configurations(self) -> list[dict[str, Any]]:
        return [*self.configurations, *(c for profile in self.profiles for c in profile.configurations)]

    @model_validator(mode="after")
    def _is_ours_to_use(self) -> Self:
        checks = (
            self._cluster_problems,
            self._bootstrap_problems,
            self._ladder_problems,
            self._no_room,
            self._metastore_problems,
            self._lost_options,
            self._secrets,
            self._not_filled_in,
        )
        problems = [problem for check in checks for problem in check()]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _cluster_problems(self) -> Iterator[str]:
        for name in sorted(_OURS & self.cluster.keys()):
            how = _HOW_TO_SET.get(name, "configurations and tags have their own section")
            yield f"cluster.{name}: the launcher sets it; take it out ({how})"
        for name in sorted(_OURS_IN_INSTANCES & (self.cluster.get("Instances") or {}).keys()):
            yield f"cluster.Instances.{name}: the launcher sets it, so that what it starts always ends; take it out"
        for name in ("ReleaseLabel", "JobFlowRole", "ServiceRole", "LogUri"):
            if not self.cluster.get(name):
                yield f"cluster.{name} is missing: a run could not be launched, or not be explained, without it"
        if not str(self.cluster.get("LogUri", "s3://")).startswith("s3://"):
            yield "cluster.LogUri is not an s3:// URI: write s3://bucket/prefix"

    def _bootstrap_problems(self) -> Iterator[str]:
        for number, action in enumerate(self.bootstrap_actions, start=1):
            script = action.get("ScriptBootstrapAction")
            path = script.get("Path") if isinstance(script, Mapping) else None
            if not action.get("Name") or not str(path or "").startswith(("s3://", "file:///")):
                yield (
                    f"bootstrap_actions, number {number}: write Name, and ScriptBootstrapAction with the Path of a "
                    "script: s3://bucket/key, or file:///path of your AMI"
                )
        if (count := len(self.bootstrap_actions)) > _MOST_BOOTSTRAP_ACTIONS:
            yield f"bootstrap_actions: {count} are too many; EMR takes {_MOST_BOOTSTRAP_ACTIONS} beside ours: join some"

    def _ladder_problems(self) -> Iterator[str]:
        names = [profile.name for profile in self.profiles]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"profiles: {name} is there twice; give each a name of its own"
        if all(profile.up_to_input_bytes is not None for profile in self.profiles):
            yield "profiles: none takes a day of any size; leave up_to_input_bytes out of the largest"

    def _no_room(self) -> Iterator[str]:
        for profile in self.profiles:
            for line in types_without_room(profile.fleets, self.step.spark_conf | profile.spark_conf):
                yield f"profile {profile.name}: no executor fits {line}; make it smaller, or the type larger"

    def _metastore_problems(self) -> Iterator[str]:
        hive = [c for c in self._all_configurations if str(c.get("Classification")).endswith("hive-site")]
        yield from self.metastore.problems({name.partition(": ")[2]: value for name, value in _properties(hive)})

    def _lost_options(self) -> Iterator[str]:
        for name, _ in _properties(self._all_configurations):
            if name.partition(": ")[2] in JAVA_OPTIONS:
                yield f"{name} would be replaced by the step's: move it to step.spark_conf, where it is added to"

    def _secrets(self) -> Iterator[str]:
        confs = [self.step.spark_conf, *(profile.spark_conf for profile in self.profiles)]
        for name in sorted({name for conf in confs for name in conf if _names_secret(name)}):
            yield (
                f"{name} is Spark configuration of the step, which anyone who lists steps can read: move it to "
                f"configurations (spark-defaults), as {SECRET_REFERENCE}<ARN of the secret>"
            )
        for name, value in _properties(self._all_configurations):
            if _names_secret(name) and not value.startswith(SECRET_REFERENCE):
                yield f"{name} holds its secret in the file: put it into Secrets Manager, write {SECRET_REFERENCE}<ARN>"
        for path, value in _texts(self.model_dump(), ""):
            if _SECRET_VALUE.search(value):
                yield f"{path} looks like a key: take it out, revoke it, and use roles or Secrets Manager"

    def _not_filled_in(self) -> Iterator[str]:
        for path, value in _texts(self.model_dump(), ""):
            if FILL_IN in value:
                yield f"{path} still has {FILL_IN}: write what your account has, here or under overrides"


class _TemplateFile(_Strict):
    base: dict[str, Any]
    environments: dict[str, dict[str, Any]] = Field(default_factory=dict)
    collections: dict[str, dict[str, Any]] = Field(default_factory=dict)


def load_template(
    path: Path, *, environment: str = "", overrides: Mapping[str, Any] | None = None, collection_id: str = ""
) -> ClusterTemplate:
    """Read a template; apply the overrides of an environment, those of the settings, and those of a collection.

    Mappings are merged, lists replaced; `configurations` are merged by classification, and `profiles` by name where
    the override names only some of them.

    Raises:
        TemplateError: it cannot be used; a line for each problem, with its fix.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TemplateError(
            str(path), [f"it cannot be read ({error.strerror}): set CDI_EMR_TEMPLATE to its path"]
        ) from error
    except yaml.YAMLError as error:
        raise TemplateError(str(path), [f"it is not YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(raw, dict):
        raise TemplateError(str(path), ["it is empty: start from deploy/emr/cluster.yaml"])
    in_file = raw.pop("overrides", None) or {}
    try:
        file = _TemplateFile(base=raw, **in_file)
        if environment and environment not in file.environments:
            known = ", ".join(sorted(file.environments)) or "none"
            raise TemplateError(
                str(path), [f"overrides.environments has no {environment} (it has: {known}): set CDI_EMR_ENVIRONMENT"]
            )
        merged = merge(merge(file.base, file.environments.get(environment, {})), overrides or {})
        return ClusterTemplate(**merge(merged, file.collections.get(collection_id, {})))
    except ValidationError as error:
        raise TemplateError(str(path), [line for detail in error.errors() for line in _lines(detail)]) from None


def override_names(path: Path) -> tuple[list[str], list[str]]:
    """Return the environments and the collections that a template has overrides for."""
    overrides = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("overrides") or {}
    return sorted(overrides.get("environments") or {}), sorted(overrides.get("collections") or {})


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` on top: mappings merged, `configurations` and `profiles` by name, all else replaced."""
    merged = dict(base)
    for name, value in over.items():
        present = merged.get(name)
        if isinstance(present, Mapping) and isinstance(value, Mapping):
            merged[name] = merge(present, value)
        elif name == "configurations" and present:
            merged[name] = merge_by(present, value, "Classification")
        elif name == "profiles" and present:
            merged[name] = merge_by(present, value, "name")
        else:
            merged[name] = value
    return merged


def merge_by(base: list[dict[str, Any]], over: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Merge two lists of mappings that a key identifies; new ones come last."""
    merged = {entry.get(key): entry for entry in base}
    for entry in over:
        merged[entry.get(key)] = merge(merged.get(entry.get(key), {}), entry)
    return list(merged.values())


def _names_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _NO_SECRET_AFTER_ALL.search(name)


def _properties(configurations: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for configuration in configurations:
        for name, value in (configuration.get("Properties") or {}).items():
            yield f"{configuration.get('Classification')}: {name}", str(value)
        yield from _properties(configuration.get("Configurations") or [])


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(part, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            label = (
                part.get("name") or part.get("Classification") or part.get("Name") or number
                if isinstance(part, Mapping)
                else number
            )
            yield from _texts(part, f"{path}[{label}]")
    elif isinstance(value, str):
        yield path, value


def _lines(detail: Any) -> Iterator[str]:
    message = str(detail["msg"]).removeprefix("Value error, ")
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        yield f"{where} is not a part of a template: correct its name or take it out"
    elif detail["type"] == "missing":
        yield f"{where} is missing: add it (deploy/emr/cluster.yaml shows how)"
    elif detail["type"] == "value_error":
        yield from message.split("\n")
    else:
        yield f"{where}: {message[:1].lower()}{message[1:]} (it is {detail['input']!r})"
