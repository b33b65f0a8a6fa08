"""What a broker answered, in our four errors."""

from aiokafka import errors as kafka

from streamapp.core.errors import Refuse, Reject, Retry, StreamappError
from streamapp.transport.security import Ways

#: Who we say we are is not believed.
LOGIN = (
    kafka.AuthenticationFailedError,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
)
#: Errors that stay: their kinds, ours, its code, what we say, and the way out.
_TABLE: tuple[tuple[tuple[type[Exception], ...], type[StreamappError], str, str, str], ...] = (
    (
        LOGIN,
        Refuse,
        "broker.login",
        "{url} does not let us in: {told}",
        "{ways.login}",
    ),
    (
        (kafka.TopicAuthorizationFailedError,),
        Refuse,
        "log.forbidden",
        "{url} does not allow it: {what}: {told}",
        "allow us on the topic DescribeConfigs, Read, Write (to make it: Create, to purge: Delete)",
    ),
    (
        (kafka.GroupAuthorizationFailedError,),
        Refuse,
        "log.forbidden",
        "{url} does not allow it: {what}: {told}",
        "allow us Read on the consumer group",
    ),
    (
        (kafka.ClusterAuthorizationFailedError,),
        Refuse,
        "log.forbidden",
        "{url} does not allow it: {what}: {told}",
        "allow us Write on the topic, or IdempotentWrite on the cluster",
    ),
    (
        (kafka.InvalidTopicError,),
        Refuse,
        "topic.name",
        "no valid name: {what}",
        "use 1 to 249 of A-Z a-z 0-9 . _ -",
    ),
    (
        (
            kafka.InvalidPartitionsError,
            kafka.InvalidReplicationFactorError,
            kafka.InvalidConfigurationError,
            kafka.PolicyViolationError,
        ),
        Refuse,
        "topic.declaration",
        "{url} refuses {what}: {told}",
        "change what it names in the topic's file, or STREAMAPP_BROKER_REPLICATION",
    ),
    (
        (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError),
        Reject,
        "record.too_large",
        "{url} finds a record too large: {what}",
        "make it smaller or raise the topic's max.message.bytes",
    ),
    (
        (kafka.InvalidTimestampError,),
        Reject,
        "record.timestamp",
        "{url} refuses a record's time: {what}",
        "give a time within the topic's message.timestamp.after.max.ms",
    ),
)


def is_final(error: kafka.KafkaError) -> bool:
    """True when asking again would bring the same answer."""
    return any(isinstance(error, kinds) for kinds, *_ in _TABLE)


def translated(error: BaseException, what: str, url: str, ways: Ways) -> StreamappError:
    """Our error for a broker's.

    Args:
        error: the broker's, aiokafka's or the system's.
        what: what was wanted, such as ``topic 'events.raw'``.
        url: of the cluster.
        ways: out of it, as who connects would say.
    """
    told = _told(error)
    for kinds, kind, code, message, fix in _TABLE:
        if isinstance(error, kinds):
            return kind(code, message.format(url=url, what=what, told=told), fix.format(ways=ways))
    if isinstance(error, kafka.UnknownTopicOrPartitionError):
        return unknown_topic(what, url)
    return Retry("log.unreachable", f"{url} does not answer: {what}: {told}", ways.unreachable)


def unknown_topic(what: str, url: str) -> Refuse:
    """The error for a topic or partition that is not there."""
    return Refuse("topic.unknown", f"no {what} on {url}", "create it first")


def _told(error: BaseException) -> str:
    """The error's own words, on one line; its name where it has none."""
    words = " ".join(str(error).split())
    return words[:300] or type(error).__name__
