"""Steps are plain values, and sort in the order in which they are carried out."""

from __future__ import annotations

import dataclasses

import pytest

from agent.replica.steps import Step, StepKind, step_order


def test_steps_sort_removals_deepest_first_and_folders_before_what_lies_in_them() -> None:
    steps = [
        Step(StepKind.ATTRIBUTES, "z"),
        Step(StepKind.MAKE_LINK, "l"),
        Step(StepKind.PUT_FILE, "b/c/f"),
        Step(StepKind.PUT_FILE, "a"),
        Step(StepKind.MAKE_FOLDER, "b/c"),
        Step(StepKind.MAKE_FOLDER, "b"),
        Step(StepKind.REMOVE, "old"),
        Step(StepKind.REMOVE, "old/deep/f"),
        Step(StepKind.REMOVE, "old/deep"),
    ]
    assert [step.path for step in sorted(steps, key=step_order)] == [
        *("old/deep/f", "old/deep", "old", "b", "b/c", "a", "b/c/f", "l", "z"),
    ]


def test_a_step_acts_where_the_disk_spells_the_path_otherwise() -> None:
    assert Step(StepKind.REMOVE, "\u00e9/a", name_on_disk="e\u0301/a").place == "e\u0301/a"
    assert Step(StepKind.REMOVE, "a").place == "a"


def test_a_step_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Step(StepKind.REMOVE, "a").path = "b"  # type: ignore[misc]  # what the test is about
