"""``python -m streamapp.cli`` is ``streamapp``."""

import sys

from streamapp.cli.app import main

sys.exit(main())
