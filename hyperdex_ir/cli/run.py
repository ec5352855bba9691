"""`torchrun ... -m hyperdex_ir.cli.run`: `hyperdex run` in several processes, each of them one device."""

import sys

from hyperdex_ir.cli.main import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
