"""What is measured, and against whom: speed, memory, waiting, data. Run from the project's folder: -m bench.NAME."""

import sys
from pathlib import Path

# The product stands beside the workshop and knows nothing of it.
sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))
