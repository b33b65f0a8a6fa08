"""Enriched rows to others' webhooks, signed, at least once.

The exporter is a process without Faust: a plain member of a consumer group for each export, and a
lane for each partition that the group gives it.
"""
