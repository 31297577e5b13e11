"""The bundle: everything a cluster needs to run our Spark jobs, built once, named by a hash of its content.

`build` builds it on a machine with a package index; `upload` stores it where clusters fetch it; `bootstrap.sh` installs
it on the cluster, offline, after checking every hash. It holds `core`, `storage`, `published` and
`spark`, and no dagster.
"""
