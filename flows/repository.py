"""A checkout's git, DVC and model registry, as far as retraining needs them.

All work is done in a worktree of its own: HEAD, index and files of the checkout stay as they are.
Every change looks first at what is there, so that it can be asked for again after any kill.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.process_group import ProcessGroup, Stopped
from flows.reproduce import ask, environment
from timnet.errors import ArtifactError, TimnetError, listing
from timnet.paths import Workspace, write_text
from timnet.project import git
from timnet.project.dvc import ask_dvc
from timnet.project.remotes import has_address, refuse_unlicensed

PREFIX = "retrain"  # of branches
COMMITTED = ("params.yaml", "dvc.lock", "data.dvc", "results")
FIRST = "v1.0.0"  # version of a model; each later one is a minor version
CANDIDATE, PRODUCTION, REJECTED = "candidate", "production", "rejected"  # stages of a version
NOBODY = ("timnet", "timnet@localhost")  # who commits where git knows nobody


@dataclass(frozen=True)
class Candidate:
    """A branch with one commit on the tip that it was made of."""

    name: str  # retrain/<date>
    revision: str  # as git finds it here
    commit: str
    tree: str
    parent: str


@dataclass(frozen=True)
class Version:
    """A version of a model in the registry."""

    model: str
    version: str
    stages: frozenset[str]

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


class Repository:
    """A checkout; `remote` is the name of git's remote, which need not exist."""

    def __init__(self, root: Path, processes: ProcessGroup, remote: str) -> None:
        from dvc.repo import Repo

        self.root = root
        self.worktree = Workspace(root).retraining / "worktree"
        self._published = Workspace(root).retraining / "published"
        self.processes = processes
        known = (self._ask("remote") or "").split()
        self.remote = remote if remote in known else None
        with Repo(str(root)) as repo:
            self._cache = repo.cache.local.path.removesuffix("/files/md5")
            self._remotes = repo.config["remote"]
            default = repo.config["core"].get("remote")
        there = default in self._remotes and has_address(self._remotes[default]["url"])
        self.data_remote: str | None = default if there else None

    # looking

    def fetch(self) -> None:
        """Learn which branches the remote has and has no more, and its tags that are new here.

        All tags, for a model's commit may be on no branch by now; none that would move one here.
        """
        if self.remote:
            self._git("fetch", "--quiet", "--prune", self.remote)
            new = self._tags_there() - set((self._ask("tag") or "").splitlines())
            refs = [f"refs/tags/{tag}:refs/tags/{tag}" for tag in sorted(new)]
            if refs:
                self._git("fetch", "--quiet", self.remote, *refs)

    def _tags_there(self) -> set[str]:
        listed = self._git("ls-remote", "--tags", "--refs", self.remote or "")
        return {line.split("refs/tags/")[1] for line in listed.splitlines()}

    def revision(self, name: str) -> str:
        """A branch as the remote has it, where it has it; otherwise what git knows by that name."""
        theirs = f"{self.remote}/{name}"
        return theirs if self.remote and self._ask("rev-parse", "-q", "--verify", theirs) else name

    def commit_of(self, revision: str) -> str:
        found = self._ask("rev-parse", "-q", "--verify", f"{revision}^{{commit}}")
        if found is None:
            raise ArtifactError(
                f"{self.root}: unknown revision {revision!r}. Name an existing branch, tag or "
                "commit."
            )
        return found

    def tree_of(self, commit: str) -> str:
        return self._ask("rev-parse", f"{commit}^{{tree}}") or ""

    def candidates(self) -> list[Candidate]:
        """The branches of retraining, those on the remote first."""
        found = []
        places = [f"refs/remotes/{self.remote}/"] if self.remote else []
        for place in [*places, "refs/heads/"]:
            form = "--format=%(refname) %(objectname) %(tree) %(parent)"
            for line in (self._ask("for-each-ref", form, f"{place}{PREFIX}/") or "").splitlines():
                ref, commit, tree, *parents = line.split()
                name = ref.removeprefix(place)
                revision = ref.removeprefix("refs/remotes/").removeprefix("refs/heads/")
                found.append(Candidate(name, revision, commit, tree, (parents or [""])[0]))
        return found

    def is_unchanged(self, tip: str) -> bool:
        """Whether the files of a commit are known to be up to date."""
        return self.is_published(tip) or bool(self.with_files_of(tip))

    def with_files_of(self, tip: str) -> list[Candidate]:
        """Candidates that a tip does not differ from: they were merged."""
        return [each for each in self.candidates() if each.tree == self.tree_of(tip)]

    def is_published(self, tip: str) -> bool:
        """Whether the files of a commit were noted as up to date and published."""
        with suppress(FileNotFoundError):
            return self._published.read_text(encoding="utf-8").strip() == self.tree_of(tip)
        return False

    def note_published(self, tip: str) -> None:
        write_text(self._published, f"{self.tree_of(tip)}\n")

    # the worktree

    def prepare(self, commit: str) -> None:
        """A worktree with the files of a commit.

        What a run that was killed left there is dropped, but for what git ignores: recordings,
        outputs and checkpoints, which DVC and the stages themselves look after.
        """
        self.worktree.parent.mkdir(parents=True, exist_ok=True)
        if not self._is_worktree():
            shutil.rmtree(self.worktree, ignore_errors=True)
            self._git("worktree", "prune")
            # twice: also where an earlier one was killed before it was whole
            again = ("--force", "--force")
            self._git("worktree", "add", *again, "--detach", str(self.worktree), commit)
        for name in ("HEAD.lock", "index.lock"):  # of a git that was killed
            lock = self._ask("rev-parse", "--git-path", name, folder=self.worktree)
            (self.worktree / (lock or name)).unlink(missing_ok=True)
        self._git("checkout", "--quiet", "--force", "--detach", commit, folder=self.worktree)
        self._git("clean", "-fdq", folder=self.worktree)
        self._share()

    def _is_worktree(self) -> bool:
        """Whether it is one of this very repository: not a part of the checkout around it, nor of
        another checkout that this one was copied from."""
        if not (self.worktree / ".git").is_file():
            return False
        form = ("rev-parse", "--path-format=absolute", "--git-common-dir")
        ours, its = self._ask(*form), self._ask(*form, folder=self.worktree)
        return bool(ours and its) and Path(ours or "").samefile(its or "")

    def _share(self) -> None:
        """Let the worktree's DVC use the checkout's cache and remotes."""
        from dvc.config import Config

        with Config(str(self.worktree / ".dvc")).edit("local") as local:
            local["cache"] = {**local.get("cache", {}), "dir": self._cache}
            local["remote"] = self._remotes
            if self.data_remote:  # as the checkout has it, whatever the branch says
                local["core"] = {**local.get("core", {}), "remote": self.data_remote}

    def pull(self) -> str:
        """Put in place what DVC's cache or remote has of recordings and outputs."""
        bring = ("pull", "--run-cache") if self.data_remote else ("checkout",)
        return ask(self.processes, self.worktree, *bring, "--force", "--allow-missing")

    def commit(self, tip: str, branch: str) -> str | None:
        """Commit parameters, lock and results in the worktree; None if they are as they were."""
        paths = [path for path in COMMITTED if (self.worktree / path).exists()]
        self._git("add", "--all", "--", *paths, folder=self.worktree)
        if self._ask("diff", "--cached", "--quiet", folder=self.worktree) is not None:
            return None
        message = f"Retrain {branch} at {tip[:10]}"
        commit = ("commit", "--quiet", "--no-verify", "--no-gpg-sign", "-m", message)
        self._git(*commit, folder=self.worktree)
        return self.commit_of_worktree()

    def commit_of_worktree(self) -> str:
        return self._ask("rev-parse", "HEAD", folder=self.worktree) or ""

    def branch(self, commit: str) -> None:
        """Name a commit retrain/<date>, with a number behind it where that is taken."""
        taken = {each.name for each in self.candidates()}
        today = f"{PREFIX}/{datetime.now():%Y-%m-%d}"
        names = (today if number == 1 else f"{today}-{number}" for number in count(1))
        self._git("branch", "--no-track", next(n for n in names if n not in taken), commit)

    # publishing: data, then the branch, then its tags

    def push_data(self) -> str:
        """Push the data of the worktree's commit to DVC's default remote.

        Raises:
            LicenceError: it may not have some of them.
            TimnetError: DVC failed, or some are not there after all.
        """
        remote = self.data_remote or ""
        refuse_unlicensed(self.worktree, remote)
        said = ask(self.processes, self.worktree, "push", "--run-cache", "--remote", remote)
        status = json.loads(ask_dvc(self.worktree, "data", "status", "--not-in-remote", "--json"))
        if missing := status.get("not_in_remote"):
            raise TimnetError(
                f"the DVC remote {remote!r} lacks {listing(missing)} after `dvc push`, and no "
                f"branch is pushed without its data. See `dvc status --cloud` in {self.worktree}."
            )
        return said

    def is_pushed(self, candidate: Candidate) -> bool:
        return self._ask("rev-parse", "-q", "--verify", self._theirs(candidate)) == candidate.commit

    def _theirs(self, candidate: Candidate) -> str:
        return f"refs/remotes/{self.remote}/{candidate.name}"

    def push_branch(self, candidate: Candidate) -> None:
        ref = f"{candidate.commit}:refs/heads/{candidate.name}"
        self._git("push", "--quiet", self.remote or "", ref)
        # git notes it by itself only where the remote's settings say so
        self._git("update-ref", self._theirs(candidate), candidate.commit)

    def unpushed_tags(self, candidate: Candidate) -> list[str]:
        """Tags of the registry on a candidate that the remote does not have."""
        theirs = self._tags_there()
        return [tag for tag in self._tags(candidate.commit) if tag not in theirs]

    def push_tags(self, tags: Iterable[str]) -> None:
        refs = [f"refs/tags/{tag}" for tag in tags]
        self._git("push", "--quiet", "--atomic", self.remote or "", *refs)

    def _tags(self, commit: str) -> list[str]:
        listed = (self._ask("tag", "--points-at", commit) or "").split()
        models = self.models(commit)
        return [tag for tag in listed if tag.replace("#", "@").partition("@")[0] in models]

    # the registry

    def models(self, commit: str) -> dict[str, str]:
        """Hashes of the models that `artifacts:` of a commit's dvc.yaml names, where made."""
        read = YAML(typ="safe").load
        lock = self._show(commit, "dvc.lock")
        stages = (read(lock) or {}).get("stages", {}) if lock else {}
        made = {out["path"]: out["md5"] for each in stages.values() for out in each.get("outs", [])}
        artifacts = (read(self._show(commit, "dvc.yaml") or "") or {}).get("artifacts", {})
        return {
            name: made[artifact["path"]]
            for name, artifact in artifacts.items()
            if artifact["path"] in made
        }

    def versions(self, commit: str) -> list[Version]:
        """What the registry has of the models of a commit."""
        return [version for version, _ in self._registered(commit) if version]

    def unregistered(self, commit: str) -> dict[str, bool]:
        """Models of a commit without a version, though they are not those of the last one.

        Each with whether it has an earlier version at all.
        """
        models = self.models(commit)
        return {
            name: last is not None
            for name, (version, last) in zip(models, self._registered(commit), strict=True)
            if version is None and (last is None or self.models(last).get(name) != models[name])
        }

    def _registered(self, commit: str) -> list[tuple[Version | None, str | None]]:
        """Of each model of a commit: its version, and the commit of the last one of all."""
        from gto.registry import GitRegistry

        result: list[tuple[Version | None, str | None]] = []
        with GitRegistry.from_url(str(self.root)) as registry:
            for model in self.models(commit):
                artifact = registry.find_artifact(model, create_new=True)
                found = artifact.find_version(commit_hexsha=commit)
                last = artifact.get_latest_version(registered_only=True)
                version = None
                if found and found.is_registered:
                    stages = frozenset(each.stage for each in found.get_vstages())
                    version = Version(model, found.version, stages)
                result.append((version, last.commit_hexsha if last else None))
        return result

    def register(self, commit: str) -> None:
        """Give every new model of a commit a version, and make it a candidate."""
        from gto import api

        name, mail = self._who()
        for model, has_earlier in self.unregistered(commit).items():
            number: dict[str, Any] = {"bump_minor": True} if has_earlier else {"version": FIRST}
            api.register(str(self.root), model, commit, **number, author=name, author_email=mail)
        for version in self.versions(commit):
            if not version.stages:
                self.assign(version, CANDIDATE)

    def assign(self, version: Version, stage: str) -> None:
        from gto import api

        name, mail = self._who()
        api.assign(
            str(self.root),
            version.model,
            stage,
            version=version.version,
            author=name,
            author_email=mail,
        )

    # commands

    def gate(self, candidate: Candidate, baseline: str, *options: str) -> tuple[int, str, str]:
        """`timnet gate`: its exit status, what it prints, and what it complains of."""
        command = ("timnet", "gate", baseline, "--candidate", candidate.revision, *options)
        return self._run(command, self.worktree, environment(self.worktree))

    def _git(self, *arguments: str, folder: Path | None = None) -> str:
        """What git prints; no hook runs and nobody is asked for a password."""
        name, mail = self._who()
        who = {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", name), ("EMAIL", mail))
        }
        given = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **who}
        command = ("git", "-c", f"core.hooksPath={os.devnull}", *arguments)
        status, said, complained = self._run(command, folder or self.root, given)
        if status and self.processes.reason is not None:
            raise Stopped(self.processes.reason)
        if status:
            raise TimnetError(f"`git {' '.join(arguments)}` failed:\n{complained.strip()}")
        return said

    def _run(
        self, command: tuple[str, ...], folder: Path, given: dict[str, str]
    ) -> tuple[int, str, str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.processes.start(command, cwd=folder, env=given, **pipes) as process:
            said, complained = process.communicate()
        return process.returncode, said, complained

    def _ask(self, *arguments: str, folder: Path | None = None) -> str | None:
        """What git knows, without a change; None if it says no."""
        return git.ask(folder or self.root, *arguments)

    def _show(self, commit: str, path: str) -> str | None:
        return self._ask("show", f"{commit}:{path}")

    def _who(self) -> tuple[str, str]:
        """Name and address of who commits, by git's settings."""
        identity = self._ask("var", "GIT_COMMITTER_IDENT")
        if identity is None:
            return NOBODY
        name, _, rest = identity.partition(" <")
        return name, rest.partition(">")[0]
