"""`STORE_CHECKS`: what every store of jobs has to pass.

It gathers the checks of the modules beside it; each of them owns one theme of the contract in `jobtrio.abc`.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from jobtrio.testing import (
    _check_cancelling,
    _check_claiming,
    _check_entries,
    _check_finding,
    _check_held,
    _check_inserting,
    _check_keeping,
    _check_leases,
    _check_limits,
    _check_messages,
    _check_patterns,
    _check_pausing,
    _check_priority,
    _check_rates,
    _check_settling,
    _check_signals,
)

if TYPE_CHECKING:
    from jobtrio.testing._workers import OpenStore, StoreCheck

_MODULES = (
    _check_inserting,
    _check_entries,
    _check_claiming,
    _check_patterns,
    _check_held,
    _check_pausing,
    _check_priority,
    _check_rates,
    _check_settling,
    _check_leases,
    _check_cancelling,
    _check_messages,
    _check_finding,
    _check_keeping,
    _check_limits,
    _check_signals,
)


def _has_asserts() -> bool:
    """Whether ``assert`` does something here: with ``python -O`` only where pytest rewrote it."""
    try:
        assert not __name__
    except AssertionError:
        return True
    return False


def _refusing(check: StoreCheck) -> StoreCheck:
    @wraps(check)
    async def refuse(open_store: OpenStore) -> None:
        raise RuntimeError("the check is made of assert statements, which python -O leaves out")

    return refuse


STORE_CHECKS: tuple[StoreCheck, ...] = tuple(
    check if _has_asserts() else _refusing(check)
    for module in _MODULES
    for name in [*vars(module)]
    if name.startswith("check_") and (check := getattr(module, name)).__module__ == module.__name__
)
"""Async functions ``check(open_store)``, each for one rule of the contract, which its docstring states.

``open_store()`` returns an instance of the store, not opened yet, at one and the same place each time it is called; two
instances stand for two processes. The place is empty when a check begins. For a store in memory it may return the same
object. A check raises `AssertionError` if the rule is broken; pytest shows the values if a conftest calls
``pytest.register_assert_rewrite("jobtrio.testing")``. With ``python -O`` it needs that, and raises `RuntimeError`
otherwise. Time passes by `trio.sleep`, a few tenths of a second at a time.
"""
