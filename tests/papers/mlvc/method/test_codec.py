"""The codec as a whole: files that another process decodes to the same pixels, and all that can be wrong with one."""

import functools
import hashlib
import io
import os
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit import tensor_files
from labkit.errors import InputError
from labkit.papers.mlvc.method import codec as whole_codec
from labkit.papers.mlvc.method.codec import Codec, overhead
from labkit.papers.mlvc.method.container import (
    HEADER_BYTES,
    DamagedFile,
    Packet,
    WrongModel,
    packets,
    read_header,
)
from labkit.papers.mlvc.method.network import Network, Settings
from labkit.papers.mlvc.method.video_files import decode_file, encode_file

pytest.importorskip("constriction", reason="needs the extra 'video'")
av = pytest.importorskip("av", reason="needs the extra 'video'")


def digest(frames: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(frame.tobytes() for frame in frames)).hexdigest()


def again(data: bytes, change) -> bytes:
    """The file with its packets changed: `change` takes and gives a list of packets."""
    kept = change(list(packets(data)))
    return data[:HEADER_BYTES] + b"".join(packet.pack() for packet in kept)


# ---- round trips ----------------------------------------------------------------------------------------------------


def test_frames_have_their_size_and_count(clip, shown):
    assert [frame.shape for frame in shown] == [frame.shape for frame in clip]
    assert all(frame.dtype == np.uint8 for frame in shown)
    assert np.abs(shown[0].astype(int) - clip[0]).mean() < 4  # the I-frame is a picture of the first


def test_the_sender_saw_what_the_receiver_shows(codec, clip, shown):
    """Frame after frame by the sender's own references, which no file has passed."""
    coder = codec.coders[2]
    references = whole_codec._send_intra(coder, clip[0], 0, 25).references
    for t in (1, 2):
        references = coder.send(whole_codec._padded(clip[t]), references).references
        assert np.array_equal(coder.picture(references)[:50, :60], shown[t])


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
        {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE"},
    ],
    ids=["2 threads, no vector instructions", "AVX2, other sums in MKL"],
)
def test_a_fresh_process_decodes_the_same_pixels(coded, shown, model_file, tmp_path, environment):
    """It has the model file and the coded file; the number of threads and the instruction set are others."""
    (tmp_path / "a.mlvc").write_bytes(coded)
    script = (
        "import sys, hashlib; from pathlib import Path; from labkit.papers.mlvc.method.codec import Codec\n"
        "frames = Codec.load(sys.argv[1]).decode(Path(sys.argv[2]).read_bytes())\n"
        "print(hashlib.sha256(b''.join(frame.tobytes() for frame in frames)).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(model_file), str(tmp_path / "a.mlvc")],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest(shown)


def test_threads_change_nothing(codec, coded, shown):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert digest(codec.decode(coded)) == digest(shown)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_file_is_as_long_as_the_report_says(codec, clip):
    """And each stream as the tables promise: an estimate that hides bytes would show here."""
    sink = io.BytesIO()
    report = codec.write(sink, clip, 2, gop=3, adaptive=False)
    assert report.bytes == len(sink.getvalue())
    assert report.bits_per_pixel == pytest.approx(8 * len(sink.getvalue()) / (5 * 50 * 60))
    assert [entry.kind for entry in report.frames] == ["I", "P", "P", "I", "P"]
    streams = sum(sum(entry.streams) for entry in report.frames)
    assert overhead(report) + streams == report.bytes
    for entry in report.frames:
        for length, bits in zip(entry.streams, entry.estimated_bits, strict=True):
            assert bits / 8 - 1 <= length <= 1.005 * bits / 8 + 8
    assert max(max(entry.streams) for entry in report.frames if entry.kind == "P") > 100  # there were symbols


@pytest.mark.slow
def test_the_report_has_the_error_of_what_the_receiver_shows(codec, clip, shown):
    report = codec.write(io.BytesIO(), clip, 2, gop=3, adaptive=False)
    errors = [np.square(a.astype(float) - b).mean() for a, b in zip(shown, clip, strict=True)]
    assert [entry.mse for entry in report.frames] == pytest.approx(errors)
    assert report.psnr == pytest.approx(np.mean(10 * np.log10(255**2 / np.array(errors))))


@pytest.mark.slow
def test_an_i_frame_comes_early_where_it_costs_less(codec, clip):
    """At a cut; and wherever the errors of these random networks are worth one."""
    frames, costs, kinds = [*clip[:2], 255 - clip[0]], [], []
    for adaptive in (False, True):
        sink = io.BytesIO()
        report = codec.write(sink, frames, 2, adaptive=adaptive)
        assert len(codec.decode(sink.getvalue())) == 3
        kinds.append([entry.kind for entry in report.frames])
        costs.append([entry.mse + 40 * 8 * entry.bytes / (50 * 60) for entry in report.frames])
    assert kinds[0] == ["I", "P", "P"]
    assert kinds[1][2] == "I"
    assert costs[1][2] < costs[0][2]


@pytest.mark.slow
def test_a_file_may_begin_anywhere(codec, clip):
    sink = io.BytesIO(b"before")
    sink.seek(0, io.SEEK_END)
    codec.write(sink, clip[:2], 2)
    sink.write(b"after")
    assert sink.getvalue() == b"before" + codec.encode(clip[:2]) + b"after"


@pytest.mark.slow
def test_a_later_frame_changes_nothing_before_it(codec, clip, coded):
    changed = [*clip[:2], 255 - clip[2], *clip[3:]]
    before, after = (list(packets(data)) for data in (coded, codec.encode(changed, 2, gop=3, adaptive=False)))
    assert before[:2] == after[:2]
    assert before[2] != after[2]
    assert before[3] == after[3]  # an I-frame: nothing of the past reaches it


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 3)])
def test_any_size(codec, size):
    frames = [np.random.default_rng(k).integers(0, 256, (*size, 3), dtype=np.uint8) for k in range(2)]
    shown = codec.decode(codec.encode(frames))
    assert [frame.shape for frame in shown] == [(*size, 3)] * 2


