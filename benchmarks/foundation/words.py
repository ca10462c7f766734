"""Words for the foundation: a tokenizer for any English caption, and vectors that put related words near each other.

The text encoder begins as a bag of words: a caption's features are the vectors of its tokens. Here those vectors are
trained before any picture is seen, so that "kitten" already lies near "cat". The sum of a word's tokens is pulled
towards the sum of its definition, of its synonyms and of the word above it, and pushed away from those of other words:
InfoNCE (van den Oord et al. 2018, 1807.03748, eq. 4), on WordNet and on the captions of the material.
"""

import argparse
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from diffuse_cli.model_config import ModelConfig
from diffuse_cli.network.network import Network
from diffuse_cli.network.presets import network_config
from diffuse_cli.network.tokenizer import END, PAD, encode, train_tokenizer
from diffuse_cli.storage.checkpoint import save_model
from diffuse_cli.storage.model_info import TrainingSummary

VOCABULARY = 10_240
# WordNet's files of things that can be seen: animals, artefacts, attributes, bodies, food, objects, people, phenomena,
# plants, shapes, substances. Adjectives are taken as well.
SEEN = {"05", "06", "07", "08", "13", "17", "18", "19", "20", "25", "27"}
TEMPERATURE, BATCH, TOKENS = 0.07, 512, 24
RANDOM_SHARE = 0.3  # of the variance: keeps related words, such as two colours, apart


def read_wordnet(directory: Path) -> list[tuple[list[str], str, list[str]]]:
    """WordNet's nouns that can be seen, and its adjectives: (synonyms, definition, words above)."""
    synsets: dict[tuple[str, str], tuple[list[str], str, list[tuple[str, str]], str]] = {}
    for part, kind in (("noun", "n"), ("adj", "a")):
        for line in (directory / f"data.{part}").read_text().splitlines():
            if line.startswith(" "):
                continue
            head, _, gloss = line.partition("|")
            fields = head.split()
            count = int(fields[3], 16)
            words = [fields[4 + 2 * i].split("(")[0].replace("_", " ") for i in range(count)]
            pointers = fields[5 + 2 * count :]
            above = [(kind, pointers[i + 1]) for i in range(0, len(pointers) - 3, 4) if pointers[i] in ("@", "&")]
            synsets[kind, fields[0]] = words, gloss.split(";")[0].strip(), above, fields[1]
    return [
        (words, gloss, [synsets[key][0][0] for key in above if key in synsets])
        for (kind, _), (words, gloss, above, topic) in synsets.items()
        if kind == "a" or topic in SEEN
    ]


def read_captions(material: Path) -> list[list[str]]:
    """The captions of every picture of the material."""
    return [json.loads(line)["text"] for line in (material / "metadata.jsonl").read_text().splitlines()]


def common_words(synsets: list[tuple[list[str], str, list[str]]]) -> list[str]:
    """The names of things that definitions use at least three times, each often enough to become a token."""
    used = Counter(word for _, gloss, _ in synsets for word in re.findall("[a-z]+", gloss.lower()))
    names = {word for words, _, _ in synsets for word in words if word.isalpha() and word.islower()}
    return [
        word for word in sorted(names) if used[word] + used[f"{word}s"] >= 3 and len(word) > 2 for _ in range(100)
    ]


def pairs_of(synsets: list[tuple[list[str], str, list[str]]], captions: list[list[str]]) -> list[tuple[str, str]]:
    """Texts that mean nearly the same."""
    pairs = []
    for words, gloss, above in synsets:
        pairs += [(word, gloss) for word in words[:3]] + [(words[0], word) for word in [*words[1:3], *above[:2]]]
    pairs += [(first, second) for texts in captions for first, second in itertools.pairwise(texts)]
    return [(first, second) for first, second in pairs if first and second and first.lower() != second.lower()]


