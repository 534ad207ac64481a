"""Whole runs: smoke, killed and resumed, two processes, configs that answer back, exports that decode."""

import json

import numpy as np
import pytest

from labkit.errors import ConfigError, InputError
from labkit.papers.mlvc import PAPER, Codec, load
from labkit.papers.mlvc.experiment import comparison, data, evaluate
from labkit.papers.mlvc.experiment.claims import CLAIMS, saving, scene_savings
from labkit.papers.mlvc.experiment.config import CONFIGS, Config
from labkit.papers.mlvc.experiment.scenes import Family, scenes
from labkit.papers.mlvc.experiment.video import from_rgb
from labkit.workbench import export
from labkit.workbench.runs import Run

SMALL = Config(families=("disc",), arms=("warp", "linear-2", "single", "multi"), quantizers=(8.0, 24.0),
               training_scenes=2, test_scenes=2, scene_frames=4, combiner_steps=10, combiner_batch=4,
               combiner_channels=4)  # fmt: skip
NETWORKS = CONFIGS["smoke"].override(families=(), motion="network", width=0.0625, evaluate_on=(), anchors=())


class Killed(BaseException):
    pass


def test_the_small_codec_of_a_run(tmp_path):
    result = PAPER.run(SMALL, Run.open(tmp_path, SMALL))
    assert result["data"] == "generated scenes"
    arms = result["scenes"]["disc"]["arms"]
    assert list(arms) == list(SMALL.arms)
    for row in arms.values():
        assert len(row["psnr"]) == 2
        assert row["psnr"][0] > row["psnr"][1]  # the finer quantiser
        assert row["bpp"]["total"][0] > row["bpp"]["total"][1]
        parts = [row["bpp"][name][0] for name in ("residual", "motion", "flags")]
        assert row["bpp"]["total"][0] == pytest.approx(sum(parts), abs=1e-5)
        assert np.mean(row["each"]["total"], axis=0) == pytest.approx(row["bpp"]["total"], abs=1e-5)
    assert arms["warp"]["bpp"]["motion"] == arms["multi"]["bpp"]["motion"]
    assert PAPER.run(SMALL, Run.open(tmp_path, SMALL)) == result


@pytest.mark.slow
def test_killed_between_arms_goes_on(tmp_path, monkeypatch):
    whole = PAPER.run(SMALL, Run.open(tmp_path / "whole", SMALL))
    original = comparison.Bench.measured

    def dying(self, arm, combine):
        if arm.n_refs == 4:
            raise Killed
        return original(self, arm, combine)

    with monkeypatch.context() as patch:
        patch.setattr(comparison.Bench, "measured", dying)
        with pytest.raises(Killed):
            PAPER.run(SMALL, Run.open(tmp_path / "run", SMALL))
    assert (tmp_path / "run" / "scenes-disc-multi" / "weights.safetensors").exists()
    assert PAPER.run(SMALL, Run.open(tmp_path / "run", SMALL)) == whole


@pytest.mark.slow
def test_smoke_from_training_to_a_file_that_decodes(tmp_path):
    config = CONFIGS["smoke"].override(motion="network", evaluate_frames=2)
    run = Run.open(tmp_path / "run", config)
    result = PAPER.run(config, run)
    (video,) = result["coded"]["scenes"]["videos"].values()
    (point,) = video["stepwise"]
    assert sum(point["frame_bytes"]) == pytest.approx(point["bpp"] * 2 * 192 * 192 / 8, abs=60)  # and the header
    assert point["bpp"] > sum(point["parts"].values()) > 0.9 * point["bpp"]
    assert [p["factor"] for p in video["x265-veryfast"]] == [31, 27, 23, 19, 15]
    json.dumps(result, allow_nan=False)
    assert export.export(PAPER, config, run, tmp_path / "out", "") == "stepwise"
    codec = load(tmp_path / "out")
    assert isinstance(codec, Codec)
    assert codec.qualities == (4,)
    frames = evaluate.as_arrays(scenes("disc", 1, 3, 0, 40, 3).frames[:, 0] / 255)
    decoded = load(tmp_path / "out" / "model.safetensors").decode(codec.encode(frames, quality=4))
    assert [picture.shape for picture in decoded] == [(40, 40, 3)] * 3


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    """Gradients are averaged: both processes end with the same weights, and code the same videos between them."""
    config = NETWORKS.override(networks=("short",), devices=2, device="cpu", batch_size=2, unroll=1,
                               evaluate_on=("scenes",), evaluate_scenes=2, evaluate_frames=2)  # fmt: skip
    result = PAPER.run(config, Run.open(tmp_path, config))
    assert sorted(result["coded"]["scenes"]["videos"]) == ["scene-0", "scene-1"]
    for video in result["coded"]["scenes"]["videos"].values():
        assert np.isfinite(video["short"][0]["psnr"])


