"""Every key is found on its line, however the TOML is written."""

from __future__ import annotations

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from agent.config.positions import scan_positions

TEXT = """\
# [not.a.table]
mode = "a # [b]"
key = '''
[inside]
x = 1
'''
"quoted name".'inner' = 1
list = [
  [1, 2], # ] not the end
  [3],
]
[server] # comment
port = 1
interface = "a = b"
[workload.health]
kind = { a = 1, b = { c = 2 } }
after = 1
[[tree]]
name = "a"
[[tree]]
name = \"\"\"
\\\"\"\"
[x]
\"\"\"
path = ""
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("mode", 2),
        ("key", 3),
        ("quoted name.inner", 7),
        ("list", 8),
        ("server", 12),
        ("server.port", 13),
        ("server.interface", 14),
        ("workload.health.kind", 16),
        ("workload.health.kind.a", 16),
        ("workload.health.after", 17),
        ("tree.0.name", 19),
        ("tree.1", 20),
        ("tree.1.name", 21),
        ("tree.1.path", 25),
        ("tree.1.missing", 20),
        ("inside", None),
        ("x", None),
        ("not.a.table", None),
        ("missing", None),
    ],
)
def test_the_line_of_a_key(path: str, line: int | None) -> None:
    assert tomli.loads(TEXT)
    assert scan_positions(TEXT).line(path) == line


@given(st.text(max_size=80))
def test_any_text_is_survived(text: str) -> None:
    try:
        tomli.loads(text)
    except ValueError:
        return
    scan_positions(text)
