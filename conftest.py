"""Doctests run in a folder of their own, so that the examples in docstrings can write files as a user would."""

import os

import pytest

# Tests run in several processes: with more threads than cores each of them would slow down the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")



@pytest.fixture(autouse=True)
def _doctests_in_their_own_folder(request, monkeypatch, tmp_path_factory):
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path_factory.mktemp("doctest"))
