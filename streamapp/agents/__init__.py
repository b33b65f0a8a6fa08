"""The Faust agents: enrich, store, mirror.  ARCHITECTURE.md draws one event's way."""
