"""How fast a model runs, and the fastest way to run it on this machine that is still right."""
