from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from service.errors import CorruptImage, SlowImage
from service.images import decoder_process
from service.images.decoder_process import Described, decode
from service.images.dicom import read_dicom

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"
ENCODED = CORPUS.parent / "encoded"
KILLERS = sorted(CORPUS.glob("gdcm-*.dcm"))


@pytest.fixture
def lossless() -> tuple[bytes, Described, np.ndarray]:
    """A frame of JPEG Lossless, what it is to be decoded to, and its pixels."""
    ds = pydicom.dcmread(ENCODED / "jpeg-lossless.dcm")
    assert ds.file_meta.TransferSyntaxUID == uid.JPEGLosslessSV1
    frame = next(iter(generate_frames(ds.PixelData, number_of_frames=1)))
    described = Described(
        str(uid.JPEGLosslessSV1), ds.Rows, ds.Columns, "MONOCHROME2", 1, 0, ds.BitsAllocated, ds.BitsStored, 0
    )
    return frame, described, ds.pixel_array


@pytest.fixture(autouse=True)
def no_child_is_left():
    yield
    decoder_process.end_all()


def test_frames_are_decoded_by_one_process_that_stays(lossless):
    frame, described, pixels = lossless
    found = [decode(frame, described) for _ in range(3)]
    np.testing.assert_array_equal(np.frombuffer(found[0], "<u2").reshape(pixels.shape), pixels)
    assert found[0] == found[1] == found[2]
    assert len(decoder_process._idle) == 1


@pytest.mark.parametrize("path", KILLERS, ids=lambda path: path.stem)
def test_what_kills_gdcm_is_a_damaged_image(path, lossless):
    assert len(KILLERS) >= 2
    with pytest.raises(CorruptImage):
        read_dicom(path.read_bytes(), "file")
    assert decode(*lossless[:2])  # another process decodes the next one


@pytest.mark.parametrize("path", [path for path in KILLERS if "lossless" in path.stem], ids=lambda path: path.stem)
def test_it_would_have_killed_the_service(path):
    """The same frame by pydicom's own plug-in."""
    code = (
        f"import pydicom; from pydicom.pixels.decoders.base import get_decoder; ds = pydicom.dcmread({str(path)!r})\n"
        "get_decoder(ds.file_meta.TransferSyntaxUID).as_array(ds, decoding_plugin='gdcm')"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=False, timeout=60)
    assert done.returncode < 0


def test_a_process_that_takes_too_long_is_ended(lossless):
    frame, described, _ = lossless
    decode(frame, described)
    os.kill(decoder_process._idle[0]._process.pid, signal.SIGSTOP)
    with pytest.raises(RuntimeError, match="too long"):
        decode(frame, described, patience=0.1)
    assert decoder_process._idle == []
    assert decode(frame, described)


def test_a_process_that_was_killed_while_idle_costs_no_frame(lossless):
    frame, described, _ = lossless
    decode(frame, described)
    decoder_process._idle[0]._process.kill()
    decoder_process._idle[0]._process.wait()
    assert decode(frame, described)


def test_a_graceful_stop_leaves_it_to_the_service_to_end_it(lossless):
    frame, described, _ = lossless
    decode(frame, described)
    child = decoder_process._idle[0]
    child._process.send_signal(signal.SIGTERM)
    assert decode(frame, described)
    assert decoder_process._idle == [child]


def test_threads_have_a_process_each(lossless):
    frame, described, _ = lossless
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(decode(frame, described))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(decoder_process._idle) <= (os.cpu_count() or 1)


def test_the_corpus_is_read_as_pydicom_reads_it():
    content = (ENCODED / "jpeg-lossless.dcm").read_bytes()
    (frame,) = read_dicom(content, "file")
    assert frame.pixels.shape == pydicom.dcmread(BytesIO(content)).pixel_array.shape


def _jpeg_2000(side: int) -> bytearray:
    """An empty image of small precincts."""
    buffer = BytesIO()
    Image.new("L", (side, side)).save(buffer, "JPEG2000", no_jp2=True, precinct_size=(64, 64), codeblock_size=(4, 4))
    return bytearray(buffer.getvalue())


def _as_dicom(codestream: bytes, side: int) -> bytes:
    ds = pydicom.dcmread(ENCODED / "jpeg-lossless.dcm")
    ds.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    ds.Rows = ds.Columns = side
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = encapsulate([codestream])
    buffer = BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("bomb", [False, True])
def test_jpeg_2000_of_65535_layers_is_ended_and_the_next_one_is_read(bomb):
    """8 kB that keep OpenJPEG busy for 13 s, and in a larger image for minutes."""
    codestream = _jpeg_2000(2048)
    if bomb:
        layers = codestream.find(b"\xff\x52") + 6  # COD, SGcod (ISO/IEC 15444-1 A.6.1)
        codestream[layers : layers + 2] = b"\xff\xff"
        with pytest.raises(SlowImage):
            read_dicom(_as_dicom(bytes(codestream), 2048), "file")
        return
    (frame,) = read_dicom(_as_dicom(bytes(codestream), 2048), "file")
    assert frame.pixels.shape == (2048, 2048)


def test_jpeg_2000_that_asks_for_memory_gets_none(monkeypatch):
    monkeypatch.setattr(decoder_process, "_PATIENCE", 60.0)  # a slow machine needs seconds to ask for so much
    codestream = _jpeg_2000(2048)
    start = codestream.find(b"\xff\x52")
    length = int.from_bytes(codestream[start + 2 : start + 4], "big")
    codestream[start + 14 : start + 2 + length] = b"\x11" * (length - 12)  # precincts of 2 x 2: 2 GB of tables
    with pytest.raises(CorruptImage):
        read_dicom(_as_dicom(bytes(codestream), 2048), "file")
    (child,) = decoder_process._idle  # it was refused memory, not ended
    assert child.lives()
