"""The file that init writes explains every key and is valid, as it stands and with every "#" removed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.config.document import read_document
from agent.config.environment import overlay_environment
from agent.config.schema import KEYS, SECTIONS
from agent.config.settings import read_settings
from agent.config.template import render_template, toml_text


def test_every_key_and_table_is_there_once() -> None:
    lines = render_template({"mode": "primary"}).splitlines()
    for key in KEYS.values():
        assert sum(bool(re.match(rf"#?{key.name} = ", line)) for line in lines) == sum(
            other.name == key.name for other in KEYS.values()
        )
    for section in SECTIONS:
        assert sum(line.strip("#[]") == section for line in lines if "[" in line[:3]) == bool(section)
    assert max(map(len, lines)) <= 120


def test_the_grace_that_a_starting_workload_has_is_told() -> None:
    text = " ".join(render_template({"mode": "primary"}).replace("\n#", " ").split())
    assert "5 x failures x interval" in text
    assert "30 s" in text


@pytest.mark.parametrize("uncommented", [False, True])
def test_every_setting_in_it_is_known_and_allowed(tmp_path: Path, uncommented: bool) -> None:
    text = render_template({"mode": "primary"})
    if uncommented:
        text = re.sub(r"^#(?=[a-z_\[])", "", text, flags=re.MULTILINE)
    path = tmp_path / "agent.toml"
    path.write_text(text)
    document = read_document(path)
    settings = read_settings(document.tables, document.positions, {})
    assert settings.findings == []
    # Every key but the elements of repeated tables is then set.
    assert not uncommented or len(settings.given & set(KEYS)) == len(
        [k for k in KEYS if k.split(".")[0] not in ("tree", "forward")]
    )


def test_commented_settings_show_the_default(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(re.sub(r"^#(?=[a-z_\[])", "", render_template({"mode": "primary"}), flags=re.MULTILINE))
    document = read_document(path)
    written = read_settings(document.tables, document.positions, {})
    for key in KEYS.values():
        if not key.example and key.path in written.values:
            assert written.values[key.path] == key.default, key.path


@pytest.mark.parametrize("value", ['"quoted" \\ back', "Zoë", "tab\there", True, 5, ["a", "b"], {"a b": "c"}])
def test_values_survive_their_way_through_toml(tmp_path: Path, value: object) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f"value = {toml_text(value)}\n", encoding="utf-8")
    assert overlay_environment(read_document(path).tables, {}).tables["value"] == value
