"""Configuration of lit for the IR tests: `lit tests/filecheck`, or `pytest tests/unit/passes/test_filecheck.py`.

The line `// RUN: HYPERDEX_ROUNDTRIP` prints in generic form, parses that, and checks the custom form;
`// RUN: HYPERDEX_GENERIC_ROUNDTRIP` prints in custom form, parses that, and checks the generic form.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))

from forked import ForkedTest

config.name = "hyperdex-ir"
config.test_format = ForkedTest(execute_external=False)
config.suffixes = [".mlir", ".s"]
config.test_source_root = os.path.dirname(__file__)
config.environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
config.substitutions += [
    ("HYPERDEX_ROUNDTRIP", "hyperdex-opt %s --print-op-generic | hyperdex-opt | filecheck %s"),
    (
        "HYPERDEX_GENERIC_ROUNDTRIP",
        "hyperdex-opt %s | hyperdex-opt --print-op-generic | filecheck %s --check-prefix=CHECK-GENERIC",
    ),
]
