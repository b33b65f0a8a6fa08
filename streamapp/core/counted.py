"""Numbers of things as people write them."""


def counted(count: float, noun: str) -> str:
    """``1 row``, ``2,048 rows``: a whole number and an English noun that takes an s."""
    return f"{count:,.0f} {noun}" + ("" if count == 1 else "s")
