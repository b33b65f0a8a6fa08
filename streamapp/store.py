"""The store: ``faust -A streamapp.store worker``, or ``streamapp store``."""

from streamapp.compose import app_or_exit, store_app

app = app_or_exit(store_app)
