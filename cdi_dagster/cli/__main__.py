"""`python -m cdi_dagster.cli`: the same as `cdi`, for where the scripts folder is not at hand."""

from cdi_dagster.cli import main

main()
