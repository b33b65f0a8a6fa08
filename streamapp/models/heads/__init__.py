"""Heads: small models that are trained here, on vectors, from labelled examples."""
