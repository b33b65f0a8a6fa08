"""The stage word_count: how many words an event's text has."""

from streamapp.plugin import stage


@stage("word_count", version=1, reads=["text"], writes={"word_count": "int32"})
def word_count(text: str) -> dict[str, int]:
    """Words between white space; null without text.  Raise version when this changes."""
    return {"word_count": len(text.split())}
