"""Every way to run a model, each a Session."""
