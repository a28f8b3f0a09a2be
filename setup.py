"""Packaging of domainbed_adm; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "domainbed_adm/__init__.py").read_text(encoding="utf-8"))[1]

setup(
    name="domainbed-adm",
    version=VERSION,
    description="Adversarial-difficulty curricula and flatness-aware training for DomainBed",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the domainbed_adm authors",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[*find_packages(include=["domainbed_adm", "domainbed_adm.*"]), "domainbed_adm.named_sweeps"],
    # The named sweeps are data at the top of the repository; installed, they lie inside the package.
    package_dir={"domainbed_adm.named_sweeps": "sweeps"},
    package_data={
        "domainbed_adm": ["py.typed"],
        "domainbed_adm.datasets.classification": ["checksums.yaml"],
        "domainbed_adm.datasets.downloading": ["mirrors.yaml"],
        "domainbed_adm.leaderboard": ["*.yaml"],
        "domainbed_adm.report": ["*.j2", "*.css", "*.js"],
        "domainbed_adm.named_sweeps": ["*.yaml", "README.md"],
    },
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "numpy>=1.26",
        "scipy>=1.15",
        "scikit-learn>=1.4",
        "pillow>=10.0",
        "rich>=13.7",
        "jinja2>=3.1",
        "msgspec>=0.19",
        "pyyaml>=6.0",
        "filelock>=3.21.2",
        "gdown>=6.5",
    ],
    # What each is for; imported only where it is used. make test-oldest installs the lower bounds of [dev].
    extras_require={
        # --hparams '{"backbone": ...}': timm's networks; older ones read no weights by a huggingface_hub above 1
        "backbones": ["timm>=1.0.22"],
        "completion": ["shtab>=1.7.2"],  # the command completion
        "docs": ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],  # make docs
        "examples": ["matplotlib>=3.8", "nbclient>=0.10", "ipykernel>=6.29", "lightning>=2.4"],  # examples/
        "export": ["onnx>=1.17", "onnxscript>=0.3", "onnxruntime>=1.20", "safetensors>=0.4.3"],  # the command export
        "figures": ["matplotlib>=3.8"],  # report, analyze and the dataset Letters
        "mlflow": ["mlflow>=2.14"],  # --logger mlflow
        "pandas": ["pandas>=2.0"],  # load_runs(folder).to_frame()
        "ray": ["ray>=2.40"],  # sweep launch --command_launcher ray
        "search": ["optuna>=4.2"],  # the command search
        "tensorboard": ["tensorboard>=2.16.2"],
        "wandb": ["wandb>=0.19"],  # --logger wandb
        # What DomainBed b93c22a imports beyond the above; its own pins of 2022 do not install on today's Python.
        "upstream": [
            "timm>=0.9.16",
            "wilds>=2.0",
            "backpack-for-pytorch>=1.6",
            "gdown",
            "imageio",
            "parameterized",
            "tqdm",
        ],
        "dev": [
            "pytest>=8.0,<9.2",  # xdist 3.8 cannot group the tests of 9.2: each worker makes what a group shares
            "setuptools>=70.1",
            "pytest-xdist>=3.5",
            "hypothesis>=6.0",
            "ruff>=0.6",
            "mypy>=1.11",
            "types-PyYAML>=6.0",
            "matplotlib>=3.8",
            "tensorboard>=2.16.2",
            "curvlinops-for-pytorch>=2.0",
            "timm>=1.0.22",
            "selenium>=4.20",
            "axe-playwright-python>=0.1.4",  # for the axe-core that lies in it
            "pandas>=2.0",
            "optuna>=4.2",
            "onnx>=1.17",
            "onnxscript>=0.3",
            "onnxruntime>=1.20",
            "safetensors>=0.4.3",
            "nbclient>=0.10",
            "ipykernel>=6.29",
            "shtab>=1.7.2",
            # without Ray, which has no build for a newer Python, its tests are skipped
            "ray>=2.40; python_version < '3.15'",
        ],
    },
    entry_points={"console_scripts": ["domainbed-adm = domainbed_adm.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: MIT License",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
