"""python create_speaker_emb_dataset.py --model_name ecapa --dataset_name VCTK --dataset_dir DIR"""

import sys

from speaker_encoder.cli.main import main_of

if __name__ == "__main__":
    sys.exit(main_of("embed"))
