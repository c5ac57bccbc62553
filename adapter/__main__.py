"""`python -m adapter` is the command `adapter`."""

import sys

from adapter.cli import main

sys.exit(main())
