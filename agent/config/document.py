"""Finds agent.toml and reads its text into tables, or says in a sentence why that is impossible.

Knows TOML and files, and no key. The file is read once, whole, and its size is bounded.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tomli

from agent.config.positions import Positions, scan_positions
from agent.core.errors import ConfigurationError

CONFIG_VARIABLE = "PAIR_AGENT_CONFIG"
CONFIG_NAME = "agent.toml"
FILE_BYTES_MAX = 1_048_576

# How the reader tells of a text without its end: at the end of the file, of the line, and in 'single quotes'.
_UNCLOSED = ("unterminated string", r"'\n'", '"\'"')


@dataclass(frozen=True)
class Document:
    """The tables of one TOML file, and where its keys stand."""

    path: Path
    tables: dict[str, object]
    positions: Positions


def find_config_path(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """Returns the absolute path of the configuration to use; the file need not exist.

    In this order: `explicit` (the option --config), PAIR_AGENT_CONFIG, agent.toml in the current folder if it is there,
    the platform's place.
    """
    if explicit is not None:
        return explicit.absolute()
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE]).absolute()
    here = Path(CONFIG_NAME).absolute()
    if here.exists():
        return here
    # A colleague of this module that only this line needs: commands without a configuration start without it.
    from agent.platform.places import default_config_path

    return default_config_path()


def read_document(path: Path) -> Document:
    """Reads the file. Raises ConfigurationError with one finding if it is no readable TOML file in UTF-8."""
    text = _decode(path, _read(path))
    try:
        tables = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigurationError([_syntax_sentence(path, text, error)]) from None
    except RecursionError:
        raise ConfigurationError([f"{path}: its lists or tables are nested too deeply"]) from None
    return Document(path, tables, scan_positions(text.replace("\r\n", "\n")))


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ConfigurationError([f"{path} is a folder; name the file in it, such as {path / CONFIG_NAME}"])
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigurationError(
            [
                f"{path} does not exist; `pair-agent init --mode primary|backup|stand-alone` writes one, "
                f"--config or {CONFIG_VARIABLE} names another"
            ]
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name is not allowed here"
        raise ConfigurationError([f"{path} cannot be read: {reason}"]) from None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigurationError([f"{path} is larger than {FILE_BYTES_MAX} bytes; that is no configuration"])
    return data


def _decode(path: Path, data: bytes) -> str:
    way_out = "save it as UTF-8 without a byte order mark (BOM)"
    if data.startswith(codecs.BOM_UTF8):
        raise ConfigurationError([f"{path} begins with a byte order mark; {way_out}"])
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigurationError([f"{path} is UTF-16; {way_out}"])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError([f"{path}, line {line}: not UTF-8; {way_out}"]) from None


def _syntax_sentence(path: Path, text: str, error: tomli.TOMLDecodeError) -> str:
    # The message of the reader names the kind of error and never quotes a value; secrets stay in the file.
    problem = error.msg[:1].lower() + error.msg[1:]
    hint = ""
    if "escape" in problem or "hex value" in problem:
        hint = "; write Windows paths in 'single quotes'"
    elif any(sign in problem for sign in _UNCLOSED):
        hint = "; the closing quote is missing"
    elif "overwrite" in problem:
        hint = "; the same key or table is there twice"
    elif "invalid value" in problem:
        hint = "; texts need quotes, and true and false are in small letters"
    return f"{path}, line {error.lineno}, column {error.colno}: not valid TOML: {problem}{hint}"
