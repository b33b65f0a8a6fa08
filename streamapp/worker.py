"""The enrich worker: ``faust -A streamapp.worker worker``, or ``streamapp worker``."""

from streamapp.compose import app_or_exit, enrich_app

app = app_or_exit(enrich_app)
