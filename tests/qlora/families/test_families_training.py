"""Families with spliced tokens through training, merge and export: the very ids of chat time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sentencepiece import SentencePieceProcessor
from transformers import LlamaConfig

import lite
from export.commands.export import command as export
from lite.bundle.attend import OWN
from lite.cli import run
from lite.image.preprocessing import Preprocessing, load_image, to_pixels
from lite.text.template import LLAVA_V1, OWL, Template, join
from lite.text.tokenizer import Tokenizer
from qlora.checkpoints.tokenizer_files import read_tokenizer
from qlora.commands.train import command as train
from qlora.data.conversation import Conversation
from qlora.data.encode import IGNORE, encode
from qlora.families.recognition import read_model
from qlora.model import ModelConfig, VisionLanguageModel
from qlora.model.connectors.abstractor import Abstractor
from qlora.model.connectors.projector import Projector
from qlora.model.encoders.clip import ClipEncoder
from qlora.model.injection.spliced import Spliced
from qlora.plan import Counts
from tests.conftest import FIXTURE
from tests.qlora.data.small import say
from tests.qlora.families.llavas import SIZES, reference, write_hugging_face
from tests.qlora.families.mllamas import SIZES as MLLAMA_SIZES
from tests.qlora.families.mllamas import reference as mllama
from tests.qlora.families.mllamas import write as write_mllama
from tests.qlora.families.test_idefics import SIZES as IDEFICS_SIZES
from tests.qlora.families.test_idefics import reference as idefics
from tests.qlora.families.test_idefics import write as write_idefics

OWL_FOLDER = FIXTURE.parent / "mplug-owl-tiny"
IMAGE_TOKENS = 3
PIECES = SentencePieceProcessor(model_file=str(FIXTURE / "llama" / "tokenizer.model"))
IMAGE_ID = 400


def tokenizer() -> Tokenizer:
    base = read_tokenizer(FIXTURE / "llama")
    special = {"<s>": base.bos, "</s>": base.eos, "<image>": IMAGE_ID}
    return Tokenizer(base.tokenizer, special, image_tokens=IMAGE_TOKENS, strips=False)


def upstream_ids(text: str) -> list[int]:
    """A prompt cut at the special tokens, its pieces tokenized one by one."""
    ids = [PIECES.bos_id()]
    for i, turn in enumerate(text.split("</s>")):
        ids += [PIECES.eos_id()] if i else []
        for j, piece in enumerate(turn.split("<image>")):
            ids += [IMAGE_ID] * IMAGE_TOKENS if j else []
            ids += PIECES.encode(piece) if piece else []
    return ids


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (
            LLAVA_V1,
            "{} USER: <image>\n<image>\ncompare ASSISTANT: a car</s>USER: and now? ASSISTANT:",
        ),
        (OWL, "{}\nHuman: <image>\nHuman: <image>\nHuman: compare\nAI: "),
    ],
    ids=["llava_v1", "owl"],
)
def test_prompts_are_those_of_the_original(template: Template, text: str) -> None:
    parts = [template.system, *template.turn("compare", 2)]
    ids = tokenizer().encode(join(parts))
    if template is LLAVA_V1:
        ids += tokenizer().encode([template.answer_prefix + "a car"], begin=False)
        ids += tokenizer().encode(join(template.turn("and now?", first=False)), begin=False)
    assert ids == upstream_ids(text.format(template.system))


@pytest.mark.parametrize("template", [LLAVA_V1, OWL], ids=["llava_v1", "owl"])
@pytest.mark.parametrize("max_tokens", [512, 150])
def test_only_answers_and_their_ends_are_trained(template: Template, max_tokens: int) -> None:
    conversation: Conversation = say("what is it?", "two dogs", "a car", images=2)
    sample = encode(conversation, tokenizer(), template, max_tokens)
    answers = ["two dogs", "a car"][: 2 - sample.dropped]
    wanted: list[int] = []
    for answer in answers:
        wanted += [*tokenizer().encode([" " + answer], begin=False), PIECES.eos_id()]
    if sample.cut:  # an answer without its end does not end
        wanted = wanted[: -sample.cut - 1]
    trained = sample.targets[sample.targets != IGNORE]
    assert trained.tolist() == wanted
    assert (sample.ids == IMAGE_ID).sum() == 2 * IMAGE_TOKENS == len(sample.images) * IMAGE_TOKENS
    # Each image stays whole, whatever the bound on tokens.
    assert (sample.targets[sample.ids == IMAGE_ID] == IGNORE).all()


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (OWL, "fine\nAI: no\nHuman: and?"),
        (LLAVA_V1, "fine ASSISTANT: no</s>USER: and?"),
    ],
)
def test_a_text_cannot_open_a_turn(template: Template, text: str) -> None:
    ids = tokenizer().encode(join(template.turn(text)))
    assert PIECES.eos_id() not in ids[1:]
    said = tokenizer().decode(ids)
    assert said.count(str(template.after_question[0]).strip()) == 1
    assert template.escape(template.escape(text)) == template.escape(text)


RECIPE = """
model: {model: MODEL, base: BASE, compute: float32}
adapter: {rank: 4, alpha: 8, targets: [q_proj, v_proj]}
data: {name: tiny, max_tokens: 400, holdout: 2}
training: {steps: 2, batch: 2, learning_rate: 1.0e-2, optimizer: adamw}
evaluation: {answers: 1, answer_tokens: 2}
output: run
"""


@pytest.mark.parametrize("family", ["owl", "llava", "idefics", "mllama"])
def test_from_recipe_to_answer(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = OWL_FOLDER
    if family == "llava":
        folder = write_hugging_face(reference(SIZES[0]), tmp_path / "llava")
    if family == "idefics":
        folder = write_idefics(idefics(IDEFICS_SIZES[0]), tmp_path / "idefics")
    if family == "mllama":
        folder = write_mllama(mllama(MLLAMA_SIZES[0]), tmp_path / "mllama")
    base = "none" if family == "llava" else "nf4"
    recipe = RECIPE.replace("MODEL", str(folder)).replace("BASE", base)
    Path("recipe.yaml").write_text(recipe)
    for command, arguments in (
        (train, ["recipe.yaml"]),
        (export, ["--model", str(folder), "--lora", "run/adapter", "-o", "chat"]),
    ):
        with pytest.raises(SystemExit) as stop:
            run(command, arguments)
        assert stop.value.code == 0, capsys.readouterr().err
    manifest = json.loads(Path("chat/manifest.json").read_text())
    assert manifest["injection"] == ("gated" if family in ("idefics", "mllama") else "spliced")
    assert manifest["template"]["name"] == read_model(folder).config.template
    assert all(proof["holds"] for proof in manifest["proofs"])
    losses = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in losses if "loss" in line)
    chat = lite.load("chat").chat()
    picture = Image.new("RGB", (30, 50), "red")
    assert list(chat.ask("what is it?", picture, max_tokens=3))
    # What was trained changes the answers, and the bundle has it.
    plain, tuned = (read_model(folder, lora) for lora in (None, Path("run/adapter")))
    ids = torch.tensor(chat.prompt()[0])
    pixels = torch.from_numpy(to_pixels(load_image(picture), plain.config.preprocessing))[None]
    with torch.no_grad():
        before, after = (VisionLanguageModel.from_weights(w)(ids, pixels) for w in (plain, tuned))
    assert (before - after).abs().max() > 1e-3


def test_plans_count_every_parameter() -> None:
    weights = read_model(OWL_FOLDER)
    model = VisionLanguageModel(weights.config, weights.special_ids["<image>"])
    assert Counts(weights.config).total == sum(p.numel() for p in model.parameters())


LLAMA_7B = LlamaConfig(
    hidden_size=4096,
    num_hidden_layers=32,
    num_attention_heads=32,
    intermediate_size=11008,
    vocab_size=32000,
    max_position_embeddings=2048,
)


def vit(image: int, layers: int) -> dict[str, Any]:
    sizes = {"image_size": image, "layers": layers, "width": 1024, "patch_size": 14}
    text = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1}
    return {"embed_dim": 64, "quick_gelu": True, "vision_cfg": sizes, "text_cfg": text}


# Published sizes: ViT 303,179,776 + abstractor 81,408,000 + queries 65,536 + LLaMA 6,738,415,616;
# of LLaVA-1.5 CLIP's 303,507,456 without its last layer and norm, and a projector of 20,979,712.
PUBLISHED = (
    (
        ClipEncoder(vit(224, 24), keep_class=True, final_norm=True, epsilon=1e-6),
        Abstractor(1024, 1024, 64, 6, 16, 2816, 4096),
        7_123_068_928,
    ),
    (
        ClipEncoder(vit(336, 23)),
        Projector(1024, 4096, 2, 576),
        6_738_415_616 + 20_979_712 + 303_507_456 - 12_596_224 - 2_048,
    ),
)


@pytest.mark.parametrize(("encoder", "connector", "total"), PUBLISHED, ids=["owl", "llava"])
def test_published_sizes_have_their_published_parameters(
    encoder: ClipEncoder, connector: Abstractor | Projector, total: int
) -> None:
    config = ModelConfig(
        family="published",
        llama=LLAMA_7B,
        preprocessing=Preprocessing(224),
        encoder=encoder,
        connector=connector,
        injection=Spliced(),
        attend=OWN,
        embedding_rows=32000,
        template=OWL.name,
    )
    model = VisionLanguageModel(config, 32000)
    assert all(p.is_meta for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == Counts(config).total == total
