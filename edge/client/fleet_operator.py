"""`fleet` for whoever keeps a repository: keys, packages, documents, timestamps; in a folder or in a bucket."""

import datetime
import os
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from edge import durable
from edge.client import buckets, fleet_lock, fleet_status, show
from edge.client.fleet_words import PASSPHRASE, PIN
from edge.client.outcome import Exit, InputError, RefusedError
from edge.errors import EdgeError
from edge.fleet import doctor as checks
from edge.fleet import document as documents
from edge.fleet import rollout, times
from edge.fleet.document import Document, DocumentFault, Where
from edge.fleet.files import Files, FolderFiles
from edge.fleet.keys import Keys, read_public
from edge.fleet.repository import FleetRepository
from edge.text import counted, printable
from edge.version import version


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _passphrase(options: Namespace) -> bytes | None:
    if options.passphrase_file is not None:
        try:
            first = bytes(options.passphrase_file.read_bytes().partition(b"\n")[0].removesuffix(b"\r"))
        except OSError as error:
            raise InputError(f"the passphrase in {options.passphrase_file} cannot be read: {error.strerror}") from None
        if not first:  # which would stand for no encryption
            raise InputError(f"the first line of {options.passphrase_file} is empty; expected the passphrase there")
        return first
    return os.environb.get(PASSPHRASE.encode()) or None


def _pin(secret: str) -> str:
    """What a token asks for before it signs."""
    if given := os.environ.get(PIN):
        return given
    raise InputError(f"the token asks for its {secret}: set {PIN}")


def import_key(options: Namespace) -> Exit:
    """Takes up a key that is in a token or a key service."""
    try:
        key = Keys(options.keys, None, _pin).take(options.name, options.uri)
    except EdgeError as error:
        raise RefusedError("REFUSED", printable(str(error), show.PATH_CHARACTERS)) from None
    if options.json:
        show.as_json({"key": options.name, "keyid": key.keyid, "scheme": key.scheme})
    else:
        print(f"the key {options.name} ({key.scheme}) is known: init, add-fleet and rotate --new take it by its name")
    return Exit.OK


@contextmanager
def _opened(options: Namespace, writes: str = "more") -> Iterator[FleetRepository]:
    """The repository, for a command that `writes` "more", a "new" one or nothing; what goes wrong is told in words."""
    keys = Keys(Path(os.devnull), None)
    if "keys" in options:
        passphrase = _passphrase(options)
        makes = getattr(options, "no_passphrase", None) is False and not getattr(options, "new", [])
        if passphrase is None and makes:
            raise InputError(
                f"new keys are to be encrypted: set {PASSPHRASE} or name a --passphrase-file (or --no-passphrase)"
            )
        keys = Keys(options.keys, passphrase, _pin)
    files = fleet_status.files_of(options.repo, options)
    try:
        with closing(files), _alone(files, options, writes):
            yield FleetRepository(files, keys, _now())
    except DocumentFault as fault:
        raise RefusedError("REFUSED", f"the document {fault}") from None
    except EdgeError as error:
        raise RefusedError("REFUSED", printable(str(error), show.PATH_CHARACTERS)) from None


def _alone(files: Files, options: Namespace, writes: str) -> AbstractContextManager[None]:
    """A folder has a lock; a bucket has conditions (`edge.fleet.bucket_files`)."""
    if not writes or options.dry_run or not isinstance(files, FolderFiles):
        return nullcontext()
    return fleet_lock.alone(files.folder, new=writes == "new")


def _finish(options: Namespace, repository: FleetRepository, said: str, **facts: Any) -> Exit:
    """Write, and tell."""
    paths = repository.change.paths()
    if not options.dry_run:
        repository.write()
    waiting = sorted(set(repository.unsigned))
    if options.json:
        show.as_json({**facts, "files": paths, "dry_run": options.dry_run, "unsigned": waiting})
        return Exit.OK
    print(f"{said}{' (nothing is written: --dry-run)' if options.dry_run else ''}")
    for path in paths:
        print(f"  {printable(path, show.PATH_CHARACTERS)}")
    if waiting:
        print(
            f"not signed here, for want of the key: {', '.join(waiting)}; `fleet timestamp` takes this over where it is"
        )
    return Exit.OK


def init(options: Namespace) -> Exit:
    """Makes a repository."""
    with _opened(options, "new") as repository:
        if options.dry_run:
            raise InputError("init makes keys, and cannot be a dry run")
        repository.init()
        root, data = repository.files.at("metadata/1.root.json"), repository.data("root", 1)
        if options.repo.startswith(buckets.SCHEME):  # devices get what was made here, not what a store gives back
            root = str(_keep(options.keys / "1.root.json", data))
        return _finish(
            options,
            repository,
            f"a repository in {options.repo}; devices get {root} (edge_fleet_root); take root-* and targets-* offline",
            root=root,
        )


def _keep(path: Path, data: bytes) -> Path:
    try:
        durable.write_file(path, data)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {durable.why(error)}") from None
    return path


def add_fleet(options: Namespace) -> Exit:
    """Adds a fleet."""
    with _opened(options) as repository:
        public = read_public(options.public) if options.public is not None else None
        if options.dry_run and public is None:
            raise InputError("add-fleet makes a key, and is a dry run only with --public")
        repository.add_fleet(options.name, public)
        return _finish(options, repository, f"fleet {options.name}", fleet=options.name)


def publish(options: Namespace) -> Exit:
    """Publishes packages."""
    with _opened(options) as repository:
        paths = [repository.publish(archive, *_named(archive)) for archive in options.packages]
        return _finish(options, repository, f"published {', '.join(paths)}", packages=paths)


