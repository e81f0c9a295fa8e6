"""Builds a Windows CPython that runs on this machine, under Wine, with the project's dependencies as Windows wheels.

    python -m tests.wine.install [FOLDER]

Makes FOLDER/prefix (Wine's), FOLDER/python (python.exe, Lib, DLLs, site-packages) and FOLDER/winpy, a script that runs
the Windows Python by hand. Without FOLDER a new temporary one is used and named. Nothing outside of it is changed.

The Windows Python is put together from parts that come through pip and from this machine: python311.dll with its
extension modules is the PSF's own build (3.11.9), as shipped inside Panda3D's wheel; the standard library is that of
the running CPython 3.11; the wheels have the versions that are installed here, so that both ends of a test agree.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
WINE = Path("/usr/lib/wine/wine64")
WINESERVER = Path("/usr/lib/wine/wineserver64")
COMPILER = "x86_64-w64-mingw32-gcc"
OBJDUMP = "x86_64-w64-mingw32-objdump"

RUNTIME_WHEEL = "panda3d==1.10.16 --hash=sha256:37acfb92655c4226879f95c988e2ef1449a53c54486d6c1ebc00e2772429af82"
TEST_TOOLS = ("pytest", "hypothesis")
STAMP = "built-from"
COMMAND_SECONDS_MAX = 300

_NOT_ON_WINDOWS = shutil.ignore_patterns(
    *("site-packages", "dist-packages", "__pycache__", "config-3*", "lib-dynload", "_sysconfigdata*"),
    *("test", "idlelib", "tkinter", "turtledemo", "ensurepip"),
)
_WINDOWS_MARKERS = {
    "os_name": "nt",
    "sys_platform": "win32",
    "platform_system": "Windows",
    "platform_machine": "AMD64",
    "extra": "",
}


def why_impossible() -> str | None:
    """Returns what this machine lacks to build and run a Windows Python, as a sentence; None if nothing."""
    if sys.version_info[:2] != (3, 11):
        return "needs to be run by CPython 3.11, whose standard library it copies"
    if not (WINE.exists() and WINESERVER.exists()):
        return "needs Wine (Debian: apt-get install wine64)"
    if shutil.which(COMPILER) is None:
        return "needs a Windows compiler (Debian: apt-get install gcc-mingw-w64-x86-64-win32)"
    return None


def wine_environment(root: Path) -> dict[str, str]:
    """Returns the environment in which Wine uses the prefix in `root`, quietly and without a display."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "USER", "LANG") if name in os.environ}
    return kept | {
        "WINEPREFIX": str(root / "prefix"),
        "WINEARCH": "win64",
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree,mshtml=",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def install(root: Path) -> None:
    """Builds the Windows Python in `root`, unless it is there already and built from the same parts.

    Raises subprocess.CalledProcessError, with the output of what failed, and OSError.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / "building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wheels = windows_wheels()
        recipe = _fingerprint(wheels)
        stamp = root / STAMP
        if stamp.exists() and stamp.read_text() == recipe:
            return
        stamp.unlink(missing_ok=True)
        for folder in ("python", "build"):
            shutil.rmtree(root / folder, ignore_errors=True)
        _make_prefix(root)
        _unpack_runtime(root)
        _copy_standard_library(root / "python")
        _compile(root)
        _install_wheels(root / "python" / "Lib" / "site-packages", wheels)
        _run([sys.executable, "-m", "compileall", "-q", "-j", "0", str(root / "python" / "Lib")], accept_failure=True)
        _write_runner(root)
        shutil.rmtree(root / "build")
        stamp.write_text(recipe)


def windows_wheels() -> list[str]:
    """Returns what the project and its tests need on Windows, with everything that this needs, as pip requirements."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    waiting = [Requirement(text) for text in (*project["dependencies"], *TEST_TOOLS)]
    found: dict[str, str] = {}
    while waiting:
        wanted = waiting.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name in found or (wanted.marker is not None and not wanted.marker.evaluate(_WINDOWS_MARKERS)):
            continue
        try:
            here = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = f"{name}{wanted.specifier}"  # needed on Windows only
            continue
        found[name] = f"{name}=={here.version}"
        waiting += [Requirement(text) for text in here.requires or []]
    return sorted(found.values())


def _fingerprint(wheels: list[str]) -> str:
    digest = hashlib.sha256("\n".join(wheels).encode())
    for part in (Path(__file__), *sorted(HERE.glob("*.c")), HERE / "wine_sitecustomize.py"):
        digest.update(part.read_bytes())
    return digest.hexdigest()


def _make_prefix(root: Path) -> None:
    if (root / "prefix" / "system.reg").exists():
        return
    for command in (["wineboot", "-i"], ["winecfg", "-v", "win10"]):  # Debian's Wine says Windows 7 otherwise
        # Not captured: the services that Wine starts would hold a pipe open for as long as they live.
        subprocess.run(
            [str(WINE), *command],
            env=wine_environment(root),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=COMMAND_SECONDS_MAX,
        )


def _unpack_runtime(root: Path) -> None:
    build, python = root / "build", root / "python"
    build.mkdir()
    (python / "DLLs").mkdir(parents=True)
    requirement = build / "runtime.txt"
    requirement.write_text(RUNTIME_WHEEL)
    _pip("download", "--no-deps", "--require-hashes", "-d", str(build), "-r", str(requirement))
    (wheel,) = build.glob("*.whl")
    unwanted = {"_tkinter.pyd", "winsound.pyd", "_msi.pyd"}
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            folder, _, name = entry.rpartition("/")
            if folder != "deploy_libs" or name in unwanted:
                continue
            if name in ("python311.dll", "VCRUNTIME140.dll"):
                (python / name).write_bytes(archive.read(entry))
            elif name.endswith(".pyd") or re.fullmatch(r"(lib.*|sqlite3)\.dll", name):
                (python / "DLLs" / name).write_bytes(archive.read(entry))


def _copy_standard_library(python: Path) -> None:
    shutil.copytree(sysconfig.get_path("stdlib"), python / "Lib", ignore=_NOT_ON_WINDOWS, symlinks=False)
    (python / "Lib" / "site-packages").mkdir()
    shutil.copy(HERE / "wine_sitecustomize.py", python / "Lib" / "site-packages" / "sitecustomize.py")


def _compile(root: Path) -> None:
    python = root / "python"
    core = python / "python311.dll"
    _run([COMPILER, "-O2", "-s", "-municode", "-o", str(python / "python.exe"), str(HERE / "launcher.c"), str(core)])
    # Wheels for the stable ABI are linked against python3.dll.
    listing = _run([OBJDUMP, "-p", str(core)]).partition("[Ordinal/Name Pointer] Table")[2].partition("\n\n")[0]
    names = re.findall(r"\b(_?Py\w+)$", listing, re.MULTILINE)
    exports = root / "build" / "python3.def"
    exports.write_text("LIBRARY python3.dll\nEXPORTS\n" + "".join(f"  {name}=python311.{name}\n" for name in names))
    library = [COMPILER, "-s", "-shared", "-o"]
    _run([*library, str(python / "python3.dll"), "-nostdlib", str(HERE / "no_entry.c"), str(exports)])
    _run([*library, str(python / "bcryptprimitives.dll"), str(HERE / "process_prng.c"), "-ladvapi32"])


def _install_wheels(target: Path, wheels: list[str]) -> None:
    _pip("install", "--no-deps", "--target", str(target), *wheels)


def _pip(command: str, *arguments: str) -> None:
    windows = ["--platform", "win_amd64", "--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:"]
    abis = ["--abi", "cp311", "--abi", "abi3", "--abi", "none"]
    _run([sys.executable, "-m", "pip", command, "-q", "--disable-pip-version-check", *windows, *abis, *arguments])


def _run(command: list[str], *, accept_failure: bool = False) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=not accept_failure,
        timeout=COMMAND_SECONDS_MAX,
    )
    return done.stdout


def _write_runner(root: Path) -> None:
    settings = " ".join(f"{name}='{value}'" for name, value in wine_environment(root).items() if "WINE" in name)
    runner = root / "winpy"
    # CPython under Wine 8.0 cannot start with a regular file as standard output or error; a pipe is well.
    runner.write_text(
        "#!/bin/bash\n"
        f"# Runs the Windows Python by hand: {runner} -c 'import sys; print(sys.platform)'\n"
        f"export {settings}; unset DISPLAY; set -o pipefail\n"
        f"{WINE} '{root}/python/python.exe' \"$@\" 2>&1 | cat\n"
    )
    runner.chmod(runner.stat().st_mode | stat.S_IXUSR)


def main() -> int:
    """Builds into the folder named on the command line, or into a new temporary one."""
    if (lacking := why_impossible()) is not None:
        print(f"A Windows Python cannot be built here: it {lacking}.", file=sys.stderr)
        return 1
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="pair-agent-wine-"))
    try:
        install(root)
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(error.cmd)} failed:\n{error.stdout or ''}{error.stderr or ''}", file=sys.stderr)
        return 1
    print(f"Windows Python: {root / 'winpy'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
