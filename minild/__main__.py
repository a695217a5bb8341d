"""python -m minild is the command minild."""

import sys

from minild.cli import main

sys.exit(main())
