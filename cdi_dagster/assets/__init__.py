"""The assets: corporate storage inputs, daily records, tables. Thin: each calls a step and reports what it gave."""
