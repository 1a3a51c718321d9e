"""Running equal instance types once gives the rows that running each gives."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from eksim.catalog import types as catalog
from eksim.sweep.configure import Base, base_from_file
from eksim.sweep.row import run_row
from eksim.sweep.shortcut import Shortcut, type_key

BASE = Base(*base_from_file(Path(__file__).parents[2] / "scenarios" / "scale-to-30.yaml"))
GROUPS: dict[tuple, list[str]] = {}
for _t in catalog.match("*"):
    GROUPS.setdefault(type_key(_t), []).append(_t.name)
ALIKE = sorted(tuple(names) for names in GROUPS.values() if len(names) > 1)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    names=st.sampled_from(ALIKE).flatmap(lambda g: st.lists(st.sampled_from(g), min_size=2, max_size=3, unique=True)),
    nodes=st.integers(0, 4),
    warm=st.sampled_from([None, 2]),
    replicas=st.integers(0, 40),
)
def test_equal_types_run_once_give_the_rows_of_runs(names, nodes, warm, replicas):
    shortcut = Shortcut(BASE)
    fields = {} if warm is None else {"vpcCni.env.WARM_IP_TARGET": warm}
    for name in names:
        values = {"instance_type": name, "nodes": nodes, "replicas": replicas, **fields}
        assert shortcut.row(values) == run_row(BASE, values)
