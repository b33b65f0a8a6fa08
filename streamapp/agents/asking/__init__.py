"""What the workflow is unsure of, put to a language model beside the path of events.

The worker publishes asks with a batch (``asks.py``).  A process without Faust answers them
(``asker.py``): a plain member of one group, and a lane for each partition that the group gives it.
The store reads the answers (``feed.py``) and joins them by source address.
"""
