"""The planted system and the process that is killed lie beside these tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
