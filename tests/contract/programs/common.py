"""What the contract's programs share: an app on the broker they are given, and how they speak."""

import json
import os

import faust

BROKER = os.environ["BROKER"]
GROUP = os.environ["GROUP"]

#: Where ``transport.configure`` and ``slice_topic`` apply.
OURS = not BROKER.startswith("kafka://")


def make_app(**settings):
    """An app whose group and topics are its test's own."""
    defaults = {
        "broker": BROKER,
        "topic_partitions": 2,
        "broker_commit_interval": 0.1,
        "broker_heartbeat_interval": 0.2,
        "broker_session_timeout": 4.0,
        "producer_max_request_size": 4 << 20,
        "consumer_max_fetch_size": 4 << 20,
        "web_enabled": False,
        "datadir": f"data-{os.getpid()}",
        "store": "memory://",
    }
    return faust.App(GROUP, **defaults | settings)


def topic_name(name):
    return f"{GROUP}-{name}"


def bytes_topic(app, name):
    return app.topic(topic_name(name), key_serializer="raw", value_serializer="raw")


def say(word, **what):
    """One line to the test, past Faust's redirection of standard output."""
    os.write(1, f"\x1e{word} {json.dumps(what)}\n".encode())
