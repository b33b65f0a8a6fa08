"""Served models: batched, replicated, unloaded when memory is short, swapped while they run."""
