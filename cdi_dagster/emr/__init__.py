"""Spark steps on EMR: `launcher` is the resource that assets use; the other modules are its parts.

`template` and `request` say what is launched, `ledger` remembers what was, `api` is the only one that asks EMR,
`messages` and `step_logs` bring the job's words, `attempt` follows one try to its verdict, `step_run` decides over
all tries.
"""
