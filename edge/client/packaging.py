"""The packaging tool: make, sign and verify model packages, and a throw-away CA for trying things out (S-7)."""

import argparse
import datetime
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.client import SUMMARIES
from edge.client.numbers import count, tolerance
from edge.client.outcome import Exit
from edge.errors import EdgeError, PackageNotFoundError, SignatureError, TrustError
from edge.text import counted, printable

TRUST_FOLDER = Path("/etc/sagemaker-edge-agent/trust")

_PACKAGE_EPILOG = """\
The package contains the model, a manifest, any --extra files, and model.sig: a signature over exactly these, in the format
of OpenSSF Model Signing. An agent loads it if the root of your certificate is in its folder of trusted roots
(sagemaker_edge_core_root_certs_path). There is no way to load an unsigned package.

--selftest CASES: each .npz file is a case, with an array for each input and, where known, for each output; for a model with one
input, a .npy file is a case too. The model is run on them here: given outputs are compared, missing ones are recorded. An agent that
loads the package runs the cases before the model serves. Integers must be equal, floats nearly (--selftest-tolerance).

The certificate must be for signing code: keyUsage digitalSignature, extendedKeyUsage codeSigning, issued by a CA. Its key
is ECDSA (P-256, P-384, P-521) or RSA of 3072 bits or more. demo-ca makes one for trying things out.

examples:
  %(prog)s --model digits.tflite --name digits --version 1.0 \\
      --key signing.key --cert signing.pem --out digits-1.0.tar.gz
  %(prog)s --model digits.tflite --name digits --version 1.0 \\
      --key signing.key --cert signing.pem --chain intermediate.pem --out /data/digits-1.0

The same with the public tool, over a folder that holds the model and its manifest:
  model_signing sign certificate FOLDER --signature FOLDER/model.sig \\
      --private_key signing.key --signing_certificate signing.pem --certificate_chain root.pem
"""
_VERIFY_EPILOG = """\
Checks what an agent checks when it loads the package: the signature, the path from the signer to a trusted root, and that
the files are exactly the signed ones. A clock that is not synchronised is not trusted: validity is then judged as of the
agent's build date or the start of the signer's certificate, and the output says so. --run also tries the model out in a process
of its own, and runs the package's self-test.

exit codes: 0 the package is good; 1 it was refused, and why is printed; 2 there is no such package.

The same with the public tool, for a package that is a folder:
  model_signing verify certificate FOLDER --signature FOLDER/model.sig --certificate_chain root.pem
"""
_DEMO_EPILOG = """\
Makes DIR/signing.key and DIR/signing.pem to sign with, and DIR/roots, a folder of trusted roots for the agent
(sagemaker_edge_core_root_certs_path). The names in the certificates begin with DEMO, they expire after a year, and the CA's
own key is not kept. Never put this root on a board in the field: whoever has signing.key can run models there.
"""


def add_parsers(commands: Any) -> None:
    """Add the commands `package`, `verify` and `demo-ca`; each is run by its `run` default and returns an exit code."""
    _add_package(commands)
    one = _add(commands, "verify", _verify, _VERIFY_EPILOG)
    one.add_argument("package", help="a folder, a .tar.gz, or a file:// url of one")
    one.add_argument(
        "--run", dest="try_out", action="store_true", help="also run the model here, and its self-test if it has one"
    )
    one.add_argument(
        "--trust",
        type=Path,
        default=TRUST_FOLDER,
        metavar="DIR",
        help=f"folder of trusted roots, *.pem ({TRUST_FOLDER})",
    )
    one = _add(commands, "demo-ca", _demo_ca, _DEMO_EPILOG)
    one.add_argument("folder", type=Path, metavar="DIR", help="a new folder")


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], int], epilog: str) -> Any:
    text = SUMMARIES[name]
    parser = commands.add_parser(
        name,
        description=text[:1].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object instead of text"
    )

    def reported(options: argparse.Namespace) -> int:
        try:
            return run(options)
        except EdgeError as error:
            text = str(error)
            if name == "verify" and isinstance(error, TrustError):
                text += f" (the trusted roots are those in {options.trust}; --trust DIR names another folder)"
            if options.json:
                print(json.dumps({"ok": False, "error": text, "kind": type(error).__name__}))
            else:
                print(f"{parser.prog}: {text}", file=sys.stderr)
            refused = name == "verify" and not isinstance(error, PackageNotFoundError)
            return Exit.REFUSED if refused or isinstance(error, SignatureError | TrustError) else Exit.USAGE

    parser.set_defaults(run=reported)
    return parser


