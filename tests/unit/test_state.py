"""The transition table: which change of state is legal."""

from __future__ import annotations

import pytest

from jobtrio import IllegalTransitionError, JobState
from jobtrio._state import FINAL_STATES, TRANSITIONS, check_transition

LEGAL = {
    (None, "SCHEDULED"),
    (None, "QUEUED"),
    ("SCHEDULED", "QUEUED"),
    ("SCHEDULED", "CANCELLED"),
    ("QUEUED", "RUNNING"),
    ("QUEUED", "CANCELLED"),
    ("QUEUED", "FAILED"),
    ("RUNNING", "COMPLETED"),
    ("RUNNING", "FAILED"),
    ("RUNNING", "CANCELLED"),
    ("RUNNING", "RETRYING"),
    ("RUNNING", "QUEUED"),
    ("RETRYING", "QUEUED"),
    ("RETRYING", "CANCELLED"),
}


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("previous", [None, *JobState])
def test_every_pair(previous: JobState | None, state: JobState) -> None:
    """Each pair of states is a legal change or raises, as written out here once more."""
    if (previous, state.value) in LEGAL:
        check_transition(previous, state)
        return
    with pytest.raises(IllegalTransitionError) as excinfo:
        check_transition(previous, state)
    assert (excinfo.value.previous, excinfo.value.state) == (previous, state)
    assert str(excinfo.value) == f"a job cannot go from {previous} to {state}"


def test_final_states() -> None:
    """The final states are those that nothing follows, and `is_final` says so."""
    assert frozenset(state for state in JobState if not TRANSITIONS[state]) == FINAL_STATES
    assert {state for state in JobState if state.is_final} == {"COMPLETED", "FAILED", "CANCELLED"}


def test_states_are_text() -> None:
    """A state is its own name."""
    assert [str(state) for state in JobState] == [state.name for state in JobState]
