"""This host's terminal agent: ``faust -A streamapp.terminal worker``, or ``streamapp terminal``."""

from streamapp.compose import app_or_exit, mirror_app

app = app_or_exit(mirror_app)
