"""`python -m speaker_encoder <command>` is `speaker-encoder <command>`."""

import sys

from speaker_encoder.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
