"""`python -m pacehpc`."""

import sys

from pacehpc.cli import main

if __name__ == "__main__":
    sys.exit(main())
