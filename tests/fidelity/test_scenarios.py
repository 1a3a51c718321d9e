"""Every shipped scenario fulfils its own expectations, with its seed and with others, and says what it teaches."""

from pathlib import Path

import pytest

from eksim.play.run import play
from eksim.scenario.load import load_scenario

FILES = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_shipped_scenario_holds(file):
    loaded = load_scenario(file)
    assert file.read_text().startswith("# yaml-language-server: $schema=./scenario.schema.json\n")
    assert loaded.scenario.name == file.stem
    assert len(loaded.scenario.description.split()) > 20
    assert loaded.scenario.expect
    for seed in (loaded.scenario.seed, 2, 3):
        assert [str(f) for f in play(loaded, seed).failures] == [], seed
