"""Windows of event time: tumbling, hopping, sliding, session."""