def _add_package(commands: Any) -> None:
    one = _add(commands, "package", _package, _PACKAGE_EPILOG)
    one.add_argument("--model", type=Path, required=True, metavar="FILE", help="the model, a .tflite file")
    one.add_argument("--name", required=True, help="the model's name, which appears in captures")
    one.add_argument(
        "--version",
        required=True,
        help="the model's version, such as 1.0; use a whole number, such as 1, if applications parse it as one",
    )
    one.add_argument("--key", type=Path, required=True, metavar="FILE", help="the signer's private key (PEM)")
    one.add_argument(
        "--key-password-file", type=Path, metavar="FILE", help="a file whose first line is the key's password"
    )
    one.add_argument("--cert", type=Path, required=True, metavar="FILE", help="the signer's certificate (PEM)")
    one.add_argument(
        "--chain", type=Path, metavar="FILE", help="intermediate CAs between the certificate and the root (PEM), if any"
    )
    one.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="the package: a new folder, or a new file if PATH ends in .tar.gz",
    )
    one.add_argument("--arch", default="any", help="the machine it is for, as `uname -m` prints it there (any)")
    one.add_argument("--threads", type=count, metavar="N", help="threads for one inference (the agent decides)")
    one.add_argument("--instances", type=count, metavar="N", help="inferences at the same time (the agent decides)")
    one.add_argument("--delegate", metavar="PATH", help="path of a delegate library on the device")
    one.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu", help="what runs the model (cpu)")
    one.add_argument(
        "--precision",
        choices=("float32", "float16"),
        default="float32",
        help="precision of the GPU's calculations (float32)",
    )
    one.add_argument(
        "--no-fallback",
        action="store_true",
        help="refuse to load the model if the GPU cannot run it, instead of using the CPU",
    )
    one.add_argument("--signature", metavar="KEY", help="which of the model's signatures to call, if it has several")
    one.add_argument(
        "--names",
        choices=("tensor", "signature"),
        default="tensor",
        help="names of inputs and outputs: those of the tensors (the default), or of the signature",
    )
    one.add_argument(
        "--state",
        choices=("none", "keep"),
        default="none",
        help="keep: the model's state lives from call to call, in one instance; none (the default): every call starts fresh",
    )
    one.add_argument(
        "--sample",
        nargs="+",
        default=[],
        metavar="SAMPLE",
        help="inputs that the model is tried on when it is loaded: an .npz with an array for each, or shapes, INPUT=1,224,224,3",
    )
    one.add_argument(
        "--trial-seconds",
        type=count,
        metavar="N",
        help="the longest that an inference of the trial may take, in seconds (10)",
    )
    one.add_argument(
        "--adapter",
        type=Path,
        metavar="FILE",
        help="a JSON file of the inputs and outputs that applications written for another model see (docs/spec/package-format.md)",
    )
    one.add_argument(
        "--check",
        action="store_true",
        help="first start an agent and compare its answers, on inputs of the sample's shapes, with the bare engine's, byte by byte",
    )
    one.add_argument(
        "--selftest",
        type=Path,
        metavar="CASES",
        help="inputs and the outputs that the model must give for them: a folder of .npz and .npy files, or one file; see below",
    )
    one.add_argument(
        "--selftest-tolerance",
        type=tolerance,
        nargs=2,
        metavar=("ABSOLUTE", "RELATIVE"),
        help="how far an output's elements may be off: ABSOLUTE + RELATIVE * the expected value",
    )
    one.add_argument(
        "--extra", type=Path, nargs="+", action="extend", default=[], metavar="FILE", help="other files to include"
    )