def token_rows(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Texts → their first tokens (N, TOKENS) int64, without END, padded with zeros."""
    rows = encode(tokenizer, texts)[:, :TOKENS]
    return rows.masked_fill(rows == END, PAD)


def train_vectors(
    tokenizer: Tokenizer,
    pairs: list[tuple[str, str]],
    *,
    width: int,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Token vectors (vocabulary, width) float32, of mean square about 1; special tokens have 0."""
    first, second = (token_rows(tokenizer, list(side)) for side in zip(*pairs, strict=True))
    bag = nn.EmbeddingBag(tokenizer.get_vocab_size(), width, mode="sum", padding_idx=PAD)
    with torch.no_grad():
        bag.weight.normal_(generator=generator)
        start = bag.weight.clone()
    optimizer = torch.optim.Adam(bag.parameters(), lr=2e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-2 * (1 - step / steps)
        chosen = torch.randint(len(pairs), (BATCH,), generator=generator)
        one, two = (F.normalize(bag(rows[chosen]), dim=-1) for rows in (first, second))
        scores = one @ two.T / TEMPERATURE
        target = torch.arange(BATCH)
        loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 500 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}, chance {math.log(BATCH):.3f}", flush=True)
    with torch.no_grad():
        learned = bag.weight / bag.weight.pow(2).mean(1, keepdim=True).sqrt().clamp(min=1e-6)
        vectors = learned * (1 - RANDOM_SHARE) ** 0.5 + start * RANDOM_SHARE**0.5
        vectors /= vectors.pow(2).mean(1, keepdim=True).sqrt()
        vectors[[PAD, END]] = 0  # as in a new network
    return vectors


def neighbours(tokenizer: Tokenizer, vectors: Tensor, word: str, candidates: list[str]) -> Iterator[str]:
    """The candidates in the order of their similarity to a word."""
    sums = [F.normalize(vectors[token_rows(tokenizer, texts)].sum(1), dim=-1) for texts in ([word], candidates)]
    for number in (sums[1] @ sums[0][0]).argsort(descending=True):
        yield candidates[number]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("material", type=Path)
    parser.add_argument("directory", type=Path, help="where the untrained models are written, one for each network")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="files of wordnet-base")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    synsets, captions = read_wordnet(options.wordnet), read_captions(options.material)
    texts = [text for row in captions for text in row]
    tokenizer = train_tokenizer([*texts, *common_words(synsets)], vocabulary=VOCABULARY)
    pairs = pairs_of(synsets, captions)
    print(f"{len(synsets):,} meanings, {len(texts):,} captions, {len(pairs):,} pairs", flush=True)
    options.directory.mkdir(parents=True, exist_ok=True)
    for preset in ("nano", "micro"):
        for resolution in (32, 64):
            network = network_config(preset, resolution, vocabulary=tokenizer.get_vocab_size(), learned_variance=True)
            generator = torch.Generator().manual_seed(options.seed)
            if resolution == 32:
                assert network.text is not None
                vectors = train_vectors(
                    tokenizer, pairs, width=network.text.width, steps=options.steps, generator=generator
                )
                words = sorted({words[0] for words, _, _ in synsets if len(words[0]) < 12})[::4]
                for word in ("kitten", "crimson", "automobile", "sailboat", "wizard", "happy"):
                    near = neighbours(tokenizer, vectors, word, words)
                    print(word, "→", ", ".join(next(near) for _ in range(8)), flush=True)
            model = Network(network)
            model.initialise(generator)
            assert model.text_encoder is not None
            with torch.no_grad():
                model.text_encoder.shared.weight.copy_(vectors)
            config = ModelConfig(network=network, schedule="interpolated", prediction="v")
            save_model(
                options.directory / f"{preset}-{resolution}.safetensors",
                config=config,
                weights=model.state_dict(),
                tokenizer=tokenizer,
                words={},
                training=TrainingSummary(name=f"words-{preset}-{resolution}", preset=preset),
            )


if __name__ == "__main__":
    main()
