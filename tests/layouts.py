"""The field's data sets, drawn small in the shape that each is downloaded in, with its traps."""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

SIDE_PX = 48
FINDINGS = "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia"
MORE_FINDINGS = "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"


def put(path: Path, seed: int = 0) -> Path:
    """Draw a bright disc of noise, whatever format its suffix asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *path.name.encode()])
    down, across = np.mgrid[:SIDE_PX, :SIDE_PX] - SIDE_PX / 2 + 0.5
    is_inside = down**2 + across**2 < (0.45 * SIDE_PX) ** 2
    pixels = rng.integers(90, 200, (SIDE_PX, SIDE_PX, 3)) * is_inside[..., None]
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def draw_aptos(folder: Path) -> None:
    train = [f"{n:012x}" for n in range(0xA1B2, 0xA1B2 + 10)]
    test = [f"{n:012x}" for n in range(0xF00, 0xF04)]
    for image in train:
        put(folder / "train_images" / f"{image}.png")
    for image in test:
        put(folder / "test_images" / f"{image}.png")
    write(
        folder / "train.csv",
        "id_code,diagnosis\n" + "".join(f"{image},{n % 5}\n" for n, image in enumerate(train)),
    )
    write(folder / "test.csv", "id_code\n" + "".join(f"{image}\n" for image in test))
    sample = "".join(f"{image},0\n" for image in reversed(test))
    write(folder / "sample_submission.csv", f"id_code,diagnosis\n{sample}")


def draw_aptos_224(folder: Path) -> None:
    top = folder / "gaussian_filtered_images" / "gaussian_filtered_images"
    lines = ["id_code,diagnosis"]
    for level, word in enumerate(("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR")):
        for n in range(2):
            put(top / word / f"{level}{n}abc.png")
            lines.append(f"{level}{n}abc,{level}")
    write(folder / "train.csv", "\n".join(lines) + "\n")
    write(top / "export.pkl", "of a notebook")


def draw_idrid(folder: Path, parts: str = "ab") -> None:
    room = folder / "B. Disease Grading"
    for letter, name, n in (("a", "Training", 6), ("b", "Testing", 3)):
        if letter not in parts:
            continue
        lines = ["Image name,Retinopathy grade,Risk of macular edema ,,,,,,,,,"]
        for number in range(1, n + 1):
            put(
                room / "1. Original Images" / f"{letter}. {name} Set" / f"IDRiD_{number:03}.jpg",
                seed=ord(letter),
            )
            lines.append(f"IDRiD_{number:03},{number % 5},{number % 3},,,,,,,,,")
        path = room / "2. Groundtruths" / f"{letter}. IDRiD_Disease Grading_{name} Labels.csv"
        write(path, "\r\n".join(lines) + "\r\n")


def draw_messidor2(folder: Path) -> None:
    header = "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable\n"
    rows = "20051020_43808_0100_PP.png,2,1,1\nIM000161.jpg,0,0,1\n20051020_43832_0100_PP.png,,,0\nIM000175.tif,4,0,1\n"
    write(folder / "messidor_data.csv", header + rows)
    write(
        folder / "messidor-2.csv",
        "left;right\n20051020_43808_0100_PP.png;20051020_43832_0100_PP.png\n",
    )
    for name in (
        "20051020_43808_0100_PP.png",
        "IM000161.JPG",
        "20051020_43832_0100_PP.png",
        "IM000175.tif",
    ):
        put(folder / "IMAGES" / name)


def draw_ddr(folder: Path) -> None:
    for name, n in (("train", 7), ("valid", 3), ("test", 3)):
        lines = []
        for number in range(n):
            image = f"007-{len(name):04}-{number:03}.jpg"
            put(folder / name / image)
            lines.append(f"{image} {5 if number == n - 1 else number % 5}")
        write(folder / f"{name}.txt", "\n".join(lines) + "\n")


def draw_eyepacs_resized(folder: Path) -> None:
    lines = [",Unnamed: 0,image,level"]
    for patient in (10, 13, 15):
        for side in ("left", "right"):
            put(
                folder
                / "resized_train_cropped"
                / "resized_train_cropped"
                / f"{patient}_{side}.jpeg"
            )
            lines.append(f"{len(lines) - 1},{len(lines)},{patient}_{side},{patient % 5}")
    write(folder / "trainLabels_cropped.csv", "\n".join(lines) + "\n")


def draw_levels_in_folders(folder: Path) -> None:
    for part, patients in (("train", (1, 2, 3, 4, 5)), ("val", (6, 7)), ("test", (8,))):
        for patient in patients:
            for side in ("left", "right"):
                put(folder / part / str(patient % 5) / f"{patient}_{side}.png")


def draw_odir(folder: Path) -> None:
    header = (
        "ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,Left-Diagnostic Keywords,Right-Diagnostic Keywords,"
        "N,D,G,C,A,H,M,O,filepath,labels,target,filename\n"
    )
    rows = []
    for patient in range(3):
        for side in ("right", "left"):
            name = f"{patient}_{side}.jpg"
            fundus = f"{patient}_left.jpg,{patient}_right.jpg,cataract,normal fundus"
            marks = "0,0,0,1,0,0,0,0" if patient == 1 else "1,0,0,0,0,0,0,0"
            rows.append(
                f"""{patient},6{patient},Female,{fundus},{marks},../{name},"['N']","[1, 0]",{name}\n"""
            )
            put(folder / "preprocessed_images" / name)
            put(folder / "ODIR-5K" / "ODIR-5K" / "Training Images" / name)
    write(folder / "full_df.csv", header + "".join(rows))


def draw_odir_patients(folder: Path) -> None:
    """Draw ODIR's own sheet, a row per patient; it needs openpyxl, so it is not in DRAWN."""
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["ID", "Patient Age", "Left-Fundus", "Right-Fundus", *"NDGCAHMO"])
    book.active.append([7, 61.0, "7_left.jpg", "7_right.jpg", 0, 1, 0, 0, 0, 0, 0, 0])
    book.active.append([8, 60, "8_left.jpg", "8_right.jpg", 1, 0, 0, 0, 0, 0, 0, 0])
    folder.mkdir(parents=True, exist_ok=True)
    book.save(folder / "ODIR-5K_Training_Annotations(Updated)_V2.xlsx")
    for name in ("7_left", "7_right", "8_left", "8_right"):
        put(folder / "ODIR-5K_Training_Dataset" / f"{name}.jpg")


