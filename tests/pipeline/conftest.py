"""The formula world, after all of its stages have run."""

import pytest

from pipeline.formula_world import STAGES, Ran, make_world


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    world = make_world(tmp_path_factory.mktemp("formula"))
    return Ran(world, {stage: world.run(stage) for stage in STAGES})
