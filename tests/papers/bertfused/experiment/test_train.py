"""Runs: every experiment starts, a killed run ends as an undisturbed one, two processes are one, layouts are read."""

import pytest
import torch
from killed import killed
from safetensors.torch import load_file

from labkit.errors import InputError
from labkit.papers.bertfused import ARMS, PAPER
from labkit.papers.bertfused.experiment import unsupervised
from labkit.papers.bertfused.experiment.config import CONFIGS, SETTINGS
from labkit.papers.bertfused.method.xlm import Xlm
from labkit.workbench.runs import Run
from labkit.workbench.training import Workers

# with 600 tokens sentences are short, and so is what a model writes that knows nothing and never ends by itself
SMOKE = CONFIGS["smoke"].override(vocabulary=600, tests=2)
ONE = SMOKE.override(experiments=("sentences",), arms=("fused",), beam=1)


def run_of(folder, config):
    return PAPER.run(config, Run.open(folder, config))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of ONE and its result."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_RUNS", str(folder / "runs"))
        return folder / "run", run_of(folder / "run", ONE)


def weights(folder):
    return load_file(folder / "weights.safetensors")


@pytest.mark.slow
@pytest.mark.shapes_unchecked
def test_smoke(tmp_path):
    """All four settings of the abstract."""
    result = run_of(tmp_path, SMOKE)
    assert result["data"] == "grammar"
    assert set(result["sentences"]["arms"]) == set(SMOKE.arms)
    for name, arms in SETTINGS.items():
        assert set(result[name]["arms"]) == set(arms)
    for arm in result["sentences"]["arms"].values():
        assert set(arm["tests"]) == {"seen", "unseen"}
        assert arm["tests"]["seen"]["signature"].startswith("nrefs:1|case:lc")
        losses = [loss for _, loss in arm["curve"]]
        assert losses[-1] < losses[0]
    assert set(result["sentences"]["arms"]["fused"]["branches"]["seen"]) == {"both", "native", "bert"}
    assert result["unsupervised"]["arms"]["word-by-word"]["tests"]["seen"]["bleu"] > 1
    assert run_of(tmp_path, SMOKE) == result  # finished: read, not trained again


@pytest.mark.slow
@pytest.mark.shapes_unchecked
def test_every_row_of_the_ablation_table_trains(tmp_path, xlm_folder):
    config = ONE.override(arms=tuple(ARMS), steps=1, fused_steps=1, xlm=str(xlm_folder), longest=60)
    result = run_of(tmp_path, config)["sentences"]["arms"]
    assert set(result) == set(ARMS)
    count = {name: arm["parameters"] for name, arm in result.items()}
    assert count["plain"] < count["decoder-only"] == count["encoder-only"] < count["fused"] == count["no-drop-net"]
    assert count["deeper"] > count["plain"]
    assert count["fine-tuned"] > count["fused"] < count["stacked"]
    assert count["xlm-encoder"] == count["xlm-decoder"] == count["xlm-both"]


@pytest.mark.slow  # the one run that checks all shapes: the parts that it leaves out have checked tests of their own
def test_back_translation_with_a_vocabulary_for_each_side(tmp_path):
    """The reverse model writes source text: in the source's vocabulary, whatever the target's is."""
    config = ONE.override(experiments=("semi-supervised",), vocabulary=(700, 500), steps=1, fused_steps=1)
    result = run_of(tmp_path, config)["semi-supervised"]["arms"]
    assert result["fused"]["tests"].keys() == {"seen", "unseen"}
    reverse_model = weights(tmp_path / "semi-supervised" / "reverse")
    assert reverse_model["embed_tokens.weight"].shape[0] < reverse_model["embed_targets.weight"].shape[0]


@pytest.mark.slow
@pytest.mark.shapes_unchecked
@pytest.mark.parametrize("stop", [2, 8])
def test_killed_and_resumed_ends_as_undisturbed(tmp_path, undisturbed, stop):
    """Killed in stage 1 and in stage 2, with a checkpoint after every update; dropout and drop-net are on."""
    with killed(stop):
        run_of(tmp_path / "run", ONE)
    folder, result = undisturbed
    assert run_of(tmp_path / "run", ONE) == result
    for arm in ("stage-1", "fused"):
        for name, value in weights(folder / "sentences" / arm).items():
            assert torch.equal(weights(tmp_path / "run" / "sentences" / arm)[name], value), (arm, name)


