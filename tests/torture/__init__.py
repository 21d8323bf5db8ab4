"""What is done to a run on purpose, to see that nothing is lost. Run with tests/ on the path: -m torture."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
