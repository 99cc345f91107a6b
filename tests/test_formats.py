"""Photographs in every format that people hold: the same squares, nothing lost of deep ones but rounding."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from preprocess import __main__ as preprocess
from preprocess import describe
from preprocess.cache import manifest
from preprocess.cache.rejected import read_reasons
from preprocess.dataset import readers
from preprocess.disk.errors import InputError, Unusable
from preprocess.picture import depth, photograph, square
from preprocess.picture.photograph import decode
from preprocess.picture.square import Making
from tests.layouts import write

MAKING = Making("adaptive", 48, "none")
LOSSLESS = {
    "png": {},
    "tif": {},
    "tiff": {"compression": "tiff_lzw"},
    "bmp": {},
    "ppm": {},
    "webp": {"lossless": True},
}
RAMPS = {"png": 12, "tif": 12, "pgm": 12}


@pytest.fixture(scope="module")
def eye(drawn_folder):
    """A drawn eye, (h, w, 3) uint8 RGB."""
    return decode(sorted((drawn_folder / "train").iterdir())[0], 9999)[0]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_formats_give_the_same_square_whatever_their_suffix(tmp_path, eye, suffix):
    Image.fromarray(eye).save(tmp_path / f"eye.{suffix}", **LOSSLESS[suffix])
    cv2.imwrite(str(tmp_path / "plain.png"), eye[..., ::-1])
    misnamed = (tmp_path / f"eye.{suffix}").rename(tmp_path / "eye.jpg")
    made = square.make_square(misnamed, MAKING)
    assert np.array_equal(made.pixels, square.make_square(tmp_path / "plain.png", MAKING).pixels)


@pytest.mark.parametrize("suffix", ["jpe", "jfif", "webp"])
def test_lossy_formats_give_the_square_within_their_loss(tmp_path, eye, suffix):
    kind = "WEBP" if suffix == "webp" else "JPEG"
    Image.fromarray(eye).save(tmp_path / f"eye.{suffix}", kind, quality=95)
    cv2.imwrite(str(tmp_path / "plain.png"), eye[..., ::-1])
    made = square.make_square(tmp_path / f"eye.{suffix}", MAKING).pixels.astype(int)
    assert np.abs(made - square.make_square(tmp_path / "plain.png", MAKING).pixels).mean() < 3


def make_ramp(bits, channels=1):
    ramp = np.linspace(0, 2**bits - 1, 700).round().astype(np.uint16)
    return np.repeat(np.tile(ramp, (40, 1))[..., None], channels, axis=2)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_is_lost_of_a_deep_ramp_but_rounding(tmp_path, bits, suffix, channels):
    path = tmp_path / f"ramp.{suffix}"
    ramp = make_ramp(bits, channels)
    cv2.imwrite(str(path), ramp)
    rgb, _ = decode(path, 10, bits)
    exact = ramp[..., :1] * 255.0 / (2**bits - 1)
    assert np.abs(rgb - exact).max() <= 0.5
    found = depth.find_depth([path])
    assert (found.bits, found.highest) == (bits, 2**bits - 1)
    assert f"by the range of {bits} bits" in found.describe()


def test_a_pgm_says_its_range_itself_and_a_value_beyond_it_is_refused(tmp_path):
    ramp = make_ramp(12)[..., 0]
    header = f"P5 {ramp.shape[1]} {ramp.shape[0]} 4095\n".encode()
    (tmp_path / "ramp.pgm").write_bytes(header + ramp.astype(">u2").tobytes())
    rgb, _ = decode(tmp_path / "ramp.pgm", 10, 16)
    assert np.abs(rgb[..., 0] - ramp * 255.0 / 4095).max() <= 0.51
    assert depth.find_depth([tmp_path / "ramp.pgm"]) is None
    cv2.imwrite(str(tmp_path / "deep.png"), make_ramp(16))
    with pytest.raises(Unusable, match="a value of 65535: more than the 12 bits"):
        decode(tmp_path / "deep.png", 10, 12)


def test_what_is_no_single_visible_picture_is_refused(tmp_path):
    pages = [Image.new("L", (9, 9), n) for n in (1, 2)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    Image.new("RGBA", (9, 9), (200, 100, 50, 0)).save(tmp_path / "glass.png")
    Image.fromarray(np.ones((9, 9), np.float32)).save(tmp_path / "float.tif")
    for name, reason in (
        ("pages.tif", "TIFF of 2 pictures"),
        ("glass.png", "transparent"),
        ("float.tif", "32 bits"),
    ):
        with pytest.raises(Unusable, match=reason):
            decode(tmp_path / name, 10)


def draw_deep_set(folder, n=6):
    """Draw eyes of 12 bits in files of 16, two patients' of which are dark."""
    rng = np.random.default_rng(0)
    for image in range(n):
        eye = synthetic_eye(rng, most=4000 if image else 900)
        (folder / "train").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(folder / "train" / f"{image // 2}_{'left' if image % 2 else 'right'}.png"), eye
        )
    lines = [f"{image // 2}_{'left' if image % 2 else 'right'},{image % 5}" for image in range(n)]
    write(folder / "trainLabels.csv", "\n".join(["image,level", *lines]) + "\n")
    return folder


