"""What workload and hooks learn from their environment, and the file that tells a running workload its role."""

from __future__ import annotations

import json
import os
from pathlib import Path

from agent.core.vocabulary import Role
from agent.workload.events import WorkloadIdentity
from agent.workload.latest_write import replace_text

AGENT_PREFIX = "PAIR_AGENT_"
ROLE_FILE_VARIABLE = "PAIR_AGENT_ROLE_FILE"


def inherited_environment() -> dict[str, str]:
    """Returns the agent's environment without its own settings, which may hold secrets."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(AGENT_PREFIX)}


def role_environment(identity: WorkloadIdentity, role: Role, term: int | None) -> dict[str, str]:
    """Returns the variables that tell workload and hooks the role; an empty term is one that is not known."""
    return {
        "PAIR_AGENT_ROLE": role.value,
        "PAIR_AGENT_TERM": "" if term is None else str(term),
        "PAIR_AGENT_MODE": identity.mode.value,
        "PAIR_AGENT_NAME": identity.name,
        "PAIR_AGENT_PEER": identity.peer(),
    }


def role_file_path(state_directory: Path) -> Path:
    """Returns where the role file is; only processes of this agent's workload have it in their environment."""
    return state_directory.absolute() / "role.json"


def write_role_file(path: Path, role: Role, term: int | None) -> None:
    """Replaces the role file; raises OSError. Blocks as long as the disk takes."""
    replace_text(path, json.dumps({"role": role.value, "term": term}) + "\n")
