"""What events must look like, and what they have looked like.

``rules`` checks them against the JSON Schema of their topic; ``learned`` keeps the union of what
each type of event had, ``guess`` names untyped events by it, and ``shared`` keeps it in a topic.
"""

from streamapp.gateway.schemas.rules import DeadLettered, Letter, Rules, rules_of

__all__ = ["DeadLettered", "Letter", "Rules", "rules_of"]
