"""The Spark job `check_cluster`: what a first real run needs, checked where it would run, as whom it would run.

`node` has the checks that every node must pass; `job` is the program, which runs them in the driver and in a worker and
adds those of the driver alone. Nothing is published. A new check is one entry in `NODE_CHECKS`.
"""
