"""The engine: what runs a workflow's graph over files and databases."""