def draw_rfmid(folder: Path) -> None:
    for name, images, n in (
        ("Training", "Training", 4),
        ("Validation", "Validation", 2),
        ("Testing", "Test", 2),
    ):
        lines = ["ID,Disease_Risk,DR,ARMD,MH"]
        for number in range(1, n + 1):
            put(folder / images / f"{number}.png", seed=len(images))
            lines.append(f"{number},1,{number % 2},{int(number == 2)},0")
        write(folder / f"RFMiD_{name}_Labels.csv", "\n".join(lines) + "\n", "utf-8-sig")


def draw_brset(folder: Path) -> None:
    lines = ["image_id,patient_id,patient_age,exam_eye,DR_ICDR,quality,camera"]
    for number in range(1, 7):
        put(folder / f"img{number:05}.jpg")
        lines.append(
            f"img{number:05},{(number + 1) // 2},5{number},{2 - number % 2},{number % 5},Adequate,Canon CR"
        )
    write(folder / "labels.csv", "\n".join(lines) + "\n")


def draw_deepdrid(folder: Path) -> None:
    top = folder / "regular_fundus_images"
    header = "patient_id,image_id,image_path,Overall quality,left_eye_DR_Level,right_eye_DR_Level,patient_DR_Level"
    for part, patients in (("training", (1, 2, 265)), ("validation", (300,))):
        lines = [header]
        for patient in patients:
            for side in "lr":
                for number in (1, 2):
                    image = f"{patient}_{side}{number}"
                    levels = f"{patient % 5}," if side == "l" else ",5"
                    lines.append(
                        f"{patient},{image},\\{patient}\\{image}.jpg,1,{levels},{patient % 5}"
                    )
                    put(top / f"regular-fundus-{part}" / "Images" / str(patient) / f"{image}.jpg")
        write(
            top / f"regular-fundus-{part}" / f"regular-fundus-{part}.csv", "\n".join(lines) + "\n"
        )


def draw_chexpert(folder: Path) -> None:
    top = folder / "CheXpert-v1.0-small"
    header = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{FINDINGS},{MORE_FINDINGS}\n"
    healthy = "1.0" + "," * 13
    ill = ",,1.0,-1.0,,0.0" + "," * 8
    rows = {
        "train/patient00001/study1/view1_frontal.jpg": f"Female,68,Frontal,AP,{healthy}",
        "train/patient00002/study1/view1_frontal.jpg": f"Male,60,Frontal,PA,{ill}",
        "train/patient00002/study1/view2_lateral.jpg": f"Male,60,Lateral,,{ill}",
        "train/patient00003/study1/view1_frontal.jpg": f"Male,41,Frontal,AP,{ill}",
    }
    valid = {"valid/patient64541/study1/view1_frontal.jpg": f"Male,73,Frontal,AP,{ill}"}
    for name, part in (("train.csv", rows), ("valid.csv", valid)):
        for path in part:
            put(top / path)
        write(
            top / name,
            header + "".join(f"CheXpert-v1.0-small/{path},{text}\n" for path, text in part.items()),
        )


DRAWN = {
    "aptos": draw_aptos,
    "aptos-224": draw_aptos_224,
    "idrid": draw_idrid,
    "messidor2": draw_messidor2,
    "ddr": draw_ddr,
    "eyepacs-resized": draw_eyepacs_resized,
    "levels-in-folders": draw_levels_in_folders,
    "odir": draw_odir,
    "rfmid": draw_rfmid,
    "brset": draw_brset,
    "deepdrid": draw_deepdrid,
    "chexpert": draw_chexpert,
}


def compress(path: Path) -> None:
    """Gzip a table in its place."""
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
