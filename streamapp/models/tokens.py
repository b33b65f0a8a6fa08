"""Token ids as graphs take them: padded, and batches of about one length."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from streamapp.core.errors import Refuse
from streamapp.models.session import DTYPES, Array, Session

Ids = npt.NDArray[np.int64]

#: A text is cut to this many characters per token of the model's window before it is tokenised.
CHARS_PER_TOKEN_MAX = 64
#: What such a graph takes, the first at least.
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def token_inputs(session: Session) -> dict[str, str]:
    """The session's inputs with the type of each.

    Raises:
        Refuse: there are others than ``INPUTS``.
    """
    found = {tensor.name: tensor.dtype for tensor in session.inputs}
    if INPUTS[0] in found and set(INPUTS).issuperset(found):
        return found
    raise Refuse(
        "models.signature",
        f"{session.ref}: inputs are {', '.join(found)}",
        "export it with input_ids, attention_mask and perhaps token_type_ids",
    )


def batches(lengths: Sequence[int], texts_max: int, tokens_max: int) -> Iterator[list[int]]:
    """Places of texts, those of the shortest first, within both limits of a call."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == texts_max or (len(batch) + 1) * lengths[place] > tokens_max):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def token_feeds(
    tokens: Sequence[Sequence[int]], pad: int, inputs: Mapping[str, str]
) -> tuple[dict[str, Array], Ids]:
    """What a session with these inputs is fed with, and the mask, (n, tokens of the longest)."""
    shape = len(tokens), max(len(one) for one in tokens)
    ids, mask = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
    for row, one in enumerate(tokens):
        ids[row, : len(one)] = one
        mask[row, : len(one)] = 1
    offered = dict(zip(INPUTS, (ids, mask, np.zeros(shape, np.int64)), strict=True))
    feeds = {name: offered[name].astype(DTYPES[kind], copy=False) for name, kind in inputs.items()}
    return feeds, mask
