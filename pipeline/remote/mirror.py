"""A root in a bucket: stages work in a folder of this machine, which is brought from there before and sent there after.

An object of the bucket is a file of `Layout`, under the same name, with its sha256 in its metadata. A file is sent
whole once it is finished, also while its stage runs, and the stamp last, if the bucket has none. Nothing is renamed or
appended to: journals of folders that are resumed are made of the objects that are there. The bucket is right. What else
lies in the folder is deleted, but for scratch files, so that a killed run loses what it had not finished.

A stage that is `late` finds empty files in place of those that it reads, which `io` brings when they are read. Nodes of
a cluster do the same in a folder of their own, from which nothing is sent.
"""

import _thread
import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath

from filelock import FileLock

from pipeline import io
from pipeline.errors import UserError
from pipeline.http.retries import TransientError
from pipeline.layout import Layout
from pipeline.remote.lock import Lock
from pipeline.remote.objects import Head, Objects
from pipeline.remote.stores import Absent

WORKERS = 8
EVERY = 2.0
"""seconds between looks for finished files; at least 20 times as long as a look takes"""
LOCK, MARKS, STAMP = ".lock", ".shards", ".stamp"
"""names: of locks; of the folders of marks, which say of what a shard was made; of the last file of a stage"""
RECORDS = ("run.json", "sources.json")
AT_ONCE = {"", ".json", ".safetensors", ".spm"}
"""endings of files that are not read through `io` alone: marks, facts, networks"""
NUMBER = re.compile(r"-(\d{5,})$")
Facts = tuple[str, str, list[int]]
"""ETag and sha256 of an object, and what `io.touched` says of its file"""
Part = tuple[int, int] | None
"""see `Run.part`"""


