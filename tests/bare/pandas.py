"""No pandas, in the processes that tests start: an installed streamapp has none either.

Where it is there, pyarrow imports it with the first array, and each process pays 0.4 s for that.
"""

raise ImportError("no pandas in the processes that tests start")
