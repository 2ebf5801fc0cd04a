"""Doctests run in a folder of their own, so that the examples in docstrings can write files as a user would."""

import pytest


@pytest.fixture(autouse=True)
def _doctests_in_their_own_folder(request, monkeypatch, tmp_path_factory):
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path_factory.mktemp("doctest"))
