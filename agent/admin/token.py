"""The secret that acting through the HTTP API needs: made at the first start, kept in the state directory.

Knows nothing of HTTP. The file belongs to the agent's account alone; one that others may read is refused, because
whoever read it could stop the plant.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from agent.core.errors import StateError
from agent.platform.permissions import readable_by_others, replace_file

TOKEN_FILE_NAME = "admin.token"
TOKEN_BYTES = 32
_FILE_BYTES_MAX = 1024
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


def load_or_create_token(state_directory: Path) -> str:
    """The token; made if there is none, or if a crash left none in the file. Raises StateError. Blocking.

    For the agent, which holds the lock of its state directory.
    """
    path = state_directory / TOKEN_FILE_NAME
    if not path.exists() or _token_in(path) is None:
        replace_file(path, (secrets.token_urlsafe(TOKEN_BYTES) + "\n").encode("ascii"), private=True)
    return read_token(state_directory)


def read_token(state_directory: Path) -> str:
    """The token of the agent that uses `state_directory`. Raises StateError if it is missing or unsafe. Blocking."""
    path = state_directory / TOKEN_FILE_NAME
    token = _token_in(path)
    others = readable_by_others(path)
    if others is not None:
        # Restricting the file again would not help: somebody may know the token by now.
        raise StateError(
            f"The admin token may be known to others: {others}. Then delete {path} and start the agent again: "
            "it makes a new token that only its own account can read."
        )
    if token is None:
        raise StateError(f"The admin token {path} is damaged. Delete the file and start the agent again.")
    return token


def _token_in(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX)
    except FileNotFoundError as error:
        raise StateError(
            f"There is no admin token {path}. The agent makes it at its first start; "
            "check that --config names the configuration of the running agent."
        ) from error
    except PermissionError as error:
        raise StateError(
            f"The admin token {path} may not be read by this account. "
            "Run the command with the agent's account, or as administrator (sudo)."
        ) from error
    except OSError as error:
        raise StateError(f"The admin token {path} cannot be read: {error.strerror or error}.") from error
    token = content.decode("ascii", "replace").strip()
    return token if _TOKEN.fullmatch(token) else None
