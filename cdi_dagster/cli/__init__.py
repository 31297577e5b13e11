"""The `cdi` terminal: the capabilities of this package as commands, for people and (`--json`) for machines.

One file a command or group of commands, thin: a command reads options, calls what does the work and shows the result.
It is the top of the package: it may import everything, nothing imports it. Commands import lazily what is heavy
(dagster, boto3, cryptography), so that `cdi --help` answers at once.
"""

from cdi_dagster.cli.app import cdi


def main() -> None:
    """Run the `cdi` terminal; the process's exit code is 0, 1 (the work failed) or 2 (used wrongly)."""
    cdi(prog_name="cdi")
