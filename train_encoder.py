"""python train_encoder.py --config=train_config.json"""

import sys

from speaker_encoder.cli.main import main_of

if __name__ == "__main__":
    sys.exit(main_of("train"))
