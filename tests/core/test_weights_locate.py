"""Finding weight files: the official tree, other places, order, limits, and the words when there is none."""

import pytest

from stableanimator_core.weights import locate
from stableanimator_core.weights.locate import KNOWN_FILES, find_all, find_file, not_found_message, survey

OFFICIAL_TREE = {
    "unet": "checkpoints/Animation/unet.pth",
    "pose_net": "checkpoints/Animation/pose_net.pth",
    "face_encoder": "checkpoints/Animation/face_encoder.pth",
    "face_recognizer": "checkpoints/Animation/glintr100_torch.pth",
    "person_detector": "checkpoints/DWPose/yolox_l.onnx",
    "pose_estimator": "checkpoints/DWPose/dw-ll_ucoco_384.onnx",
    "face_embedder": "models/antelopev2/glintr100.onnx",
    "face_detector": "models/antelopev2/scrfd_10g_bnkps.onnx",
    "svd": "checkpoints/SVD/svd_xt.safetensors",
    "denoising_unet": "pretrained_weights/denoising_unet.pth",
    "reference_unet": "pretrained_weights/reference_unet.pth",
    "motion_module": "pretrained_weights/motion_module.pth",
    "pose_guider": "pretrained_weights/pose_guider.pth",
    "image_vae": "pretrained_weights/sd-vae-ft-mse/diffusion_pytorch_model.bin",
    "clip_vision_l": "pretrained_weights/image_encoder/pytorch_model.bin",
}


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_every_known_role_has_its_place_in_the_official_tree():
    assert OFFICIAL_TREE.keys() == KNOWN_FILES.keys()


@pytest.mark.parametrize("below", ["", "StableAnimator", "models/StableAnimator"])
def test_the_official_tree_is_found_wherever_it_was_unpacked(tmp_path, below):
    put(tmp_path / below, *OFFICIAL_TREE.values())
    found = survey([tmp_path])
    for role, name in OFFICIAL_TREE.items():
        assert found[role] == [tmp_path / below / name]


def test_a_common_name_counts_only_in_its_folder(tmp_path):
    put(
        tmp_path,
        "other/diffusion_pytorch_model.safetensors",
        "sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
    )
    put(tmp_path, "text_encoder/pytorch_model.bin")
    assert find_all("image_vae", [tmp_path]) == [
        tmp_path / "sd-vae-ft-mse/diffusion_pytorch_model.safetensors"
    ]
    assert find_all("clip_vision_l", [tmp_path]) == []


def test_antelopev2_is_found_in_either_nesting(tmp_path):
    put(tmp_path, "insightface/models/antelopev2/antelopev2/glintr100.onnx")
    assert find_file("face_embedder", [tmp_path]).parent.parent.name == "antelopev2"


@pytest.mark.parametrize(
    "name",
    ["unet.pth", "UNET.PTH", "unet.safetensors", "stableanimator_unet.safetensors", "unet_fp16.safetensors"],
)
def test_official_and_converted_names_count(tmp_path, name):
    put(tmp_path, name)
    assert find_all("unet", [tmp_path]) == [tmp_path / name]


@pytest.mark.parametrize(
    "name", ["my_unet.pth", "unet.onnx", "unet.pth.part", "denoising_unet.pth", ".unet.pth"]
)
def test_other_names_do_not(tmp_path, name):
    put(tmp_path, name)
    assert find_all("unet", [tmp_path]) == []


def test_earlier_roots_come_first_then_converted_files_then_the_less_deep(tmp_path):
    put(tmp_path / "a", "deep/unet.pth", "deep/er/unet.safetensors", "unet.pth")
    put(tmp_path / "b", "unet.safetensors")
    order = ["b/unet.safetensors", "a/deep/er/unet.safetensors", "a/unet.pth", "a/deep/unet.pth"]
    assert find_all("unet", [tmp_path / "b", tmp_path / "a"]) == [tmp_path / name for name in order]


def test_a_diffusers_folder_counts_as_svd_if_both_parts_are_there(tmp_path):
    put(tmp_path, "half/vae/diffusion_pytorch_model.safetensors", "half/unet/config.json")
    assert find_file("svd", [tmp_path]) is None
    put(
        tmp_path,
        "SVD/vae/diffusion_pytorch_model.fp16.safetensors",
        "SVD/image_encoder/model.fp16.safetensors",
    )
    assert find_file("svd", [tmp_path]) == tmp_path / "SVD"
    assert find_file("svd", [tmp_path / "SVD"]) == tmp_path / "SVD"


def test_links_in_a_circle_end_and_each_file_is_listed_once(tmp_path):
    put(tmp_path, "models/unet.pth")
    (tmp_path / "models" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert find_all("unet", [tmp_path, tmp_path / "models"]) == [tmp_path / "models" / "unet.pth"]


def test_linked_folders_are_followed(tmp_path):
    put(tmp_path / "disk", "Animation/unet.pth")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert find_file("unet", [tmp_path / "root"]) == tmp_path / "root" / "link" / "Animation" / "unet.pth"


def test_the_search_ends_at_its_depth(tmp_path):
    put(tmp_path, "1/2/3/4/5/unet.pth", "1/2/3/4/5/6/pose_net.pth")
    assert find_file("unet", [tmp_path])
    assert find_file("pose_net", [tmp_path]) is None


def test_the_search_ends_at_its_number_of_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(locate, "MAX_FOLDERS", 10)
    put(tmp_path, *(f"{n:02}/x.txt" for n in range(30)), "zz/unet.pth", "00/pose_net.pth")
    assert find_file("pose_net", [tmp_path])
    assert find_file("unet", [tmp_path]) is None


def test_hidden_folders_are_left_alone(tmp_path):
    put(tmp_path, ".git/unet.pth", ".cache/huggingface/unet.pth", "__pycache__/unet.pth")
    assert find_all("unet", [tmp_path]) == []


def test_not_found_names_every_place_the_files_and_where_to_get_them(tmp_path):
    (tmp_path / "here").mkdir()
    message = not_found_message("unet", [tmp_path / "here", tmp_path / "gone"])
    for part in (
        str(tmp_path / "here"),
        f"{tmp_path / 'gone'} (no such folder)",
        "unet.pth",
        "unet.safetensors",
    ):
        assert part in message
    assert KNOWN_FILES["unet"].url in message
    assert "6,201.4 MB" in message
    assert "Apache" in message
    assert "nowhere" in not_found_message("unet", [])
