"""Which model answers an event: scores, experiments, ensembles and fallbacks, by what is declared.

A choice is a pure function of an epoch and an event.  An epoch is all that choices depend on beside
the event: the route as it is declared, which models it means, and what was measured of them.  Who
routes puts each epoch into its state, so the log has them, and any choice can be made again.
"""
