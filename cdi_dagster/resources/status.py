"""The status table as a Dagster resource: files in a folder locally, DynamoDB in production."""

from pathlib import Path
from typing import Literal

import dagster as dg
from pydantic import Field

from cdi_dagster.interfaces import StatusTable
from cdi_dagster.resources.status_table import DynamoDbStatusTable, FileStatusTable
from cdi_dagster.settings import knob


class StatusTableResource(dg.ConfigurableResource):
    """The rows that downstream products read; assets use the `StatusTable` interface."""

    kind: Literal["file", "dynamodb"] = Field(description="`file`: a folder on this machine; `dynamodb`: production.")
    folder: str | None = Field(default=None, description="Folder of the rows (`file`).")
    table_name: str = knob("status_table_name")
    weeks_to_exist: int = knob("status_weeks_to_exist")

    def create_resource(self, context: dg.InitResourceContext) -> StatusTable:
        """Return the table; nothing is read or written before an asset does."""
        if self.kind == "dynamodb":
            return DynamoDbStatusTable(self.table_name, weeks_to_exist=self.weeks_to_exist)
        if self.folder is None:
            raise ValueError("A status table of kind `file` needs `folder`: the folder of its rows.")
        return FileStatusTable(Path(self.folder), weeks_to_exist=self.weeks_to_exist)
