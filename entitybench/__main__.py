"""`python -m entitybench`."""

import sys

from entitybench.cli import main

if __name__ == "__main__":
    sys.exit(main())