def synthetic_eye(rng, most):
    down, across = np.mgrid[:80, :80] - 39.5
    is_inside = down**2 + across**2 < 36**2
    return (rng.uniform(0.4, 1, (80, 80)) * most * is_inside).astype(np.uint16)


def test_one_rule_for_a_set_of_12_bits_reaches_cache_and_making_and_other_bits_rebuild_it(
    tmp_path, capsys
):
    data = draw_deep_set(tmp_path / "data")
    cache = tmp_path / "cache"
    options = [
        f"--data={data}",
        f"--cache={cache}",
        *"--crop whole --size-px 48 --normalize none --jobs 1".split(),
    ]
    preprocess.main(options)
    assert "by the range of 12 bits, 0 to 4,095" in capsys.readouterr().out
    making = square.read_making(cache)
    assert making == Making("whole", 48, "none", 12)
    for name in ("0_right", "1_left"):
        path = data / "train" / f"{name}.png"
        kept = square.read_pixels(cache / "resize" / "train" / f"{name}.png", 48)
        assert np.array_equal(square.make_square(path, making).pixels, kept)
    assert (
        40 < square.read_pixels(cache / "resize" / "train" / "0_right.png", 48).max() < 70
    )  # dark, not black
    describe.main([f"--data={data}"])
    assert "by the range of 12 bits" in capsys.readouterr().out
    cv2.imwrite(str(data / "train" / "2_left.png"), make_ramp(16))
    preprocess.main(options)
    assert "bits changed from 12 to 16" in capsys.readouterr().out


def test_sets_of_8_bits_keep_the_parameters_that_they_had(finished_cache):
    assert "bits" not in manifest.read_manifest(finished_cache / "crop")["parameters"]
    assert square.read_making(finished_cache).bits is None
    assert "bits" not in square.read_making(finished_cache).describe()


# --- DICOM ------------------------------------------------------------------------------------------------------------


