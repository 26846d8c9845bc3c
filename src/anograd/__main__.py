"""``python -m anograd`` is the command line."""

from anograd.cli import main

if __name__ == "__main__":
    main()
