"""``python -m starchat``."""

import sys

from starchat.cli import main

sys.exit(main())
