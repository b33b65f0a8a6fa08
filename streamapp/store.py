"""The store: ``faust -A streamapp.store worker``, or ``streamapp store``."""

from streamapp.core.without_pandas import leave_out

leave_out()  # before modules that make arrays

from streamapp.compose import app_or_exit, store_app  # noqa: E402

app = app_or_exit(store_app)
