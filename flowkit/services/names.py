"""What a node may be called by those who send its code."""

from __future__ import annotations

import re
from typing import Final

NAME_RULE: Final = re.compile(r"[^\x00-\x1f\x7f/]{1,128}")
