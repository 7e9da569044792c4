"""`lite-bench chat` and `lite-bench quality` measure what they say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bench import chat, quality
from bench.graph_bytes import decode_bytes
from bench.machine import machine, read_bandwidth
from lite.bundle.manifest import DECODER
from tests.conftest import FIXTURE

SMALL = ["--repeat", "2", "--prompt", "16", "--answer", "4", "--turns", "2"]
DEPTHS = ["--depth", "0", "--depth", "8"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("chat") / "chat.json"
    arguments = ["--shape", "tiny", "--precision", "int8", "--dtype", "float32", *SMALL, *DEPTHS]
    done = CliRunner().invoke(chat.command, [*arguments, "--json", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads(out.read_text())
    return json.loads(out.read_text()), out


def test_every_measure_has_a_mean_and_a_deviation_of_all_repetitions(report: Any) -> None:
    ours = report[0]["engines"]["lite int8"]
    rates = {name: ours[name]["tokens_per_second"] for name in ("pp16", "tg4", "tg4 image")}
    seconds = {n: ours[n]["seconds"] for n in ("vis", "ttft 1", "ttft 2", "depth 0", "depth 8")}
    for spread in (rates | seconds).values():
        assert spread["n"] == 2
        assert spread["mean"] > 0
        assert spread["deviation"] >= 0
    assert ours["load_seconds"] > 0
    assert 0.01 < ours["peak_rss_gb"] < 0.4  # its own, without the torch of who started it


def test_bandwidth_and_machine_are_in_the_record(report: Any) -> None:
    ours, record = report[0]["engines"]["lite int8"], report[0]
    assert record["read_gb_per_second"]["mean"] > 0.1
    assert ours["tg4"]["gb_per_second"] >= 0
    assert {"cpu", "cores", "python", "onnxruntime"} <= record["machine"].keys()
    assert ours["engine"]["threads"] is not None
    assert "--shape tiny" in record["command"] or record["command"]


def test_a_peer_is_measured_on_the_same_shape(report: Any) -> None:
    peer = report[0]["engines"]["transformers float32"]
    assert peer["pp16"]["tokens_per_second"]["n"] == 2
    assert "vis" not in peer  # it has no vision encoder here, and says nothing of one


def test_the_plot_is_written(report: Any) -> None:
    pytest.importorskip("matplotlib")
    assert report[1].with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_an_engine_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(chat.command, ["-m", str(tmp_path / "none"), *SMALL])
    assert "cannot be measured" in str(done.exception)


def test_bytes_of_a_token_are_those_of_its_matrices(bundles: Any) -> None:
    from qlora.families.flamingo import read_flamingo
    from tests.conftest import CHECKPOINTS

    weights = read_flamingo(**CHECKPOINTS)
    llama, read = weights.config.llama, decode_bytes(bundles() / DECODER)
    width, inner = llama.hidden_size, llama.intermediate_size
    layer = 4 * width * width + 3 * width * inner
    assert read.text == 4 * (llama.num_hidden_layers * layer + llama.vocab_size * width)
    blocks = len(weights.config.injection.layers)
    assert read.gated == 4 * blocks * 8 * width * width
    assert read.cross_attention == 4 * blocks * 2 * width * weights.config.injection.heads * 64


def test_reading_memory_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.machine.BANDWIDTH_BYTES", 1 << 24)
    assert read_bandwidth(2, 1) > 1e8
    assert "no-such-library" not in machine(["no-such-library"])


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("The dog sat by the door and looked at the cat. " * 6)
    return path


def quality_of(*arguments: Any) -> dict[str, Any]:
    done = CliRunner().invoke(quality.command, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["bundles"]


@pytest.mark.parametrize("images", [[], ["--image", FIXTURE / "images" / "0.png"]])
def test_a_bundle_equals_itself_and_fewer_bits_cost_more(
    images: list[Any], bundles: Any, text: Path
) -> None:
    exact, int8, int4 = (bundles("base", kind) for kind in ("fp32", "int8", "int4"))
    found = quality_of(exact, exact, int8, int4, "--text", text, "--window", 32, *images)
    same, eight, four = (found[str(path)] for path in (exact, int8, int4))
    assert same["mean_kl"] == 0
    assert same["perplexity_ratio"] == 1
    assert same["same_top"] == 1
    assert 0 < eight["mean_kl"] < four["mean_kl"]
    assert four["positions"] == same["positions"] > 60


def test_the_figures_are_their_definitions(bundles: Any) -> None:
    random = np.random.default_rng(0)
    p, q, targets = random.normal(size=(5, 9)), random.normal(size=(5, 9)), np.arange(5)
    comparison = quality.Comparison([], [], [], [])
    comparison.add(p, q, targets)
    softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)  # noqa: E731
    a, b, rows = softmax(p), softmax(q), np.arange(5)
    figures = comparison.figures()
    assert figures["mean_kl"] == pytest.approx((a * np.log(a / b)).sum(-1).mean())
    ratio = np.exp(-np.log(b[rows, targets]).mean() + np.log(a[rows, targets]).mean())
    assert figures["perplexity_ratio"] == pytest.approx(ratio)
    assert figures["same_top"] == (a.argmax(-1) == b.argmax(-1)).mean()


def test_other_models_are_not_compared(bundles: Any, text: Path) -> None:
    pair = [str(bundles("base")), str(bundles("preceding"))]
    done = CliRunner().invoke(quality.command, [*pair, "--text", str(text)])
    assert "not of the same model" in str(done.exception)


def test_a_gguf_file_has_the_shapes_and_values_of_the_random_model(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from gguf.quants import dequantize

    from bench.gguf_llama import write_gguf
    from bench.random_weights import random_weights
    from bench.shapes import config_of

    write_gguf("tiny", "Q8_0", tmp_path / "tiny.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]
    read = gguf.GGUFReader(tmp_path / "tiny.gguf")
    tensors = {t.name: t for t in read.tensors}
    assert len(tensors) == 3 + 9 * config_of("tiny").llama.num_hidden_layers
    assert tensors["token_embd.weight"].shape.tolist() == [64, 320]
    name = "lang_encoder.model.layers.1.decoder_layer.mlp.down_proj.weight"
    ours = random_weights("tiny").base[name].float().numpy()
    theirs = tensors["blk.1.ffn_down.weight"]
    values = dequantize(theirs.data, theirs.tensor_type)
    assert np.abs(values - ours).max() <= np.abs(ours).max() / 127
