"""The two roots as Dagster resources. Inert: nothing is opened before an asset asks."""

import dagster as dg
from pydantic import Field

from cdi_dagster.storage import Storage, open_storage


class StorageResource(dg.ConfigurableResource):
    """Objects under one root; assets see the `Storage` interface."""

    root: str = Field(description="file:///absolute/folder or s3://bucket[/prefix].")

    def create_resource(self, context: dg.InitResourceContext) -> Storage:
        """Open the storage under the root."""
        return open_storage(self.root)
