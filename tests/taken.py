"""Events of groups (``gateway.plain``) one by one."""


def each(groups):
    """(line, event or why it is none) of every event, in order."""
    for events, refused in groups:
        good = [(line, events.one(place)) for place, line in enumerate(events.lines)]
        yield from sorted([*good, *refused], key=lambda found: found[0])
