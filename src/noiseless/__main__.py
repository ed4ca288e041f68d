"""`python -m noiseless` is the command `noiseless`."""

import sys

from noiseless.cli import main

if __name__ == "__main__":
    sys.exit(main())
