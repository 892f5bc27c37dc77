"""`python -m pybpf` is the command `pybpf`."""

import sys

from pybpf.cli import main

sys.exit(main())
