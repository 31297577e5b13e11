"""Spark steps on EMR: how a launch is made once, followed, retried, resumed and ended, whatever runs it.

`launch` decides over all attempts, `submission` and `attempt` are one of them, `ledger` remembers them. What runs the
jobs is behind the seam `backend`: `clusters` is the one that there is, and the only one here that knows EMR's API.
"""
