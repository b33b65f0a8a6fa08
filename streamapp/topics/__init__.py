"""Declared topics, and the wire: raw records to a Batch, a Batch to an enriched record and back."""