def _say(options: argparse.Namespace, facts: dict[str, Any], text: str) -> int:
    print(json.dumps({"ok": True, **facts}) if options.json else text)
    return Exit.OK


def _package(options: argparse.Namespace) -> int:
    from edge.client.model_checks import adapter_of, check_model, check_signature, check_tensors
    from edge.package.certificates import subject
    from edge.package.identity import load_identity
    from edge.package.making import make_package
    from edge.package.manifest import DEFAULT_TRIAL_SECONDS, Manifest

    _check_files(options)
    check_signature(options.model, options.signature)
    sample, files = _sample(options.sample)
    inputs, outputs = adapter_of(options.adapter)
    manifest = Manifest(
        model_name=options.name,
        model_version=options.version,
        model=options.model.name,
        arch=options.arch,
        delegate=options.delegate,
        threads=options.threads,
        instances=options.instances,
        signature=options.signature,
        names=options.names,
        state=options.state,
        trial_seconds=options.trial_seconds or DEFAULT_TRIAL_SECONDS,
        accelerator=options.accelerator,
        precision=options.precision,
        fallback=not options.no_fallback,
        sample=sample,
        inputs=inputs,
        outputs=outputs,
    )
    check_model(options.model)
    check_tensors(options.model, manifest)
    identity = load_identity(options.key, options.cert, options.chain, _password(options.key_password_file))
    if options.check:
        from edge.client.checking import check_one

        check_one(options.model, manifest, files)
    selftest = _selftest(options, manifest, files)
    made = selftest.files if selftest else {}
    make_package(manifest, options.model, [*options.extra, *files], identity, options.out, made=made)
    signer = subject(identity.chain[0])
    said = f"{options.out}: {manifest.model_name} {manifest.model_version}, signed by {signer}"
    if selftest:
        said += f"\n  self-test of {counted(selftest.cases, 'case')}{_how(selftest)}"
    return _say(
        options,
        {
            "package": str(options.out),
            "model_name": manifest.model_name,
            "model_version": manifest.model_version,
            "signer": signer,
            "selftest": {"cases": selftest.cases, "recorded": selftest.recorded} if selftest else None,
        },
        said,
    )


def _selftest(options: argparse.Namespace, manifest: Any, files: list[Path]) -> Any:
    """The self-test that is to be in the package, if any."""
    from edge.errors import PackageError

    if options.selftest is None:
        if options.selftest_tolerance is not None:
            raise PackageError("--selftest-tolerance means nothing without --selftest")
        return None
    from edge.client.selftesting import make_selftest

    sample = files[0] if files else None
    within = tuple(options.selftest_tolerance) if options.selftest_tolerance is not None else None
    return make_selftest(options.selftest, options.model, manifest, sample, within)


def _how(selftest: Any) -> str:
    if selftest.note:
        return f", {selftest.note}"
    if not selftest.recorded:
        return ", passed here"
    of = "" if selftest.recorded == selftest.cases else f" of {selftest.recorded}"
    return f"; the outputs{of} are those that the model gave here: look whether they are right"


def _check_files(options: argparse.Namespace) -> None:
    """Each file that an option names is there."""
    from edge.errors import PackageError

    for name in ("model", "key", "key_password_file", "cert", "chain", "adapter", "selftest"):
        file = getattr(options, name)
        try:
            if file is not None:
                file.stat()
        except OSError as error:
            raise PackageError(f"--{name.replace('_', '-')} {file} cannot be read: {error.strerror}") from error


