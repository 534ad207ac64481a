"""The file format: what is written is read, and no byte can change without notice."""

import io
import random
import struct
import time
import zlib

import pytest

from labkit.errors import InputError
from labkit.papers.mlvc.method import container
from labkit.papers.mlvc.method.container import (
    HEADER_BYTES,
    MAGIC,
    MARK,
    PACKET_BYTES,
    DamagedFile,
    FileBytes,
    Gap,
    Header,
    Packet,
    packets,
    read_header,
)

HEADER = Header(quality=2, gop=12, width=175, height=143, frames=3, rate=(30000, 1001), model=bytes(range(16)))
PACKETS = [
    Packet("I", 0, (b"picture" * 9, b"", b""), 1),
    Packet("P", 1, (b"motion", b"", b"residual"), 2**32 - 1),
    Packet("P", 2, (b"", b"z", MARK * 4), 3),
]
FILE = HEADER.pack() + b"".join(packet.pack() for packet in PACKETS)


def test_what_is_written_is_read():
    assert read_header(FILE) == HEADER
    assert list(packets(FILE)) == PACKETS
    assert len(HEADER.pack()) == HEADER_BYTES
    assert sum(packet.size for packet in PACKETS) + HEADER_BYTES == len(FILE)
    assert len(Packet("P", 0, (b"", b"", b""), 0).pack()) == PACKET_BYTES


def test_every_flipped_bit_is_noticed():
    """All of them, not a sample: the file is short. Every other packet is still found."""
    for bit in range(8 * len(FILE)):
        spoiled = bytearray(FILE)
        spoiled[bit // 8] ^= 1 << bit % 8
        if bit < 8 * HEADER_BYTES:
            with pytest.raises(DamagedFile):
                read_header(bytes(spoiled))
            continue
        items = list(packets(bytes(spoiled)))
        assert sum(isinstance(item, Gap) for item in items) == 1
        assert len([item for item in items if item in PACKETS]) == 2


def test_every_truncation_is_noticed():
    ends = [HEADER_BYTES]
    for packet in PACKETS:
        ends.append(ends[-1] + packet.size)
    for length in range(len(FILE)):
        if length < HEADER_BYTES:
            with pytest.raises(DamagedFile):
                read_header(FILE[:length])
            continue
        items = list(packets(FILE[:length]))
        assert items[: sum(end <= length for end in ends) - 1] == PACKETS[: sum(end <= length for end in ends) - 1]
        assert any(isinstance(item, Gap) for item in items) == (length not in ends)


@pytest.mark.parametrize("chunk", [1, 2, 7, 2**16])
def test_a_file_gives_what_its_bytes_give(chunk, monkeypatch, tmp_path):
    """Whole, cut and spoiled; marks that lie across two chunks of a search are found."""
    monkeypatch.setattr(container, "CHUNK", chunk)
    rubbish = random.Random(0).randbytes(99)
    spoiled = bytearray(FILE)
    spoiled[HEADER_BYTES + 30] ^= 1
    for data in (FILE, FILE[:-3], bytes(spoiled), HEADER.pack() + rubbish + PACKETS[1].pack() + MARK, HEADER.pack()):
        (tmp_path / "file").write_bytes(data)
        with open(tmp_path / "file", "rb") as stream:
            file = FileBytes(stream)
            assert (len(file), file[3:9], file[9:3]) == (len(data), data[3:9], b"")
            assert read_header(file) == HEADER
            assert list(packets(file)) == list(packets(data))
            assert [file.find(what, 9) for what in (b"motion", b"no")] == [
                data.find(what, 9) for what in (b"motion", b"no")
            ]


def test_a_file_that_cannot_be_read_any_more_is_told(tmp_path):
    class Unplugged(io.FileIO):
        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

    (tmp_path / "file").write_bytes(FILE)
    with (
        io.BufferedReader(Unplugged(tmp_path / "file")) as stream,
        pytest.raises(InputError, match=r"cannot be read beyond byte 0 \(Input/output error"),
    ):
        read_header(FileBytes(stream))


def test_foreign_bytes_between_packets_are_a_gap():
    rubbish = random.Random(0).randbytes(300) + MARK + b"P" + bytes(40)
    whole = HEADER.pack() + PACKETS[0].pack() + rubbish + PACKETS[1].pack()
    start = HEADER_BYTES + PACKETS[0].size
    assert list(packets(whole)) == [PACKETS[0], Gap(start, start + len(rubbish)), PACKETS[1]]


def test_a_search_among_hostile_marks_ends():
    """Every third byte begins a packet that announces a megabyte: a checksum over each would take hours."""
    head = MARK + b"P" + bytes(3) + (2**20).to_bytes(3, "little") + bytes(6)
    data = HEADER.pack() + head * 200_000 + bytes(2**20)
    started = time.process_time()
    assert [type(item) for item in packets(data)] == [Gap]
    assert time.process_time() - started < 60  # a guard against hanging: it takes less than a second


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: b"", "no .mlvc file"),
        (lambda data: b"RIFF" + data, "no .mlvc file"),
        (lambda data: data[:20], "breaks off inside its header"),
        (lambda data: data[:9] + b"\x07" + data[10:], "checksum does not fit"),
    ],
)
def test_bad_headers(spoil, words):
    with pytest.raises(DamagedFile, match=words):
        read_header(spoil(FILE))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 9}, "version 9"),
        ({"quality": 0}, "quality lies between 1"),
        ({"gop": 0}, "gop"),
        ({"width": 0}, "sides lie between"),
        ({"height": 2**31}, "sides lie between"),
        ({"frames": 2**32 - 1}, "frames at most"),
        ({"rate": (0, 1)}, "frames a second"),
        ({"rate": (1, 0)}, "frames a second"),
    ],
)
def test_forged_headers(change, words):
    """With a checksum that fits: somebody meant it."""
    values = {"version": 1, "quality": 2, "gop": 12, "width": 8, "height": 8, "frames": 3, "rate": (25, 1)} | change
    *plain, rate = values.values()
    body = struct.pack("<8sBBHIIIII16s", MAGIC, *plain, *rate, bytes(16))
    with pytest.raises(DamagedFile, match=words):
        read_header(body + struct.pack("<I", zlib.crc32(body)))


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="more than 16 MB"):
        Packet("I", 0, (bytes(2**24), b"", b""), 0).pack()
    with pytest.raises(InputError, match="quality lies between"):
        Header(7, 12, 8, 8, 1, (25, 1), bytes(16)).pack()