def make_dicom(path: Path, values: np.ndarray, interpretation="MONOCHROME2", bits=8, **tags):
    """Write a DICOM file of a picture."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    content = pydicom.dataset.Dataset()
    content.file_meta = meta
    content.Rows, content.Columns = (
        values.shape[-2:] if "NumberOfFrames" in tags else values.shape[:2]
    )
    content.SamplesPerPixel = 3 if values.ndim == 3 and "NumberOfFrames" not in tags else 1
    if content.SamplesPerPixel == 3:
        content.PlanarConfiguration = 0
    content.PhotometricInterpretation = interpretation
    content.BitsAllocated = 8 if values.dtype == np.uint8 else 16
    content.BitsStored = bits
    content.HighBit = bits - 1
    content.PixelRepresentation = 0
    for name, value in tags.items():
        setattr(content, name, value)
    content.PixelData = values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    content.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_a_dicom_ramp_is_scaled_by_bits_stored_and_monochrome1_inverted(tmp_path, interpretation):
    ramp = make_ramp(12)[..., 0]
    rgb, _ = decode(make_dicom(tmp_path / "IM0001", ramp, interpretation, 12), 10)
    exact = ramp * 255.0 / 4095
    if interpretation == "MONOCHROME1":
        exact = 255 - exact
    assert np.abs(rgb[..., 1] - exact).max() <= 0.5
    assert photograph.Photograph(tmp_path / "IM0001").size == (700, 40)


def test_a_window_of_a_dicom_file_is_looked_through(tmp_path):
    ramp = make_ramp(12)[..., 0]
    rgb, _ = decode(
        make_dicom(tmp_path / "a.dcm", ramp, bits=12, WindowCenter=1000, WindowWidth=200), 10
    )
    assert rgb[0, ramp[0] < 890].max() == 0 and rgb[0, ramp[0] > 1110].min() == 255
    assert 100 < rgb[0, np.abs(ramp[0].astype(int) - 1000).argmin(), 0] < 155
    line = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 0, "WindowWidth": 100}
    rgb, _ = decode(make_dicom(tmp_path / "b.dcm", ramp, bits=12, **line), 10)
    assert rgb[0, ramp[0] < 470].max() == 0 and rgb[0, ramp[0] > 530].min() == 255


def test_colours_and_palettes_of_dicom_files_are_read_and_frames_refused(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(decode(make_dicom(tmp_path / "rgb.dcm", rgb, "RGB"), 10)[0], rgb)
    ybr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    shown, _ = decode(make_dicom(tmp_path / "ybr.dcm", ybr, "YBR_FULL"), 10)
    assert np.abs(shown.astype(int) - rgb).max() <= 3
    table = np.arange(256, dtype=np.uint16) * 257
    colors = {
        f"{color}PaletteColorLookupTableDescriptor": [256, 0, 16]
        for color in ("Red", "Green", "Blue")
    }
    colors |= {
        "RedPaletteColorLookupTableData": table.tobytes(),
        "GreenPaletteColorLookupTableData": table[::-1].tobytes(),
        "BluePaletteColorLookupTableData": np.zeros(256, np.uint16).tobytes(),
    }
    indices = rgb[..., 0].copy()
    shown, _ = decode(make_dicom(tmp_path / "palette.dcm", indices, "PALETTE COLOR", **colors), 10)
    assert np.array_equal(shown, np.dstack([indices, 255 - indices, np.zeros_like(indices)]))
    frames = make_dicom(tmp_path / "film.dcm", np.zeros((3, 20, 30), np.uint8), NumberOfFrames=3)
    with pytest.raises(Unusable, match="DICOM of 3 frames"):
        decode(frames, 10)
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "rgb.dcm").read_bytes()[:-900])
    with pytest.raises(Unusable, match="DICOM"):
        decode(tmp_path / "cut.dcm", 10)


def test_patient_and_side_of_dicom_files_come_from_their_tags_and_are_never_printed(
    tmp_path, capsys
):
    rng = np.random.default_rng(1)
    for number in range(4):
        eye = synthetic_eye(rng, 4000)
        tags = {
            "PatientID": f"SECRET{number // 2}",
            "PatientName": "Doe^Jane",
            "StudyInstanceUID": f"1.2.3.{number}",
        }
        side = "LR"[number % 2]
        make_dicom(
            tmp_path / "pacs" / "ward" / f"IM{number}", eye, bits=12, ImageLaterality=side, **tags
        )
    write(
        tmp_path / "pacs" / "labels.csv",
        "image,grade\n" + "".join(f"IM{n},{n % 2}\n" for n in range(4)),
    )
    keys = 'kind = "levels"\nnames = ["no", "yes"]\nimage = "image"\ntarget = "grade"\n'
    write(
        tmp_path / "pacs" / "data.toml", f'{keys}[train]\ntable = "labels.csv"\nimages = "ward"\n'
    )
    describe.main([f"--data={tmp_path / 'pacs'}", f"--out={tmp_path / 'samples.csv'}"])
    shown = capsys.readouterr().out + (tmp_path / "samples.csv").read_text()
    assert "4 images of 2 patients; 2 left, 2 right" in shown
    assert "SECRET" not in shown and "Doe" not in shown and "1.2.3." not in shown
    preprocess.main(
        [
            f"--data={tmp_path / 'pacs'}",
            f"--cache={tmp_path / 'cache'}",
            *"--size-px 48 --crop whole --jobs 1".split(),
        ]
    )
    assert not read_reasons(tmp_path / "cache", "train")


def put_scans(folder, names):
    """Write a DICOM file of each name: two of each patient, left and right."""
    rng = np.random.default_rng(1)
    for number, name in enumerate(names):
        tags = {
            "PatientID": f"SECRET{number // 2}",
            "ImageLaterality": "LR"[number % 2],
            "StudyInstanceUID": f"1.2.3.{number}",
        }
        make_dicom(folder / name, synthetic_eye(rng, 4000), bits=12, **tags)


@pytest.mark.parametrize("kind", ["table", "table with patients", "classes", "findings"])
def test_the_tags_of_dicom_files_tell_in_every_reader_what_no_table_tells(tmp_path, kind):
    names = [f"IM{number}" for number in range(4)]
    if kind.startswith("table"):
        put_scans(tmp_path / "ward", names)  # without a suffix
        rows = ["image,level", *(f"{name},{n % 5}" for n, name in enumerate(names))]
        if "patients" in kind:
            rows = ["image,level,patient", *(f"{name},{n % 5},Eve" for n, name in enumerate(names))]
        write(tmp_path / "samples.csv", "\n".join(rows) + "\n")
    elif kind == "classes":  # as some archives name them, 1-1.dcm: no patient 1
        names = [f"train/CNV/1-{n}.dcm" for n in (1, 2)] + [f"train/DME/1-{n}.dcm" for n in (3, 4)]
        put_scans(tmp_path, names)
    else:
        put_scans(tmp_path / "images", [f"{name}.dcm" for name in names])
        rows = [f"{name}.dcm,{'Mass' if n else 'No Finding'},Eve" for n, name in enumerate(names)]
        header = "Image Index,Finding Labels,Patient ID"
        write(tmp_path / "Data_Entry_2017.csv", "\n".join([header, *rows]) + "\n")
    samples = readers.read_dataset(tmp_path).samples
    n_patients = 2
    if kind in ("table with patients", "findings"):
        n_patients = 1
        assert set(samples["patient"]) == {"Eve"}
    assert samples["patient"].nunique() == n_patients
    assert samples["side"].tolist() == ["left", "right"] * 2
    assert samples["acquisition"].nunique() == 4
    assert "SECRET" not in samples.to_csv() and "1.2.3." not in samples.to_csv()


def test_a_declared_patient_leaves_the_side_to_the_tags(tmp_path):
    put_scans(tmp_path / "ward", ["a", "b"])
    write(tmp_path / "labels.csv", "image,grade,who\na,0,Eve\nb,1,Eve\n")
    keys = 'kind = "levels"\nnames = ["no", "yes"]\nimage = "image"\ntarget = "grade"\npatient = "who"\n'
    write(tmp_path / "data.toml", f'{keys}[train]\ntable = "labels.csv"\nimages = "ward"\n')
    dataset = readers.read_dataset(tmp_path)
    assert dataset.find_subject("b") == ("Eve", "right")


def test_a_compression_without_its_decoder_names_the_package(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    if importlib.util.find_spec("libjpeg"):
        pytest.skip("the decoder is there")
    path = make_dicom(tmp_path / "a.dcm", np.zeros((9, 9), np.uint8))
    tags = pydicom.dcmread(path)
    tags.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    tags.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    tags.save_as(path)
    with pytest.raises(Unusable, match="Lossless.*; pip install pylibjpeg pylibjpeg-libjpeg"):
        decode(path, 10)


def test_a_real_dicom_file_is_read():
    data = pytest.importorskip("pydicom.data")
    path = Path(data.get_testdata_file("CT_small.dcm"))
    rgb, _ = decode(path, 10)
    tags = pytest.importorskip("pydicom").dcmread(path)
    hounsfield = tags.pixel_array * float(tags.RescaleSlope) + float(tags.RescaleIntercept)
    low = -(2**15) + float(tags.RescaleIntercept)  # it has 16 bits, signed, and no window
    assert rgb.shape == (128, 128, 3)
    assert np.abs(rgb[..., 0] - (hounsfield - low) * 255 / (2**16 - 1)).max() <= 0.5


def test_a_missing_library_is_one_line_with_the_command_that_installs_it(tmp_path, monkeypatch):
    path = make_dicom(tmp_path / "a.dcm", np.zeros((9, 9), np.uint8))
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(InputError, match=r"pip install -r .*dicom-requirements.txt"):
        decode(path, 10)
