"""Where Faust's own transport, kafka://, keeps another promise than ours, by name.

The contract's tests assert each of them where it is a matter of code, not of chance; the names are
those of the table in docs/transports.md.
"""

#: Asserted on kafka:// by tests/contract.
ASSERTED = {
    "commit.order": "acknowledging a later record first commits past those that are in work",
    "commit.gap": "a commit passes the record after a gap in the offsets while it is in work",
    "commit.marker": "after a transaction's marker the lag of an idle topic stays 1",
    "commit.back": "after a seek back commits stand still until work is past the old one again",
    "transactions": "ours refuse processing_guarantee='exactly_once'; Faust's own offers it",
}

#: A matter of chance on kafka://: ours must keep the promise, nothing is asserted of Faust's.
BY_CHANCE = {
    "seek.within": "a seek made by the agent itself may lose what it asks for again",
    "delivery.twice": "a worker that starts may get a record twice, and count it twice in a table",
    "delivery.lost": "while a worker starts a record may be committed that its agent never gets",
}


def differs(broker, name):
    """Whether the broker is the one that keeps the other promise of this name."""
    assert name in ASSERTED | BY_CHANCE
    return broker.transport == "kafka"


def once(broker, told):
    """What was told, without what Faust's own transport may have delivered twice."""
    if not differs(broker, "delivery.twice"):
        return told
    return [one for number, one in enumerate(told) if one not in told[:number]]