def test_no_frame_and_one_frame(codec, clip):
    assert codec.decode(codec.encode([])) == []
    assert len(codec.decode(codec.encode(clip[:1]))) == 1


def test_the_frame_rate_is_kept(codec, clip):
    assert read_header(codec.encode(clip[:1], rate=30000 / 1001)).rate == (30000, 1001)


def test_frames_pass_one_by_one(codec, coded):
    """However long a video is, few of its frames are alive at a time: at both ends."""
    alive: list[weakref.ref] = []
    most = 0

    class Picture(np.ndarray):
        """An array that can be counted."""

    def frames() -> Iterator[np.ndarray]:
        nonlocal most
        for k in range(5):
            frame = np.full((64, 64, 3), 20 * k, np.uint8).view(Picture)
            alive.append(weakref.ref(frame))
            most = max(most, sum(one() is not None for one in alive))
            yield frame
            del frame

    codec.write(io.BytesIO(), frames(), 2, adaptive=False)
    assert most <= 3
    assert next(codec.play(coded)).index == 0  # nothing waits for the end of the file


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(codec, tmp_path):
    """From file to file, both ways: 48 more frames take 60 kB at most, where packets that stay would take 250.

    What is counted is Python's and NumPy's: frames (12 kB), packets (5 kB, of noise), the coded file (5 kB a frame);
    a report of each frame does stay. Of P-frames the test before counts the pictures.
    """
    rng, most = np.random.default_rng(0), {}
    for count in (2, 16, 64):  # the first pays for what is imported and cached
        source, coded, back = (tmp_path / f"{count}.{ending}" for ending in ("mkv", "mlvc", "avi"))
        with av.open(str(source), "w") as sink:
            stream = sink.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "bgr0"
            for _ in range(count):
                noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                sink.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
            sink.mux(stream.encode())
        ways = {
            "encode": functools.partial(encode_file, codec, source, coded, gop=1),
            "decode": functools.partial(decode_file, codec, coded, back),
        }
        for way, work in ways.items():
            tracemalloc.start()
            try:
                work()
                most[way, count] = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert coded.stat().st_size > 5000 * count
    for way in ("encode", "decode"):
        assert most[way, 64] - most[way, 16] < 60_000, most


