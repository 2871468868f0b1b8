"""The paper's own numbers (arXiv 2012.04567v1, Tables 1, 3 and 4), on its data, for methods that cannot be run here.

Its weights and data sets (FFHQ, MIMIC III, a collection of brain scans at 256 x 256), and those of SRFBN and
SN-PatchGAN, are not to be had from a package registry.
"""

from __future__ import annotations

METHODS = ("BRGM", "PULSE", "ESRGAN", "SRFBN")
MARK = "as printed in the paper"

SUPER_RESOLUTION: dict[str, dict[str, tuple[float, float]]] = {
    "FFHQ 16²": {"BRGM": (0.24, 25.66), "PULSE": (0.29, 27.14), "ESRGAN": (0.35, 29.32), "SRFBN": (0.33, 22.07)},
    "FFHQ 32²": {"BRGM": (0.30, 18.93), "PULSE": (0.48, 42.97), "ESRGAN": (0.29, 23.02), "SRFBN": (0.23, 12.73)},
    "FFHQ 64²": {"BRGM": (0.36, 16.07), "PULSE": (0.53, 41.31), "ESRGAN": (0.26, 18.37), "SRFBN": (0.23, 9.40)},
    "FFHQ 128²": {"BRGM": (0.34, 15.84), "PULSE": (0.57, 34.89), "ESRGAN": (0.15, 15.84), "SRFBN": (0.09, 7.55)},
    "X-ray 16²": {"BRGM": (0.18, 11.61), "ESRGAN": (0.32, 14.67), "SRFBN": (0.37, 12.28)},
    "X-ray 32²": {"BRGM": (0.23, 10.47), "ESRGAN": (0.32, 12.56), "SRFBN": (0.21, 6.84)},
    "X-ray 64²": {"BRGM": (0.31, 10.58), "ESRGAN": (0.30, 8.67), "SRFBN": (0.22, 5.32)},
    "X-ray 128²": {"BRGM": (0.27, 10.53), "ESRGAN": (0.20, 7.19), "SRFBN": (0.07, 4.33)},
    "Brains 16²": {"BRGM": (0.12, 12.42), "ESRGAN": (0.34, 22.81), "SRFBN": (0.33, 12.57)},
    "Brains 32²": {"BRGM": (0.17, 11.08), "ESRGAN": (0.31, 14.16), "SRFBN": (0.18, 6.80)},
}
"""Table 1: LPIPS and RMSE by the size of the input, 100 images each."""

PIXELWISE: dict[str, dict[str, tuple[float, float, float]]] = {
    "X-ray 16²": {"BRGM": (27.14, 0.91, 7.45), "ESRGAN": (25.17, 0.87, 10.14), "SRFBN": (26.88, 0.92, 7.63)},
    "X-ray 32²": {"BRGM": (27.84, 0.84, 6.77), "ESRGAN": (26.44, 0.81, 8.36), "SRFBN": (31.80, 0.95, 3.71)},
    "Brains 16²": {"BRGM": (26.33, 0.84, 7.29), "ESRGAN": (21.06, 0.60, 14.27), "SRFBN": (26.21, 0.77, 8.62)},
    "Brains 32²": {"BRGM": (27.30, 0.81, 6.54), "ESRGAN": (25.23, 0.78, 8.35), "SRFBN": (31.60, 0.93, 3.86)},
}
"""Table 4: PSNR, SSIM and MAE; its rows for the data of which there are rows here."""

INPAINTING: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "FFHQ": {"BRGM": (0.19, 24.28, 21.33, 0.84), "SN-PatchGAN": (0.24, 30.75, 19.67, 0.82)},
    "X-ray": {"BRGM": (0.13, 13.55, 27.47, 0.91), "SN-PatchGAN": (0.20, 27.80, 22.02, 0.86)},
    "Brains": {"BRGM": (0.09, 8.65, 30.94, 0.88), "SN-PatchGAN": (0.22, 24.74, 21.47, 0.75)},
}
"""Table 3: LPIPS, RMSE, PSNR and SSIM, seven masks in turn on 100 images."""
