"""`python -m train` in a checkout, `python -m refavs_rt.train` anywhere."""

from __future__ import annotations

import sys

from refavs_rt.train.cli import main

# Started as `train`, this package is not `refavs_rt.train`: a relative import here would make a second copy of every class.
if __name__ == "__main__":
    sys.exit(main())
