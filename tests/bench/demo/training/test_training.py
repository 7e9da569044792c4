"""The demo's training stages: labels are true, and a resumed run equals an uninterrupted one."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bench.demo.answer_terms import mention_spans
from bench.demo.draw import placed
from bench.demo.fonts import FONTS, installed
from bench.demo.kinds import Look
from bench.demo.training import alignment, language, loop, resampler, tower
from bench.demo.training.attention_targets import attended_cells
from bench.demo.training.cells import (
    CELL_CLASSES,
    COLOURS,
    LETTERS,
    NONE,
    cell_labels,
    position_codes,
)
from bench.demo.training.dialogues import image_dialogues
from bench.demo.training.muon import Muon
from bench.demo.training.scenes import scene
from bench.demo.world import WORD, Scene, Thing
from qlora.data.encode import IGNORE
from qlora.families.flamingo import read_flamingo
from qlora.model import VisionLanguageModel
from qlora.model.injection.gated import MaskedCrossAttention
from qlora.tiny.bpe import train_bpe

needs_fonts = pytest.mark.skipif(
    any(installed(file) is None for file in FONTS.values())
    or installed("NotoColorEmoji.ttf") is None,
    reason="the fonts that scenes are drawn with are not installed",
)
CIRCLE = Thing(Look("circle", colour="red"), (0.0, 0.0, 0.5, 0.5))
OPEN = Thing(Look(WORD, colour="blue"), (0.1, 0.6, 0.9, 0.85), text="Open", font="sans")
SCENE = Scene((CIRCLE, OPEN), "white")


@needs_fonts
def test_labels_of_cells_are_what_is_drawn_there() -> None:
    truth = cell_labels(SCENE, side=112, grid=14)
    shown = truth.shown.reshape(14, 14)
    assert CELL_CLASSES[shown[3, 3]] == "circle"
    assert COLOURS[truth.colour.reshape(14, 14)[3, 3]] == "red"
    assert CELL_CLASSES[shown[3, 10]] == "a white background"
    assert truth.box.reshape(14, 14, 4)[3, 3] == pytest.approx((-0.25, -0.25, 0.25, 0.25), abs=0.02)
    drawn, (_left, top) = placed(OPEN, 112)
    row = truth.letter.reshape(14, 14)[int((top + drawn.height / 2) / 8)]
    assert "".join(dict.fromkeys(LETTERS[i] for i in row if i != NONE)) == "Open"


@needs_fonts
def test_labels_of_counts_centres_and_spelling() -> None:
    other = Thing(Look("circle", colour="blue"), (0.6, 0.1, 0.9, 0.4))
    truth = cell_labels(Scene((*SCENE.things, other), "white"), side=112, grid=8)
    middles = [tuple(map(int, divmod(i, 8))) for i in np.flatnonzero(truth.centre)]
    assert {(2, 2), (2, 6)} < {*middles}
    assert len(middles) == 3
    circles = truth.shown == CELL_CLASSES.index("circle")
    assert set(truth.alike[circles]) == {2}
    assert set(truth.twins[circles]) == {1}
    words = truth.shown == CELL_CLASSES.index(WORD)
    assert set(truth.alike[words]) == {1}
    spelled = truth.spelled[words]
    assert {"".join((*LETTERS, "-")[i] for i in row) for row in spelled} == {"Open----"}
    assert (truth.spelled[~words] == NONE).all()


@needs_fonts
def test_counts_by_band_are_of_a_cells_look() -> None:
    boxes = [(0.05, 0.05, 0.3, 0.3), (0.7, 0.1, 0.95, 0.35), (0.4, 0.7, 0.65, 0.95)]
    red = [Thing(Look("circle", colour="red"), box) for box in boxes]
    blue = Thing(Look("circle", colour="blue"), (0.35, 0.35, 0.6, 0.6))
    truth = cell_labels(Scene((*red, blue), "white"), side=112, grid=8)
    counts = resampler.in_bands(tower.stacked([truth]))[0]
    colour = torch.from_numpy(truth.colour)
    assert counts[colour == COLOURS.index("red")].unique(dim=0).tolist() == [[2, 0, 1, 1, 1, 1]]
    assert counts[colour == COLOURS.index("blue")].unique(dim=0).tolist() == [[0, 1, 0, 0, 1, 0]]
    assert (counts[colour == NONE] == NONE).all()


def test_position_codes_are_alike_where_cells_are_close() -> None:
    found = position_codes(8)
    likeness = (found @ found.T).reshape(8, 8, 8, 8)
    for row, column in ((0, 0), (3, 4), (7, 7)):
        of = likeness[row, column]
        assert np.unravel_index(of.argmax(), of.shape) == (row, column)
        assert of[row, column] > 1.3 * np.sort(of.ravel())[-2]


@needs_fonts
@pytest.mark.parametrize("grid", [14, 8])
def test_every_thing_of_many_scenes_has_cells_of_its_own(grid: int) -> None:
    for number in range(60):
        found = scene(number)
        truth = cell_labels(found, 112, grid)
        there = {CELL_CLASSES[i] for i in truth.shown[truth.things]}
        assert there == {thing.kind for thing in found.things}
        assert not set(truth.letter[~truth.things]) - {NONE}


def test_dialogues_about_a_picture_are_of_the_training_split_and_repeat() -> None:
    assert image_dialogues(5) == image_dialogues(5) != image_dialogues(6)
    examples = [image_dialogues(number) for number in range(80)]
    pictures = [sum(len(turn.scenes) for turn in dialogues[0]) for dialogues in examples]
    assert {*pictures} == {1, 2}
    for dialogues, shown in zip(examples, pictures, strict=True):
        assert shown == 1 or len(dialogues) == 1
        assert len({dialogue[0].scenes for dialogue in dialogues}) == 1


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> alignment.DialogueRows:
    """With a tokenizer whose pieces are short."""
    monkeypatch.setattr(alignment, "LONGEST", 5 * alignment.LONGEST)
    path = tmp_path / "tokenizer.model"
    turns = [turn for i in range(50) for dialogue in image_dialogues(i) for turn in dialogue]
    path.write_bytes(train_bpe([f"{t.question}\n{t.answer}" for t in turns], 400))
    return alignment.DialogueRows(path)


@needs_fonts
def test_answers_are_targets_and_questions_are_not(dataset: alignment.DialogueRows) -> None:
    number = next(i for i in range(80) if len(image_dialogues(i)) > 3)
    row, dialogues = dataset[number], image_dialogues(number)
    tokenizer = dataset.chat_tokenizer
    learnt = [int(one) for one in row.targets if one != IGNORE]
    turns = [turn for dialogue in dialogues for turn in dialogue]
    assert learnt.count(tokenizer.eos) == len(turns)
    assert tokenizer.decode(learnt) == "".join(turn.answer for turn in turns)
    starts = np.flatnonzero(row.positions == 0)
    assert len(starts) == len(dialogues)
    read = tokenizer.decode(row.ids[: starts[1]])
    assert read.count("### Instruction:") == len(dialogues[0])
    assert read.endswith(dialogues[0][-1].answer)


@needs_fonts
def test_the_token_before_a_name_attends_to_what_it_names(dataset: alignment.DialogueRows) -> None:
    """In the picture that it sees: in a pair the first, and from then on the second."""
    compared = 0
    for number in (i for i in range(100) if len(image_dialogues(i)) == 1):
        row, (dialogue,) = dataset[number], image_dialogues(number)
        for turn, at in zip(dialogue, alignment.answer_slices(row.targets), strict=True):
            text = ""
            for where in range(at.start, at.stop):
                text += dataset.chat_tokenizer.token_bytes(int(row.targets[where])).decode()
                truth = row.truths[row.index[where] - 1]
                named = [kind for _, end, kind, _ in mention_spans(text) if end == len(text)]
                there = {CELL_CLASSES[i] for i in truth.shown[truth.things]}
                if len(text) < len(turn.answer) and named and {*named} <= there:
                    seen = {CELL_CLASSES[i] for i in truth.shown[row.attended_cells[where]]}
                    assert {*named} == seen
                    compared += 1
    assert compared > 20


def about(question: str, answer: str, scene: Scene) -> dict[str, set[str]]:
    """The words of an answer, and what the cells show that each is about."""
    truth = cell_labels(scene, side=112, grid=8)
    spans = [match.span() for match in re.finditer(r"\S+", answer)]
    rows = attended_cells(question, answer, spans, truth)
    return {
        answer[slice(*span)]: {CELL_CLASSES[i] for i in truth.shown[row]}
        for span, row in zip(spans, rows, strict=True)
    }


@needs_fonts
def test_an_answer_attends_to_what_was_asked_for() -> None:
    found = about("How many circles are there?", "There is one circle.", SCENE)
    assert set(map(tuple, found.values())) == {("circle",)}
    found = about("What does the sign say?", 'It says "Open".', SCENE)
    assert set(map(tuple, found.values())) == {(WORD,)}
    found = about("What is on the left?", "The thing on the left is a red circle.", SCENE)
    assert found["The"] == found["circle."] == {"circle"}


@needs_fonts
def test_an_answer_about_what_is_absent_attends_to_the_background() -> None:
    background = "a white background"
    found = about("Is there a blue circle?", "No, there is no blue circle. I see a circle.", SCENE)
    assert found["No,"] == found["blue"] == {background}
    found = about("What colour is the dog?", "There is no dog. I see a circle here.", SCENE)
    assert found["There"] == found["dog."] == {background}
    assert found["circle"] == {"circle"}


@needs_fonts
def test_a_caption_attends_to_what_it_names_and_nothing_between() -> None:
    examples = 'There is a red circle and the word "Open" on white. The circle is top left.'
    found = about("", examples, SCENE)
    assert found["There"] == found["and"] == found["white."] == set()
    assert found["the"] == {WORD}
    assert found["red"] == found["circle"] == {"circle"}
    assert found['"Open"'] == {WORD}
    assert found["top"] == {"circle"}


def test_attention_is_measured_on_the_attended_cells() -> None:
    torch.manual_seed(0)
    attention = MaskedCrossAttention(32, 16, dim_head=8, heads=4)
    probe = alignment.AttentionProbe(attention)
    x, visual = torch.randn(2, 5, 32), torch.randn(2, 1, alignment.LATENTS, 16)
    index = torch.ones(2, 5, dtype=torch.long)
    attention(x, visual, index)
    everywhere = torch.zeros(2, 5, alignment.LATENTS, dtype=torch.bool)
    everywhere[0, 1] = everywhere[1, 3] = True
    torch.testing.assert_close(probe.at(everywhere, index), torch.ones(2, 2))
    half = everywhere.clone()
    half[..., ::2] = False
    rest = everywhere & ~half
    torch.testing.assert_close(probe.at(half, index) + probe.at(rest, index), torch.ones(2, 2))


def test_attention_is_measured_in_the_picture_that_a_token_sees() -> None:
    torch.manual_seed(0)
    attention = MaskedCrossAttention(32, 16, dim_head=8, heads=4)
    probe = alignment.AttentionProbe(attention)
    x, visual = torch.randn(1, 5, 32), torch.randn(1, 2, alignment.LATENTS, 16)
    index = torch.tensor([[1, 1, 1, 2, 2]])
    cells = torch.zeros(1, 5, alignment.LATENTS, dtype=torch.bool)
    cells[0, 2, :9] = cells[0, 3, :9] = True
    attention(x, visual, index)
    both = probe.at(cells, index)
    for row, at in ((0, 2), (1, 3)):
        attention(x, visual[:, [row]], torch.ones(1, 5, dtype=torch.long))
        one = probe.at(cells, torch.ones_like(index))
        torch.testing.assert_close(both[row], one[at - 2])


def test_muon_in_float32_is_torchs_own() -> None:
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(30, 20))
    theirs = nn.Parameter(ours.detach().clone())
    options = {"lr": 1e-2, "weight_decay": 0.02, "adjust_lr_fn": "match_rms_adamw"}
    pair = Muon([ours], **options), torch.optim.Muon([theirs], **options)
    before = ours.detach().clone()
    for _ in range(4):
        ours.grad = torch.randn(30, 20)
        theirs.grad = ours.grad.clone()
        for optimizer in pair:
            optimizer.step()
    assert (ours - before).abs().mean() > 2e-3
    # torch's is rounded to bfloat16 at each of five multiplications.
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    assert [*pair[0].state[ours]] == [*pair[1].state[theirs]]


class Line(nn.Module):
    """Fits a line, with a matrix for Muon."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, float], int]:
        return (self.layers(batch) - batch).square().mean(), {}, len(batch)


