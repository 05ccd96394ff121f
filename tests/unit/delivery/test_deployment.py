"""Deployments: whole or not at all, once each, in one line; and what is refused, with what to do."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from airflow_mlops.delivery import remote as remotes
from airflow_mlops.delivery.bundle import pack, read_bundle
from airflow_mlops.delivery.deployment import Target, deploy, deployed_bundle, history, roll_back
from airflow_mlops.delivery.remote import Named, Remote
from airflow_mlops.delivery.tree import TreeFile
from airflow_mlops.exceptions import (
    BranchChanged,
    ConfigError,
    DeliveryError,
    DeploymentConflict,
    RemoteUnavailable,
    UntrustedArtifact,
)
from airflow_mlops.registry.signing import Signer, Verifier
from tests.unit.delivery.deliveries import COMMIT, asked, bare, bundle, git, packed, targets
from tests.unit.delivery.small_project import FILES, Project

ANY = Verifier()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return bare(tmp_path / "origin.git")


def digests(target: Target) -> list[str]:
    return [d.digest for d in history(target).standing]


def test_a_deployment_is_one_commit_with_the_files_of_the_bundle(origin: Path, tmp_path: Path) -> None:
    staging, _ = targets(origin)
    assert history(staging).current is None
    first = bundle("a")
    done = deploy(staging, first, asked("a"))
    assert (done.done, done.before) == (True, None)
    assert git(origin, "rev-parse", staging.ref) == git(origin, "rev-parse", staging.record) == done.deployment.commit
    git(tmp_path, "clone", "-q", "-b", "deploy/staging", str(origin), "clone")
    clone = tmp_path / "clone"
    written = {p.relative_to(clone).as_posix() for p in clone.rglob("*") if p.is_file() and ".git/" not in str(p)}
    assert written == {*FILES, "notes.txt", 'odd "name" ü.txt', ".mlops/bundle.json"}
    assert all((clone / path).read_bytes() == file.content for path, file in first.files.items())
    assert (clone / "notes.txt").stat().st_mode & stat.S_IXUSR
    assert deployed_bundle(staging, ANY) == first
    now = history(staging).current
    assert now == done.deployment
    assert (now.by, now.digest, now.source, now.parent) == ("ana", first.digest, COMMIT, None)
    assert now.to_dict()["at"].endswith("+00:00")


def test_the_same_bundle_has_the_same_tree_everywhere(origin: Path) -> None:
    staging, production = targets(origin)
    deploy(staging, bundle("a"), asked("a"))
    deploy(production, bundle("a"), asked("b"))
    trees = [git(origin, "rev-parse", f"{t.ref}^{{tree}}") for t in (staging, production)]
    assert trees[0] == trees[1]


def test_what_is_deployed_is_not_deployed_again(origin: Path) -> None:
    staging, _ = targets(origin)
    done = deploy(staging, bundle("a"), asked("a"))
    for operation in ("a", "other"):
        again = deploy(staging, bundle("a"), asked(operation))
        assert (again.done, again.deployment) == (False, done.deployment)
    assert len(history(staging).deployments) == 1


def test_an_operation_that_was_overtaken_is_not_repeated(origin: Path) -> None:
    staging, _ = targets(origin)
    deploy(staging, bundle("a"), asked("a"))
    deploy(staging, bundle("b"), asked("b"))
    with pytest.raises(DeploymentConflict, match=r"was done already .* has become bundle"):
        deploy(staging, bundle("a"), asked("a"))
    assert len(history(staging).deployments) == 2


def test_rollbacks_go_back_step_by_step_and_history_grows(origin: Path) -> None:
    staging, _ = targets(origin)
    a, b, c = (bundle(text) for text in "abc")
    for each, name in ((a, "a"), (b, "b"), (c, "c")):
        deploy(staging, each, asked(name))
    back = roll_back(staging, asked("r1", reason="worse\nAction: deploy"), verifier=ANY)
    assert (back.done, back.deployment.digest, back.before.digest) == (True, b.digest, c.digest)
    assert back.deployment.reason == "worse Action: deploy"
    assert git(origin, "rev-parse", f"{staging.ref}^{{tree}}") == git(origin, "rev-parse", f"{staging.ref}~2^{{tree}}")
    assert roll_back(staging, asked("r2"), verifier=ANY).deployment.digest == a.digest
    with pytest.raises(DeliveryError, match="no deployment to staging before"):
        roll_back(staging, asked("r3"), verifier=ANY)
    deploy(staging, c, asked("c again"))
    assert digests(staging) == [a.digest, c.digest]
    assert roll_back(staging, asked("r4"), verifier=ANY).deployment.digest == a.digest
    assert len(history(staging).deployments) == 7


def test_a_rollback_that_names_what_it_leaves_can_be_repeated(origin: Path) -> None:
    staging, _ = targets(origin)
    for text in "abc":
        deploy(staging, bundle(text), asked(text))
    leave = bundle("c").digest
    done = roll_back(staging, asked("r"), verifier=ANY, expected=leave)
    for operation in ("r", "another"):
        again = roll_back(staging, asked(operation), verifier=ANY, expected=leave)
        assert (again.done, again.deployment) == (False, done.deployment)
    with pytest.raises(DeploymentConflict, match="staging is not at"):
        roll_back(staging, asked("x"), verifier=ANY, expected=bundle("a").digest)
    assert digests(staging) == [bundle("a").digest, bundle("b").digest]


def test_nothing_to_roll_back(origin: Path) -> None:
    with pytest.raises(DeliveryError, match="nothing is deployed to staging"):
        roll_back(targets(origin)[0], asked("r"), verifier=ANY)


def test_production_takes_what_staging_has(origin: Path) -> None:
    staging, production = targets(origin)
    deploy(staging, bundle("a"), asked("a"))
    with pytest.raises(DeliveryError, match="must be in staging first, which has not had it"):
        deploy(production, bundle("b"), asked("pb"))
    deploy(staging, bundle("b"), asked("b"))
    # What staging has had and not rolled back will do.
    deploy(production, bundle("a"), asked("pa"))
    roll_back(staging, asked("r", reason="does not parse"), verifier=ANY)
    with pytest.raises(DeliveryError, match="which had it and rolled it back"):
        deploy(production, bundle("b"), asked("pb"))
    with pytest.raises(DeliveryError, match="needs a reason"):
        deploy(production, bundle("b"), asked("pb", break_glass=True))
    done = deploy(production, bundle("b"), asked("pb", break_glass=True, reason="staging burns"))
    assert done.deployment.break_glass
    assert (history(production).current.reason, len(digests(production))) == ("staging burns", 2)


@pytest.mark.parametrize("wrong", ["project", "uncommitted", "folder"])
def test_a_bundle_that_cannot_be_deployed(wrong: str, origin: Path) -> None:
    files = {".mlops/x" if wrong == "folder" else "loader.py": TreeFile(b"x")}
    data = pack(
        files, project="erp" if wrong == "project" else "crm", commit=COMMIT, uncommitted=wrong == "uncommitted"
    )
    match = {"project": "is of the project 'erp'", "uncommitted": "in no commit", "folder": "the project has .mlops/x"}
    with pytest.raises((DeliveryError, ConfigError), match=match[wrong]) as raised:
        deploy(targets(origin)[0], read_bundle(data, verifier=ANY), asked("a"))
    assert raised.value.hint
    assert git(origin, "for-each-ref") == ""


@pytest.mark.parametrize(
    ("attributes", "content", "changed"),
    [
        ("*.txt text eol=crlf", "a\n", True),
        ("*.txt text eol=crlf", "a\r\n", False),
        ("*.txt ident", "$Id$\n", True),
        ("*.txt text=auto", "a\r\nb\n", False),
        ("* text=auto", "a\n", False),
        ("*.txt filter=none export-ignore", "a\n", False),
    ],
)
def test_a_file_that_git_would_change_on_its_way(attributes: str, content: str, changed: bool, origin: Path) -> None:
    files = {".gitattributes": TreeFile(attributes.encode()), "a/x.txt": TreeFile(content.encode())}
    made = read_bundle(pack(files, project="crm", commit=COMMIT, packages={}), verifier=ANY)
    staging, _ = targets(origin)
    if changed:
        with pytest.raises(ConfigError, match=r"a/x\.txt would be another file where Airflow checks it out"):
            deploy(staging, made, asked("a"))
        assert git(origin, "for-each-ref") == ""
    else:
        assert deploy(staging, made, asked("a")).done
        git(origin, "clone", "-q", "-b", staging.branch, str(origin), f"{origin}.clone")
        assert Path(f"{origin}.clone", "a", "x.txt").read_bytes() == content.encode()


def test_signatures_count_where_a_bundle_comes_back(origin: Path) -> None:
    staging, _ = targets(origin)
    old, new = Signer.generate(), Signer.generate()
    trusting = Verifier((old.public,))
    done = deploy(staging, read_bundle(packed("a", signer=old), verifier=trusting), asked("a"))
    assert done.deployment.signed_by == old.key_id
    assert deployed_bundle(staging, trusting).signed_by == old.key_id
    deploy(staging, read_bundle(packed("b", signer=new), verifier=Verifier((new.public,))), asked("b"))
    with pytest.raises(UntrustedArtifact, match="a key that is not trusted"):
        roll_back(staging, asked("r"), verifier=Verifier((new.public,)))
    assert roll_back(staging, asked("r"), verifier=trusting).deployment.signed_by == old.key_id


# --- the branch is not as it was left ------------------------------------------------------------


@pytest.fixture(scope="module")
def deployed_twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = bare(tmp_path_factory.mktemp("twice") / "origin.git")
    staging, _ = targets(folder)
    return folder, [deploy(staging, bundle(text), asked(text)).deployment.commit for text in "ab"]


@pytest.fixture
def two(deployed_twice: tuple[Path, list[str]], tmp_path: Path) -> tuple[Path, Target, list[str]]:
    folder, commits = deployed_twice
    shutil.copytree(folder, tmp_path / "two.git")
    return tmp_path / "two.git", targets(tmp_path / "two.git")[0], commits


def _clone(origin: Path, tmp_path: Path) -> Project:
    git(tmp_path, "clone", "-q", "-b", "deploy/staging", str(origin), "clone")
    return Project(tmp_path / "clone")


@pytest.mark.parametrize("how", ["edit", "merge", "back", "other", "gone", "record gone", "squeeze"])
def test_somebody_else_was_at_the_branch(how: str, two: tuple[Path, Target, list[str]], tmp_path: Path) -> None:
    origin, staging, (first, second) = two
    clone = _clone(origin, tmp_path)
    if how == "edit":
        clone.commit(**{"notes.txt": "mine"})
        clone.git("push", "-q", "origin", "HEAD")
    elif how == "merge":
        clone.git("commit", "--allow-empty", "-q", "-m", git(origin, "log", "-1", "--format=%B", second))
        clone.git("push", "-q", "origin", "HEAD")
    elif how == "back":
        git(origin, "update-ref", staging.ref, first)
        git(origin, "update-ref", staging.record, second)
    elif how == "other":
        clone.git("switch", "-q", "--orphan", "else")
        clone.commit(**{"x": "x"})
        clone.git("push", "-q", "--force", "origin", "HEAD:deploy/staging")
    elif how == "gone":
        git(origin, "update-ref", "-d", staging.ref)
    elif how == "record gone":
        git(origin, "update-ref", "-d", staging.record)
    else:  # a tree that is not the bundle's under a message that is right
        tree = clone.git("rev-parse", f"{first}^{{tree}}")
        message = git(origin, "log", "-1", "--format=%B", second)
        made = clone.git("commit-tree", tree, "-p", first, "-m", message)
        clone.git("push", "-q", "--force", "origin", f"{made}:deploy/staging", f"{made}:deploy/staging.record")
    before = git(origin, "for-each-ref")
    match = {
        "edit": "has the commit .*, which is no deployment: 'change' by A <a@example.org>",
        "merge": "edited by hand|force-pushed",
        "back": "was moved to .*force-pushed",
        "other": "has the commit .*, which is no deployment",
        "gone": "is gone",
        "record gone": "force-pushed, or its record deleted",
        "squeeze": "was edited by hand",
    }
    attempts = [
        lambda: history(staging),
        lambda: deploy(staging, bundle("c"), asked("c")),
        lambda: roll_back(staging, asked("r"), verifier=ANY),
    ]
    if how == "merge":
        # A copy of a message on an empty commit: the files are those of its bundle, so it is whole, and harmless.
        assert history(staging).current.digest == bundle("b").digest
        return
    for attempt in attempts:
        with pytest.raises(BranchChanged, match=match[how]) as raised:
            attempt()
        assert "push --force" in raised.value.hint
        assert (first if how == "squeeze" else second)[:12] in raised.value.hint
    assert git(origin, "for-each-ref") == before
    # What the hint says helps.
    if how != "squeeze":
        clone.git("push", "-q", "--force", "origin", f"{second}:{staging.ref}", f"{second}:{staging.record}")
        assert deploy(staging, bundle("c"), asked("c")).done


def test_a_record_that_is_one_behind_catches_up(two: tuple[Path, Target, list[str]]) -> None:
    origin, staging, (first, second) = two
    git(origin, "update-ref", staging.record, first)
    assert history(staging).current.commit == second
    assert deploy(staging, bundle("b"), asked("b")).done is False
    assert git(origin, "rev-parse", staging.record) == second
    git(origin, "update-ref", staging.record, first)
    third = deploy(staging, bundle("c"), asked("c")).deployment.commit
    assert git(origin, "rev-parse", staging.record) == third


# --- the source ----------------------------------------------------------------------------------


@pytest.fixture
def pushed(origin: Path, tmp_path: Path) -> Project:
    made = Project(tmp_path / "crm")
    made.folder.mkdir()
    made.git("init", "-q", "-b", "main")
    made.commit(**{"a.txt": "1"})
    made.git("remote", "add", "origin", str(origin))
    made.git("tag", "-a", "v1", "-m", "first")
    made.git("push", "-q", "origin", "main", "v1")
    return made


def test_a_ref_is_found_and_checked_out(pushed: Project, origin: Path, tmp_path: Path) -> None:
    remote, head = Remote(str(origin)), pushed.git("rev-parse", "HEAD")
    assert remote.find("main") == Named(head, "refs/heads/main")
    assert remote.find("v1") == remote.find("refs/tags/v1") == Named(head, "refs/tags/v1")
    assert remote.find(head) == Named(head)
    for number, ref in enumerate(("main", "v1", head)):
        assert remote.checkout(ref, tmp_path / f"c{number}").commit == head
        assert (tmp_path / f"c{number}" / "a.txt").read_text() == "1"
    for bad in ("", "none", "-x", "a*", "HEAD~1", "a b", "a\n"):
        with pytest.raises(ConfigError, match=r"cannot be the name|there is no branch"):
            remote.find(bad)
    with pytest.raises(ConfigError, match="cannot be checked out"):
        remote.checkout("2" * 40, tmp_path / "none")
    pushed.git("push", "-q", "origin", "main:refs/heads/v1")
    with pytest.raises(ConfigError, match="a branch and a tag 'v1'"):
        remote.find("v1")


def test_a_tag_that_moved_is_refused(pushed: Project, origin: Path) -> None:
    staging, production = targets(origin)
    source = staging.remote.find("v1")
    made = bundle("a", commit=source.commit)
    deploy(staging, made, asked("a"), source=source)
    assert history(staging).current.ref == "refs/tags/v1"
    pushed.commit(**{"a.txt": "2"})
    pushed.git("tag", "-f", "v1")
    pushed.git("push", "-q", "--force", "origin", "v1")
    # Production is told by staging's deployment which tag it was.
    with pytest.raises(BranchChanged, match=r"the tag v1 was .* when it was checked out, and names"):
        deploy(production, made, asked("p"))
    pushed.git("push", "-q", "origin", ":v1")
    with pytest.raises(BranchChanged, match="and is gone"):
        deploy(production, made, asked("p"))
    assert history(production).current is None


def test_a_branch_may_grow_and_not_be_rewritten(pushed: Project, origin: Path) -> None:
    staging, production = targets(origin)
    source = staging.remote.find("main")
    made = bundle("a", commit=source.commit)
    pushed.commit(**{"a.txt": "2"})
    pushed.git("push", "-q", "origin", "main")
    deploy(staging, made, asked("a"), source=source)
    pushed.git("reset", "-q", "--hard", source.commit)
    pushed.git("commit", "-q", "--amend", "-m", "rewritten")
    pushed.git("push", "-q", "--force", "origin", "main")
    with pytest.raises(BranchChanged, match="the branch main was force-pushed: it has no commit"):
        deploy(production, made, asked("p"))


def test_a_bundle_of_another_commit_than_the_ref_names(pushed: Project, origin: Path) -> None:
    staging, _ = targets(origin)
    with pytest.raises(DeliveryError, match="was built from 111111111111, and refs/heads/main names"):
        deploy(staging, bundle("a"), asked("a"), source=staging.remote.find("main"))


# --- the remote ----------------------------------------------------------------------------------


def test_a_remote_that_is_not_there_is_worth_another_try(tmp_path: Path) -> None:
    staging, _ = targets(tmp_path / "none.git")
    for attempt in (lambda: history(staging), lambda: deploy(staging, bundle("a"), asked("a"))):
        with pytest.raises(RemoteUnavailable, match="cannot be reached") as raised:
            attempt()
        assert raised.value.retryable


def test_a_login_is_shown_nowhere(tmp_path: Path) -> None:
    target = Target(Remote("http://127.0.0.1:9/x.git", {"GIT_ASKPASS": "s3cret"}), "crm", "staging", "deploy/staging")
    assert "s3cret" not in repr(target)
    with pytest.raises(RemoteUnavailable, match="cannot be reached"):
        history(target)


def test_a_hook_of_the_remote_refuses(origin: Path) -> None:
    staging, _ = targets(origin)
    hook = origin / "hooks" / "update"
    hook.write_text("#!/bin/sh\necho the branch is protected\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(
        DeliveryError, match=r"does not take a commit on deploy/staging: .*hook declined.*: the branch is protected"
    ) as raised:
        deploy(staging, bundle("a"), asked("a"))
    assert not isinstance(raised.value, RemoteUnavailable)
    assert git(origin, "for-each-ref") == ""


def test_a_remote_that_refuses_the_record_takes_no_second_deployment(origin: Path) -> None:
    staging, _ = targets(origin)
    hook = origin / "hooks" / "update"
    hook.write_text('#!/bin/sh\ncase "$1" in *.record) echo "the record is protected"; exit 1;; esac\n')
    hook.chmod(0o755)
    first = deploy(staging, bundle("a"), asked("a")).deployment
    for _ in range(2):
        with pytest.raises(
            DeliveryError, match=r"a commit on deploy/staging.record, which follows .*the record is protected"
        ) as e:
            deploy(staging, bundle("b"), asked("b"))
        assert "push to deploy/staging.record" in (e.value.hint or "")
        assert history(staging).current == first
    hook.unlink()
    deploy(staging, bundle("b"), asked("b"))
    assert roll_back(staging, asked("r"), verifier=ANY).deployment.digest == first.digest


def test_a_lock_that_a_killed_git_left(origin: Path) -> None:
    staging, _ = targets(origin)
    lock = origin / f"{staging.ref}.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    with pytest.raises(DeliveryError, match=r"cannot lock ref .*staging\.lock") as raised:
        deploy(staging, bundle("a"), asked("a"))
    assert "delete the lock file" in raised.value.hint
    lock.unlink()
    assert deploy(staging, bundle("a"), asked("a")).done


def test_somebody_deploys_between_the_look_and_the_push(origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging, _ = targets(origin)
    deploy(staging, bundle("a"), asked("a"))
    push, done = remotes.Copy.push, []

    def slow(self: remotes.Copy, commit: str, ref: str, *, expected: str | None) -> str | None:
        if not done:
            done.append(True)
            deploy(staging, bundle("c"), asked("c"))
        return push(self, commit, ref, expected=expected)

    monkeypatch.setattr(remotes.Copy, "push", slow)
    with pytest.raises(DeploymentConflict, match="staging was deployed to meanwhile: bundle") as raised:
        deploy(staging, bundle("b"), asked("b"))
    assert bundle("c").digest[:12] in str(raised.value)
    assert "by ana" in str(raised.value)
    assert [d.digest for d in history(staging).deployments] == [bundle(t).digest for t in "ac"]


@pytest.mark.parametrize("lost", ["reply", "both"])
def test_a_reply_that_is_lost_is_no_second_deployment(lost: str, origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging, _ = targets(origin)
    push = remotes.Copy.push

    def deaf(self: remotes.Copy, commit: str, ref: str, *, expected: str | None) -> str | None:
        push(self, commit, ref, expected=expected)
        return "the remote end hung up unexpectedly"

    with monkeypatch.context() as patch:
        patch.setattr(remotes.Copy, "push", deaf)
        done = deploy(staging, bundle("a"), asked("a"))
    assert done.done
    if lost == "both":
        assert deploy(staging, bundle("a"), asked("a")).done is False
    assert [d.digest for d in history(staging).deployments] == [bundle("a").digest]
