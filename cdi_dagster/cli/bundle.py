"""`cdi bundle` and `cdi deploy`: make what a cluster needs, and upload it to where clusters fetch it."""

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


@click.command("deploy")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", "root", required=True, metavar="URI", help="Root below which bundles lie: s3://bucket/bundles.")
@json_option
def deploy_command(folder: Path, root: str, as_json: bool) -> None:
    """Upload a bundle, unless it is there already, and print the setting that makes clusters use it."""
    from cdi_dagster.bundle.upload import MARK, upload_bundle
    from cdi_dagster.settings import use_aws_settings
    from cdi_dagster.storage import open_storage

    if not (folder / MARK).is_file():
        raise click.UsageError(f"{folder} is not a bundle: it has no {MARK}. Make one with: cdi bundle")
    use_aws_settings()
    try:
        storage = open_storage(root)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--to") from error
    with progress(f"Uploading {folder.name}") as report:
        uploaded = upload_bundle(folder, storage, log=report)
    uri = storage.uri(folder.name)
    if as_json:
        print_json({"uri": uri, "uploaded": uploaded})
        return
    rows = [("bundle", uri), ("uploaded", "yes" if uploaded else "no, it was there already")]
    result_console().print(facts([*rows, ("next", f"set CDI_EMR_BUNDLE_URI={uri}")]))
