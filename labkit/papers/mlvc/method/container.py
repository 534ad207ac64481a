"""The file format: a header, and a packet for each frame, each with its lengths and checksums.

    header   8  magic               packet   2  mark A5 4D
             1  version                      1  kind, "I" or "P"
             1  quality, 1..4                3  number of the frame
             2  frames in a group, at most   9  lengths of three streams: I-frame; or m̂, ẑ, ŷ
             4  width                        4  CRC-32 of the decoded frame's pixels
             4  height                       4  CRC-32 of packet header and streams
             4  frames                          streams
             4 + 4  frames a second, a fraction
            16  model: what decodes it
             4  CRC-32 of the above

Little-endian throughout. A reader that meets a damaged packet looks for the next mark whose checksum fits; decoding
is whole again from the next I-frame on. The CRC of the pixels makes sure that what is shown is what the sender saw.
[ours]
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from labkit.errors import InputError

MAGIC, VERSION = b"\x8bMLVC\r\n\x1a", 1
_HEADER = struct.Struct("<8sBBHIIIII16s")
MARK = b"\xa5M"
HEADER_BYTES = _HEADER.size + 4
PACKET_BYTES = 23
"""Of a packet without its streams."""
LARGEST_SIDE, MOST_FRAMES, LARGEST_STREAM = 2**16, 2**24 - 1, 2**24 - 1
CHUNK = 2**16
"""Bytes in which a file is searched."""


class DamagedFile(InputError):
    """A coded video that is not whole, or not one of ours. The text says what and from which frame on."""


class FileBytes:
    """A file that is read where it is asked for: as much of `bytes` as a reader of packets needs.

    Raises InputError where the file cannot be read.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._size = stream, stream.seek(0, io.SEEK_END)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        try:
            self._stream.seek(start)
            return self._stream.read(max(0, stop - start))
        except OSError as error:
            raise InputError(f"the file cannot be read beyond byte {start} ({error.strerror or error}).") from None

    def find(self, what: bytes, start: int) -> int:
        """Where `what` stands first at or behind `start`; -1: nowhere."""
        for position in range(start, self._size, CHUNK):
            where = self[position : position + CHUNK + len(what) - 1].find(what)
            if where >= 0:
                return position + where
        return -1


Data = bytes | FileBytes


class WrongModel(InputError):
    """A coded video that other networks wrote than those at hand."""


@dataclass(frozen=True)
class Header:
    """width, height: of the video; coded frames are padded. rate: frames a second as (numerator, denominator)."""

    quality: int
    gop: int
    width: int
    height: int
    frames: int
    rate: tuple[int, int]
    model: bytes

    def pack(self) -> bytes:
        """Raises InputError where a number does not fit its field."""
        check_header(self)
        body = _HEADER.pack(
            MAGIC, VERSION, self.quality, self.gop, self.width, self.height, self.frames, *self.rate, self.model
        )
        return body + struct.pack("<I", zlib.crc32(body))


def check_header(header: Header) -> None:
    """Raises InputError for numbers that no video of ours has."""
    if not 1 <= header.quality <= 4:
        raise InputError(f"quality lies between 1 (smallest file) and 4 (best picture); got {header.quality}.")
    if not 1 <= header.gop <= 2**16 - 1:
        raise InputError(f"gop, the frames from one I-frame to the next, lies between 1 and 65535; got {header.gop}.")
    smallest = min(1, header.frames)  # without a frame there is no size
    if not all(smallest <= side <= LARGEST_SIDE for side in (header.width, header.height)):
        raise InputError(f"sides lie between 1 and {LARGEST_SIDE} pixels; got {header.width} x {header.height}.")
    if not 0 <= header.frames <= MOST_FRAMES:
        raise InputError(f"a file holds {MOST_FRAMES:,} frames at most; got {header.frames:,}.")
    if not all(1 <= part < 2**32 for part in header.rate):
        raise InputError(f"frames a second must be above 0; got {header.rate[0]}/{header.rate[1]}.")


