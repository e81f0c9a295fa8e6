"""How much memory a first copy takes that is large in one way: very many files, a hole of gigabytes, very many bytes.

Peak of every process of a node, agent, guardian and replica worker, and their sum; and how long the copy took from the
start of both agents.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.data_sets import FILES_PER_FOLDER, MIB, DataSet, Stage, random_file, small_files
from tests.bench.namespaces import Network
from tests.bench.report import Row
from tests.bench.resync_product import Product

QUICK_PART = 64
MANY_FOLDERS = 1_000
SPARSE_BYTES, ISLANDS = 4 * 1024 * MIB, 8
BIG_BYTES = 10 * 10**9
BLOCK_BYTES = 512  # unit of st_blocks


@dataclass(frozen=True)
class Case:
    """`make(folder, part)` makes a `part`th of it."""

    name: str
    says: str
    make: Callable[[Path, int], None]


def make_sparse(folder: Path, part: int) -> None:
    """Makes one file that is a hole with a few islands of a mebibyte."""
    size = SPARSE_BYTES // part
    random_file(folder / "sparse", MIB)
    island = (folder / "sparse").read_bytes()
    with (folder / "sparse").open("r+b") as file:
        file.truncate(size)
        for number in range(1, ISLANDS):
            file.seek(number * size // ISLANDS)
            file.write(island)


CASES = (
    Case(
        "many",
        f"{MANY_FOLDERS * FILES_PER_FOLDER} files",
        lambda folder, part: small_files(folder, MANY_FOLDERS // part),
    ),
    Case("sparse", "4 GiB with holes", make_sparse),
    Case("big", "10 GB in one file", lambda folder, part: random_file(folder / "big", BIG_BYTES // part)),
)
NAMES = tuple(case.name for case in CASES)


def measure(directory: Path, trials: int, names: frozenset[str], quick: bool) -> list[Row]:
    """Returns the rows of so many first copies of each case."""
    network = Network()
    copier = Product("pair-agent", network, live=False)
    rows: list[Row] = []
    part = QUICK_PART if quick else 1
    try:
        for case in CASES:
            if not names or case.name in names:
                data_folder = directory / case.name
                case.make(data_folder, part)
                says = case.says if part == 1 else f"1/{part} of {case.says}"
                rows += of_case(DataSet(case.name, says, None, data_folder), copier, directory, trials)
                shutil.rmtree(data_folder)
    finally:
        network.close()
    return rows


def of_case(data: DataSet, copier: Product, directory: Path, trials: int) -> list[Row]:
    """Returns what the copies of one case took; RuntimeError if one is wrong."""
    copies, on_disk = [], []
    for trial in range(trials):
        place = directory / f"{data.name}-{trial}"
        (place / "own").mkdir(parents=True)
        stage = Stage(data, place / "source", place / "destination")
        copies.append(copier.copy(stage, place / "own"))
        print(f"  {data.says}: {copies[-1].durable_s:.1f} s", flush=True)
        if difference := stage.difference():
            raise RuntimeError(f"{data.says}: the destination has {difference}")
        on_disk.append(sum((stage.destination / path).stat().st_blocks for path in data.files) * BLOCK_BYTES / 1e6)
        stage.remove(directory / "moved-away")
        shutil.rmtree(place)
    return [
        Row(f"{data.says}: memory of the greatest process", [each.process_mb for each in copies], "MB"),
        Row(f"{data.says}: memory of a node", [each.node_mb for each in copies], "MB"),
        Row(f"{data.says}: start to in sync", [each.durable_s for each in copies], "s"),
        Row(f"{data.says}: space on the destination's disk", on_disk, "MB"),
    ]