class Mirror:
    """The files of one stage, here and in the bucket."""

    def __init__(
        self,
        objects: Objects,
        layout: Layout,
        stage: str,
        lock: Lock | None = None,
        part: Part = None,
        late: bool = False,
    ) -> None:
        self.objects, self.lock, self.part, self.late = objects, lock, part, late
        self.below, self.again = f"{stage}/{layout.dataset}", f"alignrec {stage} {layout.dataset}"
        self.folder = layout.folder(stage)
        self.index = self.folder.with_name(f".{layout.dataset}.mirror")
        self.same: dict[str, list[int]] = {}
        """name of each file that is in the bucket as it is here -> what `io.touched` says of it"""
        self.stamped: dict[str, str] = {}
        """name -> sha256 of what a finished stage left; metadata of objects that somebody copied have none"""
        self.busy = threading.Lock()
        """held while files are brought or sent"""
        self.fault: UserError | None = None

    def bring(self) -> None:
        """Make the folder what the bucket has; what has the right bytes already is not fetched again."""
        with self.busy, self.objects.said():
            names = self.objects.names(self.below)
            there = {name: etag for name, etag in names.items() if is_kept(name) and self._takes(name)}
            for name in self._files().keys() - there.keys():
                (self.folder / name).unlink()
            known = io.read_json(self.index) if self.index.is_file() else {}
            self.stamped = self._read_stamp() if self.late else {}
            with ThreadPoolExecutor(WORKERS) as pool:
                facts = pool.map(lambda name: self._brought(name, there[name], known.get(name)), there)
                got = {name: found for name, found in zip(there, facts, strict=True) if found}
            for name, (_, digest, state) in got.items():
                io.remember(self.folder / name, state, digest)
            with self._indexing():
                io.write_json(self.index, {name: one for name, one in got.items() if one[2][1]})  # no stand-ins
            self.same = {name: state for name, (_, _, state) in got.items()}
            if self.lock:
                self._write_journals({name: digest for name, (_, digest, _) in got.items()})

    def bring_records(self) -> None:
        """Bring how the stage ran, and from what, alone: the report and a release tell that of all stages."""
        with self.objects.said():
            for name in RECORDS:
                if not self._brought(name, "", None):
                    (self.folder / name).unlink(missing_ok=True)

    def _read_stamp(self) -> dict[str, str]:
        with suppress(ValueError, KeyError, TypeError):
            return dict(json.loads(self.objects.get(f"{self.below}/{STAMP}") or b"")["files"])
        return {}

    def _brought(self, name: str, etag: str, known: Facts | None) -> Facts | None:
        """Fetch an object unless its file is here; None where it is gone since."""
        path, at = self.folder / name, f"{self.below}/{name}"
        if known and known[0] == etag and path.is_file() and io.touched(path) == known[2]:
            return known
        head = self.objects.head(at)
        if head is None:
            return None
        late = self.late and path.suffix not in AT_ONCE
        head = head._replace(sha256=head.sha256 or self.stamped.get(name)) if late else head
        if not (path.is_file() and path.stat().st_size == head.bytes and io.sha256(path) == head.sha256):
            if late and head.sha256 and head.bytes:
                return head.etag, head.sha256, io.stand_in(path, head.sha256, partial(self._bring_late, name, head))
            try:
                self._fetch(name, head)
            except Absent:
                return None
        return head.etag, head.sha256 or io.sha256(path), io.touched(path)

    def _fetch(self, name: str, head: Head) -> None:
        """Fetch an object; raises Absent where it is not there any more as it was found."""
        path, at = self.folder / name, f"{self.below}/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        self.objects.fetch(at, temporary)
        if head.sha256 not in (None, io.sha256(temporary)):
            if (now := self.objects.head(at)) is None or now.etag != head.etag:
                raise Absent
            raise UserError(
                f"{self.objects.address}/{at}: its bytes are not those that were sent there; delete that object, "
                f"and run `{self.again}`, which makes it again"
            )
        temporary.replace(path)

    def _bring_late(self, name: str, head: Head) -> None:
        """Fetch an object for which an empty file stands in, unless another process or thread of this machine has."""
        path = self.folder / name
        with path.open("r+b") as empty, self.objects.said():  # NFS locks no file that is open to read alone
            fcntl.flock(empty, fcntl.LOCK_EX)
            if io.touched(path) != io.touched(Path(f"/dev/fd/{empty.fileno()}")):
                return
            try:
                self._fetch(name, head)
            except Absent:
                raise UserError(
                    f"{self.objects.address}/{self.below}/{name}: was deleted or made anew while it was to be read; "
                    f"run again; if it is gone, `{self.again}` makes it"
                ) from None
            facts = head.etag, str(head.sha256), io.touched(path)
            io.remember(path, facts[2], facts[1])
            with self._indexing():
                io.write_json(self.index, io.read_json(self.index) | {name: facts})

    def _indexing(self) -> FileLock:
        """Return what is held while the index is written: processes that read share it."""
        return FileLock(f"{self.index}.lock")

    def _write_journals(self, digests: dict[str, str]) -> None:
        """Write the journal of each folder that is resumed by itself: what was brought of it."""
        lines: dict[Path, list[str]] = {(self.folder / name).parent: [] for name in digests if _is_begun(name)}
        for name, digest in digests.items():
            path = self.folder / name
            above = next((folder for folder in path.parents if folder in lines), None)
            if above and path.name not in io.UNLISTED:
                lines[above].append(f"{digest}  {path.relative_to(above)}\n")
        for folder, listed in lines.items():
            io.write_bytes(folder / io.JOURNAL, "".join(listed).encode())

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send finished files while the block runs, and all that is there when it has ended well."""
        ended = threading.Event()
        thread = threading.Thread(target=self._send_on, args=[ended], daemon=True)
        thread.start()
        try:
            try:
                yield
            finally:
                ended.set()
                thread.join()
            with self.objects.said():
                self.send(whole=True)
        except KeyboardInterrupt:
            raise self.fault or KeyboardInterrupt from None

    def _send_on(self, ended: threading.Event) -> None:
        took = 0.0
        while not ended.wait(max(EVERY, 20 * took)):
            began = time.monotonic()
            try:
                self.send()
            except TransientError:  # the next look tries again, and the last one says it
                continue
            except UserError as e:
                self.fault = e
                _thread.interrupt_main()
                return
            took = time.monotonic() - began

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other part run while the block does, which finds what they have done."""
        assert self.lock
        with self.lock.held():
            with self.objects.said():
                self.send()
            self.bring()
            yield
            with self.objects.said():
                self.send()

    def send(self, whole: bool = False) -> None:
        """Send what is new, and delete there what is gone here.

        Of a folder that is resumed, files are finished when its journal lists them. The order lets a kill leave
        nothing that a later run would believe: keys, each after its folder was emptied; files; the marks of what
        shards were made of; the stamp.

        Args:
            whole: whether the stage has ended, so that all files are finished.
        """
        with self.busy:
            present = self._settled()
            changed = [name for name, state in present.items() if self.same.get(name) != state]
            for name in [n for n in self.same if n not in present or (n == STAMP and n in changed)]:
                self._delete(name)
            for name in sorted(filter(_is_begun, changed), key=len):  # outer ones first
                self._send(name, present[name], whole)
            with ThreadPoolExecutor(WORKERS) as pool:
                for step in (1, 2, 3):
                    names = [name for name in changed if _step(name) == step]
                    list(pool.map(lambda name: self._send(name, present[name], whole), names))

    def _settled(self) -> dict[str, list[int]]:
        """Return the files that are there at one moment, as far as keys and marks tell."""
        while True:
            before, files = self._files(io.KEY), self._files()
            if before == self._files(io.KEY):
                return files

    def _files(self, called: str | None = None) -> dict[str, list[int]]:
        """Return name -> what `io.touched` says of the files that the bucket is to have."""
        files = {}
        for folder, below, names in os.walk(self.folder):
            below[:] = [name for name in below if name[0] != "." or name == MARKS]
            for path in (Path(folder, name) for name in names if called in (None, name)):
                if is_kept(name := path.relative_to(self.folder).as_posix()):
                    with suppress(FileNotFoundError):
                        files[name] = io.touched(path)
        return files

    def _is_listed(self, name: str, digest: str) -> bool:
        """Return whether the journal lists a file, if it is in a folder that is resumed by itself."""
        above = (self.folder / folder for folder in PurePosixPath(name).parents)
        begun = next((f for f in above if (f / io.JOURNAL).is_file() and (f / io.KEY).is_file()), None)
        path = self.folder / name
        return begun is None or path.name in io.UNLISTED or digest in io.journal(begun).get(path, ())

    def _takes(self, name: str) -> bool:
        """Return whether a file is of this part, or of all; who only reads needs no marks."""
        path = PurePosixPath(name)
        if self.late and MARKS in path.parts:
            return False
        number = NUMBER.search(path.parent.name if MARKS in path.parts else path.stem)
        return not (self.part and number) or int(number[1]) % self.part[1] == self.part[0] - 1

    def _send(self, name: str, state: list[int], whole: bool) -> None:
        """Send a file, unless it is not finished or another has replaced it since: a later look sends that."""
        path, at = self.folder / name, f"{self.below}/{name}"
        try:
            digest, file = io.sha256(path), path.open("rb")
        except FileNotFoundError:
            return
        with file:
            opened = Path(f"/dev/fd/{file.fileno()}")  # which stays this file, whatever gets its name
            if io.touched(opened) != state or not (whole or self._is_listed(name, digest)):
                return
            if self.lock:
                self.lock.check()
            if _is_begun(name):
                self._empty(PurePosixPath(name).parent)
            if name != STAMP:
                self.objects.send(opened, at, digest)
            elif not self.objects.put_if(at, file.read(), IfNoneMatch="*", Metadata={"sha256": digest}):
                head = self.objects.head(at)
                if head is None or head.sha256 != digest:  # not ours, of which the answer was lost
                    raise UserError(f"{self.objects.address}/{at}: another run has ended this stage; run again")
        self.same[name] = state

    def _empty(self, folder: PurePosixPath) -> None:
        """Delete what the bucket has of a folder that was begun anew, other parts' files too."""
        for name in self.objects.names(f"{self.below}/{folder}" if folder.name else self.below):
            if is_kept(name):
                self._delete((folder / name).as_posix())

    def _delete(self, name: str) -> None:
        if self.lock:
            self.lock.check()
        self.objects.delete(f"{self.below}/{name}")
        self.same.pop(name, None)


def is_kept(name: str) -> bool:
    """Return whether a bucket has the file of this name in a stage's folder: no scratch, no journal, nothing begun."""
    path = PurePosixPath(name)
    if path.is_absolute() or path.as_posix() != name:
        return False
    if hidden := {part for part in path.parts[:-1] if part.startswith(".")}:
        return hidden == {MARKS} and path.name == io.KEY
    return path.name in (io.KEY, STAMP) or (path.name[0] != "." and path.suffix not in io.HELD_OTHERWISE)


def _is_begun(name: str) -> bool:
    """Return whether a file is the key of a folder that is resumed by itself, and no mark."""
    return PurePosixPath(name).name == io.KEY and _step(name) == 0


def _step(name: str) -> int:
    """Return when a file is sent: keys first, then others, then marks, then the stamp."""
    path = PurePosixPath(name)
    if path.name == io.KEY:
        return 2 if MARKS in path.parts else 0
    return 3 if name == STAMP else 1