def read_header(data: Data) -> Header:
    """The header of a coded video.

    Raises:
        DamagedFile: too short, another kind of file, another version, or a checksum that does not fit.
    """
    head = data[:HEADER_BYTES]
    if head[: len(MAGIC)] != MAGIC:
        raise DamagedFile("this is no .mlvc file of `labkit codec`.")
    if len(head) < HEADER_BYTES:
        raise DamagedFile(f"the file breaks off inside its header, after {len(head)} of {HEADER_BYTES} bytes.")
    _, version, quality, gop, width, height, frames, numerator, denominator, model = _HEADER.unpack_from(head)
    if zlib.crc32(head[: _HEADER.size]) != int.from_bytes(head[_HEADER.size :], "little"):
        raise DamagedFile("the header is damaged: its checksum does not fit. Copy the file again.")
    if version != VERSION:
        raise DamagedFile(f"the file has version {version} of the format; this program reads version {VERSION}.")
    header = Header(quality, gop, width, height, frames, (numerator, denominator), model)
    try:
        check_header(header)
    except InputError as error:
        raise DamagedFile(f"the header cannot be true: {error}") from None
    return header


@dataclass(frozen=True)
class Packet:
    """One frame: an I-frame has its picture in the first stream, a P-frame m̂, ẑ and ŷ."""

    kind: Literal["I", "P"]
    index: int
    streams: tuple[bytes, bytes, bytes]
    pixels_crc: int

    @property
    def size(self) -> int:
        return PACKET_BYTES + sum(map(len, self.streams))

    def pack(self) -> bytes:
        """Raises InputError where a stream is longer than 16 MB."""
        if max(map(len, self.streams)) > LARGEST_STREAM:
            raise InputError("one frame takes more than 16 MB: code at a lower quality or a smaller size.")
        head = MARK + self.kind.encode() + self.index.to_bytes(3, "little")
        head += b"".join(len(stream).to_bytes(3, "little") for stream in self.streams)
        head += struct.pack("<I", self.pixels_crc)
        payload = b"".join(self.streams)
        return head + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))) + payload


@dataclass(frozen=True)
class Gap:
    """Bytes that are no packet, from `start` to `end` of the file."""

    start: int
    end: int


def packets(data: Data) -> Iterator[Packet | Gap]:
    """All packets behind the header, and a `Gap` wherever bytes are damaged, lost or foreign.

    The search for the next whole packet reads a bounded multiple of the file, however its bytes were chosen.
    """
    position, budget = HEADER_BYTES, 8 * len(data) + 2**20
    lost: int | None = None
    while position < len(data):
        packet, size, read = _packet_at(data, position)
        budget -= read
        if packet is not None:
            if lost is not None:
                yield Gap(lost, position)
                lost = None
            yield packet
            position += size
            continue
        lost = position if lost is None else lost
        following = data.find(MARK, position + 1) if budget > 0 else -1
        position = len(data) if following < 0 else following
    if lost is not None:
        yield Gap(lost, len(data))


def _packet_at(data: Data, position: int) -> tuple[Packet | None, int, int]:
    """The packet that begins there, or None; its size; and how many bytes were read for a checksum."""
    head = data[position : position + PACKET_BYTES]
    if len(head) < PACKET_BYTES or head[:2] != MARK or head[2:3] not in (b"I", b"P"):
        return None, 0, 0
    lengths = [int.from_bytes(head[6 + 3 * k : 9 + 3 * k], "little") for k in range(3)]
    start, size = position + PACKET_BYTES, PACKET_BYTES + sum(lengths)
    if position + size > len(data):
        return None, 0, 0
    payload = data[start : position + size]
    if zlib.crc32(payload, zlib.crc32(head[:-4])) != int.from_bytes(head[-4:], "little"):
        return None, 0, size
    first, second = lengths[0], lengths[0] + lengths[1]
    streams = payload[:first], payload[first:second], payload[second:]
    kind: Literal["I", "P"] = "I" if head[2:3] == b"I" else "P"
    index, pixels = int.from_bytes(head[3:6], "little"), int.from_bytes(head[15:19], "little")
    return Packet(kind, index, streams, pixels), size, size
