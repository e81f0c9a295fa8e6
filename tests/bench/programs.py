"""The small C programs of the benchmarks, compiled once into a folder.

Linked statically where that works: the time of the dynamic linker is nobody's takeover time.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent


def compile_program(name: str, folder: Path) -> Path:
    """Returns the path of the compiled `name`.c; RuntimeError with the compiler's words if it cannot be compiled."""
    program = folder / name
    if program.exists():
        return program
    command = ["gcc", "-O2", "-Wall", "-o", str(program), str(SOURCES / f"{name}.c")]
    if subprocess.run([*command, "-static"], capture_output=True, check=False).returncode == 0:
        return program
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name}.c does not compile: {done.stderr.strip()}")
    return program
