"""Draw docs/images/report.png, the first screen of a report's page:  python docs/draw_report.py.

Needs WeasyPrint and pypdfium2, which nothing else of the project does. The report is one on a logistic
regression on principal components of Rotated MNIST, which the package ships.
"""

import warnings
from pathlib import Path

import numpy as np
import pypdfium2
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from weasyprint import CSS, HTML

import hessalign as ha
from hessalign.datasets import make_dataset
from hessalign.diagnostics.page import page
from hessalign.exceptions import UntrustworthyWarning

IMAGE = Path(__file__).parent / "images" / "report.png"
SAMPLES = 400
WIDTH, HEIGHT = 1150, 1500
LENGTH = 4000
"""Of the sheet: long enough that nothing within the image is moved to the next one."""


def rotated_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, digits and angles."""
    dataset = make_dataset("rotated_mnist", None)
    pixels, digits, angles = [], [], []
    for domain in dataset.domains:
        rows = range(SAMPLES)
        pixels += [domain.plain[row][0].flatten() for row in rows]
        digits.append(domain.targets[:SAMPLES])
        angles += [f"{domain.name}°"] * SAMPLES
    return torch.stack(pixels).numpy(), torch.cat(digits).numpy(), np.array(angles)


def fitted(pixels: np.ndarray, digits: np.ndarray) -> Pipeline:
    """The head on 20 principal components."""
    return make_pipeline(PCA(20), StandardScaler(), LogisticRegression()).fit(pixels, digits)


def draw() -> None:
    """Write the image."""
    pixels, digits, angles = rotated_digits()
    warnings.simplefilter("ignore", UntrustworthyWarning)  # what it says stands in the image
    seen = (angles != "75°") & (angles != "0°")
    report = ha.alignment_report(fitted(pixels[seen], digits[seen]), pixels, digits, angles)
    sheet = CSS(
        string=f"@page {{ size: {WIDTH}px {LENGTH}px; margin: 12px }} body {{ margin: 0; max-width: none }}"
    )
    document = HTML(string=page({"": report}), media_type="screen").write_pdf(stylesheets=[sheet])
    image = pypdfium2.PdfDocument(document)[0].render(scale=96 / 72).to_pil().convert("RGB")
    image = image.crop((0, 0, WIDTH, HEIGHT))
    few_colours = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few_colours.save(IMAGE, optimize=True)


if __name__ == "__main__":
    draw()
