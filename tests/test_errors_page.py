"""docs/errors.md lists the messages of the code."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("messages", ROOT / "docs" / "messages.py")
messages = importlib.util.module_from_spec(spec)
sys.modules["messages"] = messages  # dataclasses look there
spec.loader.exec_module(messages)


def test_page_is_that_of_the_code():
    command = "python docs/messages.py > docs/errors.md"
    assert (ROOT / "docs" / "errors.md").read_text(encoding="utf-8") == messages.page(), f"out of date: {command}"


def test_every_entry_has_messages_and_hardly_any_message_no_entry():
    texts = messages.by_entry()
    assert sum(map(len, texts.values())) > 300
    empty = [title for title, found in texts.items() if not found]
    assert not empty, f"no module raises a message of these entries of docs/messages.py: {empty}"
    assert len(texts.get("Others", [])) <= 30, "give these an entry in docs/messages.py"
