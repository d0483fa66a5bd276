"""``python -m inst_align``: the command line, also where the command ``inst-align`` is not on the path."""

from inst_align.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
