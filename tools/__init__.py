"""What the kit's makers run: set-up, locks, docs, the gate, the tests. Run from the project's folder: -m tools.NAME."""

import sys
from pathlib import Path

# The product stands beside the workshop and knows nothing of it.
sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))
