"""``docs/testing.md``: its example runs as printed, and its table has every invariant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import strategies as st

from eksim.state.invariants import INVARIANTS
from eksim.state.watchdog import HISTORY
from eksim.testing import strategies
from eksim.testing.machine import ClusterMachine, replay

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()


def test_the_example_holds_or_shows_how_to_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    space: dict[str, object] = {}
    with pytest.raises(AssertionError, match="ENIs") as broken:
        exec(code.replace("enis <= 12", "enis <= 2"), space)
    assert "eksim.testing.machine.replay('eksim-failures/FewEnis.yaml', FewEnis)" in broken.value.__notes__[0]
    machine = space["FewEnis"]
    assert isinstance(machine, type) and issubclass(machine, ClusterMachine)
    with pytest.raises(AssertionError, match="ENIs"):
        replay(tmp_path / "eksim-failures" / "FewEnis.yaml", machine)


def test_every_invariant_is_in_the_table() -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE, re.MULTILINE)
    assert listed == [*INVARIANTS, *HISTORY]


def test_every_strategy_is_named() -> None:
    for name in re.findall(r"`([a-z_]+)[`(]", PAGE.split("## Strategies")[1].split("##")[0]):
        assert callable(getattr(strategies, name))
    assert isinstance(strategies.scenarios(), st.SearchStrategy)