# ---- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_flipped_bits_are_errors(codec, coded):
    """A dozen places. Strict decoding never gives a frame that differs from the sender's."""
    for position in range(0, len(coded), max(1, len(coded) // 12)):
        spoiled = bytearray(coded)
        spoiled[position] ^= 1 << position % 8
        with pytest.raises(DamagedFile):
            codec.decode(bytes(spoiled))


@pytest.mark.slow
def test_truncated_files_are_errors(codec, coded):
    for length in range(0, len(coded), max(1, len(coded) // 12)):
        with pytest.raises(DamagedFile):
            codec.decode(coded[:length])


def test_the_error_names_the_frame(codec, coded):
    start = HEADER_BYTES + next(iter(packets(coded))).size
    spoiled = coded[: start + 40] + b"x" + coded[start + 41 :]
    with pytest.raises(DamagedFile, match=r"damaged at frame 1 of 5: bytes \d+ to \d+ are damaged.*conceal=True"):
        codec.decode(spoiled)
    with pytest.raises(DamagedFile, match="breaks off after 1 of 5 frames"):
        codec.decode(coded[:start])


LOST = {
    "a P-frame": (lambda p: [p[0], *p[2:]], [0, 3, 4]),
    "the second I-frame": (lambda p: [*p[:3], p[4]], [0, 1, 2]),
    "the first I-frame": (lambda p: p[1:], [3, 4]),
    "the end": (lambda p: p[:2], [0, 1]),
    "everything": (lambda p: [], []),
    "a frame sent twice": (lambda p: [p[0], p[1], p[1], *p[2:]], [0, 1, 3, 4]),
    "frames in another order": (lambda p: [p[0], p[2], p[1], p[3], p[4]], [0, 3, 4]),
}


QUICK = ("a P-frame", "the first I-frame", "the end", "everything")


@pytest.mark.parametrize("what", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in LOST])
def test_concealment_shows_all_frames_and_is_whole_from_the_next_i_frame(codec, coded, shown, what):
    change, good = LOST[what]
    spoiled = again(coded, change)
    with pytest.raises(DamagedFile):
        codec.decode(spoiled)
    played = list(codec.play(spoiled, conceal=True))
    assert [one.index for one in played] == list(range(5))
    assert [one.index for one in played if not one.problem] == good
    last = np.full((50, 60, 3), 128, np.uint8)
    for one in played:
        last = shown[one.index] if not one.problem else last
        assert np.array_equal(one.picture, last)


def test_a_file_without_packets_is_grey(codec, coded):
    """`decode` shows what `play` does, and as many frames as the header announces."""
    shown = codec.decode(coded[:HEADER_BYTES], conceal=True)
    assert len(shown) == 5
    assert all((picture == 128).all() for picture in shown)


@pytest.mark.slow
def test_streams_that_fit_no_symbol_and_pictures_that_are_none(codec, coded):
    """With every checksum right: what a program wrote that meant harm, or had a fault."""
    rng = np.random.default_rng(0)
    for k, stream in ((1, 0), (1, 1), (1, 2), (0, 0)):
        for size in (0, 3, 400):

            def change(p: list[Packet], k: int = k, stream: int = stream, size: int = size) -> list[Packet]:
                streams = list(p[k].streams)
                streams[stream] = rng.bytes(size)
                return [*p[:k], replace(p[k], streams=tuple(streams)), *p[k + 1 :]]

            spoiled = again(coded, change)
            with pytest.raises(DamagedFile, match=f"frame {k} of 5"):
                codec.decode(spoiled)
            assert len(codec.decode(spoiled, conceal=True)) == 5


def test_other_pixels_than_the_senders_are_noticed(codec, coded):
    """As they would come from a machine that computes differently."""
    spoiled = again(coded, lambda p: [p[0], replace(p[1], pixels_crc=p[1].pixels_crc ^ 1), *p[2:]])
    with pytest.raises(DamagedFile, match="other pixels than the sender saw"):
        codec.decode(spoiled)


def test_sizes_and_lengths_that_nobody_should_believe(codec, coded):
    header = read_header(coded)
    large = replace(header, width=60000, height=60000).pack() + coded[HEADER_BYTES:]
    with pytest.raises(InputError, match="60000 x 60000 are larger than the 9,437,184 pixels"):
        codec.decode(large)
    other = replace(header, width=200).pack() + coded[HEADER_BYTES:]
    with pytest.raises(DamagedFile, match="frame 0"):
        codec.decode(other)
    assert len(codec.decode(other, conceal=True)) == 5
    long = replace(header, frames=2**24 - 1).pack() + coded[HEADER_BYTES:]
    with pytest.raises(DamagedFile, match="16,777,210 frames in a row are lost"):
        codec.decode(long, conceal=True)


def test_another_model_is_told_before_anything_is_decoded(codec, coded):
    torch.manual_seed(5)
    other = Codec({2: Network(Settings(width=0.05))})
    mine, theirs = codec.coders[2].model.hex()[:8], other.coders[2].model.hex()[:8]
    with pytest.raises(WrongModel, match=f"by model {mine}; at hand is model {theirs}"):
        other.decode(coded)
    with pytest.raises(WrongModel, match="no network for this quality"):
        Codec({3: codec.coders[2].network}).decode(coded)
    with pytest.raises(DamagedFile, match=r"no \.mlvc file"):
        codec.decode(b"RIFF something else")


# ---- model files ----------------------------------------------------------------------------------------------------


def test_a_model_file_decodes_what_its_codec_wrote(codec, coded, shown, model_file):
    loaded = Codec.load(model_file)
    assert loaded.qualities == (2,)
    assert loaded.coders[2].model == codec.coders[2].model
    assert digest(loaded.decode(coded)) == digest(shown)
    assert loaded.encode([shown[0]]) == codec.encode([shown[0]])


@pytest.mark.slow
def test_the_sender_half_is_no_part_of_the_model(codec):
    """A better motion search writes files that receivers of the old one read."""
    import copy

    other = copy.deepcopy(codec.coders[2].network)
    with torch.no_grad():
        for part in (other.motion_estimation, other.residual_coding.analysis):
            for parameter in part.parameters():
                parameter.add_(0.1)
    assert Codec({2: other}).coders[2].model == codec.coders[2].model
    with torch.no_grad():
        next(other.compensation.parameters()).add_(0.1)
    assert Codec({2: other}).coders[2].model != codec.coders[2].model


@pytest.mark.slow
def test_weights_that_fit_half_precision_take_half_the_room(codec, model_file, tmp_path):
    import copy

    rounded = copy.deepcopy(codec.coders[2].network).half().float()
    size = Codec({2: rounded}).save(tmp_path / "half.safetensors")
    assert size < 0.75 * model_file.stat().st_size
    assert Codec.load(tmp_path / "half.safetensors").coders[2].model == Codec({2: rounded}).coders[2].model


@pytest.mark.slow
def test_files_that_are_no_models(codec, model_file, tmp_path):
    with pytest.raises(tensor_files.TensorFileError, match="there is no file"):
        Codec.load(tmp_path / "nothing.safetensors")
    tensors, header = tensor_files.read(model_file, whole_codec.ModelHeader)
    for name, spoiled, words in (
        ("2.residual_rgb.bias", None, "does not hold the networks"),
        ("2.residual_rgb.bias", torch.zeros(9), "does not hold the networks"),
        ("2.tables.thresholds", torch.zeros(63, dtype=torch.int32), "ascending"),
        ("2.residual_rgb.weight", 1e9 * tensors["2.residual_rgb.weight"], "too large to be coded"),
    ):
        left = {key: value for key, value in tensors.items() if key != name}
        tensor_files.write(tmp_path / "bad.safetensors", left | ({} if spoiled is None else {name: spoiled}), header)
        with pytest.raises(InputError, match=words):
            Codec.load(tmp_path / "bad.safetensors")
    wide = whole_codec.ModelHeader(settings={"2": header.settings["2"].model_copy(update={"width": 4.0})})
    tensor_files.write(tmp_path / "wide.safetensors", tensors, wide)  # 200 million weights, were they made room for
    with pytest.raises(InputError, match="does not hold the networks"):
        Codec.load(tmp_path / "wide.safetensors")


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((8, 8, 4), np.uint8), r"frame 0 is uint8 \(8, 8, 4\). Drop the alpha channel: frame\[..., :3\]"),
        (np.zeros((8, 8), np.uint8), "Make grey RGB"),
        (np.zeros((3, 8, 8), np.uint8), "Channels last"),
        (np.zeros((8, 8, 3), np.float32), r"Convert values in \[0, 1\]"),
        (torch.zeros(3, 8, 8), "frame 0 is Tensor. From a tensor"),
        ("frame.png", "frame 0 is str"),
        (np.zeros((0, 8, 3), np.uint8), "sides from 1 to"),
    ],
)
def test_frames_of_another_kind_are_refused(codec, frame, words):
    with pytest.raises(InputError, match=words):
        codec.encode(iter([frame]))


def test_bad_arguments(codec, clip):
    for arguments, words in (
        ({"quality": 5}, "has networks for quality 2; got 5"),
        ({"gop": 0}, "gop, the frames from one I-frame to the next"),
        ({"gop": 70000}, "gop"),
        ({"rate": 0}, "rate, the frames a second"),
        ({"rate": float("nan")}, "rate"),
    ):
        with pytest.raises(InputError, match=words):
            codec.encode(clip[:1], **arguments)
    with pytest.raises(InputError, match=r"one size: frame 1 is 40 x 50, the ones before 60 x 50"):
        codec.encode([clip[0], clip[0][:, :40]])
    with pytest.raises(InputError, match="one to four of the qualities"):
        Codec({})
    with pytest.raises(InputError, match="one to four of the qualities"):
        Codec({0: codec.coders[2].network})


def test_weights_that_are_not_finite_are_refused(codec):
    import copy

    broken = copy.deepcopy(codec.coders[2].network)
    with torch.no_grad():
        broken.compensation.features[0].weight.fill_(float("nan"))
    with pytest.raises(InputError, match="That training diverged"):
        Codec({2: broken})
