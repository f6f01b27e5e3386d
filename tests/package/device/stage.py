"""Puts together what the checks in guest/ work on: a signed apt repository and the next one, signed models, settings.

    python -m tests.package.device.stage DEB FOLDER

FOLDER becomes /srv/test of the machine under test.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography import x509

from tests.fakes.pki import Ca
from tests.package.device.versions import make_versions

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[2]
THING = "press-17"
# Journal entries at level error that the checks themselves cause.
EXPECTED_ERRORS = (
    r"edge\.host\.watchdog: (the agent is stuck|threads): |Watchdog timeout|Killing process|Failed with result"
    r"|edge\.deploy\.note: .* not restored: the agent crashed twice"
    r"|edge\.deploy\.\w+: model division: |edge\.serving\.remarks: model division: "
    r"|edge\.rpc\.server: predict: the runtime fails on these inputs: "
)
# amd64 runs on the CPU itself, arm64 is emulated.
WATCHDOG_SECONDS = {"amd64": 6, "arm64": 30}
PATIENCE = {"amd64": 1.0, "arm64": 6.0}


def run(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def tool(*words: str | Path) -> str:
    """The packaging tool, from source."""
    return run(sys.executable, TOP / "agent.py", *words)


def field(deb: Path, name: str) -> str:
    return run("dpkg-deb", "--field", deb, name).strip()


def next_version(deb: Path, folder: Path) -> Path:
    """The same package under a higher version."""
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        run("dpkg-deb", "--raw-extract", deb, tree)
        control = tree / "DEBIAN/control"
        text = control.read_text()
        control.write_text(text.replace(f"Version: {field(deb, 'Version')}", f"Version: {field(deb, 'Version')}+next"))
        run("dpkg-deb", "--root-owner-group", "--build", "-Zgzip", "-z1", tree, folder)
    [made] = folder.glob("*+next_*.deb")
    return made


def make_pki(folder: Path) -> None:
    """Certificates of a device, of the IoT credentials endpoint and of a store that an own CA vouches for."""
    device = folder / "device"
    device.mkdir(parents=True)
    device_ca, store_ca, iot_ca = Ca(folder, "device-ca"), Ca(folder, "store-ca"), Ca(device, "iot-ca")
    for identity, place in (
        (device_ca.issue(THING), device / "device"),
        (iot_ca.issue("server", host="localhost"), folder / "server"),
        (store_ca.issue("store", host="localhost"), folder / "store"),
    ):
        identity.certificate_file.rename(f"{place}.cert.pem")
        identity.key_file.rename(f"{place}.key.pem")
    # The name by which OpenSSL finds a CA in a folder.
    (folder / "store-ca.name").write_text(
        run("openssl", "x509", "-subject_hash", "-noout", "-in", store_ca.file).strip() + ".0"
    )


def main() -> int:
    deb, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    repository = TOP / "packaging/debian/repository.sh"
    run(repository, folder / "repository", deb)
    with tempfile.TemporaryDirectory() as temporary:
        run(repository, folder / "repository-next", deb, next_version(deb, Path(temporary)))
        (folder / "packages").mkdir()
        stranger = Path(temporary) / "stranger"
        run("env", f"EDGE_APT_HOME={stranger}", repository, Path(temporary) / "other", deb)
        shutil.copy(Path(temporary) / "other/dists/stable/InRelease", folder / "InRelease-of-another-key")
        ca = Path(temporary) / "ca"
        tool("demo-ca", ca)
        shutil.copytree(ca / "roots", folder / "roots")
        for name, model in (("digits", TOP / "demo/data/digits.tflite"), ("slow", TOP / "tests/data/slow.tflite")):
            words = ("--model", model, "--name", name, "--version", "1.0", "--key", ca / "signing.key")
            tool("package", *words, "--cert", ca / "signing.pem", "--out", folder / "packages" / name)
        refused = make_versions(folder, ca, field(deb, "Architecture"))
        signer = x509.load_pem_x509_certificate((ca / "signing.pem").read_bytes())
    shutil.copy(TOP / "demo/data/pictures/7_a.bmp", folder / "seven.bmp")
    shutil.copytree(HERE / "guest", folder / "guest", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOP / "tests/fakes/web.py", folder / "guest")
    make_pki(folder / "pki")
    architecture = field(deb, "Architecture")
    settings = {
        "architecture": architecture,
        "version": field(deb, "Version"),
        "next": field(deb, "Version") + "+next",
        "program_version": field(deb, "Version"),
        "watchdog_seconds": WATCHDOG_SECONDS[architecture],
        "patience": PATIENCE[architecture],
        "input": "image",
        "thing": THING,
        # Of ten probabilities the one of the 7 is the largest: as `predict` shows it, and as the original's words do.
        "answer": r"\s7\s+9\d\.\d+%|(\S+ ){7}0\.9\d+ ",
        "expected_errors": EXPECTED_ERRORS,
        "refused": refused,
        "signer_expires": signer.not_valid_after_utc.timestamp(),
    }
    (folder / "settings.json").write_text(json.dumps(settings, indent=1))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return 0


if __name__ == "__main__":
    sys.exit(main())
