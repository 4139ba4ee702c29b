import itertools

import pytest
import torch

from clcae_lib.models import CrossAttention, FoundationEncoder
from clcae_lib.models.attention import sine_positions

WIDTHS = (4, 6, 8, 8, 8)
SWITCHES = list(itertools.product(("spatial", "single", "none"), ("spatial", "single", "off")))


def encoder(**switches):
    torch.manual_seed(0)
    return FoundationEncoder(64, style_dim=8, feature_channels=5, widths=WIDTHS, **switches).eval()


def images(count=2):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_attention_is_the_formula():
    torch.manual_seed(0)
    block = CrossAttention(8, heads=2)
    q, tokens = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    key, value = block.to_key_value(tokens).chunk(2, dim=-1)
    query, seen = block.to_query(block.query_norm(q)), []
    for head in (slice(0, 4), slice(4, 8)):
        weights = (query[..., head] @ key[..., head].transpose(1, 2) / 2).softmax(dim=-1)
        seen.append(weights @ value[..., head])
    h = q + block.to_out(torch.cat(seen, dim=-1))
    expected = h + block.feed_forward(h)
    torch.testing.assert_close(block(q, tokens), expected)
    out, weights = block(q, tokens, need_weights=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, 3))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="dim=6 is not a multiple of heads=4"):
        CrossAttention(6, heads=4)


def test_positions_tell_every_pixel_apart():
    assert torch.pdist(sine_positions(16, 16, 32)).min() > 0.05
    assert sine_positions(3, 5, 7).shape == (15, 7)


@pytest.mark.parametrize(("wplus", "feature"), SWITCHES)
def test_every_switch_gives_codes_and_trains_all_it_has(wplus, feature):
    net = encoder(wplus_attention=wplus, feature_attention=feature)
    for parameter in net.parameters():  # the zero start of W+ would hide what is behind it
        parameter.data += 0.05 * torch.randn_like(parameter)
    codes = net(images())
    assert codes.w.shape == (2, 8)
    assert codes.w_plus.shape == (2, 10, 8)
    assert (codes.feature is None) == (feature == "off")
    sum(part.square().sum() for part in codes if part is not None).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    if feature != "off":
        assert codes.feature.shape == (2, 5, 16, 16)


@pytest.mark.parametrize("wplus", ["spatial", "single"])
def test_w_plus_begins_as_w_and_w_near_its_mean(wplus):
    net = encoder(wplus_attention=wplus)
    net.w_avg.fill_(3.0)
    codes = net(images())
    torch.testing.assert_close(codes.w_plus, codes.w[:, None].expand(-1, 10, -1))
    assert (codes.w - 3.0).abs().max() < 1.0


def test_one_key_makes_queries_and_heads_idle():
    """The published departure: with a single token the softmax is 1, so the query matrix gets no gradient."""
    for wplus, idle in (("single", True), ("spatial", False)):
        net = encoder(wplus_attention=wplus)
        for linear in net.to_offset:
            linear.weight.data.normal_()
        net(images()).w_plus.square().sum().backward()
        gradient = net.wplus_blocks[0].to_query.weight.grad.abs().max()
        assert bool(gradient < 1e-6) == idle


def test_attention_maps_of_every_block():
    net = encoder()
    codes, maps = net.attention_maps(images())
    shapes = {name: tuple(weights.shape[1:]) for name, weights in maps.items()}
    fine = {"fine": (4, 3, 256), "feature": (4, 256, 266)}
    assert shapes == {"coarse": (4, 3, 16), "medium": (4, 4, 64), **fine}
    for weights in maps.values():
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    for part, again in zip(codes, net(images()), strict=True):
        torch.testing.assert_close(part, again, atol=1e-5, rtol=1e-4)
    single = encoder(wplus_attention="single", feature_attention="off").attention_maps(images())[1]
    assert {name: tuple(weights.shape) for name, weights in single.items()} == {
        "coarse": (2, 4, 3, 1),
        "medium": (2, 4, 4, 1),
        "fine": (2, 4, 3, 1),
    }


def test_an_edit_of_w_moves_w_plus_and_f():
    net = encoder()
    for linear in net.to_offset:
        linear.weight.data.normal_()
    plain, edited = net(images()), net(images(), edit=torch.ones(1, 8))
    torch.testing.assert_close(edited.w, plain.w + 1)
    moved = edited.w_plus - plain.w_plus
    assert (moved.mean(dim=(0, 2)) != 0).all()
    assert (edited.feature - plain.feature).abs().max() > 1e-4


def test_other_sizes():
    net = FoundationEncoder(32, style_dim=8, feature_channels=4, widths=WIDTHS).eval()
    codes = net(torch.randn(1, 3, 32, 32))
    assert codes.w_plus.shape == (1, 8, 8)
    assert codes.feature.shape == (1, 4, 16, 16)
    large = FoundationEncoder(512, style_dim=8, feature_channels=4, widths=WIDTHS).eval()
    assert large(torch.randn(1, 3, 512, 512)).w_plus.shape == (1, 16, 8)


def test_unknown_switch_is_named():
    with pytest.raises(ValueError, match="wplus_attention='both' is not one of"):
        encoder(wplus_attention="both")
