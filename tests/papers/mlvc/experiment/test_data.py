"""Videos from files, data sets on hand-made trees, anchors, and the rules of an evaluation."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from labkit.errors import DataError, InputError
from labkit.papers.mlvc.experiment import anchors, data, evaluate, protocol
from labkit.papers.mlvc.experiment.measures import rgb_psnr
from labkit.papers.mlvc.experiment.scenes import Family, scenes
from labkit.papers.mlvc.experiment.video import from_rgb, read, to_rgb


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def clip():
    return from_rgb("clip", scenes(Family(noise=1.0), 1, 6, 0, 64, 3).frames[:, 0] / 255)


def write_y4m(path, planes, rate=25):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = planes.shape[1] * 2 // 3, planes.shape[2]
    frames = b"".join(b"FRAME\n" + np.ascontiguousarray(p).tobytes() for p in planes)
    path.write_bytes(f"YUV4MPEG2 W{width} H{height} F{rate}:1 Ip A1:1 C420jpeg\n".encode() + frames)


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_raw_file_and_a_described_one_hold_the_same_frames(tmp_path, clip, write_yuv):
    write_yuv(tmp_path / "Scene_64x64_50.yuv", clip.planes)
    write_y4m(tmp_path / "Scene.y4m", clip.planes, rate=50)
    raw, described = read(tmp_path / "Scene_64x64_50.yuv"), read(tmp_path / "Scene.y4m")
    assert raw.size == described.size == (64, 64)
    assert raw.rate == described.rate == 50
    assert np.array_equal(raw.planes, clip.planes)
    assert np.array_equal(described.planes, clip.planes)
    assert len(read(tmp_path / "Scene.y4m", 2)) == len(read(tmp_path / "Scene_64x64_50.yuv", 2)) == 2


def test_grey_stays_grey_and_colours_come_back():
    grey = from_rgb("grey", torch.full((1, 3, 16, 16), 100 / 255)).rgb
    assert float((grey * 255 - 100).abs().max()) <= 2  # limited range: 219 steps for 256 levels
    smooth = torch.linspace(0.2, 0.8, 32).expand(1, 3, 32, 32).clone()
    smooth[:, 0] += 0.1
    assert float(rgb_psnr(smooth, from_rgb("ramp", smooth).rgb)[0]) > 38
    assert from_rgb("odd", torch.zeros(1, 3, 17, 19)).size == (16, 18)
    assert to_rgb(from_rgb("x", smooth).planes).shape == (1, 3, 32, 32)


def test_what_is_no_video_is_named(tmp_path, clip, write_yuv):
    write_yuv(tmp_path / "nameless.yuv", clip.planes)
    with pytest.raises(DataError, match=r"does not tell its size and rate, as in NAME_1920x1080_50\.yuv"):
        read(tmp_path / "nameless.yuv")
    write_yuv(tmp_path / "cut_64x64_25.yuv", clip.planes.reshape(-1)[:-1])
    with pytest.raises(DataError, match="no whole number of frames of 64 x 64"):
        read(tmp_path / "cut_64x64_25.yuv")
    (tmp_path / "odd_63x64_25.yuv").write_bytes(b"x")
    with pytest.raises(DataError, match="must be even"):
        read(tmp_path / "odd_63x64_25.yuv")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DataError, match="cannot be read as a video"):
        read(tmp_path / "text.mp4")
    with pytest.raises(DataError, match="there is no video"):
        read(tmp_path / "absent.mkv")


# -- sets of videos ---------------------------------------------------------------------------------------------------


def test_the_common_test_sequences_and_uvg_by_their_own_layout(folder, clip, write_yuv):
    write_yuv(folder / "hevc" / "D" / "BQSquare_64x64_60.yuv", clip.planes)
    write_y4m(folder / "hevc" / "D" / "BlowingBubbles.y4m", clip.planes)
    write_yuv(folder / "uvg" / "1080p" / "Beauty_64x64_120fps_420_8bit_YUV.yuv", clip.planes)
    assert [v.name for v in data.coded_set("hevc-d", 3, 0)] == ["BQSquare_64x64_60", "BlowingBubbles"]
    assert [len(v) for v in data.coded_set("hevc-d", 3, 0)] == [3, 3]
    (beauty,) = data.coded_set("uvg", 0, 0)
    assert beauty.rate == 120
    with pytest.raises(DataError, match="holds no video"):
        data.coded_set("hevc-b", 3, 0)
    with pytest.raises(InputError, match="no set of videos 'hevc-a'; there are scenes, video"):
        data.coded_set("hevc-a", 3, 0)


def test_sets_that_are_not_there_say_where_they_come_from(folder):
    with pytest.raises(DataError, match=r"Dataset 'uvg' is not in LABKIT_DATA.*ultravideo\.fi"):
        data.coded_set("uvg", 1, 0)
    with pytest.raises(DataError, match="Dataset 'video' is not in LABKIT_DATA"):
        data.clip("city")
    with pytest.raises(InputError, match="no clip 'town'; there are city"):
        data.clip("town")
    with pytest.raises(DataError, match=r"vimeo_septuplet\.zip"):
        data.VimeoSeptuplets()
    assert not data.footage_is_there()


def test_generated_videos_are_others_than_those_trained_on(folder):
    videos = data.coded_set("scenes", 3, seed=0, count=2, size=64)
    assert [v.name for v in videos] == ["scene-0", "scene-1"]
    again = data.coded_set("scenes", 3, seed=0, count=2, size=64)
    assert np.array_equal(videos[0].planes, again[0].planes)
    examples = data.GeneratedExamples(16, 3, 64, seed=0)
    assert len(examples) == 16
    batch = examples.batch(torch.tensor([0, 8]), 5)
    assert batch.shape == (3, 2, 3, 64, 64)
    assert float(batch.max()) <= 1
    first = videos[0].rgb[0]
    assert min(float((first - batch[0, k]).abs().mean()) for k in range(2)) > 0.02


@pytest.mark.skipif(not data.footage_is_there(), reason="the real clips are not in LABKIT_DATA")
def test_the_real_clips():
    sizes = {name: data.clip(name, 2).size for name in data.CLIPS}
    assert sizes == {
        "city": (288, 352), "calendar": (288, 352), "parkjoy": (270, 480), "cisco": (192, 320), "carphone": (144, 176),
    }  # fmt: skip


def test_vimeo_septuplets(folder, septuplet):
    """Catches: frames in the order of their names as text, another crop for each frame, x and y swapped."""
    septuplet(folder, "00001/0001")
    septuplet(folder, "00001/0002")
    (folder / "vimeo90k" / "sep_trainlist.txt").write_text("00001/0001\n00001/0002\n")
    examples = data.VimeoSeptuplets(frames=5, size=64)
    assert len(examples) == 2
    batch = (examples.batch(torch.tensor([1, 0]), seed=3) * 255).round()
    assert batch.shape == (5, 2, 3, 64, 64)
    assert batch[:, 0, 2, 0, 0].tolist() == [1, 2, 3, 4, 5]
    left, top = int(batch[0, 0, 0, 0, 0]), int(batch[0, 0, 1, 0, 0])
    assert 0 <= left <= 32
    assert 0 <= top <= 16
    assert torch.equal(batch[0, 0, 0, 0], torch.arange(64.0) + left)
    assert torch.equal(batch[0, 0, 1, :, 0], torch.arange(64.0) + top)
    assert torch.equal(batch[0, 0, :2], batch[4, 0, :2])
    assert torch.equal(examples.batch(torch.tensor([1, 0]), seed=3) * 255, batch)
    other = {float(examples.batch(torch.tensor([1]), seed=s)[0, 0, 0, 0, 0]) for s in range(12)}
    assert len(other) > 3


def test_damaged_septuplets_are_named(folder, septuplet):
    septuplet(folder, "00001/0001", missing=(4,))
    septuplet(folder, "00001/0002", size=(48, 80))
    listed = folder / "vimeo90k" / "sep_trainlist.txt"
    with pytest.raises(DataError, match=r"sep_trainlist\.txt cannot be read"):
        data.VimeoSeptuplets()
    listed.write_text("00001/0001\n../../etc\n")
    with pytest.raises(DataError, match="must name septuplets"):
        data.VimeoSeptuplets()
    listed.write_text("00001/0001\n00001/0002\n")
    examples = data.VimeoSeptuplets(size=64)
    with pytest.raises(DataError, match=r"im4\.png is missing"):
        examples.batch(torch.tensor([0]), 0)
    with pytest.raises(DataError, match="smaller than crops of 64"):
        examples.batch(torch.tensor([1]), 0)
    with pytest.raises(InputError, match="7 frames and training needs 2"):
        data.VimeoSeptuplets(frames=8)


# -- anchors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x264-veryfast", "x265-veryfast"])
def test_anchors_code_what_they_are_given(name, clip):
    """Fewer bits and less quality at a larger factor; as many frames as went in; every packet is counted."""
    fine, coarse = (anchors.code(clip, name, factor, gop=3) for factor in (20, 36))
    assert fine.frames.shape == clip.rgb.shape
    assert fine.bits_per_pixel > coarse.bits_per_pixel > 0
    assert len(fine.bytes) == len(clip)
    better, worse = (float(rgb_psnr(clip.rgb, coded.frames).mean()) for coded in (fine, coarse))
    assert better > worse + 1
    assert better > 36  # over 20 seeds 38.0 to 42.4
    assert fine.bytes[0] > 2 * fine.bytes[1]  # an I-frame, then P-frames ...
    assert fine.bytes[3] > 2 * fine.bytes[4]  # ... and again after three


@pytest.mark.slow
@pytest.mark.skipif(not data.footage_is_there(), reason="the real clips are not in LABKIT_DATA")
@pytest.mark.parametrize(("name", "bpp", "quality"), [("city", 0.3132, 34.23), ("carphone", 0.2544, 35.95)])
def test_x265_codes_real_clips_as_measured_before(name, bpp, quality):
    """veryfast, zero latency, crf 23, group of 12, 24 frames; other builds of x265 differ by little."""
    video = data.clip(name, 24)
    coded = anchors.code(video, "x265-veryfast", 23, 12)
    assert coded.bits_per_pixel == pytest.approx(bpp, rel=0.05)
    assert float(rgb_psnr(video.rgb, coded.frames).mean()) == pytest.approx(quality, abs=0.3)


def test_groups_are_as_long_as_asked(clip):
    types = {}
    for gop in (3, 100):
        encoder = anchors._encoder(anchors.ANCHORS["x265-veryfast"], 30, gop, clip)
        out = [p for planes in clip.planes for p in encoder.encode(anchors._picture(planes))] + encoder.encode(None)
        decoder = av.CodecContext.create("hevc", "r")
        types[gop] = "".join(" IPB"[int(f.pict_type)] for packet in [*out, None] for f in decoder.decode(packet))
    assert types == {3: "IPPIPP", 100: "IPPPPP"}


def test_trivial_predictors(clip):
    quality = evaluate.predictors(clip)
    assert quality["copy"] == pytest.approx(float(rgb_psnr(clip.rgb[1:], clip.rgb[:-1]).mean()))
    pytest.importorskip("cv2", reason="the flow is OpenCV's: needs the extra 'peers'")
    assert quality["warp"] > quality["copy"] + 1  # over 20 seeds by 5.4 dB or more


def test_unknown_anchors_and_groups(clip):
    with pytest.raises(InputError, match="no anchor 'vp9'; there are x265-veryfast"):
        anchors.code(clip, "vp9", 30, 12)
    with pytest.raises(InputError, match="gop, frames from one I-frame to the next, must be at least 1; got 0"):
        anchors.code(clip, "x264-veryfast", 30, 0)
    nothing = replace(anchors.ANCHORS["x264-veryfast"], library="libnothing")
    with pytest.raises(InputError, match="built without libnothing"):
        anchors.code(clip, nothing, 30, 12)


# -- protocol ---------------------------------------------------------------------------------------------------------


def test_how_a_frame_is_made_to_fit():
    frames = torch.rand(1, 3, 135, 200)
    assert protocol.fitted(frames, "pad") is frames
    crop = protocol.fitted(frames, "crop")
    assert crop.shape[2:] == (128, 192)
    assert torch.equal(crop, frames[:, :, 3:131, 4:196])
    small = protocol.fitted(frames, "rescale")
    assert small.shape[2:] == (128, 192)
    assert float(small.std()) < float(frames.std())  # the finest detail is gone: that is the trick
    exact = torch.rand(1, 3, 64, 128)
    assert torch.equal(protocol.fitted(exact, "crop"), exact)
    with pytest.raises(InputError, match="fit must be one of pad, crop, rescale; got 'stretch'"):
        protocol.fitted(frames, "stretch")
    with pytest.raises(InputError, match="smaller than 64: pad them"):
        protocol.fitted(frames[:, :, :50], "crop")
