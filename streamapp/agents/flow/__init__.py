"""A workflow's graph on topics: the same operations, row for row, as Faust agents.

Every input, every stage that has a process of its own, and every output is a topic ``NAME.PART``.
A group of stages reads one topic and publishes what it makes of a range of it in one record, which
says that range; where a group stands is what its own topics say.  A stage that takes all rows of a
run, of one topic or several, begins when they have ended.
"""
