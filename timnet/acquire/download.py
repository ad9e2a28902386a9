"""Fetch one file over HTTP so that a cut costs nothing: ranges, retries, checks, one rename.

The transfer is httpx's. Pooch, which checks and moves files as well, starts over when interrupted,
and a corpus is 40 MB to 18 GB.

Beside the target lie, while it is fetched, `X.part` (the bytes so far) and `X.part.json` (which
version of the remote file they are of); afterwards `X.json` records size and hashes of what came.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import hashlib
import json
import logging
import os
import random
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from timnet import __version__, records
from timnet.errors import CorpusError
from timnet.paths import write_text

if TYPE_CHECKING:
    import httpx

Progress = Callable[[str, int, int | None], None]  # what is done, how much of it, of how much

TRIES = 6  # without a new byte between them
TRIES_OF_A_NAME = 2  # of a host that is not found, while nothing has come
LONGEST_WAIT = 300.0  # s, that a server may ask for
HEAD = 512  # bytes that tell an archive from a web page

ARCHIVES = {
    "zip": b"PK\x03\x04",
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "RAR": b"Rar!\x1a\x07",
    "7z": b"7z\xbc\xaf'\x1c",
}

log = logging.getLogger(__name__)


def archive_kind(head: bytes) -> str | None:
    """Format of the archive that begins with `head` (at least 512 bytes of it), None if none."""
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(b"PK\x05\x06"):
        return "zip"  # without members
    return next((kind for kind, magic in ARCHIVES.items() if head.startswith(magic)), None)


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    progress: Progress | None = None,
    timeout: float = 60.0,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Bring the archive at `url` to `target`, unless it lies there already.

    Args:
        url: may hold a login, `https://USER:PASSWORD@...`; it is sent, and kept nowhere.
        size, md5: of the file, where published.
        timeout: s without a byte after which a connection counts as lost.
        sleep: waits between tries.

    Returns:
        The record beside it: url, size, md5, sha256, etag, last_modified.

    Raises:
        CorpusError: refused by the server, not an archive, not the file that was published, no
            space, or still failing after all tries; what came so far is kept for the next run.
    """
    import httpx  # here, for own corpora are read where no httpx is

    url, login = without_login(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    record = _recorded(url, target, size, md5)
    if record is not None:
        return record
    part = _Part(url, target)
    failures, furthest = 0, part.bytes()
    headers = {"User-Agent": f"timnet/{__version__}", "Accept-Encoding": "identity"}
    with httpx.Client(
        auth=login, headers=headers, timeout=timeout, follow_redirects=True, max_redirects=10
    ) as client:
        while True:
            resumed = part.bytes() > 0
            try:
                _transfer(client, url, part, size, progress)
                fault = _mismatch(part.path, size, md5)
                if not fault:
                    break
                part.discard()
                if not resumed:
                    raise CorpusError(
                        f"{url}: {fault}. This is not the file that was published, or it was "
                        "damaged in transfer; it was removed. Run again, or get it elsewhere and "
                        "pass it with --from PATH."
                    )
                log.warning("%s: %s after a resumed transfer; starting over", url, fault)
            except _TransientError as error:
                failures = 0 if part.bytes() > furthest else failures + 1
                furthest = max(furthest, part.bytes())
                _refuse_to_go_on(url, error, failures, furthest)
                wait = error.wait or min(60.0, 2.0**failures) * random.uniform(0.5, 1.0)
                log.info("%s: %s; trying again in %.1f s", url, error, wait)
                sleep(wait)
    part.finish()
    return _record(target, url, part.state)


def _refuse_to_go_on(url: str, error: _TransientError, failures: int, kept: int) -> None:
    """Stop after so many attempts in a row that brought nothing.

    Args:
        kept: bytes that came so far.

    Raises:
        CorpusError: what to do instead.
    """
    if isinstance(error, _NoHostError) and not kept and failures >= TRIES_OF_A_NAME:
        raise CorpusError(
            f"{url}: {error}. Check the network. Without one, pass a local archive or folder with "
            "--from PATH, or give a reachable URL with --url, or TIMNET_MIRROR for an institute's "
            "copies."
        ) from None
    if failures >= TRIES:
        told = (
            f"with {kept:,} bytes kept. Run again later to continue."
            if kept
            else "no data received. Run again later, or get it elsewhere and pass it with --from "
            "PATH."
        )
        raise CorpusError(f"{url}: {error}; gave up after {TRIES} attempts, {told}") from None


def without_login(url: str) -> tuple[str, tuple[str, str] | None]:
    """An address that may be logged and kept, and the user and password that stood in it."""
    found = re.fullmatch(r"(\w+://)([^/?#]*)@(.*)", url, re.DOTALL)
    if found is None:
        return url, None
    user, _, password = found[2].partition(":")
    return found[1] + found[3], (unquote(user), unquote(password))


class _TransientError(Exception):
    """Trouble that another attempt may fix; `wait` seconds if the server asks for them."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _NoHostError(_TransientError):
    """The name of a host has no address, here and now."""


@dataclass
class _State:
    """Which version of which remote file the bytes of a part are of."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None

    @property
    def validator(self) -> str | None:
        """What `If-Range` takes: a strong ETag, or else a date."""
        weak = self.etag is None or self.etag.startswith("W/")
        value = self.last_modified if weak else self.etag
        # servers send what no client may send back
        return value if value and value.isascii() and value.isprintable() else None


def _read_state(path: Path) -> _State | None:
    try:
        found = records.read(path, _State)
    except (OSError, records.DamagedRecord):
        return None
    return _State(**{name: found[name] for name in asdict(_State("")) if name in found})


class _Part:
    """The bytes that came so far, never without the state that they belong to."""

    def __init__(self, url: str, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self.state_path = target.with_name(f"{target.name}.part.json")
        state = _read_state(self.state_path)
        if state is None or state.url != url:
            self.discard()
        self.state = state or _State(url)

    def bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)

    def begin(self, state: _State) -> None:
        """Forget all bytes, then say what the next ones are of."""
        self.discard()
        self.state = state
        write_json(self.state_path, asdict(state))

    def finish(self) -> None:
        os.replace(self.path, self.target)


def _transfer(
    client: httpx.Client, url: str, part: _Part, size: int | None, progress: Progress | None
) -> None:
    """One try: ask for what is missing and append it to the part."""
    offset = part.bytes()
    if offset and offset == part.state.size:
        return  # was interrupted between the last byte and the rename
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and part.state.validator:
        headers["If-Range"] = part.state.validator
    with _transport_errors(url), client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416 and offset:
            if response.headers.get("Content-Range") == f"bytes */{offset}":
                return  # of unknown size, and complete
            part.discard()
            raise _TransientError(f"the server has no bytes after {offset:,}: starting over")
        _refuse_status(url, response)
        state = _state(url, response)
        resumed = offset > 0 and response.status_code == 206
        if resumed and not _continues(response, state, part.state, offset):
            part.discard()
            raise _TransientError("the remote file changed: starting over")
        if size is not None and state.size is not None and state.size != size:
            raise CorpusError(
                f"{url}: the server offers {state.size:,} bytes, expected {size:,}. This is "
                "another file; nothing was kept. Get the right one and pass it with --from PATH."
            )
        if not resumed:
            if offset:
                log.warning(
                    ("%s: the server supports no ranges, or the file changed: starting over"), url
                )
            part.begin(state)
        done, total = part.bytes(), state.size or size
        refuse_space(part.path.parent, (total or 0) - done)
        head = b""
        with part.path.open("ab") as file:
            for chunk in response.iter_raw():  # as they come: a cut loses none
                if done == len(head) < HEAD:
                    head += chunk
                    if len(head) >= HEAD:
                        _refuse_page(url, response, head, part)
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress("download", done, total)
        if len(head) == done < HEAD:
            _refuse_page(url, response, head, part)
    if total is not None and done < total:
        raise _TransientError(f"connection dropped: received {done:,} of {total:,} bytes")


@contextlib.contextmanager
def _transport_errors(url: str) -> Iterator[None]:
    import httpx

    try:
        yield
    except httpx.TooManyRedirects:
        raise CorpusError(
            f"{url}: endless redirects. Open the URL in a browser, download the archive there and "
            "pass it with --from PATH."
        ) from None
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise CorpusError(
            f"{url}: not a URL to download from, or it redirects to none ({error}). Expected "
            "http:// or https://."
        ) from None
    except httpx.TimeoutException as error:
        raise _TransientError(f"no response in time ({type(error).__name__})") from None
    except httpx.TransportError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise CorpusError(f"{url}: the server's certificate is not valid ({error}).") from None
        if _of_a_name(error):
            raise _NoHostError(f"the host cannot be found ({error})") from None
        raise _TransientError(f"connection lost ({error})") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise CorpusError(f"{url}: {error.strerror}. Make space and run again.") from None
        raise


def _of_a_name(error: BaseException) -> bool:
    """Whether an error comes of a host's name that could not be resolved."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, socket.gaierror):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _refuse_status(url: str, response: httpx.Response) -> None:
    """Raise for anything but the bytes asked for: for good, or until the next try."""
    status = response.status_code
    if status in (200, 206):
        return
    answer = f"the server responds {status} {response.reason_phrase}".rstrip()
    if status == 429 or status == 408 or status >= 500:
        wait = _retry_after(response.headers.get("Retry-After"))
        if wait is not None and wait > LONGEST_WAIT:
            raise CorpusError(f"{url}: {answer} and asks to retry in {wait:.0f} s. Run again then.")
        raise _TransientError(answer, wait)
    advice = {
        401: "It requires a login: put `USER:PASSWORD@` before the host, or download the archive "
        "in a browser and pass it with --from PATH.",
        403: "Access to this file is restricted: see the corpus' own page.",
        404: "The file is gone: find its new URL and pass it with --url.",
    }.get(status, "Try another URL with --url, or an archive with --from PATH.")
    raise CorpusError(f"{url}: {answer}. {advice}")


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: it holds a number of them or a date."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _state(url: str, response: httpx.Response) -> _State:
    """The version of the remote file that `response` speaks of."""
    total = response.headers.get("Content-Length")
    if response.status_code == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return _State(
        url,
        response.headers.get("ETag"),
        response.headers.get("Last-Modified"),
        int(total) if total and total.isdigit() else None,
    )


def _continues(response: httpx.Response, new: _State, old: _State, offset: int) -> bool:
    """Whether a partial answer goes on where the part ends, in the same version of the file."""
    if not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
        return False
    versions = ((new.etag, old.etag), (new.last_modified, old.last_modified), (new.size, old.size))
    return all(a == b for a, b in versions if a is not None and b is not None)


def _refuse_page(url: str, response: httpx.Response, head: bytes, part: _Part) -> None:
    """Refuse a login or error page, or any other thing that is sent in place of an archive."""
    if archive_kind(head):
        return
    part.discard()
    # the query of a redirect often is a key for whoever has it
    leads = response.url.copy_with(query=None)
    where = f"{url} (which leads to {leads})" if response.history else url
    if re.match(rb"\s*<", head) or "html" in response.headers.get("Content-Type", ""):
        raise CorpusError(
            f"{where}: received a web page, not an archive; it may require a login or consent. "
            "Open it in a browser, download the archive there and pass it with --from PATH."
        )
    raise CorpusError(
        f"{where}: received no archive (it begins with {head[:16]!r}). Expected zip or tar."
    )


def refuse_space(folder: Path, needed: int) -> None:
    """Raise OSError (ENOSPC) if the disk of `folder` has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        reason = f"the disk is full: {needed:,} bytes are still needed, {free:,} are free"
        raise OSError(errno.ENOSPC, reason, str(folder))


def _mismatch(path: Path, size: int | None, md5: str | None) -> str | None:
    """How the file differs from what is published, None if it does not."""
    actual = path.stat().st_size
    if size is not None and actual != size:
        return f"{actual:,} bytes received, expected {size:,}"
    if md5 is not None and (found := hash_file(path, "md5")) != md5:
        return f"its md5 is {found}, expected {md5}"
    return None


def _recorded(url: str, target: Path, size: int | None, md5: str | None) -> dict[str, Any] | None:
    """The record of a target that is there and right; None, and no target, otherwise."""
    if not target.exists():
        return None
    try:
        record = records.read(target.with_name(f"{target.name}.json"), dict[str, Any])
        right = record.get("url") == url and record.get("sha256") == hash_file(target, "sha256")
    except (OSError, records.DamagedRecord):  # killed before the record was written
        state = _read_state(target.with_name(f"{target.name}.part.json"))
        ours = state and state.url == url and state.size in (None, target.stat().st_size)
        record = _record(target, url, state) if state and ours else None
        right = record is not None
    if right and not _mismatch(target, size, md5):
        return record
    log.warning("%s: damaged, or from another URL: downloading it again", target)
    target.unlink()
    return None


def _record(target: Path, url: str, state: _State) -> dict[str, Any]:
    record = {
        "url": url,
        "size": target.stat().st_size,
        "md5": hash_file(target, "md5"),
        "sha256": hash_file(target, "sha256"),
        "etag": state.etag,
        "last_modified": state.last_modified,
    }
    write_json(target.with_name(f"{target.name}.json"), record)
    target.with_name(f"{target.name}.part.json").unlink(missing_ok=True)
    return record


def hash_file(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write a small file atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
