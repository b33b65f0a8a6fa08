"""The workflow: which stages run, in which order, and what they remember."""

from streamapp.workflow.plan import Plan
from streamapp.workflow.spec import Workflow, load_workflow
from streamapp.workflow.state import PartitionState

__all__ = ["PartitionState", "Plan", "Workflow", "load_workflow"]
