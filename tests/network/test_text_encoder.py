"""The text encoder against transformers' T5: features, gradients and position buckets."""

import pytest
import torch
import transformers
from diffusers_models import stock_text_encoder

from diffuse_cli.model_config import TextConfig
from diffuse_cli.network.text_encoder import TextEncoder, relative_buckets
from diffuse_cli.network.tokenizer import END, LENGTH, PAD

CONFIGS = {
    "one head": TextConfig(vocabulary=300, width=32, layers=2),
    "three heads": TextConfig(vocabulary=500, width=192, layers=3),
}


def make_encoder(config: TextConfig) -> TextEncoder:
    """An encoder whose every parameter matters; its attention is neither flat nor so sharp that rounding shows."""
    encoder, generator = TextEncoder(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if parameter.ndim == 1:
                parameter.normal_(1.0, 0.2, generator=generator)
            else:
                scale = 0.2 if name.endswith("SelfAttention.q.weight") else 1.0
                parameter.normal_(std=scale * parameter.shape[1] ** -0.5, generator=generator)
    return encoder


def make_tokens(config: TextConfig, lengths: tuple[int, ...]) -> torch.Tensor:
    tokens = torch.randint(3, config.vocabulary, (len(lengths), LENGTH), generator=torch.Generator().manual_seed(1))
    for row, length in zip(tokens, lengths, strict=True):
        row[length - 1], row[length:] = END, PAD
    return tokens


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_features_and_gradients_are_those_of_t5(config: TextConfig) -> None:
    ours, stock = make_encoder(config), stock_text_encoder(config).eval()
    tied = {"encoder.embed_tokens.weight": ours.shared.weight}              # the same table under a second name
    stock.load_state_dict(ours.state_dict() | tied, strict=True)
    tokens = make_tokens(config, (1, 2, 20, 76, 77))

    found, expected = ours(tokens), stock(tokens, attention_mask=(tokens != PAD).long()).last_hidden_state
    assert found.shape == (5, LENGTH, config.width)
    assert (found - expected).abs().max() < 1e-5            # at the padding as well, which the U-Net reads

    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    stock_gradients = {name: parameter.grad for name, parameter in stock.named_parameters()}
    stock_gradients["shared.weight"][[PAD, END]] = 0.0      # ours are not trained
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, stock_gradients[name], rtol=1e-3, atol=1e-3)


def test_relative_buckets_are_those_of_t5() -> None:
    length = 400
    positions = torch.arange(length)
    expected = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket(
        positions[None, :] - positions[:, None], bidirectional=True, num_buckets=32, max_distance=128
    )
    assert torch.equal(relative_buckets(length, torch.device("cpu")), expected)


def test_words_after_the_end_are_not_read_but_padding_has_features() -> None:
    config = CONFIGS["one head"]
    encoder, tokens = make_encoder(config), make_tokens(config, (10,))
    before = encoder(tokens)
    encoder.shared.weight.data[PAD] += 1.0
    after = encoder(tokens)
    assert torch.equal(before[:, :10], after[:, :10])
    assert not torch.isclose(before[:, 10:], after[:, 10:]).all(dim=-1).any()
    after.sum().backward()
    assert encoder.shared.weight.grad is not None
    assert not encoder.shared.weight.grad[[PAD, END]].any()             # no words: they are not trained
    assert encoder.shared.weight.grad[END + 1:].any()


def test_bf16_autocast_masks_padding_without_nan() -> None:
    config = CONFIGS["three heads"]
    encoder, tokens = make_encoder(config), make_tokens(config, (1, 30))
    exact = encoder(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(tokens).float()
    assert (rough - exact).abs().mean() < 0.05 * exact.abs().mean()
