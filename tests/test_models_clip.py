"""CLIP: both towers equal to open_clip's, and the tokenizer to the published ids."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import random
import sys

import pytest
import torch
from torch import nn

from convarium.errors import ArgumentError, CheckpointError, MissingExtra, UnknownName
from convarium.models import clip, create, names, variant, weights
from convarium.models.clip_parts import AttentionPool
from convarium.models.tokenizer import CONTEXT, VOCABULARY_FILE, Tokenizer, clean, find_vocabulary, pieces

THEIR_NAMES = {
    "clip_rn50": "RN50",
    "clip_rn101": "RN101",
    "clip_vit_b_32": "ViT-B-32",
    "clip_vit_b_16": "ViT-B-16",
    "clip_vit_l_14": "ViT-L-14",
}
# Few blocks and a small picture: ours, and open_clip's words for them.
SMALL = {
    "clip_rn50": (
        {"size": 64, "depths": (1, 2, 1, 1), "text_depth": 2},
        {"layers": [1, 2, 1, 1], "image_size": 64},
    ),
    "clip_vit_b_32": ({"size": 64, "depths": 2, "text_depth": 2}, {"layers": 2, "image_size": 64}),
    "clip_vit_l_14": ({"size": 56, "depths": 1, "text_depth": 2}, {"layers": 1, "image_size": 56}),
}
TEXTS = torch.tensor([[49406, 320, 1929, 49407] + [0] * 73, [49406, *range(1, 76), 49407]])

needs_ftfy = pytest.mark.skipif(importlib.util.find_spec("ftfy") is None, reason="ftfy is not installed")


@pytest.fixture
def open_clip():
    return pytest.importorskip("open_clip")


@pytest.fixture
def tokenizer(shared) -> Tokenizer:
    return Tokenizer(shared / "clip" / VOCABULARY_FILE)


def build_theirs(open_clip, name: str, quick_gelu: bool = True, **image) -> nn.Module:
    config = open_clip.get_model_config(THEIR_NAMES[name])
    config["vision_cfg"].update(image)
    if image:
        config["text_cfg"]["layers"] = 2
    return open_clip.CLIP(**{**config, "quick_gelu": quick_gelu})


def randomise(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point():
                scale = max(tensor[0].numel(), 1) ** -0.5 if tensor.ndim > 1 else 0.1
                norm = tensor.ndim == 1 and name.endswith("weight")
                tensor.normal_(1.0 if norm else 0.0, scale)
    return net


def fit(ours: nn.Module, state: dict[str, torch.Tensor]) -> nn.Module:
    weights.fit(ours, weights.rename(state, clip.openai(ours)))
    return ours


@pytest.mark.parametrize("name", SMALL)
def test_features_and_scores_are_those_of_open_clip(open_clip, name):
    arguments, image = SMALL[name]
    theirs = randomise(build_theirs(open_clip, name, **image)).eval()
    ours = fit(create(name, **arguments), theirs.state_dict()).eval()
    pictures = torch.randn(3, 3, ours.size, ours.size)
    with torch.no_grad():
        pairs = [
            (ours.encode_image(pictures), theirs.encode_image(pictures)),
            (ours(pictures), theirs.encode_image(pictures)),
            (ours.encode_text(TEXTS), theirs.encode_text(TEXTS)),
            (ours.scores(pictures, TEXTS), theirs.get_logits(pictures, TEXTS)[0]),
        ]
    for got, expected in pairs:
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_gradients_are_those_of_open_clip_in_training(open_clip):
    arguments, image = SMALL["clip_rn50"]
    theirs = randomise(build_theirs(open_clip, "clip_rn50", **image)).train()
    ours = fit(create("clip_rn50", **arguments), theirs.state_dict()).train()
    pictures = torch.randn(2, 3, 64, 64)
    ours.scores(pictures, TEXTS).diag().sum().backward()
    theirs.get_logits(pictures, TEXTS)[0].diag().sum().backward()
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    expected = weights.rename(grads, clip.openai(ours))
    largest = max(g.abs().max().item() for g in expected.values())
    for key, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-3, atol=1e-5 * largest, msg=key)


def test_weights_with_the_exact_gelu_need_that_option(open_clip):
    arguments, image = SMALL["clip_vit_b_32"]
    theirs = randomise(build_theirs(open_clip, "clip_vit_b_32", quick_gelu=False, **image)).eval()
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.encode_image(pictures)
        exact = fit(create("clip_vit_b_32", act="gelu", **arguments), theirs.state_dict()).eval()(pictures)
        quick = fit(create("clip_vit_b_32", **arguments), theirs.state_dict()).eval()(pictures)
    torch.testing.assert_close(exact, expected, rtol=1e-5, atol=1e-5)
    assert (quick - expected).abs().max() > 1e-3


@pytest.mark.parametrize("name", THEIR_NAMES)
def test_all_names_of_the_whole_reference_fit_in_both_forms(open_clip, name):
    from open_clip.model import convert_to_custom_text_state_dict

    with torch.device("meta"):
        theirs = build_theirs(open_clip, name).state_dict()
        ours = create(name)
    for state in (theirs, convert_to_custom_text_state_dict(dict(theirs))):
        # OpenAI's files also hold three sizes as tensors.
        state["context_length"] = torch.tensor(77)
        assert weights.differences(ours, weights.rename(state, clip.openai(ours))) == []


@pytest.mark.parametrize("name", names("clip_*"))
def test_a_clip_is_asked_as_a_net(name):
    with torch.device("meta"):
        net = create(name, in_channels=4, classes=7)
    assert (net.in_channels, net.classes, net.size) == (4, 7, 224)
    assert net.text.end_points["logits"].channels == net.end_points["logits"].channels == 7
    assert list(net.end_points) == list(net.image.end_points)


def small() -> clip.Clip:
    return create("clip_vit_b_32", size=64, depths=1, text_depth=1, width=64, text_width=64, classes=16)


def test_the_text_feature_is_that_of_the_end_token():
    net = randomise(small()).eval()
    other = TEXTS.clone()
    other[0, 4:] = 99  # what follows the end changes nothing
    assert torch.allclose(net.encode_text(TEXTS), net.encode_text(other), atol=1e-6)
    other[0, 2] = 99
    assert not torch.allclose(net.encode_text(TEXTS)[0], net.encode_text(other)[0], atol=1e-3)


def test_text_features_end_in_what_forward_gives():
    net = small().eval()
    points = net.text.features(TEXTS)
    assert torch.equal(points["logits"], net.encode_text(TEXTS))
    assert {k: v.channels for k, v in net.text.end_points.items()} == {
        k: v.shape[-1] for k, v in points.items()
    }


def test_every_parameter_gets_a_gradient():
    net = small()
    net.scores(torch.randn(2, 3, 64, 64), TEXTS).softmax(-1).diag().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_a_fresh_scale_is_the_papers_temperature():
    assert small().logit_scale.item() == pytest.approx(math.log(1 / 0.07))


def test_norms_have_the_usual_eps():
    assert {m.eps for m in small().modules() if isinstance(m, nn.LayerNorm)} == {1e-5}


def test_weights_of_another_size_load_with_positions_resampled():
    net = small()
    state = {
        "visual.positional_embedding": net.state_dict()["image.stem.tokens.positions"],
    }
    with torch.device("meta"):
        larger = create(
            "clip_vit_b_32", size=128, depths=1, text_depth=1, width=64, text_width=64, classes=16
        )
    renamed = weights.rename(state, clip.openai(larger))
    assert renamed["image.stem.tokens.positions"].shape == (17, 64)


def test_the_attention_pool_takes_a_plane_of_another_size():
    assert AttentionPool(64, 1, 2)(torch.randn(2, 64, 3, 5)).shape == (2, 64)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ArgumentError, match="act = 'relu'; it must be 'quick_gelu'"):
        create("clip_vit_b_32", act="relu")


def test_parts_are_found_by_path():
    net = small()
    assert net.part("image.stages.0.blocks.0") is net.image.stages[0].blocks[0]
    with pytest.raises(UnknownName, match="no part is called 'image.stage'"):
        net.part("image.stage")


@needs_ftfy
def test_golden_texts_have_their_ids(tokenizer, shared):
    golden = json.loads((shared / "clip" / "tokenizer_golden_dev.json").read_text(encoding="utf-8"))
    for row in golden["tokens"]:
        assert tokenizer(row["text"], truncate=True)[0].tolist() == row["ids"], row["text"]


def random_texts(count: int) -> list[str]:
    draw = random.Random(0)
    alphabets = [
        "abcdefghijklmnopqrstuvwxyz    ", "ABCXYZ 0123456789", "абвгдеёжзийклмнопрстуфхцчшщъыьэюя АБВ ",
        "🐶🎉👩‍🔬🏳️‍🌈❤️🇺🇦 ", "'s 't 're 've 'm 'll 'd", ".,;:!?-_()[]{}<>&#@%$\"'\\/|~`^*+=", "éàüñßøæœﬁﬂ½²①Ⅷ٣",
        "日本語テキスト一二三한글 ", "\t\n \u00a0\u3000\u200b", "“”‘’—…", "ｆｕｌｌ１２",
    ]  # fmt: skip
    words = ["&amp;amp;", "&lt;b&gt;", "Ã©tÃ©", "<end_of_text>", "don't", "IT'S", "a photo of a dog"]
    texts = [""]
    while len(texts) < count:
        chosen = draw.sample(alphabets, draw.randint(1, 4))
        text = "".join(draw.choice(draw.choice(chosen)) for _ in range(draw.randint(0, 60)))
        texts.append(text + draw.choice(words) if draw.random() < 0.3 else text)
    return texts


def test_a_thousand_texts_have_open_clips_ids(tokenizer, open_clip):
    theirs = open_clip.tokenizer.SimpleTokenizer()
    texts = random_texts(1000)
    got, expected = tokenizer(texts, truncate=True), theirs(texts)
    assert [t for t, same in zip(texts, (got == expected).all(1), strict=True) if not same] == []


def test_a_text_that_is_too_long_is_refused(tokenizer):
    with pytest.raises(
        ArgumentError, match=r"has 80 tokens; at most 75 fit\. Shorten it, or say truncate=True"
    ):
        tokenizer("dog " * 80)


def test_a_text_of_exactly_the_context_is_taken(tokenizer):
    assert tokenizer("dog " * 75)[0, -1] == tokenizer.end


def test_a_truncated_text_keeps_its_end_token(tokenizer):
    row = tokenizer("dog " * 80, truncate=True)[0]
    assert (row.shape[0], row[-1].item(), row.argmax().item()) == (CONTEXT, tokenizer.end, CONTEXT - 1)


def test_an_empty_text_is_start_and_end(tokenizer):
    assert tokenizer("")[0, :3].tolist() == [tokenizer.start, tokenizer.end, 0]


def test_several_texts_make_several_rows(tokenizer):
    assert tokenizer(["a", "b", ""]).shape == (3, CONTEXT)
    assert tokenizer([]).shape == (0, CONTEXT)


@needs_ftfy
def test_ids_are_turned_back_into_text(tokenizer):
    assert tokenizer.decode(tokenizer("Привет, мир 🐶")[0]) == "привет , мир 🐶"


def test_a_number_that_is_no_id_is_refused(tokenizer):
    with pytest.raises(ArgumentError, match="49408 is no token id; they go from 0 to 49407"):
        tokenizer.decode([49408])


def test_what_is_not_a_text_is_refused(tokenizer):
    with pytest.raises(ArgumentError, match="got int 5; texts must be strings"):
        tokenizer.encode(5)


@pytest.mark.parametrize("texts", [None, 5])
def test_what_is_no_list_of_texts_is_refused(tokenizer, texts):
    with pytest.raises(ArgumentError, match="give a text or a list of texts"):
        tokenizer(texts)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (TEXTS.float(), "got torch.float32; texts must be token ids"),
        (None, "got NoneType; texts must be token ids"),
        (TEXTS[0], r"got ids of shape \(77,\)"),
        (torch.zeros(1, 78, dtype=torch.int64), r"got ids of shape \(1, 78\); .*at most 77"),
        (TEXTS + 49_000, "98407 is no token id; they go from 0 to 49407"),
        (TEXTS - 1, "-1 is no token id"),
    ],
)
def test_what_are_no_ids_is_refused_by_the_text_tower(tokens, said):
    for ask in (small().text, small().encode_text):
        with pytest.raises(ArgumentError, match=said):
            ask(tokens)


def test_plain_text_needs_no_ftfy_and_other_text_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    assert clean("  A photo\tof a DOG's tail ") == "a photo of a dog's tail"
    with pytest.raises(MissingExtra, match="'кот' is not plain ASCII.*pip install ftfy"):
        clean("кот")


def test_pieces_are_endings_words_digits_and_the_rest():
    assert list(pieces("it's 42½ cats_and!!")) == ["it", "'s", "4", "2", "½", "cats", "_", "and", "!!"]


def test_the_vocabulary_is_found_in_the_cache(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path))
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / VOCABULARY_FILE).write_bytes((shared / "clip" / VOCABULARY_FILE).read_bytes())
    assert find_vocabulary() == tmp_path / "clip" / VOCABULARY_FILE
    assert Tokenizer().encode("a dog") == [320, 1929]


def test_a_missing_vocabulary_is_told_where_to_get(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path))
    monkeypatch.setattr("convarium.models.tokenizer.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="get https://github.com/openai/CLIP.* or give its path"):
        Tokenizer()


@pytest.mark.parametrize(
    "content",
    [b"not gzip", gzip.compress(b"version\na b\n", mtime=0), gzip.compress(b"x" * 999, mtime=0)[:20]],
)
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "v.gz").write_bytes(content)
    with pytest.raises(CheckpointError, match="get it"):
        Tokenizer(tmp_path / "v.gz")


def test_every_row_is_of_this_family():
    assert {variant(name).family for name in names("clip_*")} == {"clip"}
