"""Teachers without heads: models of timm and torchvision, their input sizes, and how several are asked together."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from timm.models import load_checkpoint
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from slg_wds.errors import TeacherOutputError, UsageError
from slg_wds.teachers import TeacherSpec, load_teacher
from slg_wds.teachers.forwards.scenes import scenes
from slg_wds.teachers.towers.headless import without_timm_head, without_torchvision_head
from slg_wds.teachers.towers.towers import Towers
from slg_wds.teachers.trial import try_teacher
from slg_wds.transforms.normalisation import Normalisation
from support.paths import MODELS

DINO, TINY_CLIP = "vit_small_patch14_dinov2", "vit_xsmall_patch16_clip_224"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A file of random weights in the form in which DINOv2 is released: no head, positions of 518 pixels."""
    torch.manual_seed(1)
    model = timm.create_model(DINO, pretrained=False)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):  # layer scale starts so small that nothing but the mean of patches is seen
            parameter.data.fill_(0.5)
    path = tmp_path_factory.mktemp("dino") / "dino.pth"
    torch.save(model.state_dict(), path)
    return path


def test_dinov2_at_another_size_has_its_positions_interpolated(released):
    spec = TeacherSpec("timm", DINO, str(released))
    teacher = load_teacher(spec, input_size=56, headless=True)
    assert teacher.num_classes == 384 and teacher.preprocessing.input_size == 56
    assert teacher.preprocessing.interpolation == "bicubic"
    images = scenes(2, 56, 3)
    expected = timm.create_model(DINO, pretrained=False, img_size=56).eval()
    load_checkpoint(expected, str(released), filter_fn=checkpoint_filter_fn)
    pixels = Normalisation(teacher.preprocessing.mean, teacher.preprocessing.std, torch.device("cpu"))(images)
    with torch.inference_mode():
        theirs = expected(pixels)
    assert torch.allclose(teacher.logits(images), theirs, atol=1e-4)
    try_teacher(teacher, 8, embeds=True)


def test_an_input_of_broken_patches_is_refused(released):
    with pytest.raises(UsageError, match=r"60 is not a multiple of 14, .*; give 56 or 70"):
        load_teacher(TeacherSpec("timm", DINO, str(released)), input_size=60, headless=True)


@pytest.mark.parametrize("arch", ["pvt_v2_b0", "efficientvit_m0", "xcit_nano_12_p8_224"])
def test_an_input_of_patches_that_overlap_may_have_any_size(arch):
    model = without_timm_head(timm.create_model(arch, pretrained=False), arch, 100).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 100, 100)).ndim == 2


@pytest.mark.parametrize("arch", ["resnet18", "mobilenetv3_small_050", TINY_CLIP, "vit_tiny_patch16_224"])
def test_timm_models_give_what_their_last_layer_reads(arch):
    torch.manual_seed(0)
    model = timm.create_model(arch, pretrained=False, num_classes=10).eval()
    images = torch.randn(2, 3, 224, 224)
    read = {}
    model.get_classifier().register_forward_hook(lambda _m, inputs, _o: read.update(features=inputs[0]))
    with torch.inference_mode():
        model(images)
        found = without_timm_head(model, arch, None)(images)
    assert found.ndim == 2 and torch.equal(found, read["features"])


def test_the_attention_pooling_of_siglip_stays():
    """Its towers are pooled by attention: taking the head off must not change that to a mean."""
    module = timm.create_model("vit_base_patch16_siglip_224", pretrained=False, depth=1).eval()
    pooled, images = module.attn_pool, torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        before = module.forward_head(module.forward_features(images), pre_logits=True)
        found = without_timm_head(module, "siglip", None)(images)
    assert module.attn_pool is pooled and torch.equal(found, before) and found.shape == (1, 768)


@pytest.mark.parametrize(
    ("name", "width"),
    [("resnet18", 512), ("mobilenet_v3_small", 1024), ("squeezenet1_1", 512)],
)
def test_torchvision_models_lose_their_last_layer(name, width):
    model = torchvision.models.get_model(name, weights=None).eval()
    with torch.inference_mode():
        found = without_torchvision_head(model, name)(torch.randn(2, 3, 224, 224))
    assert found.shape == (2, width)


def private(name: str):
    return load_teacher(TeacherSpec("private", f"{MODELS / 'towers.py'}:{name}"), headless=True)


def test_embeddings_may_sum_to_one_but_not_change():
    shares = private("shares")
    with pytest.raises(TeacherOutputError, match="probabilities, not logits"):
        try_teacher(shares, 8)
    try_teacher(shares, 8, embeds=True)
    with pytest.raises(TeacherOutputError, match="asked twice"):
        try_teacher(private("noisy"), 8, embeds=True)


def test_several_towers_stand_side_by_side_each_of_unit_length():
    towers = Towers([private("shares"), private("zero"), private("shares")], normalize=True)
    assert towers.names == ["towers.py:shares", "towers.py:zero", "towers.py:shares 2"]
    assert towers.dims == [48, 48, 48] and all("weight" not in one for one in towers.describe())
    images = torch.stack([torch.full((3, 32, 32), 10, dtype=torch.uint8), *scenes(3, 32, 2, 0.7)])
    found = towers.answers([images])
    plain = Towers(towers.teachers).answers([images])
    assert torch.equal(found[:, :48], found[:, 96:])
    lengths = found.reshape(4, 3, 48).norm(dim=2)
    assert torch.allclose(lengths, torch.tensor([[1.0, 0.0, 1.0], *[[1.0] * 3] * 3]), atol=1e-6)
    assert torch.allclose(nn.functional.cosine_similarity(plain[:, :48], found[:, :48]), torch.ones(4))


OWN_PIXELS = {  # mean and std by which their authors train them
    TINY_CLIP: ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), 256),
    "vit_base_patch16_siglip_224": ((0.5,) * 3, (0.5,) * 3, 768),
}


@pytest.mark.parametrize("arch", list(OWN_PIXELS))
def test_towers_of_clip_and_siglip_see_their_own_pixels_in_any_precision(arch, tmp_path):
    """With random weights and one block, which the file of a factory builds."""
    factory = tmp_path / "tower.py"
    factory.write_text(
        "import timm, torch\n\n\ndef tower():\n    torch.manual_seed(0)\n"
        f"    model = timm.create_model({arch!r}, pretrained=False, depth=1, num_classes=8)\n"
        "    model.reset_classifier(0)\n    return model\n"
    )
    mean, std, width = OWN_PIXELS[arch]
    spec = TeacherSpec("private", f"{factory}:tower")
    exact, rounded = (load_teacher(spec, precision=name, headless=True) for name in ("fp32", "bf16"))
    seen = exact.preprocessing
    assert (seen.input_size, seen.interpolation, seen.mean, seen.std) == (224, "bicubic", mean, std)
    images = scenes(2, 224, 3)
    one, other = exact.logits(images), rounded.logits(images)
    assert one.shape == other.shape == (2, width) and one.dtype == other.dtype == torch.float32
    assert nn.functional.cosine_similarity(one, other).min() > 0.99
    with pytest.raises(UsageError, match=r"60 is not a multiple of 16, .*; give 48 or 64"):
        without_timm_head(timm.create_model(TINY_CLIP, pretrained=False), arch, 60)
