"""`slg-wds train` under the name that it had as a script, with the same flags; torchrun starts it too."""

import sys

from slg_wds.training.command import main

if __name__ == "__main__":
    sys.exit(main(prog="train_student"))
