"""`cdi deploy`: uploads a bundle to where clusters fetch it; writes `cdi.env` from CloudFormation stacks."""

from pathlib import Path

import click

from cdi_dagster.cli.console import facts, json_option, print_json, progress, result_console


class _BundleByDefault(click.Group):
    """Takes arguments without the name of a command for those of `bundle`, as `cdi deploy` had them first."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = args and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named or not args else ["bundle", *args])


@click.group("deploy", cls=_BundleByDefault)
def deploy_group() -> None:
    """Upload a bundle (cdi deploy FOLDER --to URI), or write cdi.env from the outputs of CloudFormation stacks."""


@deploy_group.command("bundle")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", "root", required=True, metavar="URI", help="Root below which bundles lie: s3://bucket/bundles.")
@json_option
def upload_command(folder: Path, root: str, as_json: bool) -> None:
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


@deploy_group.command("settings")
@click.option(
    "--stack",
    "stacks",
    required=True,
    multiple=True,
    metavar="NAME",
    help="Stack of deploy/aws whose outputs are settings; may be repeated.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File to write. Default: cdi.env in CDI_HOME.",
)
@json_option
def settings_command(stacks: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Write cdi.env from the outputs of stacks; other lines that it has are kept.

    Needs cloudformation:DescribeStacks. Reports what changed, and what is still to be set by hand.
    """
    from cdi_dagster.cli.stack_settings import read_outputs, update_file
    from cdi_dagster.settings import ENV_FILE_NAME, home_folder, problems_of, use_aws_settings

    use_aws_settings()
    path = output or home_folder() / ENV_FILE_NAME
    changed = update_file(path, read_outputs(stacks))
    to_do = problems_of(path)
    if as_json:
        print_json({"file": str(path), "changed": changed, "to_do": to_do})
        return
    rows = [("file", str(path)), *(("set", line) for line in changed or ["nothing, all of it was there already"])]
    result_console().print(facts([*rows, *(("to do", line) for line in to_do)]))
