"""Weight files: what is written is read, and nothing else is."""

import json
import pickle

import pytest
import torch

from lensdeblend.cli import main
from lensdeblend.networks import build
from lensdeblend.networks import weights as module
from lensdeblend.networks.weights import Card, cards, find_weights, load_weights, save_weights

OPTIONS = {"size": 16, "width": 4, "widths": [4, 8]}


def card(name="mine", **changes):
    known = {
        "name": name, "architecture": "unlens", "options": OPTIONS, "recipe": {}, "priors": {}, "seed": 1,
        "domain": {"pixels": 16}, "metrics": {"psnr": 30.0}, "commit": "abc", "device": "CPU", "data": "none",
        "licence": "BSD-3-Clause",
    }
    return Card(**{**known, **changes})


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSDEBLEND_WEIGHTS", str(tmp_path / "own"))
    return tmp_path / "own"


def saved(folder, name="mine", **changes):
    torch.manual_seed(1)
    network = build("unlens", OPTIONS)
    return network, save_weights(network, card(name, **changes), folder)


def test_round_trip(own):
    network, path = saved(own)
    found, read = load_weights("mine")
    assert find_weights("mine") == path and not found.training
    for (name, value), (_, expected) in zip(found.state_dict().items(), network.state_dict().items()):
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-5, msg=name)
        assert value.dtype == expected.dtype
    assert read.sha256 and read == card(sha256=read.sha256)
    assert path.stat().st_size < 0.7 * 4 * sum(value.numel() for value in network.parameters()) + 30000


def test_full_precision_is_exact(own):
    network = build("unlens", OPTIONS)
    save_weights(network, card(), own, half=False)
    for value, expected in zip(load_weights("mine")[0].state_dict().values(), network.state_dict().values()):
        assert torch.equal(value, expected)


def test_own_folder_comes_first(own, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SHIPPED", tmp_path / "shipped")
    saved(tmp_path / "shipped", seed=7)
    saved(tmp_path / "shipped", "other")
    assert load_weights("mine")[1].seed == 7
    saved(own, seed=8)
    assert load_weights("mine")[1].seed == 8
    assert [(c.name, c.seed) for _, c in cards()] == [("mine", 8), ("other", 1)]


def test_unknown_name_lists_the_known(own):
    saved(own)
    with pytest.raises(ValueError, match="did you mean 'mine'"):
        load_weights("mime")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".pkl", ".bin"])
def test_pickled_files_are_refused_by_name(tmp_path, suffix):
    with pytest.raises(ValueError, match="pickled"):
        load_weights(tmp_path / f"weights{suffix}")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_a_pickle_in_disguise_is_refused(own):
    import hashlib

    _, path = saved(own)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="checksum"):
        load_weights("mine")
    record = json.loads(path.with_suffix(".json").read_text())
    record["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_weights("mine")


def test_damaged_files(own):
    _, path = saved(own)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        load_weights("mine")
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(ValueError, match="is not the card"):
        load_weights("mine")
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match="does not exist"):
        load_weights(path)


def test_weights_of_another_architecture(own):
    saved(own, architecture="unlens-paper", options={"size": 16})
    with pytest.raises(ValueError, match="do not fit the architecture 'unlens-paper'"):
        load_weights("mine")


def test_shipped_weights_load():
    for path, found in cards():
        assert path.stat().st_size <= 8e6
        assert load_weights(path)[1] == found
        assert {"recipe", "priors", "domain", "metrics", "licence", "data", "commit", "device"} <= vars(found).keys()
        assert found.length["steps"] > 0


@pytest.mark.parametrize("name", ["unet", "unet-paper", "posterior"])
def test_cards_of_reconstructors_tell_how_far_seeds_lie_apart(name):
    spread = load_weights(name)[1].spread
    assert spread["measured"] == "seeds 1, 2, 100% of the length"
    assert spread.keys() - {"measured"} == load_weights(name)[1].metrics.keys()


def test_command_line_lists_them(own, capsys):
    saved(own)
    assert main(["weights"]) == 0
    assert "mine" in capsys.readouterr().out
    assert main(["weights", "mine"]) == 0
    listed, = json.loads(capsys.readouterr().out)
    assert listed["metrics"] == {"psnr": 30.0}
    assert main(["weights", "none"]) == 2
    assert "known are" in capsys.readouterr().err
