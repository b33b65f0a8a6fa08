"""The enrich worker: ``faust -A streamapp.worker worker``, or ``streamapp worker``."""

from streamapp.core.without_pandas import leave_out

leave_out()  # before modules that make arrays

from streamapp.compose import app_or_exit, enrich_app  # noqa: E402

app = app_or_exit(enrich_app)
