"""``python -m hessalign``, and what the ``hessalign`` script calls."""

import sys

from hessalign import cli

INTERRUPTED = 130


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback even while modules are being imported."""
    try:
        cli.show_warnings_as_sentences()
        cli.app(prog_name="hessalign")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
