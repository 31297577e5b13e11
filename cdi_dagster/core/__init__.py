"""The pure domain of Corporate Data Ingestion.

Days, collections, object names and offsets, the pinned input, the gate decision, failure classes and the closing
report: values and decisions, without I/O and without a clock. Standard library only. Everything may import this
package; it imports nothing of the rest, and it ships to the cluster together with `storage` and `spark`.
"""
