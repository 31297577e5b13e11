"""`python -m cdi_dagster.coalescer`: the coalescer alone, without the rest of `cdi`."""

from cdi_dagster.coalescer.command import coalesce_command

if __name__ == "__main__":
    coalesce_command(prog_name="python -m cdi_dagster.coalescer")
