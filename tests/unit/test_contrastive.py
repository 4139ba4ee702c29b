import pytest
import torch

from clcae_lib.models import ImageEncoder, LatentEncoder
from clcae_lib.models.backbone import Backbone, Pyramid, StyleBlock, make_backbone, to_encoder_side
from clcae_lib.weights import load_alignment, save_alignment

WIDTHS = (4, 6, 8, 8, 8)


def test_body_gives_maps_at_a_quarter_an_eighth_and_a_sixteenth():
    for body in (Backbone(WIDTHS), make_backbone("irse_small", widths=WIDTHS)):
        maps = body(torch.randn(2, 3, 64, 64))
        assert [tuple(m.shape[1:]) for m in maps] == [(8, 16, 16), (8, 8, 8), (8, 4, 4)]
        assert body.channels == (8, 8, 8)
    with pytest.raises(ValueError, match="body='big'"):
        make_backbone("big")


def test_pyramid_adds_the_upsampled_level_above():
    pyramid = Pyramid((8, 8, 8), 8)
    maps = Backbone(WIDTHS)(torch.randn(1, 3, 64, 64))
    t1, t2, t3 = pyramid(maps)
    assert t1 is maps[2]
    up = torch.nn.functional.interpolate(t1, (8, 8), mode="bilinear", align_corners=True)
    torch.testing.assert_close(t2, up + pyramid.medium(maps[1]))
    assert t3.shape == (1, 8, 16, 16)
    assert Pyramid((8, 8, 8), 12)(maps)[0].shape == (1, 12, 4, 4)


def test_style_block_sees_the_whole_map():
    block = StyleBlock(4, 5, side=8, gain=1.0)
    level = torch.randn(1, 4, 8, 8, requires_grad=True)
    block(level).sum().backward()
    assert (level.grad.abs().sum(dim=1) > 0).all()


def test_large_images_are_averaged_down():
    assert to_encoder_side(torch.zeros(1, 3, 512, 384)).shape == (1, 3, 256, 192)
    small = torch.zeros(1, 3, 64, 64)
    assert to_encoder_side(small) is small


def test_embeddings_are_unit_vectors_and_differ():
    images = ImageEncoder(32, embedding=8, width=8, widths=WIDTHS)
    codes = LatentEncoder(6, embedding=8, width=8)
    for vectors in (images(torch.randn(3, 3, 32, 32)), codes(torch.randn(3, 6))):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
        assert torch.pdist(vectors).min() > 1e-3


def test_latent_encoder_standardises_but_does_not_blow_up_a_constant():
    encoder = LatentEncoder(3, embedding=4, width=8)
    w = torch.randn(500, 3) * torch.tensor([2.0, 1.0, 1e-6]) + 5
    encoder.standardise_by(w)
    torch.testing.assert_close(encoder.w_avg, w.mean(dim=0))
    assert encoder.w_std[0] == pytest.approx(float(w.std(dim=0)[0]))
    assert encoder.w_std[2] > 0.1


def test_alignment_file_round_trip(tmp_path):
    images = ImageEncoder(32, embedding=8, width=8, widths=WIDTHS).eval()
    codes = LatentEncoder(6, embedding=8, width=8).eval()
    codes.standardise_by(torch.randn(50, 6) * 3)
    path = save_alignment(tmp_path / "alignment.safetensors", images, codes, scale=42.0, metadata={"seed": 1})
    images2, codes2, scale = load_alignment(path)
    x, w = torch.randn(2, 3, 32, 32), torch.randn(2, 6)
    assert scale == 42.0
    torch.testing.assert_close(images2(x), images(x), atol=5e-3, rtol=0)
    torch.testing.assert_close(codes2(w), codes(w), atol=5e-3, rtol=0)
    assert not any(p.requires_grad for p in images2.parameters())
