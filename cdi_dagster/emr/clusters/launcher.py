"""The step launcher of production: Spark steps on EMR clusters, which they pass on to each other."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field

from cdi_dagster.bundle.source_digest import why_not_this_code
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.emr.clusters.api import EmrApi
from cdi_dagster.emr.clusters.backend import EmrClusters
from cdi_dagster.emr.clusters.pool import ClusterPool
from cdi_dagster.emr.clusters.request import template_problems
from cdi_dagster.emr.clusters.template import ClusterTemplate, TemplateError, load_template
from cdi_dagster.emr.launcher import BackendStepLauncher
from cdi_dagster.interfaces import SparkStep
from cdi_dagster.settings import Settings, knob
from cdi_dagster.storage import open_storage


class EmrPySparkStepLauncher(BackendStepLauncher):
    """Runs a Spark step on an EMR cluster (see `PySparkStepLauncher`): an idle one of ours, or one that it starts."""

    template_path: str = Field(description="Path of the cluster template (deploy/emr/cluster.yaml).")
    environment: str = knob("emr_environment")
    overrides: dict[str, Any] = knob("emr_overrides")
    bundle_uri: str = Field(description="s3:// URI of the bundle that clusters install (`cdi deploy` prints it).")
    existing_cluster_id: str | None = knob("emr_cluster_id")
    idle_seconds: int = knob("emr_idle_seconds")
    conf: dict[str, str] = knob("spark_conf")

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the launcher of an installation; whether it can be used, `why_unusable` reports."""
        return cls(
            published_root=settings.published_root,
            template_path=str(settings.emr_template.absolute()),
            environment=settings.emr_environment,
            overrides=settings.emr_overrides,
            bundle_uri=settings.emr_bundle_uri,
            existing_cluster_id=settings.emr_cluster_id,
            idle_seconds=settings.emr_idle_seconds,
            conf=settings.spark_conf,
            poll_interval_seconds=settings.emr_poll_interval_seconds,
            start_deadline_seconds=settings.emr_start_deadline_seconds,
            bootstrap_deadline_seconds=settings.emr_bootstrap_deadline_seconds,
            run_deadline_seconds=settings.emr_run_deadline_seconds,
            log_wait_seconds=settings.emr_log_wait_seconds,
            blind_seconds=settings.emr_blind_seconds,
            live_stdio=settings.emr_live_stdio,
        )

    def backend_for(self, step: SparkStep) -> EmrClusters:
        """Return EMR, with the template as it holds for the step's collection."""
        return EmrClusters(
            EmrApi(),
            self.template_for(step.collection.id),
            ClusterPool(open_storage(self.published_root)),
            bundle_uri=self.bundle_uri.rstrip("/"),
            existing_cluster_id=self.existing_cluster_id,
            idle_seconds=self.idle_seconds,
            conf=self.conf,
            clock=self.now,
        )

    def template_for(self, collection_id: str) -> ClusterTemplate:
        """Read the template as it holds for a collection.

        Raises:
            CdiError: LAUNCH_FAILED with every problem and its fix.
        """
        try:
            return load_template(
                Path(self.template_path),
                environment=self.environment,
                overrides=self.overrides,
                collection_id=collection_id,
            )
        except TemplateError as error:
            raise CdiError(
                FailureClass.LAUNCH_FAILED, str(error), next_step="Fix the template, then run the day again."
            ) from error


def why_unusable(settings: Settings) -> str | None:
    """Return why clusters would not run the code that runs here, or EMR would refuse the template; None if neither."""
    other_code = why_not_this_code(settings.emr_bundle_uri)
    if other_code:
        return other_code
    problems = template_problems(
        settings.emr_template, environment=settings.emr_environment, overrides=settings.emr_overrides
    )
    lines = "\n".join(f"  {problem}" for problem in problems)
    return f"The cluster template {settings.emr_template} cannot be used:\n{lines}" if problems else None