def _sample(words: list[str]) -> tuple[Any, list[Path]]:
    """The manifest's `sample`, and the files that it needs in the package."""
    from edge.errors import PackageError

    if len(words) == 1 and words[0].endswith(".npz"):
        return Path(words[0]).name, [Path(words[0])]
    shapes = []
    for word in words:
        name, separator, sizes = word.rpartition("=")
        try:
            shapes.append((name, tuple(int(size) for size in sizes.split(","))))
        except ValueError:
            separator = ""
        if not separator or not name or min(shapes[-1][1]) < 0:
            raise PackageError(f"--sample {word!r} is neither an .npz nor INPUT=1,224,224,3")
    return tuple(shapes) or None, []


def _password(file: Path | None) -> bytes | None:
    from edge.errors import PackageError

    if file is None:
        return None
    try:
        return file.read_bytes().split(b"\n")[0].removesuffix(b"\r")
    except OSError as error:
        raise PackageError(f"{file} cannot be read: {error.strerror}") from error


def _verify(options: argparse.Namespace) -> int:
    from edge.clock import SystemClock
    from edge.package.adapter import format_adapter
    from edge.package.open import open_package
    from edge.version import version

    # What the log would say stands in the output.
    logging.getLogger("edge").addHandler(logging.NullHandler())
    url = options.package
    if ":" not in url:
        url = str(Path(url).absolute())
    build_date = version()[1]
    with open_package(url, trust_dir=options.trust, clock=SystemClock(), build_date=build_date) as package:
        manifest, verified = package.manifest, package.verified
        cases = len(package.selftest.cases) if package.selftest else 0
        if options.try_out:
            from edge.client.selftesting import run_here

            run_here(package)
    facts = {
        "model_name": manifest.model_name,
        "model_version": manifest.model_version,
        "target": {"os": manifest.os, "arch": manifest.arch},
        "signer": verified.signer,
        "certificate_expires": verified.expires.isoformat(),
        "judged_at": verified.judged_at.isoformat(),
        "clock_note": verified.clock_note,
        "adapter": {
            "inputs": [format_adapter(one) for one in manifest.inputs],
            "outputs": [format_adapter(one) for one in manifest.outputs],
        },
        "selftest": {"cases": cases, "passed": True if options.try_out and cases else None},
        "ran": options.try_out,
        "files": {path: digest.hex() for path, digest in sorted(verified.digests.items())},
    }
    lines = [
        f"{options.package}: good",
        f"  model     {manifest.model_name} {manifest.model_version}, for {manifest.os} on {manifest.arch}",
        f"  signed by {verified.signer}, certificate valid until {verified.expires:%Y-%m-%d}",
        f"  files     {len(verified.digests)}, exactly the signed ones",
    ]
    if adapted := ", ".join(one.name for one in (*manifest.inputs, *manifest.outputs)):
        lines.append(f"  adapts    {printable(adapted)}: applications see them otherwise than the model has them")
    if cases or options.try_out:
        had = f"{counted(cases, 'case')}, " + ("passed" if options.try_out else "not run (--run)") if cases else "none"
        lines += ["  ran       as an agent would load it"] if options.try_out else []
        lines.append(f"  self-test {had}")
    if verified.clock_note:
        lines.append(f"  judged as of {verified.judged_at:%Y-%m-%d}: {verified.clock_note}")
    return _say(options, facts, "\n".join(lines))


def _demo_ca(options: argparse.Namespace) -> int:
    from edge.package.identity import make_demo_ca

    made = make_demo_ca(options.folder, datetime.datetime.now(datetime.UTC))
    return _say(
        options,
        {"roots": str(made.roots), "key": str(made.key), "certificate": str(made.certificate)},
        f"A throw-away CA, to try things out with:\n"
        f"  {made.key} and {made.certificate.name} sign: package --key {made.key} --cert {made.certificate} ...\n"
        f"  {made.roots} is for the agent: sagemaker_edge_core_root_certs_path",
    )
