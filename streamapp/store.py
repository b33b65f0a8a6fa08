"""The store: ``faust -A streamapp.store worker``, or ``streamapp store``."""

from streamapp.core.cycles import end_at_once
from streamapp.core.without_pandas import leave_out

leave_out()  # before modules that make arrays
end_at_once()

from streamapp.compose import app_or_exit, store_app  # noqa: E402

app = app_or_exit(store_app)
