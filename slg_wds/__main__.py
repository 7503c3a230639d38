"""`python -m slg_wds` is `slg-wds`."""

import sys

from slg_wds.cli import main

sys.exit(main())
