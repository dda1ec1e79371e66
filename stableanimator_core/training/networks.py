"""The three networks that learn, as training finds them: from Stable Video Diffusion, from files, or new."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..models.face_encoder import FaceEncoder
from ..models.pose_net import PoseNet
from ..models.unet import build_unet
from ..weights import load
from .config import unet_config
from .settings import Settings
from .step import TrainedNetworks
from .svd_unet import read_svd_unet
from .trainable import choose_trainable, start_adapter_from_image_attention


def build_networks(settings: Settings) -> TrainedNetworks:
    """U-Net, PoseNet and face encoder in float32 on the CPU, with the parameters chosen that learn.

    New networks depend on `training.seed` alone.

    Raises:
        WeightsError: a file is missing, damaged or another model.
        InputError: the networks do not fit each other, or the configuration is none of a U-Net.
    """
    torch.manual_seed(settings.training.seed)
    start = settings.networks.start
    unet: Any
    if start == "stableanimator":
        n = settings.networks
        unet = load.load_unet(n.unet or "", torch.float32)
        pose_net: nn.Module = load.load_pose_net(n.pose_net or "", torch.float32)
        face_encoder: nn.Module = load.load_face_encoder(n.face_encoder or "", torch.float32)
    else:
        unet = _svd_unet(settings) if start == "svd" else _new_unet(settings)
        start_adapter_from_image_attention(unet)
        width = unet.config.cross_attention_dim
        pose_net = PoseNet(unet.config.block_out_channels[0])
        options = settings.networks.face_encoder_config
        face_encoder = FaceEncoder(token_width=width, image_width=width, **options)
    for network in (unet, pose_net, face_encoder):
        own_memory(network)
    choose_trainable(unet, pose_net, face_encoder, what=settings.training.trainable)
    if settings.training.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return TrainedNetworks(unet, pose_net, face_encoder, settings.training).train()


def configs_of(networks: TrainedNetworks) -> dict[str, dict[str, Any]]:
    """What each file's metadata says, so that the loaders build the same networks again."""
    unet: Any = networks.unet
    return {
        "unet": {key: value for key, value in dict(unet.config).items() if not key.startswith("_")},
        "pose_net": PoseNet.config_from(networks.pose_net.state_dict()),
        "face_encoder": FaceEncoder.config_from(networks.face_encoder.state_dict()),
    }


def _new_unet(settings: Settings) -> nn.Module:
    config = unet_config(settings)
    try:
        unet = build_unet(config)
    except (TypeError, ValueError) as error:
        remedy = "give diffusers' arguments of UNetSpatioTemporalConditionModel; widths are multiples of 32"
        raise InputError("networks.unet_config", f"makes no U-Net ({error})", remedy) from error
    return unet


def _svd_unet(settings: Settings) -> nn.Module:
    state, config, source = read_svd_unet(settings.networks.svd or "")
    unet = load.build_empty("unet", config)
    adapter = {
        key: torch.empty(tensor.shape)
        for key, tensor in unet.state_dict().items()
        if ".processor.id_to_" in key
    }
    state = {key: tensor.float() for key, tensor in state.items()}
    load.load_exactly(unet, state | adapter, source)
    return unet


def own_memory(network: nn.Module) -> None:
    """Weights mapped from a file become the network's own, so that steps never touch the file's pages."""
    for parameter in network.parameters():
        parameter.data = parameter.data.float().clone()
