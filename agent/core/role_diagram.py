"""The table of phases as a picture: Mermaid text, made from `agent.core.role_table` so that it cannot lie.

Pure; the README of this folder embeds the text and a test compares the two.
"""

from __future__ import annotations

from agent.core.role_table import TRANSITIONS, Cause, Phase


def mermaid() -> str:
    """Returns the state diagram: one arrow per pair of phases, its causes in the table's order of words."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.STARTING.name}"]
    for phase in Phase:
        lines.append(f"    {phase.name}: {phase.value}")
    for before in Phase:
        for after in Phase:
            causes = [cause.value for cause in Cause if (before, cause, after) in TRANSITIONS]
            if causes:
                lines.append(f"    {before.name} --> {after.name}: {', '.join(causes)}")
    lines.append(f"    {Phase.STOPPED.name} --> [*]")
    return "\n".join(lines) + "\n"
