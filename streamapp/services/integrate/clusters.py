"""Which records hang together by links: the connected components of a graph."""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint32]


def components(count: int, left: Numbers, right: Numbers) -> Numbers:
    """The smallest number of each one's component, (count,).

    Every round hangs each tree's root under the smallest root that a link leads to, and shortens
    all paths to one step; a component's trees at least halve, so rounds are few.

    Args:
        count: nodes are 0 to count - 1.
        left: of each link one end, (links,).
        right: of each link the other end, (links,).
    """
    parents = np.arange(count, dtype=np.uint32)
    while True:
        one, other = parents[left], parents[right]
        apart = one != other
        if not apart.any():
            return parents
        low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
        np.minimum.at(parents, high, low)
        while True:
            grand = parents[parents]
            if (grand == parents).all():
                break
            parents = grand
        left, right = left[apart], right[apart]
