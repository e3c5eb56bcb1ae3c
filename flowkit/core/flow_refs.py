"""What a flow may be called, and how a version of it is named: `etl`, `etl@3`, `etl@prod`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from flowkit.core.keys import ID_RULE
from flowkit.core.problems import LONGEST_NAME, shown
from flowkit.errors import FlowNameError

DEFAULT: Final = "default"
"""The tag of the version that the name alone means; where nobody has set it, that is the newest."""
LATEST: Final = "latest"
"""The tag that the newest version has, always."""
VERSION_RULE: Final = re.compile(r"[1-9][0-9]{0,8}")
DIGITS: Final = re.compile(r"[0-9]+")
SAYS: Final = f"letters, digits and `_ - . :`, at most {LONGEST_NAME} characters"


@dataclass(frozen=True, slots=True)
class FlowRef:
    """A flow as it was named. `version` is 0 where none was; then `tag` says which, or is empty."""

    name: str
    version: int = 0
    tag: str = ""

    def __str__(self) -> str:
        which = str(self.version) if self.version else self.tag
        return f"{self.name}@{which}" if which else self.name


def read_flow_ref(text: object) -> FlowRef:
    """What `name`, `name@3` or `name@tag` means. Raises `FlowNameError`."""
    if not isinstance(text, str):
        raise FlowNameError(f"a flow is named by text, such as 'etl' or 'etl@3'; found {shown(text)}")
    name, at, which = text.partition("@")
    checked_flow_name(name)
    if not at:
        return FlowRef(name)
    if VERSION_RULE.fullmatch(which):
        return FlowRef(name, version=int(which))
    if DIGITS.fullmatch(which):
        raise FlowNameError(f"{shown(text)} names no version: versions count from 1, as in '{name}@1'")
    return FlowRef(name, tag=_checked(which, "tag"))


def checked_flow_name(name: object) -> str:
    """The name, if a flow may be called so. Raises `FlowNameError`."""
    if isinstance(name, str) and "@" in name:
        raise FlowNameError(f"{shown(name)} names a version of a flow; name the flow: {shown(name.partition('@')[0])}")
    return _checked(name, "name")


def checked_tag(tag: object) -> str:
    """The tag, if somebody may set it. Raises `FlowNameError`."""
    if tag == LATEST:
        raise FlowNameError(f"{LATEST!r} is the newest version, always: choose another tag")
    word = _checked(tag, "tag")
    if DIGITS.fullmatch(word):
        raise FlowNameError(f"the tag {shown(tag)} would read as a version: begin it with a letter")
    return word


def _checked(text: object, what: str) -> str:
    if not isinstance(text, str) or len(text) > LONGEST_NAME or not ID_RULE.fullmatch(text):
        raise FlowNameError(f"{shown(text)} is no {what} of a flow: write {SAYS}")
    return text
