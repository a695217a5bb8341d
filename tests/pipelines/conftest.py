"""Pipelines shared by the tests of this folder; none of them changes one."""

import pytest
import tiny_pipeline


@pytest.fixture(scope="session")
def pipe():
    return tiny_pipeline.make(record=tiny_pipeline.RECORD)
