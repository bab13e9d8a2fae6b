"""The files of SQL and Lua that come with the package: how they are found."""

from __future__ import annotations

from importlib.util import find_spec, module_from_spec

import pytest

MODULES = ("sqlite._schema", "sqlite._statements", "postgres._schema", "postgres._statements", "redis._scripts")


@pytest.mark.parametrize("name", MODULES)
def test_found_without_the_name_of_the_package(name: str) -> None:
    """They are found where a module is not told its package: from Python 3.15 on it need not be."""
    spec = find_spec(f"jobtrio.stores.{name}")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    module.__dict__.pop("__package__", None)
    spec.loader.exec_module(module)
