"""Transforms of tables: filter, map, aggregate, join, window, dedupe, sample, validate.

Expressions are DuckDB's SQL.  Polars has SQL expressions, too, but runs a sub-select in one with
whatever it names, files included; DuckDB can be shut off from files, network and extensions, says
what an expression is before it runs it, spills what does not fit, and its SQL is what the store is
asked in, so that an expression that was tried in a query is pasted into a workflow as it is.
"""