@pytest.mark.slow
def test_full_and_gpu_configurations_on_data_of_their_layout(tmp_path, monkeypatch, septuplet, write_yuv):
    """A few steps of the paper's own setting, on hand-made septuplets and sequences, at a small width."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    clip = from_rgb("clip", scenes(Family(), 1, 3, 0, 64, 3).frames[:, 0] / 255)
    septuplet(tmp_path / "data", "00001/0001", size=(80, 72))
    septuplet(tmp_path / "data", "00001/0002", size=(80, 72))
    (tmp_path / "data" / "vimeo90k" / "sep_trainlist.txt").write_text("00001/0001\n00001/0002\n")
    write_yuv(tmp_path / "data" / "hevc" / "D" / "Clip_64x64_30.yuv", clip.planes)
    write_yuv(tmp_path / "data" / "uvg" / "1080p" / "Beauty_64x64_120fps_420_8bit_YUV.yuv", clip.planes)
    small = {"width": 0.0625, "unit_steps": 1, "batch_size": 2, "crop": 64, "device": "cpu", "unroll": 1}
    full = CONFIGS["full"].override(**small, networks=("stepwise",), lambdas=(16.0, 64.0), evaluate_frames=2,
                                    evaluate_on=("hevc-d", "uvg"), anchors=("x265-veryfast",))  # fmt: skip
    result = PAPER.run(full, Run.open(tmp_path / "full", full))
    assert set(result["coded"]) == {"hevc-d", "uvg"}
    points = result["coded"]["uvg"]["videos"]["Beauty_64x64_120fps_420_8bit_YUV"]["stepwise"]
    assert [p["lambda"] for p in points] == [64.0, 16.0]
    gpu = CONFIGS["gpu"].override(
        **small, families=(), networks=("scratch", "unrefined"), clips=2, lambdas=(16.0,), evaluate_frames=2,
        evaluate_scenes=1, anchors=(), bits="estimated", fit="crop",
    )  # fmt: skip
    result = PAPER.run(gpu, Run.open(tmp_path / "gpu", gpu))
    assert set(result["coded"]["scenes"]["videos"]["scene-0"]) == {"scratch", "unrefined", "predictors"}


@pytest.mark.slow
def test_estimated_and_real_bits_agree_and_causality_holds():
    """Of the same network; and a packet does not know the frames after it, byte for byte."""
    pytest.importorskip("cv2", reason="the motion search of the small networks is OpenCV's: needs the extra 'peers'")
    codec = Codec.load()
    quality = codec.qualities[0]
    frames = scenes("disc", 1, 3, 1, 128, 3).frames[:, 0] / 255
    real = evaluate.code_really(codec, frames, quality, 12, 25.0)
    estimated = evaluate.code_estimated(codec.coders[quality].network, frames, quality, 12)
    assert estimated["parts"]["intra"] == pytest.approx(real["parts"]["intra"])
    assert sum(estimated["parts"].values()) == pytest.approx(sum(real["parts"].values()), rel=0.03)
    assert estimated["psnr"] == pytest.approx(real["psnr"], abs=0.2)
    changed = frames.clone()
    changed[2] = 1 - changed[2]
    other = evaluate.code_really(codec, changed, quality, 12, 25.0)
    assert other["frame_bytes"][:2] == real["frame_bytes"][:2]


@pytest.mark.slow
def test_real_clips_are_compared_where_they_are(tmp_path):
    if not data.footage_is_there():
        pytest.skip("the real clips are not in LABKIT_DATA")
    config = SMALL.override(families=(), footage=("carphone", "cisco"), footage_frames=3, arms=("warp", "multi"))
    result = PAPER.run(config, Run.open(tmp_path, config))
    assert result["data"] == "real clips"
    for arms in result["footage"].values():
        assert set(arms) == {"warp", "multi", "multi+flag"}
        assert arms["multi+flag"]["bpp"]["flags"][0] > 0
        assert arms["multi"]["bpp"]["flags"][0] == 0


# -- claims -----------------------------------------------------------------------------------------------------------


def curve(scale=1.0):
    return {"psnr": [30.0, 33.0, 36.0], "total": [0.1 * scale, 0.2 * scale, 0.4 * scale]}


def test_savings_are_minus_the_bd_rate():
    each = {"psnr": [curve()["psnr"]] * 2, "total": [curve(1)["total"], curve(2)["total"]]}
    less = {"psnr": each["psnr"], "total": [curve(0.9)["total"], curve(1.8)["total"]]}
    result = {"scenes": {"disc": {"arms": {"single": {"each": each}, "multi": {"each": less}}}}}
    assert scene_savings(result, "disc", "multi", "single") == pytest.approx([10.0, 10.0])
    assert scene_savings(result, "disc", "multi", "warp") == []
    assert saving(None, ([0.1, 0.2], [30.0, 31.0])) is None
    assert saving(([0.1, 0.2], [30.0, 31.0]), ([0.1, 0.2], [40.0, 41.0])) is None


def test_claims_about_whole_videos():
    better = [{"bpp": 0.1, "psnr": 31.0, "ms_ssim": 0.95}, {"bpp": 0.2, "psnr": 34.0, "ms_ssim": 0.97}]
    worse = [{**point, "bpp": 1.25 * point["bpp"]} for point in better]
    video = {"stepwise": better, "scratch": worse, "single": worse, "x265-veryfast": worse, "unrefined": worse}
    result = {"coded": {"video": {"videos": {"a": video, "b": video}}}}
    for claim in CLAIMS:
        if claim.scale == "gpu":
            assert claim.measure(result) == pytest.approx(20.0), claim.key
    assert all(claim.measure({"coded": {"video": {"videos": {"a": {"stepwise": better}}}}}) is None for claim in CLAIMS)


# -- configs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"families": ("dics",)}, "there is no family of scenes 'dics'; there are disc"),
        ({"arms": ("multy",)}, "there is no arm 'multy'"),
        ({"arms": ("multi", "multi")}, "twice the same arm"),
        ({"footage": ("city",)}, "name two or more"),
        ({"families": (), "footage": ()}, "nothing to do"),
        ({"networks": ("stepwise",), "clips": 2}, "batch_size 8 must not be larger than clips 2"),
        ({"networks": ("stepwise",), "train_on": "vimeo90k", "unroll": 7}, "septuplets hold 6 P-frames"),
        ({"evaluate_on": ("scenes",)}, "coded by networks or anchors"),
        ({"lambdas": (17.0,)}, "a lambda is one of the paper's, 64, 40, 24, 16"),
        ({"quantizers": (8.0, -1.0)}, "must be positive"),
        ({"crop": 100}, "multiple of 64"),
        ({"fit": "stretch"}, "'pad', 'crop' or 'rescale'"),
        ({"anchors": ("vp9",)}, "there is no anchor 'vp9'"),
    ],
)
def test_impossible_configs_answer_back(changes, message):
    with pytest.raises(ConfigError, match=message):
        CONFIGS["lesson"].override(**changes)


def test_what_a_run_did_not_train_cannot_be_exported(tmp_path):
    from labkit.papers.mlvc.experiment import export as room

    run = Run.open(tmp_path, SMALL)
    assert room.arms(SMALL, run) == ()
    with pytest.raises(InputError, match="no arm 'stepwise' to export; there are none"):
        room.export(SMALL, run, "stepwise", tmp_path / "out")
