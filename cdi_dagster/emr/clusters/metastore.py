"""Where a cluster registers its tables: the Glue catalog, or a Hive metastore of the installation. Pure."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_CLASSIFICATIONS = ("hive-site", "spark-hive-site")
FACTORY = "hive.metastore.client.factory.class"
_GLUE = "com.amazonaws.glue.catalog.metastore.AWSGlueDataCatalogHiveClientFactory"
_DATABASE = "javax.jdo.option.ConnectionURL"


class MetastoreTemplate(BaseModel):
    """The template's `metastore`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["glue", "hive"] = Field(default="glue", description="Glue, or a Hive metastore of your own.")
    catalog_id: str | None = Field(
        default=None, pattern=r"^\d{12}$", description="Account of the Glue catalog, where that is another one."
    )
    uris: str | None = Field(
        default=None,
        pattern=r"^thrift://\S+$",
        description="thrift://host:9083 of the Hive metastore; without it, hive-site has that of its database.",
    )

    @property
    def configurations(self) -> list[dict[str, Any]]:
        """EMR's Configurations for it: those of the template come on top."""
        if self.kind == "glue":
            properties = {FACTORY: _GLUE} | (
                {"hive.metastore.glue.catalogid": self.catalog_id} if self.catalog_id else {}
            )
        else:
            properties = {"hive.metastore.uris": self.uris} if self.uris else {}
        return [{"Classification": name, "Properties": properties} for name in _CLASSIFICATIONS if properties]

    def problems(self, configured: dict[str, str]) -> Iterator[str]:
        """Yield what does not fit together.

        Args:
            configured: properties of hive-site and spark-hive-site in the template's own configurations.
        """
        if self.kind == "glue":
            if self.uris:
                yield "metastore.uris is a Hive metastore's: write kind: hive, or take it out"
            return
        if self.catalog_id:
            yield "metastore.catalog_id is Glue's: write kind: glue, or take it out (null where an override has to)"
        if FACTORY in configured:
            yield f"configurations: {FACTORY} would replace the Hive metastore that metastore names: take it out"
        if not self.uris and _DATABASE not in configured:
            yield (
                f"metastore: a Hive metastore of your own needs uris (thrift://host:9083), or the {_DATABASE} of its "
                "database in configurations (hive-site): without either, tables end with the cluster"
            )
