"""Weight files: what can be read, what is refused and in which words, and that writing leaves no halves."""

import collections
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from stableanimator_core.errors import WeightsError
from stableanimator_core.weights import files
from stableanimator_core.weights.files import read_weights, save_weights

STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}


@pytest.fixture(params=["safetensors", "zip pickle", "legacy pickle"])
def stored(request, tmp_path):
    if request.param == "safetensors":
        path = tmp_path / "model.safetensors"
        save_file(STATE, path, metadata={"config": '{"width": 3}'})
    else:
        path = tmp_path / "model.pth"
        torch.save(STATE, path, _use_new_zipfile_serialization=request.param == "zip pickle")
    return path


def assert_equal(got, wanted=STATE):
    assert list(sorted(got)) == list(sorted(wanted))
    for key, tensor in wanted.items():
        assert got[key].dtype == tensor.dtype
        assert torch.equal(got[key], tensor)


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_every_container_gives_the_same_tensors(stored):
    assert_equal(read_weights(stored).state)


def test_the_content_decides_not_the_ending(stored, tmp_path):
    assert_equal(read_weights(stored.rename(tmp_path / "model.bin")).state)


def test_configuration_comes_from_the_metadata(tmp_path):
    save_weights(tmp_path / "a.safetensors", STATE, {"config": '{"width": 3}'})
    save_weights(tmp_path / "b.safetensors", STATE, {"config": "not json"})
    assert read_weights(tmp_path / "a.safetensors").config == {"width": 3}
    assert read_weights(tmp_path / "b.safetensors").config is None


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module"])
def test_wrappers_and_prefixes_are_taken_off(tmp_path, wrapper):
    prefixed = {f"module.{key}": tensor for key, tensor in STATE.items()}
    torch.save({wrapper: prefixed, "epoch": 3}, tmp_path / "model.ckpt")
    assert_equal(read_weights(tmp_path / "model.ckpt").state)


def test_a_lone_prefix_is_part_of_the_name(tmp_path):
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "model.pth")
    assert_equal(read_weights(tmp_path / "model.pth").state, state)


def test_tensors_read_in_inference_mode_can_take_part_in_a_gradient(stored):
    with torch.inference_mode():
        state = read_weights(stored).state
    assert not any(tensor.is_inference() for tensor in state.values())


def test_pickle_with_code_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "ran"

    class Malicious:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    torch.save({"a": Malicious()}, tmp_path / "zip.pth")
    message = refusal(tmp_path / "zip.pth")
    assert "program code" in message
    assert "system" in message
    for protocol in (2, 4):
        (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": Malicious()}, protocol))
        assert "nothing of it was run" in refusal(tmp_path / "plain.pth")
    assert not trace.exists()
    torch.load(tmp_path / "zip.pth", weights_only=False)
    assert trace.exists(), "the pickle was harmless, so the test above proves nothing"


def test_objects_other_than_tensors_are_named(tmp_path):
    torch.save({"weight": torch.ones(1), "note": "hello"}, tmp_path / "mixed.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(collections.OrderedDict(), tmp_path / "nothing.pth")
    assert "note" in refusal(tmp_path / "mixed.pth")
    assert "a list" in refusal(tmp_path / "list.pth")
    assert "holds nothing" in refusal(tmp_path / "nothing.pth")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_download_that_stopped_early_is_said_to_be_short(stored, share):
    raw = stored.read_bytes()
    stored.write_bytes(raw[: int(len(raw) * share)])
    message = refusal(stored)
    assert "download" in message
    if stored.suffix == ".safetensors" and share > 0.9:
        assert f"{int(len(raw) * share):,} bytes" in message
        assert f"{len(raw):,}" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>please log in</html>", "web page"),
        (b'{"message": "not found"}', "JSON"),
        (b"\x00" * 300, "not a weight file"),
        (b"hello " * 50, "not a weight file"),
        (b"\xff\xd8\xff\xe0" + b"JFIF" * 60, "not a weight file"),
        (b"\x80\x04garbage that is no pickle", "damaged"),
        (b"PK\x03\x04 looks like a zip but is not", "damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_foreign_files_are_refused_by_name(tmp_path, content, words, suffix):
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(content)
    assert words in refusal(path)


def test_any_damage_to_a_file_is_a_named_error_or_harmless(stored):
    raw = bytearray(stored.read_bytes())
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        damaged = bytearray(raw)
        for position in torch.randint(len(raw), (8,), generator=generator).tolist():
            damaged[position] ^= 0x5A
        stored.write_bytes(damaged)
        try:
            read_weights(stored)
        except WeightsError:
            continue


def test_missing_files_and_folders_are_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.pth")
    assert "is a folder" in refusal(tmp_path)


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_weights(path, STATE)

    def fail_halfway(tensors, filename, metadata=None):
        with open(filename, "wb") as file:
            file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fail_halfway)
    with pytest.raises(WeightsError, match="No space left"):
        save_weights(path, {"other": torch.zeros(1)})
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert_equal(read_weights(path).state)


def test_others_may_read_what_is_written_as_they_may_read_any_new_file(tmp_path):
    save_weights(tmp_path / "x.safetensors", {"x": torch.zeros(1)})
    (tmp_path / "plain").touch()
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_views_shared_and_transposed_tensors_are_written_in_full(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {"base": base, "same": base, "row": base[1], "turned": base.T}
    save_weights(tmp_path / "model.safetensors", state)
    assert_equal(read_weights(tmp_path / "model.safetensors").state, state)


def test_a_map_of_a_big_file_takes_no_memory_until_touched(tmp_path):
    path = tmp_path / "big.safetensors"
    save_weights(path, {"a": torch.zeros(64, 1024, 1024)})
    before = resident_bytes()
    state = read_weights(path).state
    assert resident_bytes() - before < 64e6
    assert state["a"].nbytes == 256 * 1024 * 1024


def resident_bytes():
    import psutil

    return psutil.Process().memory_info().rss


def test_files_module_knows_its_endings(stored):
    assert stored.suffix in files.SUFFIXES


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_a_safetensors_whose_header_length_begins_like_a_pickle_is_read(start, tmp_path):
    path = tmp_path / "model.safetensors"
    tensor = torch.arange(3.0)
    for padding in range(1 << 17):
        header = json.dumps({"weight": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
        length = (len(header) + padding).to_bytes(8, "little")
        if length.startswith(start):
            break
    path.write_bytes(length + header + b" " * padding + tensor.numpy().tobytes())
    assert path.read_bytes().startswith(start)
    assert torch.equal(read_weights(path).state["weight"], tensor)
