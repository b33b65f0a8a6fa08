"""What the worker publishes beside enriched records, as the settings ask for it."""

import pyarrow as pa

from streamapp.agents.asking.asks import Asking, asks_to
from streamapp.agents.making import Twin, joined
from streamapp.agents.twin import twin_to
from streamapp.core.settings import Settings
from streamapp.topics.catalogue import ASK, TWIN, Catalogue
from streamapp.workflow import Workflow


def beside(
    settings: Settings, workflow: Workflow, columns: pa.Schema, declared: Catalogue
) -> Twin | None:
    """The JSON twin, and what a language model is asked; None for neither.

    Raises:
        Refuse: ``workflow.ask``.
    """
    twins = []
    if settings.json_twin == "true":
        twins.append(twin_to(TWIN, declared[TWIN].record_bytes_max))
    asking = Asking.of(workflow)
    if settings.llm_base_url and asking:
        twins.append(asks_to(asking, columns, declared[ASK].record_bytes_max))
    return joined(twins)
