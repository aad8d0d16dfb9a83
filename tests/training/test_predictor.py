"""Which images a trained model is asked about."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hessalign.backbones import BackboneSpec
from hessalign.exceptions import HessalignWarning
from hessalign.training import image_paths, predict
from hessalign.training.spec import CheckpointMetadata, build_algorithm
from tests.datasets.images import write_image
from tests.training.tiny_domains import tiny_spec


def test_folders_are_searched_as_datasets_are(tmp_path: Path) -> None:
    names = ["b/1.GIF", "a.jfif", "b/0.png", ".hidden/0.png", "b/.0.png", "c/d/0.JPG"]
    for name in names:
        write_image(tmp_path / "photos" / name)
    write_image(tmp_path / "elsewhere" / "0.png")
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "b" / "notes.txt").write_text("notes")
    with pytest.warns(HessalignWarning, match=r"images: files are left out: 1 \.txt"):
        found = image_paths([tmp_path / "photos", tmp_path / "photos" / "b" / "notes.txt"])
    told = [str(path.relative_to(tmp_path / "photos")) for path in found]
    assert told == ["a.jfif", "b/0.png", "b/1.GIF", "c/d/0.JPG", "link/0.png", "b/notes.txt"]


def test_what_is_not_there_or_there_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"images: there is none in .*empty"):
        image_paths([tmp_path / "empty"])
    with pytest.raises(ValueError, match=r"images: there is no file or folder .*nowhere"):
        image_paths([tmp_path / "nowhere"])
    write_image(tmp_path / "photos" / "0.png")
    (tmp_path / "photos" / "up").symlink_to("..")
    with pytest.raises(ValueError, match="up leads to the same folder as"):
        image_paths([tmp_path / "photos"])


def test_predict_sees_what_training_sees(tmp_path: Path) -> None:
    """A 16-bit image, one on transparent ground, and a name that is not UTF-8."""
    backbone = BackboneSpec(name="timm:test_efficientnet")
    hparams = {"lr": 1e-3, "batch_size": 2}
    spec = tiny_spec(algorithm="erm", backbone=backbone, hparams=hparams)
    shape = (3, 224, 224)
    about = CheckpointMetadata(run=spec, class_names=("x", "y"), input_shape=shape, source_domains=2)
    torch.manual_seed(0)
    algorithm = build_algorithm(spec, shape, 2, 2).eval()
    ramp = np.tile(np.linspace(0, 255, 224).astype(np.uint8), (224, 1))
    paths = [tmp_path / name for name in ("8.png", "16.png", os.fsdecode(b"caf\xe9.png"))]
    Image.fromarray(ramp).save(paths[0])
    Image.fromarray(ramp.astype(np.uint16) * 257).save(paths[1])
    black = np.zeros_like(ramp)
    Image.fromarray(np.dstack([black, black, black, 255 - ramp])).save(paths[2])
    found = list(predict(algorithm, about, paths))
    assert found[2].path == str(tmp_path / r"caf\xe9.png")
    assert len({round(prediction.probability, 4) for prediction in found}) == 1