@pytest.mark.slow
@pytest.mark.shapes_unchecked
def test_an_unsupervised_run_resumes_with_its_noise(tmp_path):
    config = ONE.override(experiments=("unsupervised",), steps=2, fused_steps=2, batch_tokens=100)
    whole = run_of(tmp_path / "whole", config)
    with killed(4):
        run_of(tmp_path / "run", config)
    assert run_of(tmp_path / "run", config) == whole
    first, second = (weights(tmp_path / name / "unsupervised" / "fused") for name in ("whole", "run"))
    assert all(torch.equal(second[name], value) for name, value in first.items())


@pytest.mark.slow
@pytest.mark.shapes_unchecked
def test_unsupervised_models_begin_with_an_xlm(tmp_path, xlm_folder):
    """No dictionary, and nothing word by word: the model translates from its first update on."""
    config = ONE.override(
        experiments=("unsupervised",), steps=1, fused_steps=1, batch_tokens=100, xlm=str(xlm_folder), learning_rate=1e-9
    )
    assert set(run_of(tmp_path, config)["unsupervised"]["arms"]) == {"plain", "fused"}
    plain = weights(tmp_path / "unsupervised" / "plain")
    begin = Xlm.from_folder(xlm_folder).start("both", "en", "de").state_dict()
    for name, value in begin.items():
        torch.testing.assert_close(plain[name], value, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.shapes_unchecked
def test_two_processes_do_what_one_does(tmp_path):
    """Dropout draws in each process on its own: without it the sums are the same but for their order."""
    config = ONE.override(dropout=0.0)
    run_of(tmp_path / "one", config)
    two = config.override(devices=2, device="cpu")
    PAPER.run(two, Run.open(tmp_path / "two", two))
    for arm in ("stage-1", "fused"):
        first, second = (weights(tmp_path / name / "sentences" / arm) for name in ("one", "two"))
        for name, value in first.items():
            if name.endswith(("k_proj.bias", "in_proj.bias")):
                continue  # softmax does not see a key's bias: its gradient is rounding, which Adam makes a full step
            # sums in another order, carried through Adam, whose first steps divide by the gradient's own size
            assert (second[name] - value).double().norm() <= 2e-2 * value.double().norm() + 1e-4, (arm, name)


@pytest.mark.slow
@pytest.mark.shapes_unchecked
def test_gpu_and_full_start_on_made_up_data_of_the_real_layout(tmp_path, monkeypatch):
    """gpu: Multi30k's files; full: IWSLT'14 with its talks. BERT is a random one, all else as the scale has it."""
    import gzip

    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    monkeypatch.setattr("labkit.data.translation.require", lambda name: tmp_path / name)
    (tmp_path / "multi30k").mkdir()
    for name, count in (("train", 60), ("val", 6), ("test_2016_flickr", 5)):
        for language in ("en", "de"):
            lines = "".join(f"{language} sentence number {i} of {name} .\n" for i in range(count))
            (tmp_path / "multi30k" / f"{name}.{language}.gz").write_bytes(gzip.compress(lines.encode()))
    tiny = {
        "bert": "random", "width": 16, "feed_forward": 32, "layers": 1, "vocabulary": 300, "steps": 2, "fused_steps": 2,
        "batch_tokens": 300, "beam": 2,
    }  # fmt: skip
    gpu = CONFIGS["gpu"].override(**tiny)
    assert set(run_of(tmp_path / "gpu", gpu)["sentences"]["arms"]) == set(gpu.arms)
    folder = tmp_path / "iwslt14" / "de-en"
    folder.mkdir(parents=True)
    for language in ("en", "de"):
        lines = [f"<talkid>{i // 10}</talkid>\n{language} sentence {i} ." for i in range(80)]
        (folder / f"train.tags.de-en.{language}").write_text("\n".join(lines))
        segments = "".join(f"<seg id='{i}'>{language} test {i}</seg>" for i in range(4))
        (folder / f"IWSLT14.TED.tst2010.de-en.{language}.xml").write_text(f"<doc>{segments}</doc>")
    full = CONFIGS["full"].override(**tiny, arms=("plain", "fused"))
    result = run_of(tmp_path / "full", full)
    assert set(result["documents"]["arms"]) == set(SETTINGS["documents"])
    assert set(result["sentences"]["arms"]["fused"]["tests"]) == {"test"}


def test_several_processes_are_refused_where_one_must_do(tmp_path):
    """Under torchrun the config says nothing of it."""
    workers = Workers(0, 2, torch.device("cpu"))
    with pytest.raises(InputError, match="runs in one process"):
        unsupervised.compare(SMOKE, workers, Run.open(tmp_path, SMOKE))
