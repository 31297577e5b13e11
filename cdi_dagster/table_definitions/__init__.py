"""Where table definitions come from: the shipped one of a collection, or the one that the installation has configured.

`<asset name>.json` in this folder is the shipped definition of a collection. Every definition is read and checked where
settings are loaded; a Spark job gets a copy below the published root, so that it reads exactly what was checked.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cdi_dagster.core.collections import Collection
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.core.storage_keys import table_definition_key
from cdi_dagster.core.table_definition import TableDefinition, TableKind
from cdi_dagster.core.table_definition_text import parse_table_definition
from cdi_dagster.storage import ObjectMissingError, Storage, open_storage


def with_tables(collection: Collection, configured: Mapping[str, str | None]) -> Collection:
    """Return the collection with its tables: those of the configured definition, else of the shipped one, if any.

    Args:
        collection: any.
        configured: path, `file://` or `s3://` URI of a definition, or None for no tables, by collection id
            (CDI_TABLE_DEFINITIONS).

    Raises:
        CdiError: INPUT_INVALID where the definition cannot be read or used.
    """
    if collection.id not in configured:
        found = shipped_table_definition(collection)
    else:
        path_or_uri = configured[collection.id]
        found = read_table_definition(path_or_uri) if path_or_uri else None
    if found and found.is_of_snapshots != collection.is_keyed:
        kinds = f'"{TableKind.SNAPSHOT}" only' if collection.is_keyed else f'another kind than "{TableKind.SNAPSHOT}"'
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"The table definition {found.source} is no definition for {collection.id}: its tables must be of {kinds}.",
            next_step="Correct it (docs/tables.md), or CDI_TABLE_DEFINITIONS.",
        )
    return replace(collection, snapshot_tables=found) if collection.is_keyed else replace(collection, tables=found)


def all_with_tables(collections: Iterable[Collection], configured: Mapping[str, str | None]) -> list[Collection]:
    """Return the collections `with_tables`.

    Raises:
        CdiError: INPUT_INVALID where one has no usable definition, or two publish a table of one name.
    """
    found = [with_tables(collection, configured) for collection in collections]
    owners: dict[str, Collection] = {}
    for collection in found:
        definition = collection.tables or collection.snapshot_tables
        for table in definition.tables if definition else ():
            owner = owners.setdefault(table.name, collection)
            if owner is not collection:
                raise CdiError(
                    FailureClass.INPUT_INVALID,
                    f"{owner.id} and {collection.id} both publish {table.name}: each would replace the other's days.",
                    next_step="Give the table another name in one of the definitions (CDI_TABLE_DEFINITIONS).",
                )
    return found


def shipped_table_definition(collection: Collection) -> TableDefinition | None:
    """Return the definition that ships for a collection, or None: only its files are published then."""
    resource = files(__name__).joinpath(f"{collection.asset_name}.json")
    if not resource.is_file():
        return None
    return parse_table_definition(resource.read_bytes(), source=f"{resource.name} (shipped)")


def read_table_definition(path_or_uri: str) -> TableDefinition:
    """Read a definition from a path, or from a `file://` or `s3://` URI.

    Raises:
        CdiError: INPUT_INVALID where it cannot be read or used.
        StorageError: S3 does not respond.
    """
    try:
        text = _read(path_or_uri)
    except (OSError, ValueError, ObjectMissingError) as error:
        raise CdiError(
            FailureClass.INPUT_INVALID,
            f"The table definition {path_or_uri} cannot be read: {error}.",
            next_step="Correct CDI_TABLE_DEFINITIONS or the argument: a path, file:///folder/name.json or "
            "s3://bucket/name.json.",
        ) from error
    return parse_table_definition(text, source=path_or_uri)


def publish_copy(published: Storage, definition: TableDefinition) -> str:
    """Store the definition where Spark jobs can read it, under its digest, and return its URI."""
    key = table_definition_key(definition.sha256)
    published.write(key, definition.text)
    return published.uri(key)


def _read(path_or_uri: str) -> bytes:
    if path_or_uri.startswith("s3://"):
        folder, _, name = path_or_uri.rpartition("/")
        return open_storage(folder).read(name)
    is_uri = path_or_uri.startswith("file://")
    return Path(unquote(urlsplit(path_or_uri).path) if is_uri else path_or_uri).read_bytes()
