"""Settings from the outputs of CloudFormation stacks: an output `CdiDagsterUrl` is the setting `CDI_DAGSTER_URL`.

For `cdi deploy settings`. The file is read by us (dotenv) and by ECS (environment files), so each value is one plain
line that both read alike.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from cdi_dagster.aws.clients import client
from cdi_dagster.core.failures import CdiError, FailureClass
from cdi_dagster.settings import PREFIX, Settings

_WORD = re.compile(r"(?<!^)(?=[A-Z])")
_NOT_ALIKE = re.compile(r"[\r\n]|\s#|\$|^[\"'\s]|\s$")
"""What dotenv reads in another way than ECS: line ends, comments, references, quotes."""
_SETTING_LINE = re.compile(rf"({PREFIX}[A-Z0-9_]+)=")


def setting_of(output: str) -> str | None:
    """Return the setting that an output is named after; None where there is none."""
    name = _WORD.sub("_", output).upper()
    return name if name.removeprefix(PREFIX).lower() in Settings.model_fields and name.startswith(PREFIX) else None


def read_outputs(stacks: Sequence[str]) -> dict[str, str]:
    """Return the settings that the outputs of stacks are.

    Raises:
        CdiError: a stack cannot be read or is not made yet.
        click.UsageError: an output is no setting, or two stacks differ in one.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    settings: dict[str, str] = {}
    for stack in stacks:
        try:
            (found,) = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        except (BotoCoreError, ClientError) as error:
            raise CdiError(
                FailureClass.LAUNCH_FAILED,
                f"The stack {stack} cannot be read: {error}",
                next_step="Check its name, CDI_AWS_REGION, and the permission cloudformation:DescribeStacks.",
            ) from error
        if not found["StackStatus"].endswith(("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE")):
            raise CdiError(
                FailureClass.LAUNCH_FAILED,
                f"The stack {stack} is {found['StackStatus']}, so its outputs may not hold.",
                next_step="Wait until it is complete, or fix what its events show.",
            )
        for output in found.get("Outputs", []):
            _add(settings, stack, output["OutputKey"], output["OutputValue"])
    return settings


def _add(settings: dict[str, str], stack: str, output: str, value: str) -> None:
    setting = setting_of(output)
    if setting is None:
        raise click.UsageError(f"The output {output} of {stack} is no setting of ours: is it a stack of deploy/aws?")
    if _NOT_ALIKE.search(value):
        raise click.UsageError(f"The output {output} of {stack} is not one plain line: {value!r}")
    if settings.setdefault(setting, value) != value:
        raise click.UsageError(f"Two stacks differ in {setting}: {settings[setting]!r}, and {value!r} of {stack}")


def update_file(path: Path, settings: Mapping[str, str]) -> list[str]:
    """Write settings into a file, each in the place of its line, or at the end; return the lines that are new."""
    before = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    lines, open_ = [], dict(settings)
    for line in before:
        named = _SETTING_LINE.match(line)
        if named and named[1] in settings:
            if named[1] in open_:
                lines.append(f"{named[1]}={open_.pop(named[1])}")
        else:
            lines.append(line)
    lines += [f"{name}={value}" for name, value in open_.items()]
    if lines != before:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.new")
        new.write_text("\n".join(lines) + "\n", encoding="utf-8")
        new.replace(path)
    return [line for line in lines if line not in before]
