"""Signs the digits model for the layer's demo package, where the model has changed since it was last signed.

    python -m yocto.demo_package

The root and the signing key are made for this one signature and the keys are thrown away, so nobody can sign anything else
that a device with this root would load. The certificates outlive every release that the package is in.
"""

import datetime
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from edge.package.identity import make_demo_ca

TOP = Path(__file__).resolve().parent.parent
MODEL = TOP / "demo/data/digits.tflite"
FILES = TOP / "yocto/meta-sagemaker-edge-agent/recipes-edge/sagemaker-edge-agent-demo/files"
PACKAGE, ROOT = FILES / "digits.tar.gz", FILES / "demo-root.pem"
DAYS = 20 * 365


def is_up_to_date() -> bool:
    if not (PACKAGE.is_file() and ROOT.is_file()):
        return False
    with tarfile.open(PACKAGE) as archive:
        models = [archive.extractfile(member) for member in archive if Path(member.name).name == MODEL.name]
        return [model.read() for model in models if model] == [MODEL.read_bytes()]


def sign() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = make_demo_ca(Path(folder) / "ca", datetime.datetime.now(datetime.UTC), DAYS)
        package = Path(folder) / PACKAGE.name
        words = ["--model", MODEL, "--name", "digits", "--version", "1.0", "--out", package]
        command = [sys.executable, TOP / "agent.py", "package", "--key", made.key, "--cert", made.certificate, *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        shutil.copyfile(package, PACKAGE)
        shutil.copyfile(made.roots / ROOT.name, ROOT)


if __name__ == "__main__":
    if not is_up_to_date():
        sign()