def _named(archive: Path) -> tuple[str, str]:
    """Name and version of a package, from its manifest."""
    from edge.package.manifest import MANIFEST_FILE, parse_manifest
    from edge.package.open import contents_at, signature_of

    if not archive.is_file():
        raise InputError(f"{archive} is not a .tar.gz of a package")
    with contents_at(str(archive.absolute())) as contents:
        head = contents.head()
    signature_of(head)
    if MANIFEST_FILE not in head:
        raise InputError(f"{archive} has no {MANIFEST_FILE}")
    manifest = parse_manifest(head[MANIFEST_FILE])
    return manifest.model_name, manifest.model_version


def deploy(options: Namespace) -> Exit:
    """Changes a fleet's document."""
    with _opened(options) as repository:
        before = repository.document(options.fleet)
        name = _name(options, before)
        if options.file is not None:
            document = _read(options.file)
        elif not options.models and not options.without:
            raise InputError("deploy needs ALIAS=NAME/VERSION, --without ALIAS or --file DOCUMENT")
        else:
            packages = dict(_package(text) for text in options.models)
            where = Where(options.percent, "", tuple(options.device), tuple(options.arch), options.min_agent)
            document = before or Document(name, {})
            if options.without:
                document = rollout.remove(document, name, options.without)
            document = rollout.deploy(document, name, packages, where, rollback=options.on_failure == "rollback")
        return _deployed(options, repository, document)


def _read(path: Path) -> Document:
    try:
        return documents.parse(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _package(text: str) -> tuple[str, str]:
    alias, equals, package = text.partition("=")
    path = f"packages/{package}.tar.gz"
    if not equals or not documents.ALIAS.fullmatch(alias) or not documents.PACKAGE.fullmatch(path):
        raise InputError(f"{printable(text)} is not allowed; expected ALIAS=NAME/VERSION")
    return alias, path


def _name(options: Namespace, before: Document | None) -> str:
    name = options.name or rollout.next_name(before.deployment if before else "", _now().strftime("%Y-%m-%d"))
    if not documents.DEPLOYMENT.fullmatch(name):
        raise InputError(
            f"{printable(name)} is no name of a deployment; expected letters, digits and single - _ . between"
        )
    if before is not None and before.deployment == name:
        raise InputError(f"the deployment in force is called {name} already; give this one another --name")
    return str(name)


def _deployed(options: Namespace, repository: FleetRepository, document: Document) -> Exit:
    repository.deploy(options.fleet, document)
    lines = [f"fleet {options.fleet}: deployment {document.deployment}"]
    lines += [f"  {alias}: {fleet_status.rules(document, alias)}" for alias in document.models]
    facts = {"fleet": options.fleet, "deployment": document.deployment}
    return _finish(options, repository, "\n".join(lines), **facts)


def promote(options: Namespace) -> Exit:
    """Rolls out further."""
    with _opened(options) as repository:
        before = _in_force(repository, options.fleet)
        if options.if_failed_below is not None:
            fleet_status.check_failed(options, before.deployment)
        return _deployed(options, repository, rollout.promote(before, _name(options, before), options.percent))


def take_back(options: Namespace) -> Exit:
    """Goes back."""
    with _opened(options) as repository:
        before = _in_force(repository, options.fleet)
        return _deployed(options, repository, rollout.take_back(before, _name(options, before), options.alias))


def _in_force(repository: FleetRepository, fleet: str) -> Document:
    document = repository.document(fleet)
    if document is None:
        raise RefusedError("REFUSED", f"nothing was deployed to {fleet} yet")
    return document


def status(options: Namespace) -> Exit:
    """Shows what is in force, and what devices have told."""
    with _opened(options, "") as repository:
        return fleet_status.show_status(options, repository)


def timestamp(options: Namespace) -> Exit:
    """The daily duty."""
    with _opened(options) as repository:
        why = times.doubt(time.time(), build_date=version()[1], issued=repository.issued())
        if why and not options.trust_clock:
            raise RefusedError(
                "REFUSED", f"the clock says {_now():%Y-%m-%d}, which {why}; set it, or say --trust-clock"
            )
        repository.timestamp()
        return _finish(options, repository, "the timestamp is new")


def renew(options: Namespace) -> Exit:
    """Signs a role again."""
    with _opened(options) as repository:
        repository.renew(options.role)
        return _finish(options, repository, f"{options.role} is signed for another term", role=options.role)


def rotate(options: Namespace) -> Exit:
    """Replaces a key."""
    with _opened(options) as repository:
        if options.dry_run and not options.new:
            raise InputError("rotate makes a key, and is a dry run only with --new")
        new = repository.rotate(options.role, options.old, options.new)
        said = f"{options.role} has the new {'key' if len(new) == 1 else 'keys'} {', '.join(new)}"
        return _finish(options, repository, said, role=options.role, keys=new)


def prune(options: Namespace) -> Exit:
    """Removes what nothing names."""
    with _opened(options) as repository:
        names = checks.unused(repository, time.time() - options.older_than * 86_400)
        for name in names:
            if not options.dry_run:
                repository.files.remove(name)
    if options.json:
        show.as_json({"files": names, "dry_run": options.dry_run})
    else:
        print(f"{counted(len(names), 'file')} {'would go' if options.dry_run else 'removed'}")
        for name in names:
            print(f"  {printable(name, show.PATH_CHARACTERS)}")
    return Exit.OK


def doctor(options: Namespace) -> Exit:
    """Checks a repository."""
    with _opened(options, "") as repository:
        found = list(checks.problems(repository, time.time()))
    if options.json:
        show.as_json({"problems": found}, "; ".join(found))
    else:
        print("\n".join(printable(line, show.PATH_CHARACTERS) for line in found) or "all is well")
    return Exit.REFUSED if found else Exit.OK