class Numbers(torch.utils.data.Dataset[torch.Tensor]):
    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.randn(8, generator=torch.Generator().manual_seed(number))


def fit(folder: Path, stop_after: int = 10**9) -> dict[str, torch.Tensor]:
    model, plan = Line(), loop.Plan(folder, steps=12, batch=4, rate=1e-2, save_every=3, workers=0)
    seen = 0

    def loss_of(batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, float], int]:
        nonlocal seen
        seen += 1
        if seen > stop_after:
            raise KeyboardInterrupt
        return model(batch)

    loop.train(plan, model, Numbers(), torch.stack, loss_of, lambda name: "layers" in name)
    return model.state_dict()


def test_a_stage_that_was_cut_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", stop_after=8)
    resumed = fit(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert len(logs[0].splitlines()) == 12


def test_the_rate_rises_stays_and_falls_to_almost_nothing() -> None:
    plan = loop.Plan(Path(), steps=1000, batch=1, rate=1.0)
    rates = [loop.rate_at(step, plan) for step in range(1000)]
    assert rates[0] < 0.1
    assert rates[100] == rates[400] == 1.0
    assert rates[-1] < 0.01
    assert rates[500:] == sorted(rates[500:], reverse=True)


@needs_fonts
@pytest.mark.slow
def test_the_stages_fit_together(tmp_path: Path) -> None:
    """Two steps of each, and what they leave is a model that the readers accept."""
    for stage in (language, tower, resampler, alignment):
        stage.command.main(
            [str(tmp_path), "--steps", "2", "--batch", "4", "--workers", "0"],
            standalone_mode=False,
        )
    model = VisionLanguageModel.from_weights(
        read_flamingo(
            llama=tmp_path / "llama",
            clip_config=tmp_path / "clip.json",
            clip=tmp_path / "clip.safetensors",
            flamingo=tmp_path / "flamingo.safetensors",
            attend="preceding",
        )
    )
    words = load_file(tmp_path / "llama" / "model.safetensors")["model.embed_tokens.weight"]
    own = model.get_parameter(alignment.EMBEDDING)
    assert torch.equal(own[: len(words)], words), "the frozen LLaMA's words have moved"
    row = alignment.DialogueRows(tmp_path / "llama" / "tokenizer.model")[0]
    ids = torch.from_numpy(row.ids[: int(np.argmax(row.positions[1:] == 0)) + 1])
    logits = model(ids, tower.pixels_of(row.pictures))
    assert logits.shape == (len(ids), language.VOCABULARY)
    assert bool(logits.isfinite().all())


@needs_fonts
def test_the_stem_for_inference_equals_the_trained_one() -> None:
    torch.manual_seed(0)
    model = tower.SupervisedClip()
    pixels = tower.pixels_of([np.asarray(tower.draw(SCENE, tower.SIDE))] * 4)
    model.train()
    model.clip.visual.conv1(pixels + torch.randn(pixels.shape))  # moves the batch norms
    model.eval()
    expected = model.clip.visual.conv1(pixels)
    folded = tower.folded(model.clip.visual.conv1)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded)
    torch.testing.assert_close(folded(pixels), expected, atol=1e-5, rtol=1e-5)
