"""`python -m noiseless` is the command `noiseless`."""

from noiseless.cli import main

if __name__ == "__main__":
    main()
