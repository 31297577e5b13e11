"""`cdi bundle`: make what a cluster needs. `cdi deploy` uploads it to where clusters fetch it."""

from pathlib import Path

import click

from cdi_dagster.cli.console import facts, json_option, print_json, progress, result_console
from cdi_dagster.core.amounts import size_text

_DEFAULT_OUTPUT = Path("dist/bundle")


@click.command("bundle")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=_DEFAULT_OUTPUT,
    show_default=True,
    help="Folder below which the bundle is made, under its own id.",
)
@click.option(
    "--constraints",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path("constraints.txt"),
    show_default=True,
    help="Pins the versions of everything it needs.",
)
@json_option
def bundle_command(output: Path, constraints: Path, as_json: bool) -> None:
    """Make the bundle that clusters install: our Spark jobs, the wheels they need, hashes, the bootstrap script.

    The same sources give the same bundle under the same id. Needs a package index; the cluster does not.
    """
    from cdi_dagster.bundle.build import build_bundle

    with progress("Making the bundle"):
        bundle = build_bundle(output, constraints=constraints)
    if as_json:
        print_json({"id": bundle.id, "folder": str(bundle.folder), "files": bundle.files, "bytes": bundle.size_bytes})
        return
    rows = [("bundle", bundle.id), ("folder", str(bundle.folder))]
    rows.append(("holds", f"{bundle.files} files, {size_text(bundle.size_bytes)}"))
    result_console().print(facts([*rows, ("next", f"cdi deploy --to s3://<bucket>/bundles {bundle.folder}")]))
