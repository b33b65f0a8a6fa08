"""``python -m streamapp.cli`` is ``streamapp``."""

import sys

from streamapp.cli import main

sys.exit(main())
