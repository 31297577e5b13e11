"""The bundle: everything a cluster needs to run our Spark jobs, made once, addressed by its content.

`build` makes it on a machine with a package index; `upload` puts it where clusters fetch it; `bootstrap.sh` installs
it there, offline, after checking every hash. It holds `core`, `storage` and `spark`, and no dagster.
"""
