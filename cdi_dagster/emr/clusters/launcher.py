"""The step launcher of production: Spark steps on EMR clusters, which they pass on to each other."""

from pathlib import Path

from pydantic import Field

from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.emr.clusters.api import EmrApi
from cdi_dagster.emr.clusters.backend import EmrClusters
from cdi_dagster.emr.clusters.pool import ClusterPool
from cdi_dagster.emr.clusters.template import ClusterTemplate, TemplateError, load_template
from cdi_dagster.emr.launcher import BackendStepLauncher
from cdi_dagster.interfaces import SparkStep
from cdi_dagster.settings import knob
from cdi_dagster.storage import open_storage


class EmrPySparkStepLauncher(BackendStepLauncher):
    """Runs a Spark step on an EMR cluster (see `PySparkStepLauncher`): an idle one of ours, or one that it starts."""

    template_path: str = Field(description="Path of the cluster template (deploy/emr/cluster.yaml).")
    environment: str = knob("emr_environment")
    bundle_uri: str = Field(description="s3:// URI of the bundle that clusters install (`cdi deploy` prints it).")
    existing_cluster_id: str | None = knob("emr_cluster_id")
    idle_seconds: int = knob("emr_idle_seconds")
    conf: dict[str, str] = knob("spark_conf")

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
            return load_template(Path(self.template_path), environment=self.environment, collection_id=collection_id)
        except TemplateError as error:
            raise CdiError(
                FailureClass.LAUNCH_FAILED, str(error), next_step="Fix the template, then run the day again."
            ) from error
