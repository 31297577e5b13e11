"""The two roots as one Dagster resource. Inert: nothing is opened before an asset, check or sensor uses it."""

import dagster as dg
from pydantic import Field

from cdi_dagster.storage import Roots, open_roots


class RootsResource(dg.ConfigurableResource):
    """Corporate storage and what we publish; assets use `Roots`."""

    corporate_root: str = Field(description="file:///absolute/folder or s3://bucket[/prefix]; only read.")
    published_root: str = Field(description="file:///absolute/folder or s3://bucket[/prefix].")

    def create_resource(self, context: dg.InitResourceContext) -> Roots:
        """Open the storages under the roots."""
        return open_roots(self.corporate_root, self.published_root)
